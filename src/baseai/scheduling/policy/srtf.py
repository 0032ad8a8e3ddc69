"""SRTF: whoever has the least left to do runs; whoever has more makes room, as often as it takes."""

from baseai.scheduling.gang import Gang
from baseai.scheduling.policy.least import Least


class Srtf(Least):
    """Shortest remaining time first."""

    def weight(self, gang: Gang, left_s: float) -> float:
        return left_s
