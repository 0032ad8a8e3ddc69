"""A node under test moves on by its burn-ins; what is due is the burn-in that nobody has asked for yet.

Invariant: both functions are pure and level-triggered: asked twice about the same facts they say the same, and asked
after their answer was carried out they say that nothing is left. A burn-in counts only for the *stay* in which it was
asked for: the number of the event by which the node came into its state, so an old pass opens no new door.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from baseai.fleet.node import NodeEvent, NodeState
from baseai.ground.identity import NodeId
from baseai.workloads.demand import CPU_SLOT

RETEST_AFTER = timedelta(days=7)  # a ready node is measured again, once it is idle
IDLE_FOR_MIN = 10  # without a lease, before a node counts as idle
PERIODIC_MOST = 32  # tests of idle nodes at a time over the fleet: the queue is for customers


class Occasion(StrEnum):
    """Why a node is tested."""

    JOINING = "joining"
    RE_ENTRY = "re_entry"  # after a repair
    ASKED = "asked"  # by an operator
    PERIODIC = "periodic"


class Verdict(StrEnum):
    """What a burn-in came to."""

    PASSED = "passed"
    FAILED = "failed"
    VOID = "void"  # it was cancelled: nothing is known, and an operator decides


PROFILE_OF: Mapping[Occasion, str] = {
    Occasion.JOINING: "standard",
    Occasion.RE_ENTRY: "standard",
    Occasion.ASKED: "quick",
    Occasion.PERIODIC: "quick",
}
SLOTS_PROFILE = "quick"  # of CPU slots after a repair: nobody waits minutes for a laptop
OCCASION_OF = {NodeState.BURN_IN: Occasion.JOINING, NodeState.VERIFYING: Occasion.RE_ENTRY}


@dataclass(frozen=True, slots=True, kw_only=True)
class BurnInSeen:
    """One burn-in of a node, as far as it has come."""

    model: str
    stay: int
    asked_at: datetime
    verdict: Verdict | None  # None: still to come
    sentence: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSeen:
    """One node as testing sees it."""

    node_id: NodeId
    state: NodeState
    stay: int  # the number of the event by which it came into this state
    models: Mapping[str, int]  # accelerators in service
    idle: bool = False  # no lease for a while
    burn_ins: Sequence[BurnInSeen] = field(default=())  # oldest first

    @property
    def tested_models(self) -> tuple[str, ...]:
        """What a test of this node is about: its accelerators, and CPU slots only where it has no others."""
        real = tuple(sorted(model for model in self.models if model != CPU_SLOT))
        return real or tuple(self.models)


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """A burn-in that somebody must make."""

    node_id: NodeId
    model: str
    accelerators: int
    occasion: Occasion
    profile: str
    stay: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """What becomes of a node."""

    node_id: NodeId
    event: NodeEvent
    sentence: str


def due(node: NodeSeen, now: datetime) -> tuple[Due, ...]:
    """The burn-ins of one node that nobody has asked for: once in each stay under test, and now and then beside."""
    occasion = OCCASION_OF.get(node.state)
    if occasion is not None:
        asked = {seen.model for seen in node.burn_ins if seen.stay == node.stay}
        models = [model for model in node.tested_models if model not in asked]
    elif node.state is NodeState.READY and node.idle:
        occasion = Occasion.PERIODIC
        models = [
            model
            for model in node.tested_models
            if model != CPU_SLOT and not _asked_since(node, model, now - RETEST_AFTER)
        ]
    else:
        return ()
    return tuple(
        Due(
            node_id=node.node_id,
            model=model,
            accelerators=node.models[model],
            occasion=occasion,
            profile=SLOTS_PROFILE if model == CPU_SLOT else PROFILE_OF[occasion],
            stay=node.stay,
        )
        for model in models
    )


def move_of(node: NodeSeen) -> Move | None:
    """What the verdicts of this stay call for; None while one is missing, or where there is nothing to do.

    Under test: all passed admits, one failed repairs. A ready node whose test fails is cordoned: what runs there
    goes on, and nobody new starts on it.
    """
    newest = {seen.model: seen for seen in node.burn_ins if seen.stay == node.stay}
    failed = [seen for seen in newest.values() if seen.verdict is Verdict.FAILED]
    under_test = node.state in OCCASION_OF
    if failed and (under_test or node.state is NodeState.READY):
        event = NodeEvent.REPAIR if under_test else NodeEvent.CORDON
        sentence = failed[0].sentence or f"{failed[0].model} failed its test"
        return Move(node_id=node.node_id, event=event, sentence=sentence)
    if not under_test:
        return None
    if not node.tested_models:
        return None  # nothing of it is in service: a person must look
    if all(model in newest and newest[model].verdict is Verdict.PASSED for model in node.tested_models):
        models = ", ".join(node.tested_models)
        return Move(node_id=node.node_id, event=NodeEvent.ADMIT, sentence=f"{models} passed the test")
    return None


def _asked_since(node: NodeSeen, model: str, since: datetime) -> bool:
    """Whether a test is under way or told something since. One that was stopped told nothing."""
    return any(
        seen.model == model
        and (seen.verdict is None or (seen.verdict is not Verdict.VOID and seen.asked_at > since))
        for seen in node.burn_ins
    )
