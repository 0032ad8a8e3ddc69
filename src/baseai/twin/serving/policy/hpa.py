"""Kubernetes' HPA on a metric that KEDA polls, by their documented rules and defaults.

KEDA looks every 30 s and switches between 0 and 1 (off after 300 s without demand); the HPA decides every 15 s:
ceil(current x metric / target), nothing within 10 % of it, at most 4 pods or 100 % more at once, fewer only when every
decision of the last 300 s agreed (`Hpa`), or of the last 60 s (`HpaTuned`, which also polls every 5 s).
"""

import math
from collections.abc import Sequence

from baseai.serving.autoscale import ReplicasSeen
from baseai.serving.demand import DemandSecond
from baseai.workloads.service import Scaling

SYNC_S = 15
TOLERANCE = 0.1
UP_PODS_AT_ONCE = 4
UP_AT_ONCE = 2.0
METRIC_S = 15  # a scrape holds the mean of so long


class Hpa:
    """The defaults."""

    every_s = 5
    looks_back_s = METRIC_S
    poll_s = 30
    cooldown_s = 300
    stabilisation_s = 300

    def __init__(self, scaling: Scaling) -> None:
        self._scaling = scaling
        self._polled = 0.0
        self._asked_at_s = 0.0
        self._wanted = 0
        self._lately: list[tuple[float, int]] = []

    def wanted(self, seconds: Sequence[DemandSecond], replicas: ReplicasSeen, now_s: float) -> int:
        terms = self._scaling
        current = replicas.ready + replicas.starting
        if now_s % self.poll_s < self.every_s:
            self._polled = sum(second.concurrency for second in seconds) / max(1, len(seconds))
            if self._polled > 0:
                self._asked_at_s = now_s
                self._wanted = max(1, current)
            elif now_s - self._asked_at_s >= self.cooldown_s:
                self._wanted = 0
        if now_s % SYNC_S < self.every_s and current > 0 and self._wanted > 0:
            self._wanted = self._decided(current, now_s)
        return min(max(self._wanted, terms.least), terms.most)

    def _decided(self, current: int, now_s: float) -> int:
        ratio = self._polled / (current * self._scaling.target)
        raw = current if abs(ratio - 1) <= TOLERANCE else math.ceil(current * ratio)
        raw = max(1, min(raw, max(current + UP_PODS_AT_ONCE, math.ceil(current * UP_AT_ONCE))))
        self._lately = [each for each in self._lately if each[0] > now_s - self.stabilisation_s]
        self._lately.append((now_s, raw))
        return max(raw, min(current, max(count for _, count in self._lately)))


class HpaTuned(Hpa):
    """As somebody sets it who wants it quick."""

    poll_s = 5
    cooldown_s = 60
    stabilisation_s = 60
