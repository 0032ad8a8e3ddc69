"""Whether what ran could have run, counted anew from the segments alone."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest

from baseai.scheduling.gang import WHOLE
from baseai.scheduling.hall import Hall
from baseai.twin.neutral import Segment, Submission


def assert_feasible(
    one: Hall, jobs: Sequence[Submission], segments: Sequence[Segment], restart_s: float
) -> None:
    """Counted anew from the segments alone: gangs whole, nobody early, work done, nothing given twice."""
    of = {each.gang.run_id: each for each in jobs}
    ran: dict[str, list[Segment]] = defaultdict(list)
    changes: list[tuple[float, int, Segment]] = []
    for segment in segments:
        ran[segment.run_id].append(segment)
        changes += [(segment.start_s, 1, segment), (segment.end_s, 0, segment)]
        assert len(segment.spots) == of[segment.run_id].gang.shape.pods
        assert segment.start_s >= of[segment.run_id].gang.submit_s
    assert ran.keys() == of.keys()
    for run_id, stretches in ran.items():
        stretches.sort(key=lambda segment: segment.start_s)
        assert all(a.end_s <= b.start_s for a, b in pairwise(stretches))
        worked = sum(
            max(0.0, segment.end_s - segment.start_s - (restart_s if number else 0.0))
            for number, segment in enumerate(stretches)
        )
        assert worked == pytest.approx(of[run_id].duration_s, abs=1e-6)
    devices, cpu = np.zeros(one.free.shape), np.zeros(len(one))
    for _, starts, segment in sorted(changes, key=lambda change: (change[0], change[1])):
        if segment.end_s == segment.start_s:
            continue  # it takes no time, so it takes nothing
        shape, sign = of[segment.run_id].gang.shape, 1 if starts else -1
        for spot in segment.spots:
            cpu[spot.row] += sign * shape.cpu_milli
            devices[spot.row, list(spot.devices)] += sign * shape.share
        assert devices.max(initial=0) <= WHOLE
        assert (cpu <= [each.cpu_milli for each in one.bays]).all()
