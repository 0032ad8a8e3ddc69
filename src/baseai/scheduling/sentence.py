"""A sentence says an explanation in plain English, for terminals and logs; pages say the same codes in their language.

Invariant: nothing is said that the values do not hold. Pure text.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from baseai.ground.quantity import shown_mib, shown_s
from baseai.scheduling.constraint import Constraint
from baseai.scheduling.plan import (
    Change,
    Explanation,
    Lever,
    Obstacle,
    StartEstimate,
    StartKind,
    Wait,
    WaitKind,
    Why,
)
from baseai.workloads.demand import Demand

_FAILING = {
    Constraint.STATE: "not ready",
    Constraint.SITE: "at another site",
    Constraint.MODEL: "without the model",
    Constraint.ACCELERATORS: "with too few free accelerators",
    Constraint.MEMORY: "with too little free memory",
    Constraint.DISK: "with too little free disk",
    Constraint.CPU: "with too few free cores",
    Constraint.POWER: "under a breaker with too little power left",
    Constraint.TENANT: "in use by another tenant, with nothing to keep tenants apart",
    Constraint.CONTAINER: "without a container runtime",
    Constraint.NODES: "without enough others of the same model",
    Constraint.POWER: "with too little power left under the rack's breaker",
    Constraint.TOPOLOGY: "without enough others near them in the network",
    Constraint.TOPOLOGY: "without enough others in the same part of the network",
}


def sentence(wait: Wait, *, ahead: str = "") -> str:
    """Why this run waits, what would start it now, and when it may start.

    ahead: a sentence on whose runs are ahead of it, where the reader may know.
    """
    turn = "first in the queue" if wait.ahead == 0 else f"number {wait.position} in the queue"
    parts = [f"Waiting, {turn}.", ahead, _kind_sentence(wait)]
    if wait.explanation is not None:
        parts += _explanation_parts(wait.explanation, wait.kind)
    if wait.estimate is not None:
        parts.append(estimate_sentence(wait.estimate))
    return " ".join(part for part in parts if part)


def _kind_sentence(wait: Wait) -> str:
    match wait.kind, wait.obstacle:
        case WaitKind.HELD, Obstacle.RUN:
            ahead = wait.behind or "a run"
            return f"It fits now, but would put off {ahead}, which was promised its start."
        case WaitKind.HELD, Obstacle.RESERVATION:
            return f"It fits now, but would still run when {_the('reservation', wait.behind)} begins."
        case WaitKind.HELD, _:
            return (
                f"It fits now, but would still run when {_the('maintenance', wait.behind)} of a node begins."
            )
        case WaitKind.NEVER, _:
            return "The nodes that are ready could not take it even when empty."
        case WaitKind.CLEARING, _:
            return (
                "A test or a run that gives way is being stopped for it; it starts as soon as that is gone."
            )
        case WaitKind.BOOKED, _:
            at = "" if wait.promised_at is None else f", at {wait.promised_at:%Y-%m-%d %H:%M} UTC"
            return f"It starts when {_the('reservation', wait.behind)} begins{at}."
        case WaitKind.OWN_NODE, _:
            return "It tests one node, and starts when nobody wants that node's accelerators."
        case WaitKind.LIMIT, _:
            queue = "Its queue, or one above it," if wait.behind is None else f"The queue {wait.behind}"
            return f"{queue} holds all that it may; it starts when a run of that queue ends."
        case WaitKind.UNKNOWN_QUEUE, _:
            return "Its queue is there no more: make it again, or submit the run in another."
        case _:
            return ""


def _the(noun: str, name: str | None) -> str:
    return f"a {noun}" if name is None else f"the {noun} {name}"


def own_and_others_sentence(own: int, others: int) -> str:
    """Whose runs are ahead, for a tenant."""
    if own + others == 0:
        return ""
    verb = "is" if own + others == 1 else "are"
    yours = f"{own} own {'run' if own == 1 else 'runs'}"
    theirs = f"{others} {'run' if others == 1 else 'runs'} of others"
    return f"{' and '.join(part for part, count in ((yours, own), (theirs, others)) if count)} {verb} ahead of it."


def owners_sentence(owners: Sequence[tuple[str, int]]) -> str:
    """Whose runs are ahead, for an operator."""
    return f"Ahead of it: {', '.join(f'{runs} of {name}' for name, runs in owners)}." if owners else ""


def estimate_sentence(estimate: StartEstimate) -> str:
    """When it will probably start, and how often that was right."""
    day = estimate.asked_at.astimezone(UTC).date()

    def at(instant: datetime) -> str:
        utc = instant.astimezone(UTC)
        return f"{utc:%H:%M}" if utc.date() == day else f"{utc:%Y-%m-%d %H:%M}"

    if estimate.held_ratio is None:
        measured = "none of these intervals has been tested yet"
    elif estimate.outcomes == 1:
        measured = f"the only such interval so far {'held' if estimate.held_ratio == 1 else 'did not hold'}"
    else:
        measured = f"{100 * estimate.held_ratio:.0f} % of the last {estimate.outcomes} such intervals held"
    return (
        f"Probably between {at(estimate.earliest_at)} and {at(estimate.latest_at)} UTC,"
        f" most likely {at(estimate.likely_at)}; {measured}."
    )


_BEGAN = {
    StartKind.IN_TURN: "In its turn",
    StartKind.BACKFILL: "Before its turn, putting off nobody,",
    StartKind.RESERVED: "On capacity that was reserved for it,",
    StartKind.SPOT: "As spot, on what nobody else wanted,",
}


def why_sentence(why: Why, on: Sequence[str], names: Mapping[str, str] | None = None) -> str:
    """Why a run started then, and there.

    on: the nodes it is on. names: of nodes by id, for `next_best`; one that is not in it is shown by its id.
    """
    where = ", ".join(on[:3]) + (f" and {len(on) - 3} more" if len(on) > 3 else "")
    parts = [f"{_BEGAN[why.kind]} on {where}: {_choice(why, len(on), names or {})}."]
    if why.leaves is not None:
        leaves = "1 leaf" if why.leaves == 1 else f"{why.leaves} leaves"
        fewest = "" if why.leaves_fewest is None else f"; {why.leaves_fewest} is the fewest there can be"
        parts.append(f"It is spread over {leaves} of the network{fewest}.")
    return " ".join(parts)


def _choice(why: Why, nodes: int, names: Mapping[str, str]) -> str:
    one = nodes == 1
    if why.nodes_fitting <= nodes:
        return "no other node fits" if one else "no others fit"
    fitting = f"of {why.nodes_fitting} nodes that fit "
    if why.strands_milli is None:
        return f"{fitting}{'it was' if one else 'they were'} chosen by {why.policy}"
    chosen = f"{fitting}{'it is the one' if one else 'they are those'} on which least will stay unused"
    less_milli = less_unused_milli(why, nodes)
    if less_milli is None:
        return chosen
    other = (
        "the next best"
        if why.next_best is None
        else f"{names.get(why.next_best, why.next_best)}, the next best"
    )
    return f"{chosen}: {_accelerators(less_milli)} accelerators less than on {other}"


def less_unused_milli(why: Why, nodes: int) -> float | None:
    """Thousandths of accelerators that will stay unused less than on the next best node; None for a gang of several.

    What a policy weighs of one node alone is below 0 where a run uses what nobody else could: only the difference says
    something.
    """
    if nodes != 1 or why.strands_milli is None or why.next_best_strands_milli is None:
        return None
    return why.next_best_strands_milli - why.strands_milli


def _accelerators(milli: float) -> str:
    return f"{milli / 1000:.1f}".replace("-0.0", "0.0")


def change_phrase(change: Change) -> str:
    """The change as advice: `6 accelerators on each node instead of 8`."""
    match change.lever, change.asked, change.instead:
        case Lever.ACCELERATORS, asked, instead:
            return f"{instead} {'accelerator' if instead == 1 else 'accelerators'} on each node instead of {asked}"
        case Lever.NODES, asked, instead:
            return f"{instead} {'node' if instead == 1 else 'nodes'} instead of {asked}"
        case (Lever.MEMORY | Lever.DISK) as lever, int(asked), int(instead):
            return f"{shown_mib(instead)} of {lever} on each node instead of {shown_mib(asked)}"
        case Lever.CPU, int(asked), int(instead):
            return f"{instead / 1000:g} cores on each node instead of {asked / 1000:g}"
        case Lever.DURATION, int(asked), int(instead):
            return f"a max_duration of {shown_s(instead)} instead of {shown_s(asked)}"
        case Lever.SITE, asked, _:
            return f"any site instead of {asked}"
        case lever, asked, instead:
            return f"{lever} {instead} instead of {asked}"


def constraint_phrase(constraint: Constraint, demand: Demand) -> str:
    """What a fleet lacks that fails `demand` at `constraint`."""
    match constraint:
        case Constraint.STATE:
            return "too few nodes are ready or cordoned"
        case Constraint.SITE:
            return f"too few nodes stand in {' or '.join((*demand.sites, *demand.residency))}"
        case Constraint.MODEL:
            return f"too few nodes have {models_phrase(demand.models)}"
        case Constraint.ACCELERATORS:
            least = min(ask.count for ask in demand.asks)
            return f"too few nodes have {least} {models_phrase(demand.models)}"
        case Constraint.MEMORY:
            return f"too few nodes have {shown_mib(demand.memory_mib)} of memory"
        case Constraint.DISK:
            return f"too few nodes have {shown_mib(demand.disk_mib)} of disk"
        case Constraint.CPU:
            return f"too few nodes have {demand.cpu_milli / 1000:g} cores beside their accelerators"
        case Constraint.CONTAINER:
            return "too few nodes have a container runtime, which `image` needs"
        case Constraint.NODES:
            return f"a gang has one model throughout, and too few nodes have the same of {models_phrase(demand.models)}"
        case Constraint.TENANT:
            return "too few nodes keep tenants apart"
        case Constraint.POWER:
            return "too few nodes have the power under their rack's breaker"
        case Constraint.TOPOLOGY:
            reach = demand.topology.required if demand.topology and demand.topology.required else "part"
            return f"too few of them are within one {reach} of the network, as `topology` requires"


def models_phrase(models: Sequence[str]) -> str:
    """Models as people list them: `A, B or C`."""
    if not models:
        return "no accelerators"
    return models[0] if len(models) == 1 else f"{', '.join(models[:-1])} or {models[-1]}"


def _explanation_parts(why: Explanation, kind: WaitKind) -> list[str]:
    parts = []
    if kind not in (WaitKind.HELD, WaitKind.LIMIT, WaitKind.UNKNOWN_QUEUE):
        need = "1 is needed" if why.nodes_needed == 1 else f"{why.nodes_needed} are needed"
        fit = "1 node fits now" if why.nodes_fitting == 1 else f"{why.nodes_fitting} nodes fit now"
        failing = ", ".join(f"{count} {_FAILING[constraint]}" for constraint, count in why.nodes_failing)
        parts.append(f"{fit}, {need}: {failing}." if failing else f"{fit}, {need}.")
    if why.change is not None:
        parts.append(f"It would start now with {change_phrase(why.change)}.")
    if why.latest_at is not None:
        parts.append(f"It starts by {why.latest_at:%Y-%m-%d %H:%M} UTC at the latest if no node is lost.")
    elif why.earliest_at is not None:
        parts.append(
            f"By the ends of the leases that stand, not before {why.earliest_at:%Y-%m-%d %H:%M} UTC."
        )
    return parts
