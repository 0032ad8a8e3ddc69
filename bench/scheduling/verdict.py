"""A verdict is one wanted figure: what ours came to, what is wanted, what others came to, and whether it is reached.

Invariant: a figure that is missed is shown as missed, and one that could not be taken as not taken, with the reason.
`show` prints all of them as the one table with which a run ends.
"""

from collections.abc import Sequence
from dataclasses import dataclass

HEAD = ("bench", "case", "policy", "figure", "ours", "wanted", "beside", "verdict")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One figure of one case. Texts carry their units."""

    case: str
    figure: str
    ours: str = "–"
    wanted: str = "–"
    beside: str = "–"  # baselines of the same run, and the bound
    reached: bool | None  # None: shown, not judged, or not taken
    why: str = ""  # where it was not taken
    bench: str = ""
    policy: str = ""

    @property
    def word(self) -> str:
        return self.why or {True: "reached", False: "MISSED", None: "shown"}[self.reached]


def show(verdicts: Sequence[Verdict]) -> None:
    """The table, and how many of the figures that are judged were reached."""
    rows = [HEAD]
    for each in verdicts:
        cells = (each.bench, each.case, each.policy, each.figure, each.ours, each.wanted, each.beside)
        rows.append((*cells, each.word))
    widths = [max(len(row[place]) for row in rows) for place in range(len(HEAD))]
    for row in rows:
        print(" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    judged = [each.reached for each in verdicts if each.reached is not None]
    print(f"{sum(judged)} of {len(judged)} figures reached", flush=True)
