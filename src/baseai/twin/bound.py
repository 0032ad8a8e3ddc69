"""A bound is what no policy can beat, whoever it is and whatever it knows.

Invariant: each is a relaxation: nodes, gangs, CPU and memory are forgotten, and accelerators of one model are one pool.
So what lies above a bound is no proof of waste, and what lies on it is best.
"""

import heapq
import math
from collections import defaultdict
from collections.abc import Sequence

from baseai.scheduling.gang import WHOLE
from baseai.scheduling.hall import Hall
from baseai.twin.neutral import Submission


def shortest_s(submission: Submission, models: frozenset[str]) -> float:
    """Its seconds on the fastest model it may use of these."""
    allowed = submission.gang.shape.models
    return min(
        (submission.work_s(model) for model in models if not allowed or model in allowed), default=math.inf
    )


def makespan_bound_s(submissions: Sequence[Submission], hall: Hall) -> float:
    """From the first submission to the last end: the longest run, or what came after an instant over all there is."""
    if not submissions:
        return 0.0
    models = frozenset(hall.models)
    pools: dict[frozenset[str], float] = {models: 0.0}
    for submission in submissions:
        if submission.gang.shape.models:
            pools[frozenset(submission.gang.shape.models) & models] = 0.0
    milli_of: dict[str, float] = defaultdict(float)
    for bay in hall.bays:
        milli_of[bay.model] += bay.devices * WHOLE
    begin_s = min(submission.gang.submit_s for submission in submissions)
    bound_s = 0.0
    area = dict.fromkeys(pools, 0.0)  # milli-seconds of what may run in this pool only
    for submission in sorted(submissions, key=lambda each: -each.gang.submit_s):
        shape, submit_s = submission.gang.shape, submission.gang.submit_s
        least_s = shortest_s(submission, models)
        bound_s = max(bound_s, submit_s - begin_s + least_s)
        own = frozenset(shape.models) & models if shape.models else models
        for pool in pools:
            if own <= pool:
                area[pool] += shape.milli_total * least_s
                milli = sum(milli_of[model] for model in pool)
                if milli:
                    bound_s = max(bound_s, submit_s - begin_s + area[pool] / milli)
    return bound_s


def jct_bound_s(submissions: Sequence[Submission], hall: Hall) -> float:
    """Mean from submission to end: each alone, or on one machine as fast as all there is, by ends or by middles."""
    if not submissions:
        return 0.0
    models, milli = frozenset(hall.models), hall.milli_installed
    alone = [shortest_s(submission, models) for submission in submissions]
    pooled = [
        (submission.gang.submit_s, submission.gang.shape.milli_total * least_s / milli)
        for submission, least_s in zip(submissions, alone, strict=True)
        if submission.gang.shape.milli and milli
    ]
    elsewhere = sum(
        least_s
        for submission, least_s in zip(submissions, alone, strict=True)
        if not submission.gang.shape.milli
    )
    middles = _busy_middles_s(sorted(pooled)) + sum(
        least_s / 2
        for submission, least_s in zip(submissions, alone, strict=True)
        if submission.gang.shape.milli
    )
    return max(sum(alone), _shortest_first_s(sorted(pooled)) + elsewhere, middles + elsewhere) / len(
        submissions
    )


def _busy_middles_s(work: Sequence[tuple[float, float]]) -> float:
    """Sum over all of the mean instant of being worked on, less submission, on one machine: the least there can be.

    Who is worked on for p seconds ends p / 2 after its mean instant or later. The sum is least where whoever is
    smallest as a whole goes first, with preemption (Goemans, 1997: the mean busy time relaxation).
    """
    left: list[list[float]] = []  # size, submitted, still to do
    now = total = 0.0
    comes = 0
    while left or comes < len(work):
        if not left:
            now = max(now, work[comes][0])
        while comes < len(work) and work[comes][0] <= now:
            heapq.heappush(left, [work[comes][1], work[comes][0], work[comes][1]])
            comes += 1
        size, since, needs = left[0]
        until = work[comes][0] if comes < len(work) else math.inf
        spell = min(needs, until - now)
        if size > 0:
            total += spell / size * (now + spell / 2 - since)
        now += spell
        left[0][2] -= spell
        if needs <= spell:
            heapq.heappop(left)
    return total


def _shortest_first_s(work: Sequence[tuple[float, float]]) -> float:
    """Sum of completion less submission, by whoever has least left, on one machine: the least there can be."""
    left: list[tuple[float, float]] = []
    now = total = 0.0
    comes = 0
    while left or comes < len(work):
        if not left:
            now = max(now, work[comes][0])
        while comes < len(work) and work[comes][0] <= now:
            heapq.heappush(left, (work[comes][1], work[comes][0]))
            comes += 1
        needs, since = heapq.heappop(left)
        until = work[comes][0] if comes < len(work) else math.inf
        if now + needs <= until:
            now += needs
            total += now - since
        else:
            heapq.heappush(left, (needs - (until - now), since))
            now = until
    return total
