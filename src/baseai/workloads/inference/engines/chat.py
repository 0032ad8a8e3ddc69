"""The engine `chat`: a causal language model that continues text, token by token, for several requests in turn.

Invariant: an answer depends on its prompt and sampling alone, never on who else is answered; between two of its tokens
each other answer gets one. The folder is what a training run of ours exports, or any that transformers loads. A model
whose tokenizer has no chat template is given a plain one, `role: text` a line, which it never saw in training.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from baseai.workloads.inference.engine import (
    Assignment,
    BadInput,
    Call,
    Described,
    ModelUnusable,
    Piece,
    Sampling,
    TooLong,
)
from baseai.workloads.inference.engines.compute import Compute
from baseai.workloads.inference.engines.transcript import Transcript
from baseai.workloads.inference.model_source import digest_of

if TYPE_CHECKING:
    import torch

PLAIN_STOP = "\nuser:"  # the plain template's own: a model shall not go on in its reader's name


class ChatEngine:
    """See `Engine` and `Generates`."""

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment

    def load(self) -> None:
        """See `Engine.load`."""
        folder = Path(self._assignment.model)
        if not (folder / "config.json").is_file():
            problem = "there is no config.json in it"
            raise ModelUnusable(
                str(folder), problem, "give the folder that a training run exports when it has finished"
            )
        try:
            import torch
            from transformers import AutoModelForCausalLM, AutoTokenizer
            from transformers.utils import logging
        except ImportError as missing:
            raise ModelUnusable(
                str(folder), f"{missing.name} is not installed here", "install baseai[serve]"
            ) from None
        logging.disable_progress_bar()
        torch.set_num_threads(self._assignment.threads)
        try:
            dressed: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
        except Exception as wrong:  # transformers raises anything
            sentence = str(wrong).strip().splitlines()[0]
            raise ModelUnusable(str(folder), sentence, "give a folder that transformers loads") from wrong
        self._model = model.eval().to(self._assignment.device)
        self._dressed = dressed  # knows templates and marks
        self._tokenizer = dressed.backend_tokenizer  # knows tokens; several threads may ask it
        config = self._model.config
        self._vocabulary = int(config.vocab_size)
        limits = (getattr(config, "max_position_embeddings", None), self._assignment.most_tokens)
        self._context = min(int(limit) for limit in limits if limit)
        ends = {self._model.generation_config.eos_token_id, config.eos_token_id, dressed.eos_token_id}
        self._ends = frozenset(end for each in ends for end in (each if isinstance(each, list) else [each]))
        weights = sorted({*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")})
        self._described = Described(
            platform=f"pytorch_{config.model_type}",
            digest=self._assignment.digest or digest_of(folder),
            context=self._context,
            facts={
                "parameters": sum(parameter.numel() for parameter in self._model.parameters()),
                "context": self._context,
                "chat_template": "its own" if dressed.chat_template else "plain",
                "size_bytes": sum(path.stat().st_size for path in weights),
                "threads": self._assignment.threads,
            },
        )
        self._compute = Compute(1)  # one token at a time has all threads of the lease
        self._places = asyncio.Semaphore(self._assignment.concurrency)
        warm = Continuation(self, [0], Sampling(most_tokens=2, temperature=0.0))
        warm.step()
        warm.step()

    def describe(self) -> Described:
        """See `Engine.describe`."""
        return self._described

    async def close(self) -> None:
        """See `Engine.close`."""
        self._compute.close()

    def chat_prompt(self, messages: Sequence[tuple[str, str]]) -> Sequence[int]:
        """See `Generates.chat_prompt`."""
        told = [
            {"role": "system" if role == "developer" else role, "content": text} for role, text in messages
        ]
        if not self._dressed.chat_template:
            lines = "".join(f"{message['role']}: {message['content']}\n" for message in told)
            return self._tokens(f"{lines}assistant:")
        try:
            text = self._dressed.apply_chat_template(told, tokenize=False, add_generation_prompt=True)
        except (
            Exception
        ) as wrong:  # a template raises what its author wrote, for example that roles must alternate
            raise BadInput(
                f"the model's chat template does not take these messages: {wrong}", "messages"
            ) from wrong
        return self._tokens(text, with_marks=False)  # the template has set them

    def text_prompt(self, text: str) -> Sequence[int]:
        """See `Generates.text_prompt`."""
        return self._tokens(text)

    async def generate(
        self, prompt: Sequence[int], sampling: Sampling, call: Call
    ) -> AsyncGenerator[Piece, None]:
        """See `Generates.generate`."""
        answer = Continuation(self, self._fitting(prompt, sampling), sampling)
        async with self._places:
            piece = Piece(text="", tokens=0)
            while piece.finish_reason is None:
                # One token, then the next in line: who has left is simply not asked for another.
                piece = await self._compute.run(answer.step)
                yield piece

    def _tokens(self, text: str, *, with_marks: bool = True) -> list[int]:
        tokens: list[int] = self._tokenizer.encode(text, add_special_tokens=with_marks).ids
        return tokens

    def _fitting(self, prompt: Sequence[int], sampling: Sampling) -> Sequence[int]:
        """The prompt, with the model's first mark where it is empty. Raises BadInput, TooLong."""
        if not prompt:
            first = self._model.config.bos_token_id
            if first is None:
                raise BadInput("the prompt is empty, and this model cannot begin with nothing", "prompt")
            prompt = [first]
        if max(prompt) >= self._vocabulary:
            raise BadInput(f"token {max(prompt)} is not in the vocabulary of {self._vocabulary}", "prompt")
        answer = sampling.most_tokens or 1
        if len(prompt) + answer > self._context:
            raise TooLong(self._context, len(prompt), sampling.most_tokens or 0)
        return prompt


class Continuation:
    """One answer while it is made: what the model remembers of it, its chance, and its text. Steps in a thread."""

    def __init__(self, engine: ChatEngine, prompt: Sequence[int], sampling: Sampling) -> None:
        import torch

        self._engine = engine
        self._next: Sequence[int] = prompt  # what the model has not read yet
        self._left = sampling.most_tokens or engine._context - len(prompt)
        self._sampling = sampling
        self._memory: Any = None  # keys and values of all that was read
        self._chance = torch.Generator()
        if sampling.seed is None:
            self._chance.seed()
        else:
            self._chance.manual_seed(sampling.seed)
        stops = sampling.stop if engine._dressed.chat_template else (*sampling.stop, PLAIN_STOP)
        self._transcript = Transcript(self._decoded, stops)

    def step(self) -> Piece:
        """Draw one token."""
        import torch

        device = self._engine._assignment.device
        with torch.inference_mode():
            read = self._engine._model(
                input_ids=torch.tensor([list(self._next)], device=device),
                past_key_values=self._memory,
                use_cache=True,
                logits_to_keep=1,
            )
            self._memory = read.past_key_values
            token = drawn(read.logits[0, -1].float().cpu(), self._sampling, self._chance)
        self._next = (token,)
        self._left -= 1
        if token in self._engine._ends:
            return Piece(text=self._transcript.end(), tokens=1, finish_reason="stop")
        text = self._transcript.add(token)
        if self._transcript.stopped:
            return Piece(text=text, tokens=1, finish_reason="stop")
        if self._left == 0:
            return Piece(text=text + self._transcript.end(), tokens=1, finish_reason="length")
        return Piece(text=text, tokens=1)

    def _decoded(self, tokens: Sequence[int]) -> str:
        text: str = self._engine._tokenizer.decode(list(tokens), skip_special_tokens=True)
        return text


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
