"""A rollout is a new version taking over from the current one, share by share, as long as it answers as well.

Invariant: a version is neither promoted nor taken back on too little evidence; and whatever happens the current one
takes the requests that the candidate does not. `next_step` decides from what both were seen to answer; the shell
carries it out with the share and state that it saw.
"""

import math
from dataclasses import dataclass

from baseai.workloads.service import Rollout

ALLOWED_SLOW_RATIO = 0.01  # of requests, by an SLO on p99
REQUESTS_LEAST = 20  # of the candidate, before anything is concluded from them
FAILED_STARTS_MOST = 3  # of the candidate's replicas in a row
PATIENCE = 10  # times the bake time: so long a step with too few requests stands
SURE_SIGMAS = (
    3.0  # how sure a wrong must be: each second looks again, so one in a thousand would be too often
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What one version answered since the step began, or over the last bake time."""

    requests: int = 0  # that reached it, refusals of the gateway not among them
    errors: int = 0  # of these, its own: 5xx, torn connections, time-outs
    slow: int = 0  # of these, beyond p99_ms; 0 where no SLO is set

    def __post_init__(self) -> None:
        if not (0 <= self.errors <= self.requests and 0 <= self.slow <= self.requests):
            raise ValueError(f"{self} answered more than was asked")


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """How far the new version is."""

    share: float  # of requests that it takes now; 0 until its first replica is ready
    step_at_s: float  # when that share began, or the rollout where it is 0
    ready: int  # replicas of it
    failed_starts: int = 0  # of its replicas in a row, that ended without having been ready
    failed_why: str | None = None  # the last one's own sentence
    ready_within_s: float = 600.0  # so long its first replica may take


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Leave the shares as they are."""

    why: str
    replicas: int  # of the candidate that there shall be meanwhile: the next share needs so many


@dataclass(frozen=True, slots=True, kw_only=True)
class Advance:
    """Give the candidate this share of requests from now on; it has the replicas for it."""

    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Promote:
    """The candidate is the current version from now on; the old one drains."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RollBack:
    """The old version takes everything again; the candidate drains."""

    sentence: str


Step = Hold | Advance | Promote | RollBack


def replicas_for(share: float, wanted: int) -> int:
    """How many of the replicas `wanted` a version with this share of requests needs: one at least."""
    return max(1, math.ceil(share * wanted - 1e-9))


def next_step(
    rollout: Rollout,
    candidate: Candidate,
    *,
    new: Answered,
    old: Answered,
    wanted: int,
    now_s: float,
    p99_ms: float | None = None,
) -> Step:
    """What becomes of a rollout now.

    new, old: since the step began; of the old one rather more, as since the rollout began. wanted: replicas of the
    service, as `autoscale` has it. p99_ms: the SLO, None where there is none. Wrong is looked for at each call and ends
    the rollout as soon as it is sure; right needs the whole bake time, and enough requests or `PATIENCE` times as long.
    """
    if (wrong := _never_ready(candidate, now_s)) is not None:
        return RollBack(sentence=wrong)
    if (wrong := _wrong(rollout, new, old, p99_ms, sigmas=SURE_SIGMAS)) is not None:
        return RollBack(sentence=wrong)
    coming = next((share for share in rollout.shares if share > candidate.share), None)
    needed = replicas_for(coming or candidate.share, wanted)
    if candidate.share > 0:
        baked_s = now_s - candidate.step_at_s
        if baked_s < rollout.bake_s:
            why = f"{candidate.share:.0%} of requests for {rollout.bake_s - baked_s:.0f} s more"
            return Hold(why=why, replicas=replicas_for(candidate.share, wanted))
        if new.requests < REQUESTS_LEAST and baked_s < PATIENCE * rollout.bake_s:
            why = f"{new.requests} of {REQUESTS_LEAST} requests, before anything is concluded from them"
            return Hold(why=why, replicas=replicas_for(candidate.share, wanted))
        if (doubt := _wrong(rollout, new, old, p99_ms, sigmas=0.0)) is not None:
            why = f"not sure yet: {doubt}"
            return Hold(why=why, replicas=replicas_for(candidate.share, wanted))
    if coming is None:
        return Promote()
    if candidate.ready < needed:
        why = f"{candidate.ready} of {needed} replicas ready that {coming:.0%} of requests need"
        return Hold(why=why, replicas=needed)
    return Advance(share=coming)


def _never_ready(candidate: Candidate, now_s: float) -> str | None:
    last = f": {candidate.failed_why}" if candidate.failed_why else ""
    if candidate.failed_starts >= FAILED_STARTS_MOST:
        return f"{candidate.failed_starts} replicas of the new version in a row ended before they were ready{last}"
    waited_s = now_s - candidate.step_at_s
    if candidate.share == 0 and candidate.ready == 0 and waited_s >= candidate.ready_within_s:
        return f"no replica of the new version was ready within {candidate.ready_within_s:g} s{last}"
    return None


def _wrong(
    rollout: Rollout, new: Answered, old: Answered, p99_ms: float | None, *, sigmas: float
) -> str | None:
    """What the new version does worse than it may and than the old one does, at least as surely as `sigmas` say."""
    if sigmas and new.requests < REQUESTS_LEAST:
        return None
    if new.requests == 0:
        return None
    errors_most = max(rollout.most_error_ratio, _seen_ratio(old.errors, old.requests))
    if _lower(new.errors, new.requests, sigmas) > errors_most:
        return (
            f"{new.errors} of {new.requests} requests failed in the new version, {old.errors} of {old.requests} in"
            f" the old one; {rollout.most_error_ratio:.1%} may"
        )
    if p99_ms is None:
        return None
    slow_most = rollout.burn * max(ALLOWED_SLOW_RATIO, _seen_ratio(old.slow, old.requests))
    if _lower(new.slow, new.requests, sigmas) > slow_most:
        return (
            f"{new.slow} of {new.requests} requests took longer than {p99_ms:g} ms in the new version, {old.slow} of"
            f" {old.requests} in the old one; {rollout.burn:g} times the old share, or times 1 %, may"
        )
    return None


def _lower(hits: int, of: int, sigmas: float) -> float:
    """The least true share that makes `hits` of `of` likely: the lower end of Wilson's interval."""
    ratio, square = hits / of, sigmas * sigmas
    middle = ratio + square / (2 * of)
    half = sigmas * math.sqrt(ratio * (1 - ratio) / of + square / (4 * of * of))
    return (middle - half) / (1 + square / of)


def _seen_ratio(hits: int, of: int) -> float:
    """The old version's share; too few of its requests, as in the last step, excuse nothing."""
    return hits / of if of >= REQUESTS_LEAST else 0.0
