"""An attempt is one start of a run on one set of leases; here is what becomes of it.

Invariant: an attempt is over only when every one of its leases is released, and a run has at most one attempt that
is not over. `judge` is pure and level-triggered: asked twice about the same facts it says the same, and asked after
its answer was carried out it says that nothing is left to do.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from baseai.workloads.reason import VERDICTS, Reason
from baseai.workloads.run import RunEvent, RunState


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One lease of the attempt, as far as it was observed."""

    node_rank: int
    started: bool
    exit_reason: Reason | None  # None: its processes still run, or nothing was heard of them yet
    exit_sentence: str | None
    released: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How often a run is tried again, by whose doing it ended."""

    errors_max: int
    interruptions_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What to do now: moves of the run in order, and what becomes of the attempt."""

    moves: tuple[RunEvent, ...] = ()
    halt: Reason | None = None  # end the processes that still run, for this reason
    over: bool = False
    reason: Reason | None = None
    sentence: str | None = None
    counts: str | None = None  # "error" or "interruption": what the retry budget is charged with

    @property
    def idle(self) -> bool:
        return not (self.moves or self.halt or self.over)


def judge(
    state: RunState,
    parts: Sequence[Part],
    *,
    stop: Reason | None,
    halted: bool,
    drained: bool = False,
    retry: Retry,
    errors: int,
    interruptions: int,
) -> Judgement:
    """What the facts about one attempt call for.

    stop: why the run was asked to end, if it was. halted: its processes were told to end already.
    drained: one of its nodes is being taken out of service; what runs there moves elsewhere, from a checkpoint.
    errors, interruptions: how often earlier attempts of this run ended that way.
    """
    moves: list[RunEvent] = []
    if state is RunState.STARTING and all(part.started for part in parts):
        moves.append(RunEvent.BEGIN)
        state = RunState.RUNNING
    failed = [part for part in parts if part.exit_reason not in (None, Reason.FINISHED)]
    finished = all(part.exit_reason is Reason.FINISHED for part in parts)
    lives = (RunState.STARTING, RunState.RUNNING, RunState.RECOVERING)
    if (stop is not None and state in lives) or (finished and state in lives[1:]):
        moves.append(RunEvent.STOP)
        state = RunState.STOPPING
    elif failed and state is RunState.RUNNING:
        preempted = root_of(failed)[0] is Reason.PREEMPTED
        moves.append(RunEvent.PREEMPT if preempted else RunEvent.RECOVER)
        state = RunState.PREEMPTED if preempted else RunState.RECOVERING
    if all(part.released for part in parts):
        ending = _ending(state, parts, failed, finished, stop, retry, errors, interruptions)
        return Judgement(
            moves=(*moves, *ending.moves),
            over=True,
            reason=ending.reason,
            sentence=ending.sentence,
            counts=ending.counts,
        )
    halt = None
    if not halted:
        halt = stop or (Reason.PEER_FAILED if failed else Reason.DRAINED if drained else None)
    return Judgement(moves=tuple(moves), halt=halt, reason=stop or (root_of(failed)[0] if failed else None))


def root_of(failed: Sequence[Part]) -> tuple[Reason, str | None]:
    """Why the attempt failed: the part that failed by itself, not those that were ended because of it."""
    consequences = (Reason.PEER_FAILED, Reason.RENDEZVOUS_FAILED)
    own = [part for part in failed if part.exit_reason not in consequences] or list(failed)
    first = min(own, key=lambda part: part.node_rank)
    assert first.exit_reason is not None
    return first.exit_reason, first.exit_sentence


def _ending(
    state: RunState,
    parts: Sequence[Part],
    failed: Sequence[Part],
    finished: bool,
    stop: Reason | None,
    retry: Retry,
    errors: int,
    interruptions: int,
) -> Judgement:
    if finished:
        return Judgement(moves=(RunEvent.SUCCEED,), reason=Reason.FINISHED)
    if state is RunState.STOPPING and stop is not None:
        return Judgement(moves=(RunEvent.CANCEL,), reason=stop)
    # A lease that ended with nothing heard of its processes: the node was lost with them.
    reason, sentence = root_of(failed) if failed else (Reason.NODE_LOST, None)
    if state is RunState.STOPPING:
        return Judgement(moves=(RunEvent.FAIL,), reason=reason, sentence=sentence)
    if state is RunState.PREEMPTED or (reason is Reason.PREEMPTED and state is not RunState.RUNNING):
        # It gave way to another: that is nobody's failure, and no number of times is too many.
        if stop is not None:  # meanwhile somebody wanted it to end
            return Judgement(moves=(RunEvent.REQUEUE, RunEvent.CANCEL), reason=stop)
        return Judgement(moves=(RunEvent.REQUEUE,), reason=reason, sentence=sentence)
    kind = VERDICTS[reason].retry
    left = {
        "interruption": retry.interruptions_max - interruptions,
        "error": retry.errors_max - errors,
        "never": 0,
    }[kind]
    into = () if state is not RunState.RUNNING else (RunEvent.RECOVER,)
    if left > 0:
        return Judgement(moves=(*into, RunEvent.REQUEUE), reason=reason, sentence=sentence, counts=kind)
    return Judgement(moves=(*into, RunEvent.FAIL), reason=reason, sentence=sentence)
