"""A metered use is what is rated: a usage line, or a usage event of another meter, with what prices depend on.

Invariant: its quantity is a whole, positive number of the meter's unit; accelerator time lies inside one UTC hour and
its quantity is its length in µs. The meter makes uses; nobody changes one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from baseai.finance.measure import ACCELERATOR_TIME, MEASURES
from baseai.finance.meter import MICROSECOND, UsageLine
from baseai.ground.clock import hour_of

HOUR = timedelta(hours=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class MeteredUse:
    """Something used by one project over one span."""

    usage_id: str
    tenant_id: str
    project_id: str
    from_at: datetime
    until_at: datetime  # exclusive; of a moment the same as from_at
    quantity: int
    meter: str = ACCELERATOR_TIME
    billable: bool = True
    spot: bool = False  # had on the condition that it may be taken away
    run_id: str | None = None
    lease_id: str | None = None
    accelerator_no: int | None = None
    model: str | None = None
    node_id: str | None = None
    site_id: str | None = None
    round_id: str | None = None
    reason: str | None = None  # why it is not billable

    def __post_init__(self) -> None:
        if self.quantity <= 0:
            raise ValueError(f"{self.usage_id}: a quantity of {self.quantity}")
        if self.meter == ACCELERATOR_TIME:
            if (self.until_at - self.from_at) // MICROSECOND != self.quantity:
                raise ValueError(f"{self.usage_id}: {self.quantity} µs are not its length")
            if self.until_at > hour_of(self.from_at) + HOUR:
                raise ValueError(f"{self.usage_id} leaves its hour")
        elif self.meter not in MEASURES or self.until_at < self.from_at:
            raise ValueError(f"{self.usage_id}: {self.meter} from {self.from_at} to {self.until_at}")


def uses_of(lines: Iterable[UsageLine], *, spot_runs: frozenset[str] = frozenset()) -> tuple[MeteredUse, ...]:
    """Usage lines as uses. spot_runs: the ids of runs that were submitted as spot."""
    return tuple(
        MeteredUse(
            usage_id=line.line_id,
            tenant_id=line.tenant_id,
            project_id=line.project_id,
            from_at=line.from_at,
            until_at=line.to_at,
            quantity=line.micro_seconds,
            billable=line.billable,
            spot=line.run_id in spot_runs,
            run_id=line.run_id,
            lease_id=line.lease_id,
            accelerator_no=line.accelerator_no,
            model=line.model,
            node_id=line.node_id,
            site_id=line.site_id,
            reason=line.reason,
        )
        for line in lines
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Market:
    """All that decides about a price but the instant."""

    tenant_id: str
    project_id: str
    meter: str
    model: str | None
    site_id: str | None
    spot: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class UseColumns:
    """Many uses as columns of one length: all that rating asks of them."""

    usage_ids: Sequence[str]
    run_ids: Sequence[str | None]
    markets: Sequence[Market]  # each once
    market: NDArray[np.int64]  # its place in `markets`
    from_us: NDArray[np.int64]  # since 1970
    quantity: NDArray[np.int64]
    billable: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.usage_ids)


def columns_of(uses: Sequence[MeteredUse]) -> UseColumns:
    """The same uses, in their order."""
    places: dict[Market, int] = {}
    market = [
        places.setdefault(
            Market(
                tenant_id=use.tenant_id,
                project_id=use.project_id,
                meter=use.meter,
                model=use.model,
                site_id=use.site_id,
                spot=use.spot,
            ),
            len(places),
        )
        for use in uses
    ]
    return UseColumns(
        usage_ids=[use.usage_id for use in uses],
        run_ids=[use.run_id for use in uses],
        markets=list(places),
        market=np.array(market, np.int64),
        from_us=np.array([(use.from_at - EPOCH) // MICROSECOND for use in uses], np.int64),
        quantity=np.array([use.quantity for use in uses], np.int64),
        billable=np.array([use.billable for use in uses], np.bool_),
    )
