"""A setting is what an operator says of one queue: some of its fields, the others staying as they are.

Invariant: saying the same twice is the same as saying it once. What it makes of a queue is a queue, or a ValueError
with what to say instead.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

from baseai.scheduling.queue_tree import ROOT, Queue


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What is left out stays as it is, or is the default in a queue that is new."""

    parent: str | None = None  # another queue, or the root
    weight: float | None = None
    quota: Mapping[str, int] | None = None  # all of it: a model that it leaves out has none any more
    limit: Mapping[str, int] | None = None
    half_life_s: float | None = None
    tenant: str | None = None
    project: str | None = None
    shared: bool = False  # it belongs to nobody any more

    def __post_init__(self) -> None:
        if self.shared and (self.tenant is not None or self.project is not None):
            raise ValueError("a queue cannot be everybody's and one tenant's: say one of the two")


def changed(name: str, before: Queue | None, setting: Setting) -> Queue:
    """The queue as it is then. Another tenant than before, without a project, is all its projects."""
    said = {
        field.name: value
        for field in fields(Setting)
        if field.name != "shared" and (value := getattr(setting, field.name)) is not None
    }
    if setting.shared or (before is not None and setting.tenant not in (None, before.tenant)):
        said = {"tenant": None, "project": None} | said
    return replace(before or Queue(name=name, parent=ROOT), **said)


def change_text(before: Queue | None, after: Queue) -> str:
    """What an event says of it: `weight 2, quota 16 H100-SXM`."""
    parts = []
    if before is None or before.parent != after.parent:
        parts.append(f"below {after.parent}")
    if before is None or before.weight != after.weight:
        parts.append(f"weight {after.weight:g}")
    for what, old, new in (
        ("quota", {} if before is None else before.quota, after.quota),
        ("limit", {} if before is None else before.limit, after.limit),
    ):
        if old != new:
            parts.append(f"{what} {amounts_text(new)}")
    if (None if before is None else before.half_life_s) != after.half_life_s:
        parts.append(f"half-life {after.half_life_s:g} s" if after.half_life_s else "half-life of its parent")
    if (None if before is None else (before.tenant, before.project)) != (after.tenant, after.project):
        parts.append(" ".join(part for part in ("for", after.tenant or "everybody", after.project) if part))
    return ", ".join(parts)


def amounts_text(amounts: Mapping[str, int]) -> str:
    """`16 H100-SXM and 4 L4`, or `none`."""
    return " and ".join(f"{count} {model}" for model, count in sorted(amounts.items())) or "none"
