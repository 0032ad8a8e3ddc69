"""SRSF: whoever has the least accelerator time left to do runs, so that a large gang counts as much as it takes."""

from baseai.scheduling.gang import Gang
from baseai.scheduling.policy.least import Least


class Srsf(Least):
    """Shortest remaining service first: seconds left times accelerators."""

    def weight(self, gang: Gang, left_s: float) -> float:
        return left_s * gang.shape.milli_total
