"""Knative's pod autoscaler (KPA) by its documented rule and defaults.

Two windows of concurrency over a target of which 70 % are used; panic at twice what is ready; no fewer pods in panic;
up by a factor of 1000 and down by 2 a decision; 30 s of grace before the last pod goes. It decides every 2 s. What its
activator holds at zero counts, also when there are pods: more than Knative promises, to hold nothing against it.
"""

import math
from collections.abc import Sequence

from baseai.serving.autoscale import ReplicasSeen
from baseai.serving.demand import DemandSecond
from baseai.workloads.service import Scaling

UTILISATION = 0.7
PANIC_AT = 2.0
UP_AT_ONCE = 1000.0
DOWN_AT_ONCE = 2.0
GRACE_S = 30.0


class Kpa:
    """Knative's rule."""

    every_s = 2

    def __init__(self, scaling: Scaling) -> None:
        self._scaling = scaling
        self.looks_back_s = round(scaling.stable_window_s)
        self._panic_since_s: float | None = None
        self._panic_most = 0
        self._zero_since_s: float | None = None

    def wanted(self, seconds: Sequence[DemandSecond], replicas: ReplicasSeen, now_s: float) -> int:
        terms = self._scaling
        each = terms.target * UTILISATION
        ready = max(1, replicas.ready)
        stable = math.ceil(_mean(seconds, terms.stable_window_s) / each)
        panic = math.ceil(_mean(seconds, terms.panic_window_s) / each)
        low, high = math.floor(ready / DOWN_AT_ONCE), math.ceil(ready * UP_AT_ONCE)
        wanted = min(max(stable, low), high)
        in_panic = min(max(panic, low), high)
        if panic / ready >= PANIC_AT:
            self._panic_since_s = now_s
        elif self._panic_since_s is not None and now_s - self._panic_since_s >= terms.stable_window_s:
            self._panic_since_s, self._panic_most = None, 0
        if self._panic_since_s is not None:
            if in_panic > self._panic_most:
                self._panic_since_s, self._panic_most = now_s, in_panic
            wanted = max(wanted, self._panic_most)
        return min(max(self._at_rest(stable, wanted, now_s), terms.least), terms.most)

    def _at_rest(self, stable: int, wanted: int, now_s: float) -> int:
        """The last pod stays for the grace time after the stable window is empty."""
        if stable > 0:
            self._zero_since_s = None
            return max(1, wanted)
        if self._zero_since_s is None:
            self._zero_since_s = now_s
        return max(1, wanted) if now_s - self._zero_since_s < GRACE_S else 0


def _mean(seconds: Sequence[DemandSecond], window_s: float) -> float:
    window = seconds[-round(window_s) :]
    return sum(second.concurrency for second in window) / max(1, len(window))
