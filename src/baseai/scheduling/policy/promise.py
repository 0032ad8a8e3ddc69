"""A promise is a start that somebody was told: by when at the latest, and on which nodes that is sure.

Invariant: all promises that stand hold together. A turn lays each down first where it was made, beside those made
before it; who starts or claims meanwhile keeps clear of every one of them, so that in the next turn each finds its
nodes as free as it was told. Made at the end of a turn for whoever claims a start, and kept on record with the wait.
It falls away where a node is lost or what stands there is held for longer, and its run then claims anew.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from baseai.scheduling.gang import WHOLE, Shape
from baseai.scheduling.hall import Hall
from baseai.scheduling.policy.claim import Claim

Place = tuple[str, str, int]  # node, model, accelerators of one pod


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """See the head of this file."""

    since_s: float  # promises are kept in the order in which they were made
    by_s: float | None = None  # None: it comes first, whenever that is
    on: tuple[Place, ...] = ()  # one a pod; empty where shares of accelerators make rows say too little

    def rows(
        self, shapes: Sequence[Shape], row_of: Mapping[tuple[str, str], int]
    ) -> tuple[Shape, list[int]] | None:
        """Which of these shapes it was told, and its rows; None where a node of them is gone, or none was named."""
        rows = [row_of[node_id, model] for node_id, model, _ in self.on if (node_id, model) in row_of]
        if not rows or len(rows) < len(self.on):
            return None
        _, model, count = self.on[0]
        for shape in shapes:
            if (
                len(rows) == shape.pods
                and shape.milli == count * WHOLE
                and (not shape.models or model in shape.models)
            ):
                return shape, rows
        return None


def promise_of(claim: Claim, since_s: float, hall: Hall) -> Promise:
    """What is told to whoever has claimed that start."""
    on: tuple[Place, ...] = ()
    if claim.shape is not None and claim.then is None and claim.shape.milli % WHOLE == 0:
        count = claim.shape.devices
        on = tuple((hall.node_ids[row], hall.models[hall.model[row]], count) for row in claim.rows)
    return Promise(since_s=since_s, by_s=claim.from_s, on=on)
