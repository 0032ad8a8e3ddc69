"""Admission says at once whether a run can ever start here, before it joins the queue.

Invariant: what is refused would not fit even if every lease ended and every cordon were lifted; what is let in
may still wait long. Pure, and of no effect on the queue.
"""

from dataclasses import dataclass

from baseai.scheduling.constraint import Constraint, nodes_failing
from baseai.scheduling.explain import cheapest_change
from baseai.scheduling.fleet import STANDS, Fleet
from baseai.scheduling.outlook import holds
from baseai.scheduling.plan import Change
from baseai.scheduling.sentence import change_phrase, constraint_phrase, models_phrase
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


def fits_ever(demand: Demand, fleet: Fleet) -> Fits | NeverFits:
    """Whether the ready and the cordoned nodes could take `demand` with nothing else on them."""
    hall, free = fleet.hall, fleet.when_empty(STANDS)

    def fits(changed: Demand) -> bool:
        return any(holds(shape, (free,), hall) for shape in fleet.shapes_of(changed))

    if fits(demand):
        return Fits()
    shapes = fleet.shapes_of(demand)
    failing, fitting = nodes_failing(shapes, hall, free)
    nodes = len(fleet.nodes)
    constraint = _blamed(failing, nodes, demand)
    largest = cheapest_change(demand, hall.models, fits)
    return NeverFits(
        constraint=constraint,
        nodes_failing=failing,
        nodes_fitting=fitting,
        nodes_needed=demand.node_count,
        largest=largest,
        sentence=_sentence(demand, fleet, constraint, fitting, largest),
    )


def _blamed(failing: tuple[tuple[Constraint, int], ...], nodes: int, demand: Demand) -> Constraint:
    for constraint, count in failing:
        nodes -= count
        if nodes < demand.node_count:
            return constraint
    return Constraint.TOPOLOGY if demand.topology and demand.topology.required else Constraint.NODES


def _sentence(
    demand: Demand, fleet: Fleet, constraint: Constraint, fitting: int, largest: Change | None
) -> str:
    need = "1 node" if demand.node_count == 1 else f"{demand.node_count} nodes"
    why = constraint_phrase(constraint, demand)
    nodes = len(fleet.nodes)
    parts = [
        f"This run can never start here: it needs {need}, {fitting} of {nodes} could take it when empty; {why}."
    ]
    if largest is not None:
        parts.append(f"The largest request that fits: {change_phrase(largest)}.")
    elif constraint is Constraint.MODEL:
        parts.append(f"The fleet has {models_phrase(tuple(model for model in fleet.hall.models if model))}.")
    return " ".join(parts)
