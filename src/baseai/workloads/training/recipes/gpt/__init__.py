"""A GPT of a few million parameters on text: byte-level BPE, GPT-2 form, held-out bits per byte.

Invariant: the config alone decides the text, the vocabulary, the weights and the order; nothing is downloaded.
The default text is what every CPython carries: `pydoc_data.topics` and the sources of its standard library.
Heavy packages are imported inside functions, because the config is checked where they are not installed.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from baseai.workloads.training.recipe import Training, key

if TYPE_CHECKING:
    from baseai.workloads.training.recipe import Task

PRELOAD = (
    "transformers.models.gpt2.modeling_gpt2",
    "transformers.generation",
    "tokenizers",
    "safetensors.torch",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(Training):
    """The keys of the recipe `gpt`."""

    layers: int = key(4, "transformer blocks", at_least=1, at_most=200)
    heads: int = key(4, "attention heads of a block", at_least=1)
    width: int = key(192, "size of the residual stream", at_least=8)
    context: int = key(128, "tokens a sample is long", unit="tokens", at_least=8)
    vocabulary: int = key(4096, "entries of the byte-level BPE vocabulary", at_least=260, at_most=200_000)
    dropout: float = key(0.0, "share of activations dropped in training", at_least=0, at_most=0.9)
    text: str = key(
        "python", "python (CPython's own topics and sources) or the path of a text file or folder"
    )
    text_mb: float = key(4.0, "text to read at most", unit="MB", above=0)
    held_out_ratio: float = key(
        0.05, "share of the text's documents kept for the verdict", above=0, at_most=0.5
    )
    held_out_tokens: int = key(32_768, "held-out tokens to judge at most", unit="tokens", at_least=64)

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"heads: {self.heads} does not divide the width {self.width}")


def prepare(config: Config, folder: Path) -> None:
    """Write the tokenizer and the tokens of both parts of the text into the folder."""
    from baseai.workloads.training.recipes.gpt.text import write_tokens

    write_tokens(config, folder)


def opened(config: Config, folder: Path) -> "Task":
    """The task over the prepared tokens."""
    from baseai.workloads.training.recipes.gpt.task import GptTask

    return GptTask(config, folder)
