"""Imports go down: never up, and never sideways between rooms of one floor."""

import sys
from collections.abc import Iterable, Sequence

import pytest

from tests.house.source import (
    DOORS_AJAR,
    FLOOR_OF,
    KINDS_OF_WORKLOAD,
    SHELLS,
    Import,
    Module,
    imports,
    module_of,
    modules,
)

# Megabytes and seconds to import: a command that needs none of them must not wait for them.
HEAVY = frozenset({"torch", "transformers", "tokenizers", "safetensors", "ray", "vllm"})


def wrong_imports(module: Module) -> list[str]:
    """Each import of `module` that the house does not allow, as a sentence."""
    sentences = []
    for taken in imports(module):
        why = _why_not(module, taken)
        if why:
            sentences.append(f"{module.name}:{taken.line} imports {taken.name}: {why}")
    return sentences


def _why_not(module: Module, taken: Import) -> str | None:
    first, _, rest = taken.name.partition(".")
    if first != "baseai":
        if module.room == "ground" and first not in sys.stdlib_module_names:
            return "ground stands on the standard library alone"
        return None
    room, _, below = rest.partition(".")
    if (
        module.room not in FLOOR_OF or room not in FLOOR_OF
    ):  # the package's own head, or `from baseai import __version__`
        return None
    shell = below.partition(".")[0]
    if shell in SHELLS and module.room != "wiring" and not _is_in(module.name, f"{room}.{shell}"):
        return "only wiring knows the shells"
    if room == module.room:
        return _why_not_sibling(module, rest)
    if FLOOR_OF[room] > FLOOR_OF[module.room]:
        return "that is upwards"
    if FLOOR_OF[room] == FLOOR_OF[module.room]:
        ajar = any(module.room == who and _is_in(rest, what) for who, what in DOORS_AJAR)
        if not ajar:
            return "that is sideways"
    return None


def _why_not_sibling(module: Module, rest: str) -> str | None:
    if module.room == "workloads":
        own, other = module.name.split(".")[1:2], rest.split(".")[1:2]
        both_kinds = KINDS_OF_WORKLOAD.issuperset(own) and KINDS_OF_WORKLOAD.issuperset(other)
        if own and other and both_kinds and own != other:
            return "a kind of workload never imports its siblings"
    return None


def heavy_chains(found: Sequence[Module]) -> dict[str, str]:
    """Each module whose import brings a heavy package, with the first step on the way there."""
    starts = {module.name: [taken.name for taken in imports(module) if taken.at_start] for module in found}
    chains = {
        name: taken for name, names in starts.items() for taken in names if taken.partition(".")[0] in HEAVY
    }
    while True:
        more = {
            name: taken
            for name, names in starts.items()
            if name not in chains
            for taken in names
            if any(_is_in(taken, f"baseai.{heavy}") for heavy in chains)
        }
        if not more:
            return chains
        chains |= more


def is_light(name: str) -> bool:
    """Whether a module must import quickly: all but what runs inside the worker of a training run."""
    training = "workloads.training"
    return not _is_in(name, training) or name in {f"{training}.recipe", f"{training}.checkpoint", training}


def _is_in(name: str, place: str) -> bool:
    return name == place or name.startswith(place + ".")


def names(found: Iterable[Module]) -> list[str]:
    return [module.name or "baseai" for module in found]


ALL = modules()


@pytest.mark.parametrize("module", ALL, ids=names(ALL))
def test_imports_go_down(module: Module) -> None:
    assert wrong_imports(module) == []


def test_heavy_packages_are_imported_inside_functions() -> None:
    assert {name: taken for name, taken in heavy_chains(ALL).items() if is_light(name)} == {}


@pytest.mark.parametrize(
    ("text", "is_heavy"),
    [
        pytest.param("import torch", True, id="at the start"),
        pytest.param("class Model:\n    import torch", True, id="in a class"),
        pytest.param("from baseai.workloads.loop import train", True, id="by way of another module"),
        pytest.param("def f():\n    import torch", False, id="inside a function"),
        pytest.param(
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch", False, id="for types"
        ),
    ],
)
def test_a_heavy_import_is_found(text: str, is_heavy: bool) -> None:
    found = [module_of("workloads.loop", "from torch import nn"), module_of("engine.desired", text)]
    assert ("engine.desired" in heavy_chains(found)) is is_heavy


def test_every_room_has_a_floor() -> None:
    rooms = {module.room for module in ALL} - {""}
    assert rooms - FLOOR_OF.keys() == set()


@pytest.mark.parametrize(
    ("where", "text", "why"),
    [
        pytest.param("fleet.node", "from baseai.engine import desired", "upwards", id="never up"),
        pytest.param("finance.meter", "import baseai.scheduling.hall", "sideways", id="never sideways"),
        pytest.param(
            "agent.loop", "from baseai.api import server", "sideways", id="only the schemas of the api"
        ),
        pytest.param("ground.money", "import numpy", "standard library", id="ground stands on nothing"),
        pytest.param(
            "engine.x", "from baseai.fleet.postgres import Fleet", "shells", id="a shell from a core"
        ),
        pytest.param("engine.x", "from baseai.fleet import postgres", "shells", id="a shell by its folder"),
        pytest.param(
            "engine.x", "from baseai.engine.tick import tick", "shells", id="a shell of the same room"
        ),
        pytest.param(
            "workloads.batch.spec",
            "from baseai.workloads.training import recipe",
            "siblings",
            id="kinds are strangers",
        ),
        pytest.param("twin.x", "def f():\n    import baseai.cli", "upwards", id="also inside a function"),
    ],
)
def test_a_wrong_import_is_found(where: str, text: str, why: str) -> None:
    [sentence] = wrong_imports(module_of(where, text))
    assert why in sentence


@pytest.mark.parametrize(
    ("where", "text"),
    [
        pytest.param("engine.desired", "from baseai.fleet.lease import Lease", id="down"),
        pytest.param("agent.loop", "from baseai.api.schemas import Report", id="the agent reads the schemas"),
        pytest.param("wiring", "from baseai.fleet.postgres import Fleet", id="wiring knows the shells"),
    ],
)
def test_a_right_import_is_left_alone(where: str, text: str) -> None:
    assert wrong_imports(module_of(where, text)) == []
