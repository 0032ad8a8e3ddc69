"""A recipe is a way to train one kind of model: its keys, its data, its model, its measure of success.

Invariant: `checked` is a function of its arguments alone and imports neither torch nor transformers, so that
the door that takes a spec can refuse a bad one at once. A new recipe is a new module under `recipes/`, found by
its name: nothing else is edited, here or elsewhere.
"""

import difflib
import importlib
import pkgutil
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from baseai.ground.fault import Fault

if TYPE_CHECKING:
    import torch


class RecipeRefused(Fault):
    """A recipe or one of its keys cannot be used as it was given; not worth a retry."""

    def __init__(self, recipe: str, key: str | None, problem: str, fix: str) -> None:
        super().__init__(recipe, key, problem, fix)
        self.recipe = recipe
        self.key = key
        self.problem = problem
        self.fix = fix

    def __str__(self) -> str:
        where = f"recipe {self.recipe}" + (f", key {self.key}" if self.key else "")
        return f"{where}: {self.problem}; {self.fix}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """What one key of a recipe means, in the words of its documentation, and the values it takes."""

    meaning: str
    unit: str | None = None
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    one_of: tuple[str, ...] | None = None


def key(
    default: Any,
    meaning: str,
    *,
    unit: str | None = None,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    one_of: tuple[str, ...] | None = None,
) -> Any:
    """A dataclass field that carries its `Key`."""
    told = Key(meaning=meaning, unit=unit, at_least=at_least, above=above, at_most=at_most, one_of=one_of)
    return field(default=default, metadata={"key": told})


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """The keys that every recipe has; each recipe's own `Config` extends them."""

    steps: int = key(300, "optimiser steps of the whole run", unit="steps", at_least=1)
    batch: int = key(16, "samples in one step over all workers together", unit="samples", at_least=1)
    learning_rate: float = key(1e-3, "peak learning rate of AdamW", above=0, at_most=1)
    warmup: int = key(20, "steps over which the learning rate rises to its peak", unit="steps", at_least=0)
    weight_decay: float = key(0.01, "decoupled weight decay", at_least=0, at_most=1)
    clip: float = key(1.0, "largest gradient norm; 0 clips nothing", at_least=0)
    seed: int = key(1, "seed of the weights, of the data order and of dropout", at_least=0)


class Task(Protocol):
    """One opened recipe inside one worker: prepared data and the model over it. Only workers see it."""

    samples: int  # training samples in one epoch
    units_per_sample: int  # tokens, pixels' images, ...: what `tokens_per_s` counts
    stochastic: bool  # True when the forward pass draws random numbers (dropout)

    def model(self) -> "torch.nn.Module":
        """A fresh model whose weights are a function of the seed alone."""

    def shards(self, model: "torch.nn.Module") -> Sequence["torch.nn.Module"]:
        """The parts that FSDP shards one by one, innermost first; the model itself is added by the loop."""

    def batch(self, samples: Sequence[int]) -> "tuple[torch.Tensor, ...]":
        """The tensors of these samples: a function of their numbers (and the seed) alone."""

    def loss(self, model: "torch.nn.Module", batch: "tuple[torch.Tensor, ...]") -> "torch.Tensor":
        """The mean loss over the samples of the batch."""

    def evaluation(self, model: "torch.nn.Module", rank: int, world: int) -> Sequence[float]:
        """This rank's sums over its share of the held-out data; the loop adds them over the ranks."""

    def verdict(self, sums: Sequence[float]) -> Mapping[str, float]:
        """The figures that the added sums stand for, for example bits per byte and perplexity."""

    def sample(self, model: "torch.nn.Module") -> str:
        """Something the model made, fit to be shown; empty where a recipe makes nothing to read."""

    def export(self, model: "torch.nn.Module", folder: Path) -> None:
        """Write the model in the form its ecosystem loads: weights as safetensors and what belongs to them."""


class Recipe(Protocol):
    """What a recipe's module holds. The first line of its docstring is what `recipes()` tells."""

    Config: type[Training]
    PRELOAD: tuple[str, ...]  # modules a worker needs, imported once per node before the workers start

    def prepare(self, config: Any, folder: Path) -> None:
        """Fill the empty folder with the run's data. Called once per folder, whatever the number of ranks."""

    def opened(self, config: Any, folder: Path) -> Task:
        """The task over a prepared folder. Raises RecipeRefused where the data is too small for the config."""


def recipes() -> dict[str, str]:
    """Every recipe's name with one line on what it trains."""
    folder = importlib.import_module(f"{__package__}.recipes")
    names = sorted(found.name for found in pkgutil.iter_modules(folder.__path__))
    return {name: (_module(name).__doc__ or "").strip().splitlines()[0] for name in names}


def recipe_named(name: str) -> Recipe:
    """The recipe's module. Raises RecipeRefused, with the nearest name, where there is none."""
    known = recipes()
    if name not in known:
        raise RecipeRefused(name, None, "there is no such recipe", _nearest(name, known, "recipes"))
    return typing.cast(Recipe, _module(name))


def keys(name: str) -> dict[str, tuple[Key, Any]]:
    """The recipe's keys with their meaning and default: what its documentation is made of."""
    return {each.name: (_told(each), each.default) for each in fields(recipe_named(name).Config)}


def configured(name: str, config: Mapping[str, object]) -> Training:
    """The recipe's own frozen config. Raises RecipeRefused naming the key and the fix."""
    recipe = recipe_named(name)
    known = {each.name: each for each in fields(recipe.Config)}
    hints = typing.get_type_hints(recipe.Config)
    values: dict[str, Any] = {}
    for given, value in config.items():
        if given not in known:
            raise RecipeRefused(name, str(given), "unknown key", _nearest(str(given), known, "keys"))
        values[given] = _value(name, known[given], hints[given], value)
    for each in known.values():
        if each.name not in values and each.default is MISSING:
            raise RecipeRefused(name, each.name, "is missing", f"give it: {_told(each).meaning}")
    try:
        return recipe.Config(**values)
    except ValueError as wrong:
        # A rule between keys names its key first: "heads: 3 does not divide the width 64".
        culprit, _, problem = str(wrong).partition(": ")
        told = _told(known[culprit]).meaning if culprit in known else "see the recipe's documentation"
        raise RecipeRefused(name, culprit, problem, f"it is {told}") from wrong


def checked(recipe: str, config: Mapping[str, object]) -> dict[str, Any]:
    """The whole config, defaults filled in, as JSON-ready values. Raises RecipeRefused; touches no data."""
    valid = configured(recipe, config)
    return {each.name: getattr(valid, each.name) for each in fields(valid)}


def _module(name: str) -> types.ModuleType:
    return importlib.import_module(f"{__package__}.recipes.{name}")


def _told(each: "Field[Any]") -> Key:
    told = each.metadata["key"]
    assert isinstance(told, Key)
    return told


def _nearest(given: str, known: Mapping[str, object], noun: str) -> str:
    close = difflib.get_close_matches(given, known, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]}?"
    return f"the {noun} are {', '.join(sorted(known))}"


def _value(recipe: str, each: "Field[Any]", wanted: type, value: object) -> Any:
    told = _told(each)
    refused = RecipeRefused(recipe, each.name, f"{value!r} is not {_kind(wanted)}", f"it is {told.meaning}")
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if wanted is float and isinstance(value, str):
        try:  # YAML 1.1 reads 1e-3 as text
            value = float(value)
        except ValueError:
            raise refused from None
    if wanted is int and isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is not wanted:
        raise refused
    unit = f" {told.unit}" if told.unit else ""
    if isinstance(value, (int, float)):
        if value != value or value in (float("inf"), float("-inf")):
            raise RecipeRefused(recipe, each.name, f"{value} is not a finite number", f"it is {told.meaning}")
        if told.at_least is not None and value < told.at_least:
            raise RecipeRefused(
                recipe, each.name, f"{value} is too small", f"give at least {told.at_least:g}{unit}"
            )
        if told.above is not None and value <= told.above:
            raise RecipeRefused(
                recipe, each.name, f"{value} is too small", f"give more than {told.above:g}{unit}"
            )
        if told.at_most is not None and value > told.at_most:
            raise RecipeRefused(
                recipe, each.name, f"{value} is too large", f"give at most {told.at_most:g}{unit}"
            )
    if told.one_of is not None and value not in told.one_of:
        raise RecipeRefused(
            recipe, each.name, f"{value!r} is unknown", f"give one of {', '.join(told.one_of)}"
        )
    return value


def _kind(wanted: type) -> str:
    return {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}[wanted]
