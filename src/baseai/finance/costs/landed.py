"""What a server costs once it stands in Brazil: its price times a multiplier of four taxes, by scenario.

Invariant: which regime holds is never a constant here: it is a scenario that whoever asks chooses, and its multiplier
takes the place of the assumed one. Scenarios are data, in `landed.csv`. Credits that come back later are not in it.
"""

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from importlib.resources import files

from baseai.ground.fault import NotFound


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportTaxes:
    """Rates as ratios."""

    scenario: str
    import_duty: Decimal  # II
    ipi: Decimal
    pis_cofins: Decimal  # on imports
    icms: Decimal  # of the state; reckoned on itself
    meaning: str = ""

    def __post_init__(self) -> None:
        if min(self.import_duty, self.ipi, self.pis_cofins, self.icms) < 0 or self.icms >= 1:
            raise ValueError(f"{self.scenario}: a tax is a ratio from 0 on, and ICMS stays below 1")

    def multiplier(self) -> Decimal:
        """(1 + II + IPI × (1 + II) + PIS/COFINS) ÷ (1 − ICMS)."""
        before = 1 + self.import_duty + self.ipi * (1 + self.import_duty) + self.pis_cofins
        return before / (1 - self.icms)


@cache
def scenarios() -> Mapping[str, ImportTaxes]:
    text = files("baseai.finance.costs").joinpath("landed.csv").read_text(encoding="utf-8")
    return {
        row["scenario"]: ImportTaxes(
            scenario=row["scenario"],
            import_duty=Decimal(row["import_duty"]),
            ipi=Decimal(row["ipi"]),
            pis_cofins=Decimal(row["pis_cofins"]),
            icms=Decimal(row["icms"]),
            meaning=row["meaning"],
        )
        for row in csv.DictReader(io.StringIO(text))
    }


def scenario(name: str) -> ImportTaxes:
    """Raises NotFound, which names those there are."""
    found = scenarios().get(name)
    if found is None:
        raise NotFound("tax scenario", f"{name}; there are {', '.join(scenarios())}")
    return found
