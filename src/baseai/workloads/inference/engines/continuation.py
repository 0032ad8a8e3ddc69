"""A continuation is one answer while it is made: what the model remembers of it, its chance, and its text so far.

Invariant: each step draws one token, which depends on the prompt, the sampling and the tokens before it alone. Steps
are taken in a thread, one after the other; nothing is shared with other continuations but the model, which stays as it
is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from baseai.workloads.inference.engine import Piece, Sampling
from baseai.workloads.inference.engines.transcript import Transcript

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageModel:
    """A loaded causal model, and what has to be known to draw from it."""

    network: Any  # of transformers, on its device, in evaluation
    device: str
    context: int  # tokens of prompt and answer together
    vocabulary: int
    ends: frozenset[int]  # tokens that end an answer
    decode: Callable[[Sequence[int]], str]  # without the model's own marks


class Continuation:
    """See above."""

    def __init__(self, model: LanguageModel, prompt: Sequence[int], sampling: Sampling) -> None:
        import torch

        self._model = model
        self._unread: Sequence[int] = prompt
        self._left = sampling.most_tokens or model.context - len(prompt)
        self._sampling = sampling
        self._memory: Any = None  # keys and values of all that was read
        self._chance = torch.Generator()
        if sampling.seed is None:
            self._chance.seed()
        else:
            self._chance.manual_seed(sampling.seed)
        self._transcript = Transcript(model.decode, sampling.stop)

    def step(self) -> Piece:
        """Draw one token."""
        token = self._drawn()
        self._unread = (token,)
        self._left -= 1
        if token in self._model.ends:
            return Piece(text=self._transcript.end(), tokens=1, finish_reason="stop")
        text = self._transcript.add(token)
        if self._transcript.stopped:
            return Piece(text=text, tokens=1, finish_reason="stop")
        if self._left == 0:
            return Piece(text=text + self._transcript.end(), tokens=1, finish_reason="length")
        return Piece(text=text, tokens=1)

    def _drawn(self) -> int:
        import torch

        with torch.inference_mode():
            read = self._model.network(
                input_ids=torch.tensor([list(self._unread)], device=self._model.device),
                past_key_values=self._memory,
                use_cache=True,
                logits_to_keep=1,
            )
            self._memory = read.past_key_values
            return drawn(read.logits[0, -1].float().cpu(), self._sampling, self._chance)


def drawn(logits: "torch.Tensor", sampling: Sampling, chance: "torch.Generator") -> int:
    """One token; at temperature 0 the likeliest, the first of equals. logits: (vocabulary,), float32, on the CPU."""
    import torch

    if sampling.temperature == 0 or sampling.top_p == 0:
        return int(logits.argmax())
    shares = torch.softmax(logits / sampling.temperature, 0)
    if sampling.top_p < 1:
        sorted_shares, order = shares.sort(descending=True)
        # A token stays while those likelier than it have not reached top_p together; the likeliest always stays.
        sorted_shares[sorted_shares.cumsum(0) - sorted_shares >= sampling.top_p] = 0
        shares = torch.zeros_like(shares).scatter_(0, order, sorted_shares)
    return int(torch.multinomial(shares, 1, generator=chance))
