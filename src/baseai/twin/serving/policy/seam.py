"""What the replay asks of an autoscaler, so that ours and others' stand side by side."""

from collections.abc import Sequence
from typing import Protocol

from baseai.serving.autoscale import ReplicasSeen
from baseai.serving.demand import DemandSecond
from baseai.workloads.service import Scaling


class Autoscaler(Protocol):
    """One autoscaler of one service, from its beginning on."""

    every_s: int  # how often it decides
    looks_back_s: int  # how many seconds of demand it reads

    def __init__(self, scaling: Scaling) -> None: ...

    def wanted(self, seconds: Sequence[DemandSecond], replicas: ReplicasSeen, now_s: float) -> int:
        """How many replicas there shall be, those that start among them.

        seconds: the last `looks_back_s` that are over, oldest first, none left out.
        """
