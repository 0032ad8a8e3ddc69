"""A train is a recipe trained on the accelerators leased, by workers that synchronise their gradients.

Invariant: `config` holds only what the recipe itself has accepted. Read from a spec by `train_of`; nobody
changes it. What a recipe is, is the business of `training/`; here it is a name and a function that checks.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import yaml

from baseai.ground.fault import Fault
from baseai.ground.quantity import duration_s
from baseai.workloads.sheet import Entries, plain

KEYS = ("recipe", "config", "workers", "parallel", "checkpoint_every")

CheckRecipe = Callable[[str, Mapping[str, Any]], object]
"""The whole config with its defaults, or None to keep it as written.

Raises a ValueError or a Fault where the recipe does not take it; its attributes `key`, `problem` and `fix`, where
it has them, say which key is to blame, what is wrong with it and what to write instead.
"""

Parallel = Literal["ddp", "fsdp2"]
CheckpointEvery = Literal["auto", "never"] | tuple[Literal["seconds", "steps"], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Train:
    """The part of a spec that only a train has."""

    recipe: str
    config: Mapping[str, Any]  # the recipe's own keys
    workers: int | None  # on each node; None for one on each accelerator leased there
    parallel: Parallel
    checkpoint_every: CheckpointEvery

    def to_json(self) -> dict[str, Any]:
        every = self.checkpoint_every
        return {
            "recipe": self.recipe,
            "config": dict(self.config),
            "workers": self.workers,
            "parallel": self.parallel,
            "checkpoint_every": every if isinstance(every, str) else {every[0]: every[1]},
        }

    @staticmethod
    def from_json(stored: Mapping[str, Any]) -> "Train":
        every = stored["checkpoint_every"]
        return Train(
            recipe=stored["recipe"],
            config=dict(stored["config"]),
            workers=stored["workers"],
            parallel=stored["parallel"],
            checkpoint_every=_stored_every(every),
        )


def _stored_every(every: Any) -> CheckpointEvery:
    if isinstance(every, str):
        return "never" if every == "never" else "auto"
    return ("steps", every["steps"]) if "steps" in every else ("seconds", every["seconds"])


def train_of(entries: Entries, check_recipe: CheckRecipe) -> Train:
    """The train of a spec; what is wrong has been noted and stands at its default."""
    recipe = entries.text("recipe") or "gpt"
    config = _config(entries, recipe, check_recipe)
    parallel = entries.text("parallel")
    if parallel not in (None, "ddp", "fsdp2"):
        entries.wrong("parallel", f"`{parallel}` is not a way to synchronise", "write `ddp` or `fsdp2`")
    return Train(
        recipe=recipe,
        config=config,
        workers=entries.whole("workers", 1, 1024),
        parallel="fsdp2" if parallel == "fsdp2" else "ddp",
        checkpoint_every=_every(entries),
    )


def _config(entries: Entries, recipe: str, check_recipe: CheckRecipe) -> Mapping[str, Any]:
    own = entries.mapping("config")
    left = {} if own is None else {key: plain(value) for key, value in own.values.items()}
    blamed: set[str] = set()
    while True:
        try:
            accepted = check_recipe(recipe, left)
            return dict(accepted) if isinstance(accepted, Mapping) else left
        except (ValueError, Fault) as refusal:
            key: str | None = getattr(refusal, "key", None)
            if key in blamed:
                return left
            problem, _, fix = str(refusal).partition("; ")
            problem = str(getattr(refusal, "problem", problem))
            fix = str(getattr(refusal, "fix", fix) or f"see the keys of the recipe {recipe}")
            if own is None or key is None or key not in own:
                entries.wrong("config" if key else "recipe", f"{key}: {problem}" if key else problem, fix)
                return left
            own.sheet.wrong(own.keys[key], own.at(key), problem, fix)
            # A recipe stops at its first objection; what it has against the other keys is asked without this one.
            blamed.add(key)
            del left[key]


def _every(entries: Entries) -> CheckpointEvery:
    if "checkpoint_every" not in entries:
        return "auto"
    fix = "write `auto`, `never`, a duration like `5m`, or `{steps: 100}`"
    if isinstance(entries.values["checkpoint_every"], yaml.ScalarNode):
        return entries.parsed("checkpoint_every", _every_of) or "auto"
    own = entries.mapping("checkpoint_every")
    if own is None:
        entries.wrong("checkpoint_every", "is neither a word nor a duration", fix)
        return "auto"
    own.only(("steps", "seconds"))
    if len(own.values) != 1:
        entries.wrong("checkpoint_every", "needs one of `steps` and `seconds`", fix)
    steps = own.whole("steps", 1, 10**9)
    seconds = own.whole("seconds", 1, 10**9)
    if steps is not None:
        return ("steps", steps)
    return ("seconds", seconds) if seconds is not None else "auto"


def _every_of(written: str | int | float) -> CheckpointEvery:
    if written == "auto" or written == "never":
        return "auto" if written == "auto" else "never"
    try:
        seconds = duration_s(written)
    except ValueError:
        seconds = 0
    if seconds < 1:
        raise ValueError(
            f"{written!r} is no interval; write `auto`, `never`, a duration like `5m`, or `{{steps: 100}}`"
        )
    return ("seconds", seconds)
