"""Builders for the catalogue's tests: the shipped data, and the shipped data with one thing wrong."""

import shutil
from pathlib import Path

from baseai.catalog.sheet import shipped_data

FILES = ("accelerators.toml", "servers.toml", "partners.toml", "price_list.toml", "cost_assumptions.toml")


def shipped_with(folder: Path, file: str, old: str, new: str) -> Path:
    """A copy of the shipped data in `folder`, in which `file` says `new` where it first said `old`."""
    for name in FILES:
        with (folder / name).open("wb") as copy, shipped_data().joinpath(name).open("rb") as original:
            shutil.copyfileobj(original, copy)
    text = (folder / file).read_text(encoding="utf-8")
    assert old in text, f"{file} no longer says {old}"
    (folder / file).write_text(text.replace(old, new, 1), encoding="utf-8")
    return folder
