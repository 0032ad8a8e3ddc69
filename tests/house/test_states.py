"""The moves in the code's tables are the moves the database lets through: neither knows one that the other refuses."""

import re
from collections.abc import Collection, Mapping
from enum import StrEnum

import pytest

from baseai.fleet import lease, node
from baseai.truth.migrations.versions import v0001_first
from baseai.workloads import run
from tests.house.source import PACKAGE, ROOT
from tools.states_page import page

Transitions = Mapping[tuple[StrEnum, StrEnum], StrEnum]
TABLES: Mapping[str, Transitions] = {
    "run": run.TRANSITIONS,
    "node": node.TRANSITIONS,
    "lease": lease.TRANSITIONS,
}


def moves_of(transitions: Transitions) -> set[tuple[str, str]]:
    """From where to where; an event that leaves the state as it is moves nothing."""
    return {(before.value, after.value) for (before, _), after in transitions.items() if before is not after}


@pytest.mark.parametrize("noun", TABLES)
def test_code_and_database_know_the_same_moves(noun: str) -> None:
    in_database: Collection[tuple[str, str]] = v0001_first.MOVES[noun]
    assert moves_of(TABLES[noun]) == set(in_database)


def test_the_first_migration_is_the_only_one_that_writes_moves() -> None:
    """Once a later one changes the moves, the rule above has to read them all."""
    writers = [
        path.name
        for path in (PACKAGE / "truth" / "migrations" / "versions").glob("v*.py")
        if re.search(r"(INSERT INTO|UPDATE|DELETE FROM) moves", path.read_text(encoding="utf-8"))
    ]
    assert writers == ["v0001_first.py"]


def test_the_diagrams_are_the_tables() -> None:
    assert (ROOT / "docs" / "states.md").read_text(encoding="utf-8") == page(), (
        "run: python tools/states_page.py"
    )
