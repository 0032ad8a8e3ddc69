"""A burn-in is a run of the platform's own that loads all accelerators of one model on one node and measures them.

Invariant: it is pinned to its node, no tenant can submit one, and it yields to every other run. The room `proving`
makes it; what runs inside it is the business of `burn_in/`; nobody changes it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from baseai.ground.identity import NodeId

KIND = "burn_in"


@dataclass(frozen=True, slots=True, kw_only=True)
class BurnIn:
    """The part of a spec that only a burn-in has."""

    node_id: NodeId
    model: str  # of the catalogue
    accelerators: int  # all that are in service there
    profile: str  # how long and how hard: a name of `burn_in.profile.PROFILES`

    def __post_init__(self) -> None:
        if self.accelerators < 1:
            raise ValueError(f"a burn-in of {self.accelerators} {self.model} measures nothing")

    def to_json(self) -> dict[str, Any]:
        return {
            "node_id": self.node_id,
            "model": self.model,
            "accelerators": self.accelerators,
            "profile": self.profile,
        }

    @staticmethod
    def from_json(stored: Mapping[str, Any]) -> "BurnIn":
        return BurnIn(
            node_id=NodeId(stored["node_id"]),
            model=stored["model"],
            accelerators=stored["accelerators"],
            profile=stored["profile"],
        )
