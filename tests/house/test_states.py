"""The moves in the code's tables are the moves the database lets through: neither knows one that the other refuses."""

import re
from collections.abc import Mapping
from enum import StrEnum

import pytest

from baseai.finance import period
from baseai.finance.costs import suggestion
from baseai.fleet import lease, node
from baseai.fleet.health import repair
from baseai.scheduling import maintenance, reservation
from baseai.serving import state as serving
from baseai.truth.migrations.versions import (
    v0001_first,
    v0003_health,
    v0006_calendar,
    v0012_ledger,
    v0013_costs,
    v0015_serving,
)
from baseai.workloads import run
from tests.house.source import PACKAGE, ROOT
from tools.states_page import page

Transitions = Mapping[tuple[StrEnum, StrEnum], StrEnum]
TABLES: Mapping[str, Transitions] = {
    "run": run.TRANSITIONS,
    "node": node.TRANSITIONS,
    "lease": lease.TRANSITIONS,
    "repair": repair.TRANSITIONS,
    "period": period.TRANSITIONS,
    "suggestion": suggestion.TRANSITIONS,
    "reservation": reservation.TRANSITIONS,
    "maintenance": maintenance.TRANSITIONS,
    "service": serving.SERVICE_MOVES,
    "service_version": serving.VERSION_MOVES,
    "replica": serving.REPLICA_MOVES,
}
WRITERS = (
    v0001_first,
    v0003_health,
    v0006_calendar,
    v0012_ledger,
    v0013_costs,
    v0015_serving,
)  # every migration that writes moves


def moves_of(transitions: Transitions) -> set[tuple[str, str]]:
    """From where to where; an event that leaves the state as it is moves nothing."""
    return {(before.value, after.value) for (before, _), after in transitions.items() if before is not after}


@pytest.mark.parametrize("noun", TABLES)
def test_code_and_database_know_the_same_moves(noun: str) -> None:
    in_database = {move for writer in WRITERS for move in writer.MOVES.get(noun, ())}
    assert moves_of(TABLES[noun]) == in_database


def test_every_migration_that_writes_moves_is_read_here() -> None:
    """One that took moves away would need more than this: their union would be wrong."""
    texts = {
        path.stem: path.read_text(encoding="utf-8")
        for path in (PACKAGE / "truth" / "migrations" / "versions").glob("v*.py")
    }
    writers = {name for name, text in texts.items() if "INSERT INTO moves" in text}
    assert writers == {writer.__name__.rpartition(".")[2] for writer in WRITERS}
    assert [name for name, text in texts.items() if re.search(r"(UPDATE|DELETE FROM) moves", text)] == []


def test_the_diagrams_are_the_tables() -> None:
    assert (ROOT / "docs" / "states.md").read_text(encoding="utf-8") == page(), (
        "run: python tools/states_page.py"
    )
