"""What services cost: time of their replicas as views see it, with the books' own rows of each replica's run."""

from typing import Any

from baseai.finance.cost import By
from baseai.finance.postgres import costs_in
from baseai.finance.rate import Rates
from baseai.truth.session import Scope, Truth
from baseai.views.services.cost import ReplicaMoney, cost_of
from baseai.views.services.postgres import ServiceViews


class ServiceMoney:
    """Costs of services over windows, as doors show them."""

    def __init__(self, truth: Truth, rates: Rates, views: ServiceViews) -> None:
        self._truth = truth
        self._rates = rates
        self._views = views

    async def service_cost(self, scope: Scope, name: str, window: str = "24h") -> dict[str, Any]:
        """Raises NotFound, Refused."""
        from_at, until_at, times, answered = await self._views.spent(scope, name, window)
        replicas = [time.run_id for time in times]
        rows = await costs_in(self._truth, self._rates, scope, by=By.RUN, runs=replicas)
        ours = scope.tenant_id is None  # what a thing costs us is not a tenant's to see
        money = [
            ReplicaMoney(
                run_id=row.subject,
                currency=row.revenue.currency,
                revenue=row.revenue.amount(),
                cost=row.cost.amount() if ours else None,
                accruing=row.accruing,
            )
            for row in rows
        ]
        return {
            "window": window,
            "from_at": from_at,
            "until_at": until_at,
            "items": cost_of(money, times, answered),
        }
