"""A portion is what one queue has of the fleet: what it holds, what it had lately, and what this cycle charges it.

Invariant: a portion is the sum of those below it; amounts change for a leaf and all above it at once. Accelerators are
counted in thousandths, so that shares of one add up exactly; worths are only compared. `Shares` alone changes it.
"""

import math
from collections.abc import Iterator, Mapping

from baseai.scheduling.gang import WHOLE
from baseai.scheduling.queue_tree import Queue


class Portion:
    """One queue of the tree, with those above and below it that somebody has used."""

    __slots__ = (
        "above", "below", "charged", "claimed", "firm", "firm_worth", "half_life_s", "is_bounded", "is_guaranteed",
        "limit", "mean_worth", "name", "quota", "spot", "spot_worth", "weight",
    )  # fmt: skip

    def __init__(self, queue: Queue, above: "Portion | None", half_life_s: float) -> None:
        self.name = queue.name
        self.above = above
        self.below: list[Portion] = []
        self.weight = queue.weight
        self.half_life_s = half_life_s
        self.quota = {model: count * WHOLE for model, count in queue.quota.items()}
        self.limit = {model: count * WHOLE for model, count in queue.limit.items()}
        self.is_guaranteed: bool = bool(self.quota) or (above is not None and above.is_guaranteed)
        self.is_bounded: bool = bool(self.limit) or (above is not None and above.is_bounded)
        self.firm: dict[str, int] = {}  # milli by model, held by runs that are not spot
        self.spot: dict[str, int] = {}
        self.firm_worth = 0.0  # the same as one, by what each model is worth
        self.spot_worth = 0.0
        self.mean_worth = 0.0  # of what it held lately, the longer ago the less
        self.claimed: dict[str, int] = {}  # milli of its quota by gangs that this cycle looked at
        self.charged = 0.0  # worth of all gangs that this cycle looked at and did not start
        if above is not None:
            above.below.append(self)

    def upwards(self) -> Iterator["Portion"]:
        """It and all above it."""
        one: Portion | None = self
        while one is not None:
            yield one
            one = one.above

    def worth(self, *, with_spot: bool) -> float:
        """What counts against it: what it held lately, holds, and was offered in this cycle."""
        return self.mean_worth + self.firm_worth + self.charged + (self.spot_worth if with_spot else 0.0)

    def keeps_quota(self, model: str, milli: int) -> bool:
        """Whether so much more stays within the nearest quota that names the model."""
        for one in self.upwards():
            quota = one.quota.get(model)
            if quota is not None:
                return one.firm.get(model, 0) + one.claimed.get(model, 0) + milli <= quota
        return False

    def limiting(self, model: str, milli: int) -> "Portion | None":
        """The lowest queue that may not hold so much more."""
        for one in self.upwards():
            limit = one.limit.get(model)
            if limit is not None and one.firm.get(model, 0) + one.spot.get(model, 0) + milli > limit:
                return one
        return None

    def add(self, model: str, milli: int, *, spot: bool, worth: Mapping[str, float]) -> None:
        """Hold so much more, or less where it is negative, here and above."""
        for one in self.upwards():
            held = one.spot if spot else one.firm
            held[model] = held.get(model, 0) + milli
            if not held[model]:
                del held[model]
            # Counted anew, so that years of starts and ends leave no rounding behind.
            amount = math.fsum(count / WHOLE * worth.get(name, 1.0) for name, count in held.items())
            if spot:
                one.spot_worth = amount
            else:
                one.firm_worth = amount

    def charge(self, model: str, milli: int, amount: float, *, claims: bool) -> None:
        """Count a gang as if it had started, or no longer where amounts are negative, here and above."""
        for one in self.upwards():
            one.charged += amount
            if claims:
                one.claimed[model] = one.claimed.get(model, 0) + milli

    def give_back(self) -> None:
        """End of the cycle: nothing is charged. Of this queue alone."""
        self.charged = 0.0
        self.claimed.clear()

    def age(self, elapsed_s: float) -> None:
        """Let time pass, in which it held what it holds. Those below come first."""
        if self.below:
            self.mean_worth = math.fsum(one.mean_worth for one in self.below)
        else:
            kept = 2.0 ** (-elapsed_s / self.half_life_s)
            self.mean_worth = self.mean_worth * kept + self.firm_worth * (1.0 - kept)
