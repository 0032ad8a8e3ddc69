"""The text of a GPT: documents in a fixed order, split once into training and held-out, then tokens.

Invariant: a document is wholly in one part, the vocabulary is learned from the training part alone, and the same
config on the same Python gives the same tokens, byte for byte.
"""

import json
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from baseai.workloads.training.recipe import RecipeRefused

if TYPE_CHECKING:
    from baseai.workloads.training.recipes.gpt import Config

END_OF_TEXT = "<|endoftext|>"
SKIPPED = frozenset(
    {"test", "tests", "idle_test", "site-packages", "dist-packages", "lib2to3", "pydoc_data", "__pycache__"}
)


def documents(config: "Config") -> Iterator[str]:
    """The texts, in a fixed order, until `text_mb` is reached. Raises RecipeRefused where there is none."""
    limit_bytes = int(config.text_mb * 1e6)
    for text in _python_documents() if config.text == "python" else _file_documents(config.text):
        if limit_bytes <= 0:
            return
        limit_bytes -= len(text.encode())
        yield text


def _python_documents() -> Iterator[str]:
    from pydoc_data.topics import topics

    for name in sorted(topics):
        yield topics[name]
    library = Path(sysconfig.get_path("stdlib"))
    for path in sorted(library.rglob("*.py")):
        if SKIPPED.isdisjoint(path.relative_to(library).parts):
            yield path.read_text(encoding="utf-8", errors="replace")


def _file_documents(place: str) -> Iterator[str]:
    path = Path(place)
    if not path.exists():
        raise RecipeRefused(
            "gpt", "text", f"there is no file or folder {place}", "give python or an existing path"
        )
    for each in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if each.is_file():
            text = each.read_text(encoding="utf-8", errors="replace")
            # One big file is cut into documents at line ends, so that there is something to hold out.
            yield from _pieces(text, 4096)


def _pieces(text: str, size: int) -> Iterator[str]:
    begin = 0
    while begin < len(text):
        end = text.find("\n", begin + size)
        end = len(text) if end < 0 else end + 1
        yield text[begin:end]
        begin = end


def write_tokens(config: "Config", folder: Path) -> None:
    """tokenizer.json, train.npy, held_out.npy (uint32) and token_bytes.npy: the bytes each token stands for."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    training: list[str] = []
    held_out: list[str] = []
    every = max(2, round(1 / config.held_out_ratio))
    for number, text in enumerate(documents(config)):
        (held_out if number % every == every - 1 else training).append(text)
    if not training or not held_out:
        raise RecipeRefused("gpt", "text", "the text is too short to hold any of it out", "give more text")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        training,
        trainers.BpeTrainer(
            vocab_size=config.vocabulary,
            special_tokens=[END_OF_TEXT],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    end = int(tokenizer.token_to_id(END_OF_TEXT) or 0)  # the first entry
    for name, part in (("train", training), ("held_out", held_out)):
        tokens: list[int] = []
        for encoded in tokenizer.encode_batch(part):
            tokens.extend(encoded.ids)
            tokens.append(end)
        np.save(folder / f"{name}.npy", np.array(tokens, dtype=np.uint32))
    # In the byte-level alphabet one character is one byte; the end marker stands for none.
    spelled = [str(tokenizer.id_to_token(token)) for token in range(tokenizer.get_vocab_size())]
    token_bytes = [0 if token == end else len(text) for token, text in enumerate(spelled)]
    np.save(folder / "token_bytes.npy", np.array(token_bytes, dtype=np.int64))
    tokenizer.save(str(folder / "tokenizer.json"))
    facts = {"documents": len(training), "held_out_documents": len(held_out)}
    (folder / "text.json").write_text(json.dumps(facts))
