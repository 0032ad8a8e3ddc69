"""The engine `chat`: a causal language model that continues text, token by token, for several requests in turn.

Invariant: an answer depends on its prompt and sampling alone, never on who else is answered; between two of its tokens
each other answer gets one. The folder is what a training run of ours exports, or any that transformers loads. A model
whose tokenizer has no chat template is given a plain one, `role: text` a line, which it never saw in training.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

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
from baseai.workloads.inference.engines.continuation import Continuation, LanguageModel
from baseai.workloads.inference.model_source import digest_of

PLAIN_STOP = "\nuser:"  # the plain template's own: a model shall not go on in its reader's name


class ChatEngine:
    """See `Engine` and `Generates`."""

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment

    def load(self) -> None:
        """See `Engine.load`."""
        folder = Path(self._assignment.model)
        if not (folder / "config.json").is_file():
            fix = "give the folder that a training run exports, or one that transformers loads"
            raise ModelUnusable(str(folder), "there is no config.json in it", fix)
        network, self._tokenizer = self._loaded(folder)
        self._model = self._model_of(network)
        weights = [*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")]
        self._described = Described(
            platform=f"pytorch_{network.config.model_type}",
            digest=self._assignment.digest or digest_of(folder),
            context=self._model.context,
            facts={
                "parameters": sum(parameter.numel() for parameter in network.parameters()),
                "context": self._model.context,
                "chat_template": "plain" if self._is_plain else "its own",
                "size_bytes": sum(path.stat().st_size for path in weights),
                "threads": self._assignment.threads,
            },
        )
        self._compute = Compute(1)  # one token at a time has all threads of the lease
        self._places = asyncio.Semaphore(self._assignment.concurrency)
        warm = Continuation(self._model, [0], Sampling(most_tokens=2, temperature=0.0))
        warm.step()
        warm.step()

    def describe(self) -> Described:
        """See `Engine.describe`."""
        return self._described

    async def close(self) -> None:
        """See `Engine.close`."""
        await self._compute.close()

    def chat_prompt(self, messages: Sequence[tuple[str, str]]) -> Sequence[int]:
        """See `Generates.chat_prompt`."""
        told = [
            {"role": "system" if role == "developer" else role, "content": text} for role, text in messages
        ]
        if self._is_plain:
            lines = "".join(f"{message['role']}: {message['content']}\n" for message in told)
            return self._tokens(f"{lines}assistant:")
        try:
            text = self._tokenizer.apply_chat_template(told, tokenize=False, add_generation_prompt=True)
        except Exception as wrong:
            # A template raises what its author wrote, for example that roles must alternate.
            sentence = f"the model's chat template does not take these messages: {wrong}"
            raise BadInput(sentence, "messages") from wrong
        return self._tokens(text, with_marks=False)  # the template has set them

    def chat_stops(self) -> Sequence[str]:
        """See `Generates.chat_stops`."""
        return (PLAIN_STOP,) if self._is_plain else ()

    def text_prompt(self, text: str) -> Sequence[int]:
        """See `Generates.text_prompt`."""
        return self._tokens(text)

    async def generate(
        self, prompt: Sequence[int], sampling: Sampling, call: Call
    ) -> AsyncGenerator[Piece, None]:
        """See `Generates.generate`."""
        answer = Continuation(self._model, self._fitting(prompt, sampling), sampling)
        async with self._places:
            piece = Piece(text="", tokens=0)
            while piece.finish_reason is None:
                # One token, then the next in line: who has left is simply not asked for another.
                piece = await self._compute.run(answer.step)
                yield piece

    @property
    def _is_plain(self) -> bool:
        return not self._tokenizer.chat_template

    def _loaded(self, folder: Path) -> tuple[Any, Any]:
        """Network and tokenizer. Raises ModelUnusable."""
        try:
            import torch
            from transformers import AutoModelForCausalLM, AutoTokenizer
            from transformers.utils import logging
        except ImportError as missing:
            problem = f"{missing.name} is not installed here"
            raise ModelUnusable(str(folder), problem, "install baseai[serve]") from None
        logging.disable_progress_bar()
        torch.set_num_threads(self._assignment.threads)
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            network = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
        except Exception as wrong:  # transformers raises anything
            sentence = str(wrong).strip().splitlines()[0]
            raise ModelUnusable(str(folder), sentence, "give a folder that transformers loads") from wrong
        return network.eval().to(self._assignment.device), tokenizer

    def _model_of(self, network: Any) -> LanguageModel:
        config = network.config
        limits = (getattr(config, "max_position_embeddings", None), self._assignment.most_tokens)
        context = min((int(limit) for limit in limits if limit), default=None)
        if context is None:
            problem = "its config says no max_position_embeddings"
            raise ModelUnusable(self._assignment.model, problem, "write `max_tokens`, its context")
        said = (network.generation_config.eos_token_id, config.eos_token_id, self._tokenizer.eos_token_id)
        ends = frozenset(end for each in said for end in (each if isinstance(each, list) else [each]))
        backend = self._tokenizer.backend_tokenizer  # unlike what is around it, several threads may ask it
        return LanguageModel(
            network=network,
            device=self._assignment.device,
            context=context,
            vocabulary=int(config.vocab_size),
            ends=ends,
            decode=lambda tokens: backend.decode(list(tokens), skip_special_tokens=True),
        )

    def _tokens(self, text: str, *, with_marks: bool = True) -> list[int]:
        tokens: list[int] = self._tokenizer.backend_tokenizer.encode(text, add_special_tokens=with_marks).ids
        return tokens

    def _fitting(self, prompt: Sequence[int], sampling: Sampling) -> Sequence[int]:
        """The prompt, with the model's first mark where it is empty. Raises BadInput, TooLong."""
        if not prompt:
            first = self._model.network.config.bos_token_id
            if first is None:
                raise BadInput("the prompt is empty, and this model cannot begin with nothing", "prompt")
            prompt = [first]
        if max(prompt) >= self._model.vocabulary:
            sentence = f"token {max(prompt)} is not in the vocabulary of {self._model.vocabulary}"
            raise BadInput(sentence, "prompt")
        if len(prompt) + (sampling.most_tokens or 1) > self._model.context:
            raise TooLong(self._model.context, len(prompt), sampling.most_tokens or 0)
        return prompt
