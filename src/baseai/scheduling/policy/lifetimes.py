"""Lifetimes are what is learned of how long runs take: from those that ended, and from those that have not yet.

Invariant: only what has been seen counts; a run that still goes says that it takes longer than until now, and no
more. Durations fall into steps that grow by a factor; within a step nothing is told apart, so that runs of about one
age are not made to take turns.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

FIRST_STEP_S, STEP_RATIO, STEPS = 100.0, 5.0, 9  # 100 s, 500 s, …, about a year
PRIOR_RUNS, PRIOR_HAZARD = 2.0, 0.12  # as if two had been seen that end in a step as likely as this
HAZARD_MOST = 0.95

Floats = NDArray[np.float64]


class Lifetimes:
    """Counts of ends by step, and the Gittins index they give."""

    def __init__(self) -> None:
        self.edges_s: Floats = np.concatenate([[0.0], FIRST_STEP_S * STEP_RATIO ** np.arange(STEPS)])
        self._ended: Floats = np.zeros(len(self.edges_s))
        self.seen = 0

    def step_of(self, served_s: float) -> int:
        return int(np.searchsorted(self.edges_s, served_s, side="right")) - 1

    def ended(self, served_s: float) -> None:
        self._ended[self.step_of(served_s)] += 1
        self.seen += 1

    def left_s(self, going_s: Sequence[float]) -> Floats:
        """For each step, one over the Gittins index: seconds to be spent per end, at the best place to give up.

        going_s: how long those have been served that have not ended. Gittins (1979): among runs of unknown length
        with one server, the least of it first gives the least mean completion time.
        """
        going = np.bincount([self.step_of(each) for each in going_s], minlength=len(self._ended))
        at_risk = (self._ended + going)[::-1].cumsum()[::-1] - going / 2
        hazard = np.minimum((self._ended + PRIOR_RUNS * PRIOR_HAZARD) / (at_risk + PRIOR_RUNS), HAZARD_MOST)
        survival = np.concatenate([[1.0], np.cumprod(1.0 - hazard)])[:-1]  # at the lower edge of each step
        spent = np.concatenate([[0.0], ((survival[:-1] + survival[1:]) / 2 * np.diff(self.edges_s)).cumsum()])
        ends = survival[:, None] - survival[None, :]
        cost = spent[None, :] - spent[:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            rate = np.where(cost > 0, ends / cost, 0.0).max(axis=1)
        rate[-1] = rate[-2]
        found: Floats = 1.0 / np.maximum(rate, 1e-12)
        return found
