"""A repair is one step that shall make a node well: who carries it out, who must agree first, what exactly is done.

Invariant: a repair moves only along TRANSITIONS. Whatever cuts the power of a chassis that others share, and whatever
the limits do not allow by itself, waits for a person's word; only the agent's own steps are ordered.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType

from baseai.fleet.health.rule import Action, Limits
from baseai.fleet.health.verdict import Sign
from baseai.ground.identity import NodeId


class Step(StrEnum):
    """What is done, from the least to the most."""

    FABRIC = "fabric"
    RESET = "reset"
    REBOOT = "reboot"
    POWER_CYCLE = "power_cycle"
    RESEAT = "reseat"
    INSPECT = "inspect"
    RMA = "rma"


class RepairState(StrEnum):
    PROPOSED = "proposed"  # waits for a person's word
    APPROVED = "approved"
    ORDERED = "ordered"  # the agent was told
    DONE = "done"
    FAILED = "failed"
    DISMISSED = "dismissed"


class RepairEvent(StrEnum):
    APPROVE = "approve"
    ORDER = "order"
    FINISH = "finish"
    FAIL = "fail"
    DISMISS = "dismiss"


_S, _E = RepairState, RepairEvent
TRANSITIONS: Mapping[tuple[RepairState, RepairEvent], RepairState] = MappingProxyType(
    {
        (_S.PROPOSED, _E.APPROVE): _S.APPROVED,
        (_S.PROPOSED, _E.DISMISS): _S.DISMISSED,
        (_S.APPROVED, _E.ORDER): _S.ORDERED,
        (_S.APPROVED, _E.FINISH): _S.DONE,  # by a person
        (_S.APPROVED, _E.FAIL): _S.FAILED,
        (_S.APPROVED, _E.DISMISS): _S.DISMISSED,
        (_S.ORDERED, _E.FINISH): _S.DONE,
        (_S.ORDERED, _E.FAIL): _S.FAILED,
    }
)
OPEN = frozenset({_S.PROPOSED, _S.APPROVED, _S.ORDERED})

BY_AGENT = frozenset({Step.FABRIC, Step.RESET, Step.REBOOT})
STEP_OF: Mapping[Action, Step] = MappingProxyType(
    {
        Action.TICKET: Step.INSPECT,
        Action.RESET_IDLE: Step.RESET,
        Action.FABRIC: Step.FABRIC,
        Action.RESET: Step.RESET,
        Action.REBOOT: Step.REBOOT,
        Action.POWER_CYCLE: Step.POWER_CYCLE,
        Action.RESEAT: Step.RESEAT,
        Action.INSPECT: Step.INSPECT,
        Action.RMA: Step.RMA,
    }
)


def moved(state: RepairState, event: RepairEvent) -> RepairState | None:
    """Where `event` leads from `state`; None when there is no such move."""
    return TRANSITIONS.get((state, event))


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """One step for one node, as it stands."""

    repair_id: str
    node_id: NodeId
    serials: tuple[str, ...]  # the accelerators it is about; empty: the whole node
    step: Step
    state: RepairState
    by_agent: bool
    rule_id: str
    opened_at: datetime
    drains: bool = True  # whether the node is taken out for it
    ordered_at: datetime | None = None
    ended_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """The step that is due, before it has an id."""

    step: Step
    serials: tuple[str, ...]
    by_agent: bool
    needs_approval: bool
    drains: bool
    rule_id: str
    sentence: str
    evidence_ids: tuple[str, ...]


def remedy_of(
    signs: Sequence[Sign],
    history: Sequence[Repair],
    *,
    limits: Limits,
    able: frozenset[Step],
    shared_chassis: bool,
    now: datetime,
) -> Remedy | None:
    """The one step that serves all signs of a node, climbing the ladder where the lower ones did not hold.

    signs: the gravest first. history: ended repairs of the node. able: what its agent may carry out.
    None where nothing is to be done.
    """
    due = [sign for sign in signs if sign.action in STEP_OF]
    if not due:
        return None
    first = due[0]
    step = _climbed(first, history, limits, now)
    serials = tuple(sorted({sign.subject.serial for sign in due if sign.subject.serial is not None}))
    by_agent = step in BY_AGENT and step in able
    approval = ""
    if step is Step.POWER_CYCLE and shared_chassis:
        approval = "its chassis is shared with others"
    elif step is Step.REBOOT and by_agent and _rebooted(history, limits, now) >= limits.reboots:
        approval = f"it was rebooted {limits.reboots} times within {limits.reboots_days:g} days already"
    because = f"{first.sentence} ({first.rule_id})"
    if step is not STEP_OF[first.action]:
        because += f"; {STEP_OF[first.action].value.replace('_', ' ')} did not hold before"
    return Remedy(
        step=step,
        serials=serials if first.subject.serial is not None else (),
        by_agent=by_agent,
        needs_approval=bool(approval),
        drains=first.action.drains or first.action is Action.RESET_IDLE,
        rule_id=first.rule_id,
        sentence=because + (f"; wants a person's word: {approval}" if approval else ""),
        evidence_ids=tuple(evidence_id for sign in due for evidence_id in sign.evidence_ids),
    )


def _climbed(sign: Sign, history: Sequence[Repair], limits: Limits, now: datetime) -> Step:
    step = STEP_OF[sign.action]
    recent = [
        repair
        for repair in history
        if repair.state in (RepairState.DONE, RepairState.FAILED)
        and repair.ended_at is not None
        and now - repair.ended_at <= timedelta(days=limits.again_days)
        and (sign.subject.serial is None or not repair.serials or sign.subject.serial in repair.serials)
    ]
    reboots = sum(repair.step in (Step.REBOOT, Step.POWER_CYCLE) for repair in recent)
    resets = sum(repair.step in (Step.RESET, Step.FABRIC) for repair in recent)
    if step in (Step.FABRIC, Step.RESET) and resets >= limits.resets_before_reboot:
        step = Step.REBOOT
    if step in (Step.REBOOT, Step.POWER_CYCLE) and reboots >= limits.reboots_before_rma:
        step = Step.RMA
    return step


def _rebooted(history: Sequence[Repair], limits: Limits, now: datetime) -> int:
    """How often the agent rebooted the node of late, whatever for."""
    return sum(
        repair.step is Step.REBOOT
        and repair.by_agent
        and repair.ended_at is not None
        and now - repair.ended_at <= timedelta(days=limits.reboots_days)
        for repair in history
    )


def instructions(step: Step, *, node: str, devices: Sequence[str], says: str) -> str:
    """What exactly a person does. devices: as the driver knows them, with their serials."""
    which = ", ".join(devices) if devices else "all of them"
    after = "Then mark it done; the node is tested before it takes leases again."
    text = {
        Step.FABRIC: f"On {node}, as root: `systemctl restart nvidia-fabricmanager`, and see that it stays active.",
        Step.RESET: f"On {node}, as root, with nothing running there, reset {which}: `nvidia-smi --gpu-reset -i INDEX`"
        " (NVIDIA) or `amd-smi reset --gpureset --gpu INDEX` (AMD; on an OAM baseboard this may reset all eight).",
        Step.REBOOT: f"Reboot {node}: `systemctl reboot`.",
        Step.POWER_CYCLE: f"Cut the power of {node} for 30 s by its management controller (ForceOff, then On).",
        Step.RESEAT: f"At {node}: power off, reseat or replace what the evidence names (cable, cooler, supply, board),"
        f" power on. Accelerators: {which}.",
        Step.INSPECT: f"Look at {node}: {says}. Repair or replace what is at fault. Accelerators: {which}.",
        Step.RMA: f"Send back {which} of {node}: run the maker's field diagnosis, keep its report, replace.",
    }[step]
    return f"{text} {after}"
