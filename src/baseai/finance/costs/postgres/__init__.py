"""Costs in the truth: assumptions in versions, posting of all time, economics of a month, suggested prices."""

from baseai.finance.costs.postgres.assumptions import AssumptionRows
from baseai.finance.costs.postgres.keeper import CostKeeper
from baseai.finance.costs.postgres.neighbours import Neighbours
from baseai.finance.costs.postgres.walked import FIGURES, Walked, load_walked

__all__ = ["FIGURES", "AssumptionRows", "CostKeeper", "Neighbours", "Walked", "load_walked"]
