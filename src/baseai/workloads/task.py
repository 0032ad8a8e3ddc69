"""A task is commands that run to their end, on one node or on several at once.

Invariant: a task has at least one command; its commands run in order in one shell on each of its nodes. Read
from a spec by `task_of`; nobody changes it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from baseai.workloads.sheet import Entries

KEYS = ("commands",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """The part of a spec that only a task has."""

    commands: tuple[str, ...]  # shell lines

    def to_json(self) -> dict[str, Any]:
        return {"commands": list(self.commands)}

    @staticmethod
    def from_json(stored: Mapping[str, Any]) -> "Task":
        return Task(commands=tuple(stored["commands"]))


def task_of(entries: Entries) -> Task | None:
    """The task of a spec, or None where what is wrong has been noted."""
    if "commands" not in entries:
        entries.wrong(
            "commands", "a task needs commands", "write `commands:` and below it `- python train.py`"
        )
        return None
    lines = entries.texts("commands")
    if lines is None:
        return None
    if not lines or not any(line.strip() for line, _ in lines):
        entries.wrong(
            "commands", "a task needs at least one command", "write one below it, `- python train.py`"
        )
        return None
    return Task(commands=tuple(line for line, _ in lines))
