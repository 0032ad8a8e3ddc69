"""A mount is where one node hangs: its rack, and the leaf and pod of the network above it.

Invariant: a leaf belongs to one pod and a rack to one site, whatever is mounted; what is not known is None, and then
the node is in nobody's failure domain but its own. Operators mount nodes, and a node may say its own as it joins.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """Where a node hangs. `watts`: what the runs of its rack may draw together, None where no breaker is known."""

    rack: str | None = None
    leaf: str | None = None
    pod: str | None = None
    watts: int | None = None
