"""The engine `embeddings`: a folder with a sentence encoder, whose vectors are its tokens' mean, scaled to length 1.

Invariant: a text's vector does not depend on the texts beside it, but for rounding, and nothing of a text is cut off:
one that is too long is refused. The folder is what `sentence-transformers` writes, or any encoder that transformers
loads; no hub is asked.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from baseai.workloads.inference.engine import (
    Assignment,
    BadInput,
    Call,
    Described,
    Embedded,
    Inferred,
    ModelUnusable,
    TensorForm,
    Together,
    TooLong,
)
from baseai.workloads.inference.engines.compute import Compute
from baseai.workloads.inference.model_source import digest_of

Tokens = Sequence[int]
Vectors = NDArray[np.float32]

MUCH_TEXT = 16_384  # characters (or tokens) beyond which tokenizing is no work for the server's loop
ROWS = 32  # of one forward pass; more are several
TEXT, VECTOR = "text", "embedding"  # the tensors under the Open Inference Protocol


class EmbeddingsEngine:
    """See `Engine`, `Embeds` and `Infers`."""

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment

    def load(self) -> None:
        """See `Engine.load`."""
        folder = Path(self._assignment.model)
        config = _json(folder / "config.json", folder)
        missing = [
            name for name in ("vocab_size", "hidden_size", "max_position_embeddings") if name not in config
        ]
        if missing:
            problem = f"its config.json says no {' and no '.join(missing)}"
            raise ModelUnusable(str(folder), problem, "give the folder of a text encoder")
        self._pool = _pooling(folder)
        self._context = _context(folder, config, self._assignment.most_tokens)
        self._vocabulary = int(config["vocab_size"])
        self._dimensions = int(config["hidden_size"])
        self._pad = int(config.get("pad_token_id") or 0)
        self._model, self._tokenizer = self._loaded(folder)
        weights = [*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")]
        self._described = Described(
            platform=f"pytorch_{config.get('model_type', 'encoder')}",
            digest=self._assignment.digest or digest_of(folder),
            inputs=(TensorForm(name=TEXT, datatype="BYTES", shape=(None,)),),
            outputs=(TensorForm(name=VECTOR, datatype="FP32", shape=(None, self._dimensions)),),
            context=self._context,
            facts={
                "parameters": sum(parameter.numel() for parameter in self._model.parameters()),
                "dimensions": self._dimensions,
                "context": self._context,
                "pooling": self._pool,
                "size_bytes": sum(path.stat().st_size for path in weights),
                "threads": self._assignment.threads,
            },
        )
        self._compute = Compute(1)  # one forward pass has all threads of the lease
        self._together: Together | None = None
        if self._assignment.gather is not None:
            self._together = self._assignment.gather(self._batch, len)
        self._vectors([self._tokens("warm")])

    def _loaded(self, folder: Path) -> tuple[Any, Any]:
        """Network and tokenizer. Raises ModelUnusable."""
        try:
            import torch
            from tokenizers import Tokenizer
            from transformers import AutoModel
            from transformers.utils import logging
        except ImportError as missing:
            problem = f"{missing.name} is not installed here"
            raise ModelUnusable(str(folder), problem, "install baseai[serve]") from None
        logging.disable_progress_bar()
        torch.set_num_threads(self._assignment.threads)
        try:
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            network = AutoModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
        except Exception as wrong:  # tokenizers raises bare Exceptions, transformers anything
            sentence = str(wrong).strip().splitlines()[0]
            raise ModelUnusable(str(folder), sentence, "give a folder that transformers loads") from wrong
        # What the file says about cutting and padding is of its training; here nothing is cut.
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return network.eval().to(self._assignment.device), tokenizer

    def describe(self) -> Described:
        """See `Engine.describe`."""
        return self._described

    async def close(self) -> None:
        """See `Engine.close`."""
        await self._compute.close()

    async def embed(self, texts: Sequence[str | Tokens], call: Call) -> Embedded:
        """See `Embeds.embed`."""
        if sum(len(text) for text in texts) > MUCH_TEXT:
            rows = await asyncio.to_thread(self._rows, texts)
        else:
            rows = self._rows(texts)
        if self._together is None:
            vectors = await self._compute.run(self._vectors, rows)
        else:
            vectors = await self._together(rows)
        return Embedded(vectors=vectors, tokens=sum(len(row) for row in rows))

    async def infer(self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str], call: Call) -> Inferred:
        """See `Infers.infer`: texts as BYTES, their vectors as FP32."""
        try:
            texts = [element.decode() for element in inputs[TEXT]]
        except UnicodeDecodeError as wrong:
            raise BadInput(f"input {TEXT}: an element is not UTF-8: {wrong.reason}", TEXT) from wrong
        if not texts:
            raise BadInput(f"input {TEXT} must have at least one element", TEXT)
        embedded = await self.embed(texts, call)
        return Inferred(outputs={VECTOR: embedded.vectors}, tokens=embedded.tokens)

    def _rows(self, texts: Sequence[str | Tokens]) -> list[Tokens]:
        return [self._tokens(text) for text in texts]

    def _tokens(self, text: str | Tokens) -> Tokens:
        """Raises TooLong, BadInput."""
        if isinstance(text, str):
            tokens: Tokens = self._tokenizer.encode(text).ids
        else:
            tokens = text
            if max(tokens) >= self._vocabulary:
                raise BadInput(f"token {max(tokens)} is not in the vocabulary of {self._vocabulary}", "input")
        if len(tokens) > self._context:
            raise TooLong(self._context, len(tokens))
        return tokens

    async def _batch(self, items: Sequence[Sequence[Tokens]]) -> Sequence[Vectors]:
        rows = [row for item in items for row in item]
        vectors = await self._compute.run(self._vectors, rows)
        ends = np.cumsum([len(item) for item in items])[:-1]
        return np.split(vectors, ends)

    def _vectors(self, rows: Sequence[Tokens]) -> Vectors:
        """Shape (rows, dimensions), in the order of the rows; like lengths are computed together."""
        order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
        made = [
            self._forward([rows[index] for index in order[at : at + ROWS]])
            for at in range(0, len(rows), ROWS)
        ]
        vectors = np.empty((len(rows), self._dimensions), dtype=np.float32)
        vectors[order] = np.concatenate(made)
        return vectors

    def _forward(self, rows: Sequence[Tokens]) -> Vectors:
        import torch

        longest = max(len(row) for row in rows)
        tokens = torch.full((len(rows), longest), self._pad)
        mask = torch.zeros((len(rows), longest), dtype=torch.long)
        for index, row in enumerate(rows):
            tokens[index, : len(row)] = torch.tensor(row)
            mask[index, : len(row)] = 1
        device = self._assignment.device
        with torch.inference_mode():
            states = self._model(
                input_ids=tokens.to(device), attention_mask=mask.to(device)
            ).last_hidden_state
            if self._pool == "cls":
                pooled = states[:, 0]
            else:
                weight = mask.to(device).unsqueeze(-1).to(states.dtype)
                pooled = (states * weight).sum(1) / weight.sum(1)
            vectors: Vectors = torch.nn.functional.normalize(pooled, dim=1).cpu().numpy()
        return vectors


def _json(path: Path, folder: Path) -> dict[str, Any]:
    """Raises ModelUnusable where the folder is none of a model."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as wrong:
        raise ModelUnusable(
            str(folder), f"{path.name} cannot be read: {wrong}", "give a model's folder"
        ) from None
    if not isinstance(told, dict):
        raise ModelUnusable(str(folder), f"its {path.name} is no JSON object", "give a model's folder")
    return told


def _pooling(folder: Path) -> str:
    """How a text's vector is made of its tokens': `mean`, or `cls` where the folder says so. Raises ModelUnusable."""
    path = folder / "1_Pooling" / "config.json"
    if not path.exists():
        return "mean"
    told = _json(path, folder)
    asked = [name for name, wanted in told.items() if name.startswith("pooling_mode_") and wanted]
    if asked == ["pooling_mode_mean_tokens"]:
        return "mean"
    if asked == ["pooling_mode_cls_token"]:
        return "cls"
    raise ModelUnusable(
        str(folder), f"it pools by {', '.join(asked)}", "give one that pools by mean or by cls"
    )


def _context(folder: Path, config: Mapping[str, Any], most_tokens: int | None) -> int:
    """Tokens that a text may have: the least of what model, folder and service say."""
    limits = [int(config["max_position_embeddings"])]
    for name, key in (
        ("sentence_bert_config.json", "max_seq_length"),
        ("tokenizer_config.json", "model_max_length"),
    ):
        if (folder / name).exists():
            limits.append(int(_json(folder / name, folder).get(key) or limits[0]))
    if most_tokens is not None:
        limits.append(most_tokens)
    return min(limits)
