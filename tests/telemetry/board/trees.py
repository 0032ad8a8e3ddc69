"""Saved trees of controllers, surveyed and polled without a network."""

import copy
from collections.abc import Mapping
from pathlib import Path

from baseai.telemetry.board.readout import Readout, readout
from baseai.telemetry.board.resource import Ask, Seen, plain
from baseai.telemetry.board.rota import Rota, rota_of
from baseai.telemetry.board.survey import surveyed
from baseai.telemetry.board.wish import unasked
from baseai.telemetry.field import State
from baseai.telemetry.sample import Row
from tests.telemetry.redfish_server import RedfishServer, Tree, tree_of

EXCERPTS = Path(__file__).parents[1] / "fixtures" / "redfish"
R = "/redfish/v1"
GPU_0 = f"{R}/Systems/HGX_Baseboard_0/Processors/GPU_0"
FIRST, SECOND = "GPU-ffd6582a-64de-b17e-ad24-af5a28aed641", "GPU-fa49ed8c-3b81-945b-9773-835a3ab67e74"


def excerpt(name: str) -> Tree:
    return tree_of(EXCERPTS / f"{name}.json")


def answered(tree: Tree, asks: tuple[Ask, ...], seen: Seen, silent: Mapping[str, str]) -> None:
    server = RedfishServer(tree=tree)
    for ask in asks:
        path = plain(ask)
        if path in silent:
            seen.miss(ask, silent[path])
        elif path in tree:
            seen.take(ask, server.found(path, ask.partition("$expand=")[2]))
        else:
            seen.miss(ask, "it said 404")


def look_around(tree: Tree, silent: Mapping[str, str] | None = None) -> Seen:
    """All that a survey asks for."""
    seen = Seen()
    while asks := unasked(seen):
        answered(tree, asks, seen, silent or {})
    return seen


def rota_for(tree: Tree) -> Rota:
    seen = look_around(tree)
    return rota_of(surveyed(seen), seen)


def poll(rota: Rota, tree: Tree, *, number: int = 0, silent: Mapping[str, str] | None = None) -> Seen:
    seen = Seen()
    answered(copy.deepcopy(tree), rota.asks(number), seen, silent or {})
    return seen


def told(rota: Rota, seen: Seen) -> Readout:
    return readout(rota, seen, ts_ms=1_000, source="bmc")


def values(row: Row) -> dict[str, float]:
    """The fields that have a value."""
    return {name: each.value for name, each in row.fields.items() if each.value is not None}


def states(row: Row, state: State) -> set[str]:
    return {name for name, each in row.fields.items() if each.state is state}


def rows_of(tree: Tree) -> tuple[dict[str, Row], Row]:
    """Accelerators by key, and the node."""
    rota = rota_for(tree)
    out = told(rota, poll(rota, tree))
    [node] = out.rows["node"]
    return {row.key: row for row in out.rows["accelerator"]}, node
