"""Matching turns the name in a spec (`H100`, `nvidia a100`, `cpu-slot`) into the models it may mean.

Invariant: the answer keeps the order of the catalogue, and an unknown name gives nothing rather than a guess.
"""

from collections.abc import Container, Sequence

from baseai.catalog.accelerator import CPU_SLOT, Accelerator

__all__ = ["known_names", "models_matching"]

_SEPARATORS = str.maketrans("", "", " -_")
_MAKERS = ("nvidia", "amd", "google", "instinct", "tesla")


def models_matching(
    accelerators: Sequence[Accelerator], name: str | None, memory_gib: Container[int] | None = None
) -> tuple[str, ...]:
    """The models that a spec may mean, by key.

    name: a key or an alias, in any case, with or without its maker; None means any accelerator but CPU slots.
    memory_gib: the amounts that will do, as `range(80, 81)` for `80GB`; None means any.
    """
    wanted = None if name is None else _plain(name)
    return tuple(
        accelerator.model
        for accelerator in accelerators
        if _named(accelerator, wanted) and (memory_gib is None or accelerator.memory_gib in memory_gib)
    )


def known_names(accelerators: Sequence[Accelerator]) -> tuple[str, ...]:
    """Every name a spec may use, for finding the nearest to a misspelt one."""
    names = dict.fromkeys(name for known in accelerators for name in (known.model, *known.aliases))
    return tuple(names)


def _named(accelerator: Accelerator, wanted: str | None) -> bool:
    if wanted is None:
        return accelerator.model != CPU_SLOT
    return wanted in {_plain(name) for name in (accelerator.model, *accelerator.aliases)}


def _plain(name: str) -> str:
    plain = name.casefold().translate(_SEPARATORS)
    for maker in _MAKERS:
        plain = plain.removeprefix(maker)
    return plain
