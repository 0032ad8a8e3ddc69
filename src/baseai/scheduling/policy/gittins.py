"""Gittins: thrift without knowing any duration; how long a run has been served says how soon it may end.

What is left is one over the Gittins index of the lifetimes seen so far, of the run's own group where enough of it have
ended, else of all. It knows: when runs came, what they ask for, whose they are, how long each has been served, and how
long those took that have ended.
"""

import math

import numpy as np

from baseai.scheduling.gang import Gang
from baseai.scheduling.hall import Hall
from baseai.scheduling.policy.lifetimes import STEP_RATIO, Floats, Lifetimes
from baseai.scheduling.policy.seam import Moment, Packing, Running
from baseai.scheduling.policy.thrift import Thrift

OWN_LEAST = 30  # ends of a group before its own lifetimes count
AGAIN_RATIO = 1.05  # so many more ends before lifetimes are reckoned anew
UNSEEN_S = 600.0  # what is left of a young run while nothing has ended


class Gittins(Thrift):
    """See the head of this file."""

    needs_durations = False
    margin = 1.0
    patience = 5.0

    def __init__(self, hall: Hall, rng: np.random.Generator, packing: Packing) -> None:
        super().__init__(hall, rng, packing)
        self._all = Lifetimes()
        self._of_group: dict[str, Lifetimes] = {}
        self._left_s: dict[str, Floats] = {}  # by group; the empty name for all
        self._next = 1

    def learned(self, moment: Moment) -> bool:
        for gang in moment.ended:
            served_s = moment.served_s(gang)
            self._all.ended(served_s)
            if gang.group:
                self._of_group.setdefault(gang.group, Lifetimes()).ended(served_s)
        if self._all.seen < self._next:
            return False
        self._next = max(self._all.seen + 5, int(self._all.seen * AGAIN_RATIO))
        going: dict[str, list[float]] = {"": []}
        for gang in (*(running.gang for running in moment.running.values()), *moment.waiting.values()):
            served_s = moment.served_s(gang)
            if served_s > 0:
                going[""].append(served_s)
                if gang.group:
                    going.setdefault(gang.group, []).append(served_s)
        self._left_s = {"": self._all.left_s(going[""])}
        for group, seen in self._of_group.items():
            if seen.seen >= OWN_LEAST:
                self._left_s[group] = seen.left_s(going.get(group, ()))
        return True

    def left_s(self, moment: Moment, gang: Gang) -> float:
        served_s = moment.served_s(gang)
        step = self._all.step_of(served_s)
        left_s = self._left_s.get(gang.group, self._left_s.get(""))
        if left_s is None:
            return max(float(self._all.edges_s[step]), UNSEEN_S)
        return float(left_s[step])

    def running_left_s(self, moment: Moment, running: Running) -> float:
        return self.left_s(moment, running.gang)

    def wake_s(self, moment: Moment) -> float:
        """When the first that runs comes into its next step."""
        edges, first_s = self._all.edges_s, math.inf
        for running in moment.running.values():
            served_s = moment.served_s(running.gang)
            step = self._all.step_of(served_s) + 1
            edge_s = float(edges[step]) if step < len(edges) else served_s * STEP_RATIO
            first_s = min(first_s, moment.now_s + max(edge_s - served_s, 1.0))
        return first_s
