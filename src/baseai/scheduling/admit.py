"""Admission says at once whether a run can ever start here, before it joins the queue.

Invariant: what is refused would not fit even if every lease ended and every cordon were lifted; what is let in
may still wait long. Pure, and of no effect on the queue.
"""

from dataclasses import dataclass

from baseai.scheduling.explain import cheapest_change, nodes_failing
from baseai.scheduling.place import Constraint, place
from baseai.scheduling.plan import Change
from baseai.scheduling.sentence import change_phrase, constraint_phrase, models_phrase
from baseai.scheduling.snapshot import Snapshot
from baseai.workloads.demand import Demand


@dataclass(frozen=True, slots=True, kw_only=True)
class Fits:
    """The fleet that stands could take the run, were it empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NeverFits:
    """The fleet that stands cannot take the run, and which constraint is to blame."""

    constraint: Constraint  # the first, in the order considered, that leaves too few nodes
    nodes_failing: tuple[tuple[Constraint, int], ...]
    nodes_fitting: int
    nodes_needed: int
    largest: Change | None  # the one change that would fit; None where no single one would
    sentence: str


def fits_ever(demand: Demand, snapshot: Snapshot) -> Fits | NeverFits:
    """Whether the ready and the cordoned nodes could take `demand` with nothing else on them."""

    def fits(changed: Demand) -> bool:
        return place(changed, snapshot, snapshot.total, (), usable=snapshot.standing) is not None

    if fits(demand):
        return Fits()
    failing, fitting = nodes_failing(demand, snapshot, snapshot.total, usable=snapshot.standing)
    constraint = _blamed(failing, len(snapshot.node_ids), demand.node_count)
    largest = cheapest_change(demand, snapshot, fits)
    return NeverFits(
        constraint=constraint,
        nodes_failing=failing,
        nodes_fitting=fitting,
        nodes_needed=demand.node_count,
        largest=largest,
        sentence=_sentence(demand, snapshot, constraint, fitting, largest),
    )


def _blamed(failing: tuple[tuple[Constraint, int], ...], nodes: int, needed: int) -> Constraint:
    for constraint, count in failing:
        nodes -= count
        if nodes < needed:
            return constraint
    return Constraint.NODES


def _sentence(
    demand: Demand, snapshot: Snapshot, constraint: Constraint, fitting: int, largest: Change | None
) -> str:
    need = "1 node" if demand.node_count == 1 else f"{demand.node_count} nodes"
    why = constraint_phrase(constraint, demand)
    nodes = len(snapshot.node_ids)
    parts = [
        f"This run can never start here: it needs {need}, {fitting} of {nodes} could take it when empty; {why}."
    ]
    if largest is not None:
        parts.append(f"The largest request that fits: {change_phrase(largest)}.")
    elif constraint is Constraint.MODEL:
        parts.append(f"The fleet has {models_phrase(tuple(snapshot.bay_span))}.")
    return " ".join(parts)
