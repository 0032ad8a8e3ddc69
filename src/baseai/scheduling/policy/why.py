"""Why there: what speaks for the nodes that a gang was given, in the figures of the policy that chose them.

Invariant: it is asked on the hall as it stood when the choice was made, before the gang is on it, and says nothing that
the policy did not weigh: None stands for what was not reckoned. Pure; it chooses nothing.
"""

from typing import NamedTuple

import numpy as np

from baseai.scheduling.gang import Gang
from baseai.scheduling.hall import Hall, Ints, Spots
from baseai.scheduling.policy.blend import Blend
from baseai.scheduling.policy.fabric import Fabric
from baseai.scheduling.policy.lookahead import Lookahead
from baseai.scheduling.policy.mix import Floats
from baseai.scheduling.policy.seam import Packing


class Reasons(NamedTuple):
    """Of one placement; the fields of `plan.Why` that packing knows."""

    policy: str  # that found the nodes, by the name of its file
    nodes_fitting: int  # that could have taken a pod of it
    strands_milli: float | None  # of accelerators more that will probably stay unused, all pods together
    next_best: (
        str | None
    )  # the node on which a pod would have stranded the least, of those that were not chosen
    next_best_strands_milli: float | None  # one pod of it there
    leaves: int | None  # of the network that it is spread over; None where the network is not known
    leaves_fewest: int | None  # that it could be spread over in an empty hall


def why_there(gang: Gang, spots: Spots, hall: Hall, packing: Packing) -> Reasons:
    """Why these spots. `hall` does not hold the gang yet. O(rows), with what the policy has kept of them."""
    rows = np.array([spot.row for spot in spots], dtype=np.int64)
    fits = hall.fits(gang.shape)
    leaves, fewest = _leaves(gang, spots, rows, hall, packing)
    chosen: Packing = packing
    if isinstance(packing, Blend):
        chosen = packing.fabric if packing.goes_by_fabric(gang.shape) else packing.lookahead
    strands, node, beside = None, None, None
    if isinstance(chosen, Lookahead):
        strands, node, beside = _strands(rows, hall, chosen.costs(gang.shape, hall))
    return Reasons(
        policy=type(chosen).__module__.rpartition(".")[2],
        nodes_fitting=int(np.count_nonzero(np.bincount(hall.node[fits]))),
        strands_milli=strands,
        next_best=node,
        next_best_strands_milli=beside,
        leaves=leaves,
        leaves_fewest=fewest,
    )


def _strands(rows: Ints, hall: Hall, costs: Floats) -> tuple[float, str | None, float | None]:
    """What these rows strand, the best node beside them, and what that would."""
    elsewhere = np.where(np.isin(hall.node, hall.node[rows]), np.inf, costs)
    best = int(elsewhere.argmin())
    if np.isinf(elsewhere[best]):
        return float(costs[rows].sum()), None, None
    return float(costs[rows].sum()), hall.node_ids[best], float(elsewhere[best])


def _leaves(
    gang: Gang, spots: Spots, rows: Ints, hall: Hall, packing: Packing
) -> tuple[int | None, int | None]:
    fabric = packing.fabric if isinstance(packing, Blend) else packing
    if not isinstance(fabric, Fabric) or any(hall.bays[row].leaf == "" for row in rows.tolist()):
        return None, None
    if len(rows) == 1:
        return 1, 1
    scatter = fabric.scatter(gang, spots, hall)
    return scatter.leaves, scatter.leaves_fewest
