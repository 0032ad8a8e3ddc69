"""A stake is what a running gang would lose if it were stopped now, and who may be made to lose it.

Invariant: columns are kept, not rebuilt: a run is put when it starts, dropped when it leaves, and saved when it commits
a checkpoint; nothing here starts or stops anybody. What a queue's quota covers is one set, the same for everybody who
asks: its paying runs by priority, then by start, of one instant as they were put, each that still fits whole. The rest
of them is *borrowed*. The shell that keeps the hall keeps this beside it.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from baseai.scheduling.gang import WHOLE, Gang
from baseai.scheduling.hall import Bools, Hall, Ints, Spots
from baseai.scheduling.policy.shares import queue_of

Floats = NDArray[np.float64]
Key = tuple[
    str, str
]  # (queue as `queue_of` names it, model); model "" where a quota is over all models together
# Thousandths of accelerators; a queue without one borrows nothing. Of one queue either by model or over all, not both.
Quotas = Mapping[Key, int]

STOPPING_S = 60.0  # what being stopped takes of a run beside its work: it saves, ends and starts again


class Class(IntEnum):
    """Whom to stop first. A later class is touched only where all before it are not enough."""

    SPOT = 0  # gives way to every run that is not
    BORROWED = 1  # beyond the quota of its queue, which is another one
    JUNIOR = 2  # of the same queue as the one who asks, and of lower priority


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One gang that runs, as far as stopping it is concerned. Instants are on the clock of the cycle."""

    gang: Gang  # with its `terms`
    spots: Spots
    since_s: float  # of this attempt
    saved_s: float | None = None  # of its last checkpoint, in this attempt or before; None: it has none
    rate: float = 1.0  # price of an accelerator-hour, in US$

    @property
    def accelerators(self) -> float:
        return self.gang.shape.milli_total / WHOLE

    def lost_s(self, now_s: float) -> float:
        """Seconds of its work that stopping it at once would cost: since it saved, or since it started."""
        kept_s = self.since_s if self.saved_s is None else max(self.since_s, self.saved_s)
        return max(0.0, now_s - kept_s)

    def lost_accelerator_s(self, now_s: float) -> float:
        return self.accelerators * self.lost_s(now_s)

    def cost(self, now_s: float) -> float:
        """US$: what it lost of its work, and the stop and start that it pays in any case, at its rate."""
        return self.accelerators * (self.lost_s(now_s) + STOPPING_S) * self.rate / 3600.0


class Stakes:
    """Columns over all that run; see the head of this file."""

    __slots__ = (
        "_family", "_free_parts", "_free_slots", "_hall", "_parts_of", "_queue_numbers", "_slots", "_turns",
        "amounts", "candidates", "has_saved", "milli", "model", "number", "part_row", "part_run", "priority", "queue",
        "quotas", "rate", "rows_of", "safe_until_s", "saved_s", "since_s", "spot", "turn",
    )  # fmt: skip

    candidates: list[Candidate | None]  # by slot; None where nobody stands
    spot: Bools
    priority: Ints
    number: Ints
    turn: Ints  # rises with every one that is put
    queue: Ints  # numbers in the order of first sight
    model: Ints  # of its first pod, by the hall's numbers
    milli: Ints
    since_s: Floats
    saved_s: Floats  # never before `since_s`
    has_saved: Bools  # it has a checkpoint at all
    safe_until_s: Floats  # its minimum runtime ends; inf in an empty slot
    rate: Floats
    rows_of: Ints  # how many rows it stands on
    part_run: Ints  # slot of each part: what a gang holds of one row; −1 where nobody stands
    part_row: Ints
    amounts: Ints  # (parts, 5): thousandths of accelerators and CPU, memory, disk, watts

    def __init__(self, hall: Hall, running: Iterable[Candidate] = (), quotas: Quotas | None = None) -> None:
        self._hall = hall
        self.quotas = dict(quotas or {})
        self._slots: dict[str, int] = {}
        self._queue_numbers: dict[str, int] = {}
        self._parts_of: dict[str, list[int]] = {}
        self._free_slots: list[int] = []
        self._free_parts: list[int] = []
        self.candidates = []
        empty: Ints = np.zeros(0, dtype=np.int64)
        self.spot, self.has_saved = np.zeros(0, dtype=np.bool_), np.zeros(0, dtype=np.bool_)
        self._turns = 0
        self.priority, self.number, self.turn, self.queue, self.model, self.milli, self.rows_of = (
            empty.copy() for _ in range(7)
        )
        self.since_s, self.saved_s, self.safe_until_s, self.rate = (np.zeros(0) for _ in range(4))
        self.part_run, self.part_row = empty.copy(), empty.copy()
        self.amounts = np.zeros((0, 5), dtype=np.int64)
        self._family: dict[int, list[int]] = {}
        for row in range(1, len(hall)):
            if hall.node[row] == hall.node[row - 1]:
                family = self._family.setdefault(row - 1, [row - 1])
                family.append(row)
                self._family[row] = family
        for each in running:
            self.put(each)

    def __len__(self) -> int:
        return len(self._slots)

    def __contains__(self, run_id: object) -> bool:
        return run_id in self._slots

    def __iter__(self) -> Iterator[Candidate]:
        """In the order in which they were put."""
        return (self[run_id] for run_id in self._slots)

    def __getitem__(self, run_id: str) -> Candidate:
        return self.at(self._slots[run_id])

    def at(self, slot: int) -> Candidate:
        """Who stands in a slot that is not empty."""
        found = self.candidates[slot]
        assert found is not None
        return found

    # ------------------------------------------------------------------------------------------- what moves

    def put(self, candidate: Candidate) -> None:
        """It runs from now on. Raises ValueError where it does already. O(pods)."""
        gang, terms = candidate.gang, candidate.gang.terms
        if gang.run_id in self._slots:
            raise ValueError(f"run {gang.run_id} has a stake already")
        slot = self._slot()
        self._slots[gang.run_id] = slot
        self.candidates[slot] = candidate
        self.spot[slot] = terms.spot
        self.priority[slot] = terms.priority
        self.number[slot] = gang.number
        self._turns += 1
        self.turn[slot] = self._turns
        self.queue[slot] = self._queue_numbers.setdefault(queue_of(gang), len(self._queue_numbers))
        self.model[slot] = self._hall.model[candidate.spots[0].row]
        self.milli[slot] = gang.shape.milli_total
        self.since_s[slot] = candidate.since_s
        self.has_saved[slot] = candidate.saved_s is not None
        self.saved_s[slot] = max(candidate.since_s, candidate.saved_s or candidate.since_s)
        self.safe_until_s[slot] = candidate.since_s + terms.min_runtime_s
        self.rate[slot] = candidate.rate
        parts = self._parts(candidate)
        self.rows_of[slot] = sum(1 for amounts in parts.values() if amounts[0]) or len(parts)
        mine = self._parts_of[gang.run_id] = []
        for row, amounts in parts.items():
            at = self._part()
            self.part_run[at], self.part_row[at], self.amounts[at] = slot, row, amounts
            mine.append(at)

    def drop(self, run_id: str) -> Candidate:
        """It runs no more. Raises KeyError where it did not. O(pods)."""
        slot = self._slots.pop(run_id)
        found = self.at(slot)
        self.candidates[slot] = None
        self.safe_until_s[slot] = np.inf
        self.milli[slot] = 0
        for at in self._parts_of.pop(run_id):
            self.part_run[at] = -1
            self._free_parts.append(at)
        self._free_slots.append(slot)
        return found

    def save(self, run_id: str, saved_s: float) -> None:
        """It has committed a checkpoint at that instant. Raises KeyError where it does not run. O(1)."""
        slot = self._slots[run_id]
        self.candidates[slot] = replace(self[run_id], saved_s=saved_s)
        self.has_saved[slot] = True
        self.saved_s[slot] = max(self.since_s[slot], saved_s)

    # -------------------------------------------------------------------------------------------- what is owed

    def slots_of(self, run_ids: Iterable[str]) -> list[int]:
        """Where those of them stand that run."""
        return [self._slots[run_id] for run_id in run_ids if run_id in self._slots]

    def rows_at(self, slot: int) -> list[int]:
        """Rows that change where that one comes or goes."""
        return [int(self.part_row[part]) for part in self._parts_of[self.at(slot).gang.run_id]]

    def costs(self, now_s: float) -> Floats:
        """US$ of stopping each now, by slot; as `Candidate.cost`."""
        lost: Floats = np.maximum(0.0, now_s - self.saved_s) + STOPPING_S
        return self.milli / WHOLE * lost * self.rate / 3600.0

    def classes(self, gang: Gang, now_s: float) -> Ints:
        """The class of each run for this gang, by slot; −1 for those it may not stop."""
        found: Ints = np.full(len(self.candidates), -1, dtype=np.int64)
        own = self.queue == self._queue_numbers.get(queue_of(gang), -1)
        found[self.borrowed() & ~own] = Class.BORROWED
        found[own & (self.priority < gang.terms.priority)] = Class.JUNIOR
        found[self.spot] = Class.SPOT
        found[self.safe_until_s > now_s] = -1
        return found

    def on_models(self, names: tuple[str, ...]) -> Bools:
        """Who stands on one of these models, by slot; everybody where none is named."""
        if not names:
            return np.ones(len(self.candidates), dtype=np.bool_)
        found: Bools = np.isin(
            self.model, [number for number, name in enumerate(self._hall.models) if name in names]
        )
        return found

    def borrowed(self) -> Bools:
        """Runs that the quota of their queue does not cover, by slot."""
        beyond = np.zeros(len(self.candidates), dtype=np.bool_)
        if not self.quotas:
            return beyond
        count = len(self._hall.models)
        paying = (~self.spot & (self.milli > 0)).nonzero()[0]
        held = np.bincount(
            self.queue[paying] * count + self.model[paying],
            self.milli[paying],
            len(self._queue_numbers) * count,
        ).reshape(-1, count)
        in_all, number_of = held.sum(axis=1), {name: number for number, name in enumerate(self._hall.models)}
        for (queue, model), quota in self.quotas.items():
            number = self._queue_numbers.get(queue)
            if number is None or (model and model not in number_of):
                continue
            if (held[number, number_of[model]] if model else in_all[number]) > quota:
                theirs = self.queue[paying] == number
                if model:
                    theirs &= self.model[paying] == number_of[model]
                slots = paying[theirs]
                order = np.lexsort((self.turn[slots], self.since_s[slots], -self.priority[slots]))
                slots = slots[order]
                beyond[slots[~covered(self.milli[slots], quota)]] = True
        return beyond

    def left_milli(self, queue: str, model: str = "") -> int | None:
        """What the queue may still hold without borrowing; below 0 where it borrows, None where it has no quota."""
        quota = self.quotas.get((queue, model))
        return None if quota is None else quota - int(self.milli[self._paying(queue, model)].sum())

    def _paying(self, queue: str, model: str) -> Ints:
        """Slots of the queue's runs that are no spot runs, on that model where one is named."""
        theirs = (self.queue == self._queue_numbers.get(queue, -1)) & ~self.spot & (self.milli > 0)
        if model:
            theirs &= self.model == (self._hall.models.index(model) if model in self._hall.models else -1)
        slots: Ints = theirs.nonzero()[0]
        return slots

    # --------------------------------------------------------------------------------------------- its storage

    def _parts(self, candidate: Candidate) -> dict[int, list[int]]:
        shape = candidate.gang.shape
        beside = (shape.cpu_milli, shape.memory_mib, shape.disk_mib, shape.watts)
        found: dict[int, list[int]] = {}
        for spot in candidate.spots:
            rows = self._family.get(spot.row, [spot.row]) if any(beside) else [spot.row]
            for row in rows:
                part = found.setdefault(row, [0] * 5)
                part[0] += shape.milli if row == spot.row else 0
                for column, amount in enumerate(beside, start=1):
                    part[column] += amount
        return found

    def _slot(self) -> int:
        if not self._free_slots:
            size = len(self.candidates)
            more = max(64, size)
            self.candidates += [None] * more
            for name in (
                "has_saved", "model", "milli", "number", "priority", "queue", "rate", "rows_of", "saved_s", "since_s",
                "spot", "turn",
            ):  # fmt: skip
                setattr(self, name, _grown(getattr(self, name), more))
            self.safe_until_s = np.concatenate([self.safe_until_s, np.full(more, np.inf)])
            self._free_slots = list(range(size + more - 1, size - 1, -1))
        return self._free_slots.pop()

    def _part(self) -> int:
        if not self._free_parts:
            size = len(self.part_run)
            more = max(64, size)
            self.part_run = np.concatenate([self.part_run, np.full(more, -1, dtype=np.int64)])
            self.part_row, self.amounts = _grown(self.part_row, more), _grown(self.amounts, more)
            self._free_parts = list(range(size + more - 1, size - 1, -1))
        return self._free_parts.pop()


def covered(milli: Ints, quota: int) -> Bools:
    """Which of these runs, in this order, a quota covers: each that still fits whole into what is left of it."""
    inside: Bools = np.cumsum(milli) <= quota  # those before the first that does not fit
    at = int(inside.sum()) if inside.all() else int(np.argmin(inside))
    inside[at:] = False
    left = quota - int(milli[:at].sum())
    while True:
        more = (milli[at:] <= left).nonzero()[0]
        if len(more) == 0:
            return inside
        at += int(more[0])
        inside[at] = True
        left -= int(milli[at])
        at += 1


def _grown(column: NDArray[Any], more: int) -> NDArray[Any]:
    return np.concatenate([column, np.zeros((more, *column.shape[1:]), dtype=column.dtype)])
