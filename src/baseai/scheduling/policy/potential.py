"""The potential of a row is how much of what is free on it will probably stay unused, in thousandths of accelerators.

Invariant: it depends on what is free on the row, the mix that was learned and how scarce things are, and on nothing
else; equal rows have equal potentials. Three parts:

- what the next arrival could not use, as FGD reckons it (ATC'23): of each accelerator what is too little for the
  share asked for, of the row everything where CPU or memory do not suffice; whole nodes for several accelerators
  weigh more the scarcer they are;
- what will be stranded further on, when CPU or memory end before the accelerators: what is free beyond CPU left over
  the CPU that goes with one accelerator. That ratio differs between gangs, so the mean is taken over quantiles;
- beside the potential proper, the *toll* a pod pays for where it goes: the scarcity of the kind of row.
"""

import numpy as np
from numpy.typing import NDArray

from baseai.scheduling.gang import WHOLE, Shape
from baseai.scheduling.hall import Hall, Ints
from baseai.scheduling.policy.mix import Floats, Learned
from baseai.scheduling.policy.scarcity import Kinds, of_kinds, of_wholes

STRANDED = 3.0  # what is stranded later, to what the next arrival cannot use
QUANTILES = (0.1, 0.3, 0.5, 0.7, 0.9)  # of CPU and of memory for each accelerator, by volume
KIND_TOLL = 4.0  # for each thousandth, at scarcity 1
WHOLES = 0.3  # weight of scarce room for several accelerators, to the frequency of a shape
CELLS_MOST = 1_500_000  # of the table of what fits
SIZES_MOST = 48  # different shares that are told apart


class Potential:
    """Tables for one mix and one fleet; asked about any rows of it, or of a copy."""

    def __init__(self, hall: Hall, kinds: Kinds, learned: Learned) -> None:
        self._kinds = kinds
        allowed = kinds.allowed(hall, learned)
        scarce = of_kinds(hall, kinds, learned, allowed)
        self._toll, self._cpu_toll = KIND_TOLL * scarce.per_milli, KIND_TOLL * scarce.per_cpu_milli
        several = learned.milli > WHOLE
        single = (learned.milli > 0) & ~several
        sizes = _levels(learned.milli[single], SIZES_MOST)
        most = hall.free.shape[1]
        self._level: Ints = np.searchsorted(sizes, np.arange(WHOLE + 1), side="right")
        self._sizes = len(sizes)
        width = 1 + len(sizes) + 1 + most  # none, up to each size; none, up to each number of devices
        side = int(np.sqrt(CELLS_MOST / max(1, kinds.count * width)))
        self._cpu = _levels(learned.cpu_milli, max(2, side))
        self._memory = _levels(learned.memory_mib, max(2, side))
        table = np.zeros((kinds.count, len(self._cpu) + 1, len(self._memory) + 1, width))
        weight = learned.frequency + WHOLES * of_wholes(hall, kinds, learned, allowed)
        column = np.where(
            single,
            np.minimum(np.searchsorted(sizes, learned.milli), max(0, len(sizes) - 1)) + 1,
            1 + len(sizes) + learned.milli // WHOLE,
        )
        cpu, memory = (
            np.searchsorted(self._cpu, learned.cpu_milli) + 1,
            np.searchsorted(self._memory, learned.memory_mib) + 1,
        )
        counted = (learned.milli > 0) & (learned.milli <= most * WHOLE)
        for kind in range(kinds.count):
            here = counted & allowed[:, kind]
            np.add.at(table[kind], (cpu[here], memory[here], column[here]), weight[here])
        table = table.cumsum(axis=1).cumsum(axis=2)
        shares, wholes = table[..., : 1 + len(sizes)], table[..., 1 + len(sizes) :]
        np.cumsum(shares, axis=3, out=shares)
        np.cumsum(wholes, axis=3, out=wholes)
        self._table = table.reshape(-1, width)
        self._cpu_ratio = _ratios(learned.cpu_milli, learned)
        self._memory_ratio = _ratios(learned.memory_mib, learned)

    def of(self, hall: Hall, rows: Ints) -> Floats:
        """Of these rows as they stand."""
        cpu_milli, memory_mib = hall.cpu_milli[rows], hall.memory_mib[rows]
        fitting = self._fitting(rows, cpu_milli, memory_mib)
        free = np.maximum(hall.free[rows], 0)
        usable = self._on_shares(free, fitting).sum(axis=1) + self._on_wholes(hall.whole[rows], fitting)
        spare = hall.spare[rows].astype(np.float64)
        found: Floats = spare - usable + STRANDED * self._stranded(spare, cpu_milli, memory_mib)
        return found

    def after(self, hall: Hall, shape: Shape, rows: Ints) -> tuple[Floats, NDArray[np.int8]]:
        """Of these rows with one more pod on each, tolls included, and the accelerator a share had best take.

        rows: each must hold the pod. The second is meaningful for shares only; the first among equals.
        """
        cpu_milli, memory_mib = (
            hall.cpu_milli[rows] - shape.cpu_milli,
            hall.memory_mib[rows] - shape.memory_mib,
        )
        fitting = self._fitting(rows, cpu_milli, memory_mib)
        free, whole = np.maximum(hall.free[rows], 0), hall.whole[rows]
        on_shares, on_wholes = self._on_shares(free, fitting), self._on_wholes(whole, fitting)
        usable = on_shares.sum(axis=1) + on_wholes
        device = np.zeros(len(rows), dtype=np.int8)
        if shape.milli >= WHOLE:
            usable -= shape.milli * fitting[:, self._sizes]
            usable += self._on_wholes(whole - shape.devices, fitting) - on_wholes
        elif shape.milli:
            left = free - shape.milli
            gain = self._on_shares(np.maximum(left, 0), fitting) - on_shares
            broken = self._on_wholes(np.maximum(whole - 1, 0), fitting) - on_wholes
            gain += np.where(free == WHOLE, broken[:, np.newaxis], 0.0)
            gain[left < 0] = -np.inf
            best = gain.argmax(axis=1)
            usable += gain[np.arange(len(rows)), best]
            device = best.astype(np.int8)
        spare = (hall.spare[rows] - shape.milli).astype(np.float64)
        found = spare - usable + STRANDED * self._stranded(spare, cpu_milli, memory_mib)
        kind = self._kinds.of_row[rows]
        found += shape.milli * self._toll[kind] + shape.cpu_milli * self._cpu_toll[kind]
        return found, device

    def _fitting(self, rows: Ints, cpu_milli: Ints, memory_mib: Ints) -> Floats:
        """Weight of what fits by CPU and memory, added up over sizes, then over numbers of devices: (rows, width)."""
        cpu = np.searchsorted(self._cpu, cpu_milli, side="right")
        memory = np.searchsorted(self._memory, memory_mib, side="right")
        place = (self._kinds.of_row[rows] * (len(self._cpu) + 1) + cpu) * (len(self._memory) + 1) + memory
        found: Floats = self._table[place]
        return found

    def _on_shares(self, free: NDArray[np.integer], fitting: Floats) -> Floats:
        """What arrivals of one accelerator or less can use of each: (rows, devices)."""
        found: Floats = free * np.take_along_axis(fitting, self._level[free], axis=1)
        return found

    def _on_wholes(self, whole: Ints, fitting: Floats) -> Floats:
        """What arrivals of several can use."""
        found: Floats = WHOLE * whole * fitting[np.arange(len(whole)), 1 + self._sizes + whole]
        return found

    def _stranded(self, spare: Floats, cpu_milli: Ints, memory_mib: Ints) -> Floats:
        held = np.minimum(
            cpu_milli[:, np.newaxis] / self._cpu_ratio, memory_mib[:, np.newaxis] / self._memory_ratio
        )
        found: Floats = np.maximum(spare[:, np.newaxis] - held, 0.0).mean(axis=1)
        return found


def _levels(amounts: Ints, most: int) -> Ints:
    """The different amounts, ascending; where they are too many, so many of them, the largest included."""
    found = np.unique(amounts)
    if len(found) > most:
        found = found[np.linspace(len(found) / most - 1, len(found) - 1, most).astype(np.int64)]
    return found


def _ratios(amounts: Ints, learned: Learned) -> Floats:
    """Quantiles, by volume, of an amount over thousandths of accelerators; next to nothing where nothing came."""
    with_any = learned.milli > 0
    if not with_any.any():
        return np.full(len(QUANTILES), 1e-9)
    ratio = amounts[with_any] / learned.milli[with_any]
    order = np.argsort(ratio, kind="stable")
    reached = np.cumsum(learned.volume[with_any][order])
    place = np.searchsorted(reached, np.array(QUANTILES) * reached[-1])
    found: Floats = np.maximum(ratio[order][np.minimum(place, len(order) - 1)], 1e-9)
    return found
