"""An account is a name under which money is counted, in each currency apart.

Invariant: what an account is follows from its name alone, so the chart needs no table. Debits raise assets
and costs; credits raise revenue and payables. Only transfers change a balance.
"""

from dataclasses import dataclass

REVENUE_ON_DEMAND = "revenue:on_demand"
COST_DEPRECIATION = "cost:depreciation"
COST_ENERGY = "cost:energy"
COST_COLOCATION = "cost:colocation"
ACCUMULATED_DEPRECIATION = "asset:accumulated_depreciation"  # stands against the accelerators' purchase value
PAYABLE_ENERGY = "payable:energy"
PAYABLE_COLOCATION = "payable:colocation"


def receivable(tenant_id: str) -> str:
    """What a tenant owes us."""
    return f"tenant:{tenant_id}:receivable"


def is_revenue(account: str) -> bool:
    return account.startswith("revenue:")


def is_cost(account: str) -> bool:
    return account.startswith("cost:")


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Balance:
    """All that was debited and credited to one account in one currency up to an instant."""

    account: str
    currency: str  # ISO 4217
    debits_micros: int  # posted
    credits_micros: int
    pending_debits_micros: int = 0  # reserved and neither posted nor voided yet
    pending_credits_micros: int = 0

    def balance_micros(self) -> int:
        """Debits less credits: positive for what we own or spent, negative for what we earned or owe."""
        return self.debits_micros - self.credits_micros
