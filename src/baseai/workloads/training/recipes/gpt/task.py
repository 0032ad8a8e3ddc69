"""A GPT in training: the prepared tokens and GPT-2's form from transformers, sized by the config.

Invariant: sample i is the i-th window of the training tokens; the held-out verdict counts each predicted token's
bytes, so that bits per byte does not depend on the vocabulary.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch.nn import functional
from transformers.models.gpt2.configuration_gpt2 import GPT2Config
from transformers.models.gpt2.modeling_gpt2 import GPT2LMHeadModel

from baseai.workloads.training.recipe import RecipeRefused
from baseai.workloads.training.recipes.gpt.text import END_OF_TEXT

if TYPE_CHECKING:
    from baseai.workloads.training.recipes.gpt import Config

PROMPT = "def "


class GptTask:
    """See `Task`; the folder is what `write_tokens` wrote."""

    def __init__(self, config: "Config", folder: Path) -> None:
        self.config = config
        self.folder = folder
        self.tokens = np.load(folder / "train.npy", mmap_mode="r")
        self.held_out = np.load(folder / "held_out.npy", mmap_mode="r")
        self.token_bytes = torch.from_numpy(np.load(folder / "token_bytes.npy"))
        self.units_per_sample = config.context
        self.stochastic = config.dropout > 0
        self.samples = (len(self.tokens) - 1) // config.context
        for name, tokens in (("training", self.tokens), ("held-out", self.held_out)):
            if len(tokens) <= config.context:
                raise RecipeRefused(
                    "gpt",
                    "context",
                    f"the {name} text has only {len(tokens)} tokens, less than one sample of {config.context}",
                    "give more text or a shorter context",
                )

    def model(self) -> torch.nn.Module:
        """GPT-2's form with tied embeddings; weights from the seed."""
        config = self.config
        shape = GPT2Config(
            vocab_size=len(self.token_bytes),
            n_positions=config.context,
            n_embd=config.width,
            n_layer=config.layers,
            n_head=config.heads,
            resid_pdrop=config.dropout,
            embd_pdrop=config.dropout,
            attn_pdrop=config.dropout,
            bos_token_id=0,
            eos_token_id=0,
            use_cache=False,
        )
        shape._attn_implementation = "sdpa"
        torch.manual_seed(config.seed)
        return GPT2LMHeadModel(shape)

    def shards(self, model: torch.nn.Module) -> Sequence[torch.nn.Module]:
        """Its blocks."""
        return list(cast(Any, model).transformer.h)

    def batch(self, samples: Sequence[int]) -> tuple[torch.Tensor, ...]:
        """(inputs, targets), each of shape (samples, context), int64."""
        context = self.config.context
        windows = [self.tokens[number * context : number * context + context + 1] for number in samples]
        rows = torch.from_numpy(np.stack(windows).astype(np.int64))
        return rows[:, :-1].contiguous(), rows[:, 1:].contiguous()

    def loss(self, model: torch.nn.Module, batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Mean cross-entropy in nats per token."""
        inputs, targets = batch
        logits = model(input_ids=inputs).logits
        return functional.cross_entropy(logits.flatten(0, 1), targets.flatten())

    @torch.no_grad()
    def evaluation(self, model: torch.nn.Module, rank: int, world: int) -> Sequence[float]:
        """(nats, tokens, bytes) over this rank's windows of the held-out tokens."""
        context = self.config.context
        device = next(model.parameters()).device
        tokens = self.held_out[: self.config.held_out_tokens + 1]
        starts = list(range(0, len(tokens) - context, context))[rank::world]
        sums = [0.0, 0.0, 0.0]
        model.eval()
        for begin in range(0, len(starts), 8):
            rows = np.stack([tokens[start : start + context + 1] for start in starts[begin : begin + 8]])
            window = torch.from_numpy(rows.astype(np.int64))
            logits = model(input_ids=window[:, :-1].to(device)).logits
            targets = window[:, 1:].flatten()
            sums[0] += float(
                functional.cross_entropy(logits.flatten(0, 1), targets.to(device), reduction="sum")
            )
            sums[1] += float(targets.numel())
            sums[2] += float(self.token_bytes[targets].sum())
        model.train()
        return sums

    def verdict(self, sums: Sequence[float]) -> Mapping[str, float]:
        """Bits per byte and perplexity per token of the held-out text."""
        nats, tokens, text_bytes = sums
        return {
            "bits_per_byte": nats / math.log(2) / text_bytes,
            "perplexity": math.exp(min(nats / tokens, 700.0)),
        }

    @torch.no_grad()
    def sample(self, model: torch.nn.Module) -> str:
        """Text that continues the prompt, drawn from the 40 likeliest tokens at a fixed seed."""
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(self.folder / "tokenizer.json"))
        device = next(model.parameters()).device
        generator = torch.Generator().manual_seed(self.config.seed)
        tokens = tokenizer.encode(PROMPT).ids
        model.eval()
        for _ in range(min(96, 2 * self.config.context)):
            window = torch.tensor([tokens[-self.config.context :]], device=device)
            likeliest = model(input_ids=window).logits[0, -1].float().cpu().topk(40)
            chosen = torch.multinomial((likeliest.values / 0.8).softmax(0), 1, generator=generator)
            tokens.append(int(likeliest.indices[chosen]))
        return str(tokenizer.decode(tokens, skip_special_tokens=True))

    def export(self, model: torch.nn.Module, folder: Path) -> None:
        """A folder that AutoModelForCausalLM and AutoTokenizer load."""
        cast(Any, model).save_pretrained(folder)
        (folder / "tokenizer.json").write_bytes((self.folder / "tokenizer.json").read_bytes())
        described = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": self.config.context,
            "bos_token": END_OF_TEXT,
            "eos_token": END_OF_TEXT,
            "clean_up_tokenization_spaces": False,
        }
        (folder / "tokenizer_config.json").write_text(json.dumps(described, indent=2))
