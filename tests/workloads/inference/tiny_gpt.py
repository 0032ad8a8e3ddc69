"""A tiny language model in the form that our training runs export: weights from a seed, a tokenizer of its own."""

import json
from pathlib import Path

END = "<|endoftext|>"
CONTEXT = 64
TEXT = [f"line {n}: {n * n} is the square of {n}, said the clerk in São Paulo.\n" for n in range(400)]


def write_tiny_gpt(folder: Path, template: str | None = None) -> Path:
    """config.json, model.safetensors, tokenizer.json, tokenizer_config.json."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import GPT2Config, GPT2LMHeadModel

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    torch.manual_seed(7)
    shape = GPT2Config(
        vocab_size=tokenizer.get_vocab_size(), n_positions=CONTEXT, n_embd=16, n_layer=2, n_head=2,
        bos_token_id=0, eos_token_id=0, use_cache=False,
    )  # fmt: skip
    GPT2LMHeadModel(shape).save_pretrained(folder)
    told = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": END, "eos_token": END}
    if template is not None:
        told["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(told))
    return folder
