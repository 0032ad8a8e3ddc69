"""Writes docs/states.md from the transition tables: every state, every move, drawn.

Invariant: the page is a function of the tables alone. Run `python tools/states_page.py` after a change.
"""

import sys
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))

from baseai.finance import period  # noqa: E402
from baseai.finance.costs import suggestion  # noqa: E402
from baseai.fleet import lease, node  # noqa: E402
from baseai.fleet.health import repair  # noqa: E402
from baseai.scheduling import maintenance, reservation  # noqa: E402
from baseai.serving import state as serving  # noqa: E402
from baseai.workloads import run  # noqa: E402

Transitions = Mapping[tuple[StrEnum, StrEnum], StrEnum]
HEAD = """# States

Every move there is, drawn from the tables in the source by `tools/states_page.py`. The database holds the same
moves and refuses any other; each move writes an event: who, when, why. Change the table, not this page.
"""
TABLES: tuple[tuple[str, str, Transitions], ...] = (
    ("Run", "`workloads/run.py`", run.TRANSITIONS),
    ("Lease", "`fleet/lease.py`", lease.TRANSITIONS),
    ("Node", "`fleet/node.py`", node.TRANSITIONS),
    ("Repair", "`fleet/health/repair.py`", repair.TRANSITIONS),
    ("Reservation", "`scheduling/reservation.py`", reservation.TRANSITIONS),
    ("Period", "`finance/period.py`", period.TRANSITIONS),
    ("Suggestion", "`finance/costs/suggestion.py`", suggestion.TRANSITIONS),
    ("Maintenance", "`scheduling/maintenance.py`", maintenance.TRANSITIONS),
    ("Service", "`serving/state.py`", serving.SERVICE_MOVES),
    ("Version of a service", "`serving/state.py`", serving.VERSION_MOVES),
    ("Replica of a service", "`serving/state.py`", serving.REPLICA_MOVES),
)


def page() -> str:
    """The whole page."""
    return HEAD + "".join(_section(title, where, table) for title, where, table in TABLES)


def _section(title: str, where: str, table: Transitions) -> str:
    moves = [f"    {before} --> {after}: {event}" for (before, event), after in table.items()]
    states = dict.fromkeys(state for (before, _), after in table.items() for state in (before, after))
    lasts = [state for state in states if not any(before == state for before, _ in table)]
    ends = [f"    {state} --> [*]" for state in lasts]
    first = next(iter(states))
    body = "\n".join([f"    [*] --> {first}", *moves, *ends])
    return f"\n## {title}\nFrom {where}.\n\n```mermaid\nstateDiagram-v2\n{body}\n```\n"


if __name__ == "__main__":
    (ROOT / "docs" / "states.md").write_text(page(), encoding="utf-8")
