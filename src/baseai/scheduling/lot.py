"""A lot is all accelerators of one model at one site, over time: at which instants more is promised than there is.

Invariant: what is there at an instant is what is installed, less nodes under maintenance, less what runs hold firmly
then. Pods are packed onto single nodes: the largest first, of equal ones those of which there are the most, each onto a
node with the most room. What that places can be placed; and for sizes that divide each other, as 1, 2, 4 and 8 do, it
finds room wherever there is any. Nodes with equal room are alike, so rooms are counted and nodes are not told apart.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from baseai.scheduling.calendar import Calendar, Holding
from baseai.scheduling.maintenance import AHEAD, Window
from baseai.scheduling.reservation import STANDING, Reservation

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Instant:
    """What is there at one instant, and what of what is promised has no place of its own yet."""

    rooms: Counter[int]  # nodes by their room
    needs: tuple[tuple[int, int], ...]  # (accelerators, pods)


class Lot:
    """See the head of this file. An instant costs O(nodes + holdings) when first asked about, then next to nothing."""

    def __init__(self, calendar: Calendar, site: str, model: str) -> None:
        installed = {
            bay.node_id: bay.accelerators for bay in calendar.bays if (bay.site, bay.model) == (site, model)
        }
        self._row = {node_id: row for row, node_id in enumerate(installed)}
        self._installed: Ints = np.fromiter(installed.values(), dtype=np.int64, count=len(installed))
        self.reservations = [
            one
            for one in calendar.reservations
            if one.state in STANDING and (one.site, one.model) == (site, model)
        ]
        self.windows = [
            one
            for one in calendar.windows
            if one.state in AHEAD and any(node_id in installed for node_id in one.node_ids)
        ]
        self._hold(one for one in calendar.holdings if one.model == model and one.node_id in installed)

    def _hold(self, holdings: Iterable[Holding]) -> None:
        self._holdings = tuple(holdings)
        self._own = [one for one in self._holdings if one.reservation_id is not None]
        held = self._holdings
        self._rows: Ints = np.array([self._row[one.node_id] for one in held], dtype=np.int64)
        self._counts: Ints = np.array([one.accelerators for one in held], dtype=np.int64)
        self._firm_until = np.array([firm_until(one) for one in held], dtype=np.float64)
        self._known: dict[float, _Instant] = {}

    def beside(self, window: Window) -> "Lot":
        """The same with one more window."""
        other = self._copy()
        other.windows = [*self.windows, window]
        return other

    def longer(self, run_id: str, until_s: float) -> "Lot":
        """The same with a run that stands firmly until then."""
        other = self._copy()
        other._hold(
            replace(one, ends_s=until_s, firm_until_s=until_s) if one.run_id == run_id else one
            for one in self._holdings
        )
        return other

    def _copy(self) -> "Lot":
        other = Lot.__new__(Lot)
        other.__dict__.update(self.__dict__)
        other._known = {}
        return other

    # ------------------------------------------------------------------------------------------- when

    def spans(self) -> list[tuple[float, float]]:
        """From when to when something is booked."""
        reserved = [(one.from_s, one.until_s) for one in self.reservations]
        return reserved + [(one.from_s, one.until_s) for one in self.windows]

    def begins(self, from_s: float, until_s: float) -> list[float]:
        """Where more may be taken than just before, within [from_s, until_s): only there can it become too much."""
        return sorted({from_s, *(at for at, _ in self.spans() if from_s < at < until_s)})

    def ends(self, from_s: float, until_s: float) -> list[float]:
        """Where less is taken than just before, within (from_s, until_s)."""
        found = {end for _, end in self.spans()} | set(self._firm_until.tolist())
        return sorted(at for at in found if from_s < at < until_s)

    # ------------------------------------------------------------------------------------------- how much

    def fits(self, asked: Reservation) -> bool:
        """Whether it has room from beginning to end beside all that is promised."""
        return not any(self.short(at, asked) for at in self.begins(asked.from_s, asked.until_s))

    def short(self, at_s: float, asked: Reservation | None = None) -> int:
        """Accelerators that are promised at an instant, with one more promise, and find no room."""
        known = self._known.get(at_s)
        if known is None:
            known = self._known[at_s] = self._instant(at_s)
        needs = list(known.needs)
        if asked is not None and asked.from_s <= at_s < asked.until_s:
            needs.append((asked.accelerators, asked.nodes))
        return _short(known.rooms.copy(), needs) if needs else 0

    def _instant(self, at_s: float) -> _Instant:
        standing = {one.reservation_id: one for one in self.reservations if one.from_s <= at_s < one.until_s}
        firm = self._firm_until > at_s
        taken = np.bincount(self._rows[firm], self._counts[firm], minlength=len(self._installed))
        room = self._installed - taken.astype(np.int64)
        away = {
            self._row[node_id]
            for window in self.windows
            if window.from_s <= at_s < window.until_s
            for node_id in window.node_ids
            if node_id in self._row
        }
        room[list(away)] = 0
        held: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        for one in self._own:
            assert one.reservation_id is not None
            row = self._row[one.node_id]
            if one.ends_s > at_s and one.reservation_id in standing and row not in away:
                held[one.reservation_id][one.node_id] += one.accelerators
                if firm_until(one) <= at_s:  # on its own reservation it need not go
                    room[row] -= one.accelerators
        needs = []
        for reservation_id, reservation in standing.items():
            begun, pods_left = reservation.pods_left(held[reservation_id])
            if pods_left:
                needs.append((reservation.accelerators, pods_left))
            for node_id, count in begun:  # the rest of the pod, beside its first part where it can be
                rest, row = reservation.accelerators - count, self._row[node_id]
                if room[row] >= rest:
                    room[row] -= rest
                else:
                    needs.append((rest, 1))
        return _Instant(Counter(room[room > 0].tolist()), tuple(needs))


def firm_until(one: Holding) -> float:
    """Until when it cannot be asked to make way."""
    return 0.0 if one.going else min(one.ends_s, one.firm_until_s)


def _short(rooms: Counter[int], needs: Sequence[tuple[int, int]]) -> int:
    """Accelerators of these pods, each on a node of its own, that find no room. `rooms` is used up."""
    short = 0
    for size, pods in sorted(needs, reverse=True):
        left, moved = pods, Counter[int]()
        for room in sorted(rooms, reverse=True):
            if room < size or not left:
                break
            count = min(rooms[room], left)
            rooms[room] -= count
            moved[room - size] += count
            left -= count
        rooms += moved
        short += left * size
    return short
