"""Owning an accelerator costs what its purchase loses over its life, and what the capital in it has to bring in.

Invariant: hardware that is owned never costs nothing: it is written off by the hour, used or not, in a straight line
over its life down to its residual. Capital recovery is the payment that brings the price back with its return; it is
shown beside the contribution and never added to depreciation, which it contains.
"""

from dataclasses import dataclass
from decimal import Decimal, localcontext

HOURS_PER_YEAR = Decimal(8760)
MONTHS_PER_YEAR = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Ownership:
    """One accelerator's share of its server, in one currency."""

    price: Decimal  # before taxes
    landed_multiplier: Decimal  # price where it stands ÷ price before taxes
    life_years: Decimal
    residual_ratio: Decimal  # of what it is worth at the end

    @property
    def landed(self) -> Decimal:
        return self.price * self.landed_multiplier

    def depreciation_per_hour(self) -> Decimal:
        """Straight line: (landed price − residual of it) ÷ (life × 8,760 h)."""
        return self.landed * (1 - self.residual_ratio) / (self.life_years * HOURS_PER_YEAR)

    def depreciated(self, hours: Decimal) -> Decimal:
        """What is written off after so many hours; never more than there is to write off."""
        most = self.landed * (1 - self.residual_ratio)
        return min(most, self.depreciation_per_hour() * hours)

    def recovery_per_hour(self, ratio_per_year: Decimal) -> Decimal:
        """The level monthly payment over the life that pays `landed` back with its return, by the hour of a year.

        What it is sold for at the end comes off, discounted: the residual share of the price *before* taxes, for duties
        are not sold again. At 0 % it is the plain difference over the life.
        """
        with localcontext() as context:
            context.prec = 28
            months = self.life_years * MONTHS_PER_YEAR
            if ratio_per_year == 0:
                return (self.landed - self.residual_ratio * self.price) / (self.life_years * HOURS_PER_YEAR)
            growth = 1 + ratio_per_year
            monthly = growth ** (Decimal(1) / MONTHS_PER_YEAR) - 1
            discount = growth**-self.life_years
            payment = (
                (self.landed - self.residual_ratio * self.price * discount)
                * monthly
                / (1 - (1 + monthly) ** -months)
            )
            return payment * MONTHS_PER_YEAR / HOURS_PER_YEAR
