"""The platform's own autoscaler, as production calls it."""

from collections.abc import Sequence

from baseai.serving.autoscale import Remembered, ReplicasSeen, desired, looks_back_s
from baseai.serving.demand import DemandSecond
from baseai.workloads.service import Scaling


class Ours:
    """`serving.autoscale.desired`, every second."""

    every_s = 1

    def __init__(self, scaling: Scaling) -> None:
        self._scaling = scaling
        self._remembered = Remembered()
        self.looks_back_s = round(looks_back_s(scaling))

    def wanted(self, seconds: Sequence[DemandSecond], replicas: ReplicasSeen, now_s: float) -> int:
        decided = desired(self._scaling, seconds, replicas, now_s=now_s, remembered=self._remembered)
        self._remembered = decided.remembered
        return decided.replicas
