"""FGD: the node whose accelerators become the least unusable for what usually comes (ATC'23), as it was published.

What is unusable on a node is reckoned for each type of gang by how often it comes: all that is left where the type
does not fit at all (or takes no accelerator), else what is left on accelerators too full for it. The score is that
difference through a sigmoid, a whole number from 0 to 100, and the smallest node id wins among equals: both are part
of what was published, and of its strength. Two things differ: types are learned from what has come so far, where the
published code reads them off the whole trace; and like there, memory decides only whether a gang fits.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from baseai.scheduling.gang import WHOLE, Gang, Shape
from baseai.scheduling.hall import Hall, Ints, Spot, Spots
from baseai.scheduling.policy.ranking import ranked

Floats = NDArray[np.float64]

RELEARN_RATIO = 1.25  # weights are taken anew when so many times as many gangs have come


class _Type(NamedTuple):
    """Gangs that are alike to this policy."""

    milli: int
    cpu_milli: int
    models: tuple[str, ...]


class Fgd:
    """Scores of all rows for all types are kept; a decision costs the rows that changed since the last one."""

    def __init__(self, hall: Hall, rng: np.random.Generator) -> None:
        self._hall = hall
        self._changed = hall.watch()
        self._number: dict[_Type, int] = {}
        self._types: list[_Type] = []
        self._counts: list[int] = []
        self._seen = -1  # the last gang counted: one that is asked for again counts once
        self._learned = 0
        self._score = np.zeros((0, len(hall)), dtype=np.int16)  # (types, rows)
        self._fragments = _Fragments((), np.zeros(0), hall)

    def place(self, gang: Gang, hall: Hall) -> Spots | None:
        kind = self._learn(gang)
        shape = gang.shape
        if hall is self._hall:
            self._refresh()
            score = self._score[kind]
        else:
            score = np.array([self._fragments.scores(hall, row, [kind])[0] for row in range(len(hall))])
        if shape.pods > 1 or shape.one_model:
            return ranked(hall, shape, lambda rows: rows[(-score[rows]).argsort(kind="stable")])
        fits = hall.fits(shape)
        row = int(np.where(fits, score, -1).argmax())
        return (self._spot(row, kind, shape, hall),) if fits[row] else None

    def _spot(self, row: int, kind: int, shape: Shape, hall: Hall) -> Spot:
        if not 0 < shape.milli < WHOLE:
            return hall.spot(row, shape)
        return Spot(row, (self._fragments.best_device(hall, row, kind),))

    def _learn(self, gang: Gang) -> int:
        """The number of the gang's type, counted once."""
        shape = gang.shape
        key = _Type(shape.milli, shape.cpu_milli, shape.models)
        if key not in self._number:
            self._number[key] = len(self._types)
            self._types.append(key)
            self._counts.append(0)
        kind = self._number[key]
        if gang.number > self._seen:
            self._seen = gang.number
            self._counts[kind] += shape.pods
        return kind

    def _refresh(self) -> None:
        """Bring the scores up to the hall as it stands and to what has been learned."""
        hall, total = self._hall, sum(self._counts)
        many = list(range(len(self._types)))
        if total >= self._learned * RELEARN_RATIO or not len(self._score):
            self._learned = total
            self._fragments = _Fragments(tuple(self._types), np.array(self._counts) / total, hall)
            self._score = np.zeros((len(many), len(hall)), dtype=np.int16)
            self._changed.update(range(len(hall)))
        elif len(self._score) < len(many):  # new types weigh nothing until weights are taken anew
            weights = np.array(self._counts) * (np.arange(len(many)) < len(self._score))
            self._fragments = _Fragments(tuple(self._types), weights / max(1, weights.sum()), hall)
            fresh = many[len(self._score) :]
            more = np.zeros((len(fresh), len(hall)), dtype=np.int16)
            self._fill(more, range(len(hall)), fresh)
            self._score = np.concatenate([self._score, more])
        if self._changed:
            self._fill(self._score, sorted(self._changed), many)
            self._changed.clear()

    def _fill(self, score: NDArray[np.int16], rows: "range | list[int]", kinds: list[int]) -> None:
        known: dict[tuple[object, ...], NDArray[np.int16]] = {}
        hall = self._hall
        for row in rows:
            state = (hall.model[row], hall.cpu_milli[row], hall.free[row].tobytes())
            if state not in known:
                known[state] = self._fragments.scores(hall, row, kinds)
            score[:, row] = known[state]


class _Fragments:
    """How much of a row's accelerators is unusable, for weights of types.

    A *class* is all types that take the same of accelerators; they differ in CPU and models alone.
    """

    def __init__(self, types: tuple[_Type, ...], weights: Floats, hall: Hall) -> None:
        self._types = types
        sizes = sorted({kind.milli for kind in types if kind.milli})
        self._share = np.array([min(size, WHOLE) for size in sizes], dtype=np.int64)
        self._need = np.array([max(1, size // WHOLE) for size in sizes], dtype=np.int64)
        self._many = self._need > 1
        self._cpus = np.array(sorted({kind.cpu_milli for kind in types}), dtype=np.int64)
        self._cpu = np.array([kind.cpu_milli for kind in types], dtype=np.int64)
        place_of = {size: place for place, size in enumerate(sizes)}
        by_cpu = np.zeros((len(hall.models), len(self._cpus) + 1, len(sizes)))
        for kind, weight in zip(types, weights.tolist(), strict=True):
            if kind.milli:
                after = int(self._cpus.searchsorted(kind.cpu_milli)) + 1
                for number, model in enumerate(hall.models):
                    if not kind.models or model in kind.models:
                        by_cpu[number, after, place_of[kind.milli]] += weight
        self._weight = by_cpu.cumsum(
            axis=1
        )  # (models, how many CPU sizes fit, classes): types that fit so far

    def unusable(self, model: int, cpu_milli: Ints, usable: Ints, left: Ints) -> Floats:
        """Expected unusable milli of states: cpu_milli and left have shape (states,), usable (states, classes)."""
        fitting = self._weight[model][self._cpus.searchsorted(cpu_milli, side="right")]
        found: Floats = left - np.einsum("sc,sc->s", fitting, usable)
        return found

    def scores(self, hall: Hall, row: int, kinds: list[int]) -> NDArray[np.int16]:
        """The published score of one more gang of each type on this row; where it does not fit it means nothing."""
        best = np.full(len(kinds), -np.inf)
        gains, which, _ = self._gains(hall, row, kinds)
        np.maximum.at(best, which, gains)
        return (100 / (1 + np.exp(-best / WHOLE))).astype(np.int16)

    def best_device(self, hall: Hall, row: int, kind: int) -> int:
        """The device of the row on which a share of this type leaves the least unusable; the first among equals."""
        gains, _, devices = self._gains(hall, row, [kind])
        scores = (100 / (1 + np.exp(-gains / WHOLE))).astype(np.int16)
        return int(devices[scores.argmax()])

    def _gains(self, hall: Hall, row: int, kinds: list[int]) -> tuple[Floats, Ints, Ints]:
        """For each way to put each type here: what is less unusable than before, position of the type, device."""
        free = np.maximum(hall.free[row].astype(np.int64), 0)
        cpu_milli, model, left, whole = (
            hall.cpu_milli[row],
            int(hall.model[row]),
            free.sum(),
            int(hall.whole[row]),
        )
        usable = np.where(
            self._many,
            WHOLE * whole * (whole >= self._need),
            (free[:, np.newaxis] * (free[:, np.newaxis] >= self._share)).sum(axis=0),
        )
        before = self.unusable(model, np.array([cpu_milli]), usable[np.newaxis], np.array([left]))[0]
        positions, devices, takes = self._ways(free, whole, kinds)
        shared = devices >= 0
        value = np.where(shared, free[devices], 0)[:, np.newaxis]
        after = value - np.where(shared, takes, 0)[:, np.newaxis]
        taken = np.where(shared, value[:, 0] == WHOLE, takes // WHOLE)
        whole_after = (whole - taken)[:, np.newaxis]
        single = usable - value * (value >= self._share) + after * (after >= self._share)
        single = single - np.where(shared, 0, takes)[:, np.newaxis]
        states = np.where(self._many, WHOLE * whole_after * (whole_after >= self._need), single)
        cpu_after = cpu_milli - self._cpu[np.array(kinds, dtype=np.int64)[positions]]
        return before - self.unusable(model, cpu_after, states, left - takes), positions, devices

    def _ways(self, free: Ints, whole: int, kinds: list[int]) -> tuple[Ints, Ints, Ints]:
        """Position among `kinds`, device (−1 but for shares) and milli of each way that the accelerators allow."""
        values, first = np.unique(free, return_index=True)
        positions, devices, takes = list[int](), list[int](), list[int]()
        pairs = sorted(zip(first.tolist(), values.tolist(), strict=True))
        for position, kind in enumerate(kinds):
            milli = self._types[kind].milli
            if 0 < milli < WHOLE:
                for device, value in pairs:
                    if value >= milli:
                        positions.append(position)
                        devices.append(device)
                        takes.append(milli)
            elif milli <= whole * WHOLE:
                positions.append(position)
                devices.append(-1)
                takes.append(milli)
        return tuple(np.array(each, dtype=np.int64) for each in (positions, devices, takes))  # type: ignore[return-value]
