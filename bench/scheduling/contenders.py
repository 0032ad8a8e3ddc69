"""Who takes part in which bench of scheduling: the baselines, and ours beside them.

To enter a policy, add its line. `role` names the target it is held to (`targets.py`, in this folder); baselines have
none. `house` is what the platform itself does, here with durations known as to all others; it preempts nobody, as
no queue has a quota and no run is spot.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One policy as it takes part."""

    name: str  # in the table
    policy: str  # of the registry, or module:Class
    packing: str = "best_fit"  # in time, who finds the nodes
    restart_s: float = 0.0
    durations_known: bool = True
    role: str = ""


def _packings(*names: str) -> tuple[Contender, ...]:
    return tuple(Contender(name=name, policy=name) for name in names)


LIST_SCHEDULING = "bench.scheduling.baselines:ListScheduling"

CONTENDERS: Mapping[str, Sequence[Contender]] = {
    "B1": (
        *_packings("random", "first_fit", "best_fit", "fgd"),
        Contender(name="lookahead", policy="lookahead", role="packing"),
    ),
    "B2": (
        Contender(name="fifo", policy="fifo"),
        Contender(name="easy", policy="easy"),
        Contender(name="sjf", policy="sjf"),
        Contender(name="srtf", policy="srtf"),
        Contender(name="srsf", policy="srsf"),
        Contender(name="srtf 300 s", policy="srtf", restart_s=300.0),
        Contender(name="srsf 300 s", policy="srsf", restart_s=300.0),
        Contender(name="house", policy="house", packing="blend"),
        Contender(name="pledge", policy="pledge", role="queue"),
        Contender(name="thrift", policy="thrift", restart_s=300.0, role="preemptive"),
        Contender(name="gittins", policy="gittins", restart_s=300.0, durations_known=False, role="blind"),
    ),
    "B3": (
        Contender(name="fifo", policy="fifo"),
        Contender(name="easy", policy="easy"),
        Contender(name="sjf", policy="sjf"),
        Contender(name="easy, first fit", policy="easy", packing="first_fit"),
        Contender(name="sjf, first fit", policy="sjf", packing="first_fit"),
        Contender(name="fifo, first fit", policy="fifo", packing="first_fit", role="fast"),
        Contender(name="house", policy="house", packing="blend", role="replayed"),
        Contender(name="house, best fit", policy="house", role="replayed"),
        Contender(name="pledge", policy="pledge", role="overloaded"),
        Contender(name="pledge, first fit", policy="pledge", packing="first_fit", role="overloaded"),
    ),
    "B4": (
        Contender(name="fifo, fastest free", policy="fifo", packing="first_fit"),
        Contender(name="list scheduling", policy=LIST_SCHEDULING),
        Contender(name="assign", policy="assign", role="mixed"),
    ),
    "B5": (
        Contender(name="random", policy="fifo", packing="random"),
        Contender(name="first_fit", policy="fifo", packing="first_fit"),
        Contender(name="leaf_best_fit", policy="fifo", packing="leaf_best_fit"),
        Contender(name="fifo, fabric", policy="fifo", packing="fabric"),
        Contender(name="gather", policy="gather", role="fabric"),
    ),
    "B8": (
        *_packings("first_fit", "best_fit", "fgd"),
        Contender(name="lookahead", policy="lookahead", role="speed"),
    ),
}
