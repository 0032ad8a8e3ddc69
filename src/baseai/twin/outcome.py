"""An outcome is what a replay came to: waits, completion, utilisation, and how far they are from what is possible.

Invariant: made from segments and submissions alone, so that it can be made again from the files; a bound is a bound of
every policy without sharing, and equal to the outcome only where nothing could be better.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from baseai.scheduling.hall import Hall
from baseai.twin.bound import jct_bound_s, makespan_bound_s
from baseai.twin.neutral import Segment, Submission

Floats = NDArray[np.float64]

POINTS = 240  # of a curve
SLOWDOWN_LEAST_S = 10.0  # a run shorter than this counts as this long where slowdowns are reckoned


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One quantity over time: the mean of each of equally long buckets."""

    name: str
    unit: str
    start: float  # of the first bucket; seconds, or % arrived
    step: float
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A replay in time."""

    gangs: int
    segments: int
    preemptions: int  # and failures: segments beside the first of each gang
    wait_mean_s: float
    wait_median_s: float
    wait_p99_s: float
    wait_max_s: float
    jct_mean_s: float  # from submission to the end
    jct_p99_s: float
    jct_bound_s: float  # no policy has a smaller mean
    slowdown_mean: float
    makespan_s: float  # from the first submission to the last end
    makespan_bound_s: float
    utilisation_ratio: float  # of all accelerators over the makespan
    busy: Curve
    queue: Curve


@dataclass(frozen=True, slots=True, kw_only=True)
class PackingOutcome:
    """A replay that packs."""

    gangs: int
    refused: int
    asked_ratio: float  # accelerators asked for, of all installed
    allocated_ratio: float  # at the end
    allocated_bound_ratio: float
    allocated_at_ratio: tuple[tuple[int, float], ...]  # (% arrived, mean over arrivals that round to it)
    allocated: Curve


def outcome_of(submissions: Sequence[Submission], segments: Sequence[Segment], hall: Hall) -> Outcome:
    """What came of a replay in time in which everybody ended."""
    number = {each.gang.run_id: place for place, each in enumerate(submissions)}
    submit_s = np.array([each.gang.submit_s for each in submissions])
    milli = np.array([each.gang.shape.milli_total for each in submissions], dtype=np.float64)
    of = np.array([number[segment.run_id] for segment in segments], dtype=np.int64)
    starts = np.array([segment.start_s for segment in segments])
    ends = np.array([segment.end_s for segment in segments])
    first, last = np.full(len(submissions), math.inf), np.zeros(len(submissions))
    np.minimum.at(first, of, starts)
    np.maximum.at(last, of, ends)
    ran: Floats = np.zeros(len(submissions))
    np.add.at(ran, of, ends - starts)
    wait: Floats = first - submit_s
    jct: Floats = last - submit_s
    begin, end = float(submit_s.min(initial=math.inf)), float(last.max(initial=0.0))
    if not len(submissions):
        begin, wait, jct, ran = 0.0, np.zeros(1), np.zeros(1), np.zeros(1)
    installed = hall.milli_installed
    span = max(end - begin, 0.0)
    busy = _mean_of_steps(
        np.concatenate([starts, ends]), np.concatenate([milli[of], -milli[of]]), begin, span
    )
    # Waiting from submission, and again from each stop, to the next start.
    again = _stops(of, starts, ends)
    queue = _mean_of_steps(
        np.concatenate([submit_s, again, starts]),
        np.concatenate([np.ones(len(submit_s) + len(again)), -np.ones(len(starts))]),
        begin,
        span,
    )
    return Outcome(
        gangs=len(submissions),
        segments=len(segments),
        preemptions=len(again),
        wait_mean_s=float(wait.mean()),
        wait_median_s=float(np.median(wait)),
        wait_p99_s=float(np.percentile(wait, 99)),
        wait_max_s=float(wait.max()),
        jct_mean_s=float(jct.mean()),
        jct_p99_s=float(np.percentile(jct, 99)),
        jct_bound_s=jct_bound_s(submissions, hall),
        slowdown_mean=float(np.maximum(1.0, jct / np.maximum(ran, SLOWDOWN_LEAST_S)).mean()),
        makespan_s=span,
        makespan_bound_s=makespan_bound_s(submissions, hall),
        utilisation_ratio=float((milli[of] * (ends - starts)).sum() / (installed * span))
        if installed and span
        else 0.0,
        busy=_curve("accelerators in use", "%", begin, span, 100 * busy / installed if installed else busy),
        queue=_curve("waiting", "runs", begin, span, queue),
    )


def packing_outcome_of(
    submissions: Sequence[Submission], placed: Sequence[Segment], hall: Hall
) -> PackingOutcome:
    """What came of packing these one after the other."""
    inside = {segment.run_id for segment in placed}
    milli = np.array([each.gang.shape.milli_total for each in submissions], dtype=np.float64)
    got = np.array([each.gang.run_id in inside for each in submissions], dtype=np.bool_)
    installed = float(max(1, hall.milli_installed))
    arrived, allocated = milli.cumsum() / installed, (milli * got).cumsum() / installed
    percent = np.round(100 * arrived).astype(np.int64)
    marks = [mark for mark in range(10, int(percent.max(initial=0)) + 1, 10) if (percent == mark).any()]
    asked = float(arrived[-1]) if len(arrived) else 0.0
    buckets = np.linspace(0.0, max(asked, 1e-9), POINTS + 1)
    at = np.minimum(arrived.searchsorted(buckets[1:]), max(0, len(arrived) - 1))
    values: Floats = 100 * allocated[at] if len(arrived) else np.zeros(POINTS)
    return PackingOutcome(
        gangs=len(submissions),
        refused=int(len(submissions) - got.sum()),
        asked_ratio=asked,
        allocated_ratio=float(allocated[-1]) if len(allocated) else 0.0,
        allocated_bound_ratio=min(1.0, asked),
        allocated_at_ratio=tuple((mark, float(allocated[percent == mark].mean())) for mark in marks),
        allocated=Curve(
            name="accelerators allocated",
            unit="%",
            start=0.0,
            step=100 * asked / POINTS,
            values=tuple(values.tolist()),
        ),
    )


def _stops(of: NDArray[np.int64], starts: Floats, ends: Floats) -> Floats:
    """The ends of all segments but the last of each gang."""
    order = np.lexsort((starts, of))
    is_last = np.ones(len(of), dtype=np.bool_)
    is_last[:-1] = of[order][1:] != of[order][:-1]
    return ends[order][~is_last]


def _mean_of_steps(at: Floats, change: Floats, begin: float, span: float) -> Floats:
    """Bucket means of a quantity that changes at these instants; shape (POINTS,)."""
    if not len(at) or span <= 0:
        return np.zeros(POINTS)
    order = at.argsort(kind="stable")
    at, level = at[order], change[order].cumsum()
    edges = begin + span * np.arange(POINTS + 1) / POINTS
    # The integral from the first change to every instant, read off at the edges.
    area = np.concatenate([[0.0], (level[:-1] * np.diff(at)).cumsum()])
    before = np.maximum(at.searchsorted(edges, side="right") - 1, 0)
    until = area[before] + np.where(edges >= at[0], level[before] * (edges - at[before]), 0.0)
    means: Floats = np.diff(until) / (span / POINTS)
    return means


def _curve(name: str, unit: str, begin: float, span: float, values: Floats) -> Curve:
    return Curve(name=name, unit=unit, start=begin, step=span / POINTS, values=tuple(values.tolist()))
