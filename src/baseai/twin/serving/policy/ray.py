"""Ray Serve's replica autoscaling by its documented rule and defaults (2.60).

Requests under way and waiting, the mean of 30 s, pushed every 10 s; ceil(current + (total / target - current)); more
only after 30 s in which more was wanted throughout, fewer after 600 s, from zero at once (`Ray`); `RayTuned` waits
3 s and 60 s and looks back 5 s, as somebody sets it who wants it quick.
"""

import math
from collections.abc import Sequence

from baseai.serving.autoscale import ReplicasSeen
from baseai.serving.demand import DemandSecond
from baseai.workloads.service import Scaling


class Ray:
    """The defaults."""

    every_s = 1
    looks_back_s = 30
    push_s = 10
    up_s = 30.0
    down_s = 600.0

    def __init__(self, scaling: Scaling) -> None:
        self._scaling = scaling
        self._total = 0.0
        self._wanted = scaling.least
        self._more_since_s: float | None = None
        self._fewer_since_s: float | None = None

    def wanted(self, seconds: Sequence[DemandSecond], replicas: ReplicasSeen, now_s: float) -> int:
        terms = self._scaling
        if now_s % self.push_s < self.every_s:
            self._total = sum(second.concurrency for second in seconds) / max(1, len(seconds))
        current = replicas.ready + replicas.starting
        raw = min(max(math.ceil(self._total / terms.target - 1e-9), terms.least), terms.most)
        if current == 0:
            waits = bool(seconds) and seconds[-1].concurrency > 0
            self._wanted = max(raw, 1 if waits else 0, terms.least)
            return self._wanted
        self._wanted = current if self._wanted == 0 else self._wanted
        self._more_since_s = (self._more_since_s or now_s) if raw > current else None
        self._fewer_since_s = (self._fewer_since_s or now_s) if raw < current else None
        if self._more_since_s is not None and now_s - self._more_since_s >= self.up_s:
            self._wanted, self._more_since_s = raw, None
        elif self._fewer_since_s is not None and now_s - self._fewer_since_s >= self.down_s:
            self._wanted, self._fewer_since_s = raw, None
        return self._wanted


class RayTuned(Ray):
    """As somebody sets it who wants it quick."""

    looks_back_s = 5
    push_s = 1
    up_s = 3.0
    down_s = 60.0
