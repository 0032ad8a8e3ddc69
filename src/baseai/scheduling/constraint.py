"""A constraint is what a node can fail for a run, in the order in which nodes are looked at.

Invariant: each node counts once, for the first constraint that it fails; a node has a model, or enough of it, if any of
the shapes that would do finds it there. Reads columns and changes none.
"""

from collections.abc import Iterator, Sequence
from enum import StrEnum

import numpy as np

from baseai.scheduling.gang import Shape
from baseai.scheduling.hall import Bools, Hall
from baseai.scheduling.outlook import Free, joined


class Constraint(StrEnum):
    """In the order considered."""

    STATE = "state"
    SITE = "site"
    MODEL = "model"
    ACCELERATORS = "accelerators"
    MEMORY = "memory"
    DISK = "disk"
    CPU = "cpu"
    POWER = "power"
    TENANT = "tenant"
    CONTAINER = "container"
    NODES = "nodes"  # none fails alone, but a gang needs more of them with one and the same model
    TOPOLOGY = "topology"  # the same, within one leaf, pod or site of the network


def nodes_failing(
    shapes: Sequence[Shape], hall: Hall, free: Free
) -> tuple[tuple[tuple[Constraint, int], ...], int]:
    """How many nodes fail each constraint first, those above 0 only, and how many fail none."""
    nodes = int(hall.node[-1]) + 1 if len(hall) else 0
    left = np.ones(nodes, dtype=np.bool_)
    counts = []
    for constraint, passes in _sieves(shapes, hall, free):
        of_node = np.zeros(nodes, dtype=np.bool_)
        of_node[hall.node[passes]] = True
        failed = int(np.count_nonzero(left & ~of_node))
        if failed:
            counts.append((constraint, failed))
        left &= of_node
    return tuple(counts), int(np.count_nonzero(left))


def _sieves(shapes: Sequence[Shape], hall: Hall, free: Free) -> Iterator[tuple[Constraint, Bools]]:
    shape = shapes[0]  # they differ in models and number of accelerators alone
    yield Constraint.STATE, free.open
    yield Constraint.SITE, hall.may_lie(shape)
    has_model, has_enough = np.zeros(len(hall), dtype=np.bool_), np.zeros(len(hall), dtype=np.bool_)
    for one in shapes:
        wanted = [number for number, name in enumerate(hall.models) if not one.models or name in one.models]
        there = np.isin(hall.model, wanted)
        has_model |= there
        has_enough |= there & (free.amounts[0] >= one.milli)
    yield Constraint.MODEL, has_model
    yield Constraint.ACCELERATORS, has_enough
    yield Constraint.MEMORY, free.amounts[2] >= shape.memory_mib
    yield Constraint.DISK, free.amounts[3] >= shape.disk_mib
    yield Constraint.CPU, free.amounts[1] >= shape.cpu_milli
    if shape.watts:
        yield Constraint.POWER, free.amounts[4] >= shape.watts
    if shape.tenant and not hall.all_shared:
        yield Constraint.TENANT, joined(shape, free, hall)
    if shape.container:
        yield Constraint.CONTAINER, hall.container
