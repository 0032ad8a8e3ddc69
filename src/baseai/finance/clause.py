"""A clause is what prices one stretch of use: which contract, which price, in which band, booked in which month.

Invariant: between two instants that `bounds` names, one clause holds for all use of a market; it follows from contracts
and prices alone. What is reserved goes first, up to what is committed; the rest is research where that was agreed,
else on demand, by the contract's own list or the default ones. Spot is spot, whatever else was agreed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from baseai.finance.contract import Commitment, Contract
from baseai.finance.period import Calendar, period_of
from baseai.finance.price_list import Peak, Price, PriceBook, Term
from baseai.finance.use import Market

DEFAULT_LISTS = ("list", "catalogue")  # our own list, and where it is silent the catalogue's
NO_CURRENCY = "XXX"  # ISO 4217: no currency is involved


@dataclass(frozen=True, slots=True, kw_only=True)
class Clause:
    """One stretch's price, or that there is none."""

    market: Market
    term: Term
    contract: Contract | None
    price: Price | None
    at: datetime  # an instant at which it holds
    band: int
    period: str  # in which volume is counted: the month of the use
    booked_in: str
    lists: tuple[str, ...]  # where a price was looked for
    commitment: Commitment | None = None  # what it is within

    @property
    def payer(self) -> str:
        """By whom volume is counted."""
        return self.market.tenant_id if self.contract is None else self.contract.contract_id

    @property
    def currency(self) -> str:
        if self.price is not None:
            return self.price.currency
        return NO_CURRENCY if self.contract is None else self.contract.currency

    def list_price(self, tier: int) -> Decimal:
        return Decimal(0) if self.price is None else self.price.rate(tier=tier, band=self.band)

    def unit_price(self, tier: int) -> Decimal:
        full = self.list_price(tier)
        return full if self.contract is None else full * (1 - self.contract.discount_ratio)

    def agreed(self) -> tuple[Contract, Commitment]:
        """The contract and the commitment of a reserved clause."""
        assert self.contract is not None
        assert self.commitment is not None
        return self.contract, self.commitment

    def wrong(self) -> tuple[str, str] | None:
        """The rule it breaks and how, naming the records; None when it can be rated by."""
        market = self.market
        what = " ".join(
            filter(None, (market.model or market.meter, market.site_id and f"at {market.site_id}"))
        )
        under = f"contract {self.contract.name}" if self.contract else f"tenant {market.tenant_id}"
        if self.price is None:
            sentence = (
                f"no {self.term.value} price of {what} at {self.at.isoformat()} in {' or '.join(self.lists)}"
                f" for {under}; add one with `baseai price add`"
            )
            return ("no_price", sentence)
        if self.contract is not None and self.contract.currency != self.price.currency:
            sentence = (
                f"{under} is in {self.contract.currency} and price {self.price.price_id} of {what} in"
                f" {self.price.currency}; give the contract a list in {self.contract.currency}"
            )
            return ("one_currency", sentence)
        return None


class Clauses:
    """Answers which clause holds. Pure: contracts, prices and calendar as they are given."""

    def __init__(
        self,
        contracts: Sequence[Contract],
        prices: PriceBook,
        calendar: Calendar,
        lists: tuple[str, ...] = DEFAULT_LISTS,
    ) -> None:
        self._prices = prices
        self._calendar = calendar
        self._lists = lists
        self._contracts: dict[str, list[Contract]] = {}
        for contract in contracts:
            self._contracts.setdefault(contract.tenant_id, []).append(contract)
        self._peaks: dict[tuple[Peak, datetime, datetime], list[datetime]] = {}

    def bounds(self, market: Market, from_at: datetime, until_at: datetime) -> list[datetime]:
        """Every instant inside the span at which another clause may begin to hold."""
        found: set[datetime] = set()
        lists = set(self._lists)
        period = period_of(from_at)
        while period.ends_at() < until_at:
            found.add(period.ends_at())
            period = period.next()
        for contract in self._contracts.get(market.tenant_id, ()):
            if contract.covers(market.project_id):
                found.update(at for at in (contract.from_at, contract.ends_at) if at is not None)
                lists.update(filter(None, (contract.list_id,)))
        for term in Term:
            for price in self._prices.candidates(
                tuple(lists), meter=market.meter, model=market.model, term=term
            ):
                found.update(at for at in (price.valid_from, price.valid_until) if at is not None)
                for peak in price.peaks:
                    key = (peak, from_at, until_at)
                    if key not in self._peaks:
                        self._peaks[key] = peak.bounds(from_at, until_at)
                    found.update(self._peaks[key])
        return sorted(at for at in found if from_at < at < until_at)

    def reserved(self, market: Market, at: datetime) -> Clause | None:
        """The clause of what is committed; None when nothing is."""
        if market.spot:
            return None
        for contract in self._holding(market, at, Term.RESERVED):
            commitment = contract.committed(market.model, market.site_id)
            if commitment is not None:
                return self.committed(contract, commitment, at, market)
        return None

    def committed(
        self, contract: Contract, commitment: Commitment, at: datetime, market: Market | None = None
    ) -> Clause:
        """The clause of one commitment, whoever uses it, or nobody."""
        market = market or Market(
            tenant_id=contract.tenant_id,
            project_id=contract.project_id or "",
            meter="accelerator_time",
            model=commitment.model,
            site_id=commitment.site_id,
            spot=False,
        )
        return self._clause(market, at, Term.RESERVED, contract, commitment)

    def ordinary(self, market: Market, at: datetime) -> Clause:
        """The clause of whatever is not within a commitment."""
        terms = (Term.SPOT,) if market.spot else (Term.RESEARCH, Term.ON_DEMAND)
        for term in terms:
            for contract in self._holding(market, at, term):
                return self._clause(market, at, term, contract, None)
        return self._clause(market, at, terms[-1], None, None)

    def _holding(self, market: Market, at: datetime, term: Term) -> list[Contract]:
        return [
            contract
            for contract in self._contracts.get(market.tenant_id, ())
            if contract.term is term and contract.covers(market.project_id) and contract.holds(at)
        ]

    def _clause(
        self,
        market: Market,
        at: datetime,
        term: Term,
        contract: Contract | None,
        commitment: Commitment | None,
    ) -> Clause:
        lists = self._lists
        own = contract.list_id if contract is not None else None
        # Its own list is silent about what it never mentions, and only about that.
        if own is not None and self._prices.candidates(
            (own,), meter=market.meter, model=market.model, term=term
        ):
            lists = (own,)
        price = self._prices.price(
            lists,
            meter=market.meter,
            model=market.model,
            site_id=market.site_id if commitment is None else commitment.site_id,
            term=term,
            at=at,
            months=contract.months if contract is not None else None,
        )
        return Clause(
            market=market,
            term=term,
            contract=contract,
            price=price,
            at=at,
            band=0 if price is None else price.band(at),
            period=str(period_of(at)),
            booked_in=str(self._calendar.booking_of(at)),
            lists=lists,
            commitment=commitment,
        )


def committed_us(clause: Clause, from_at: datetime, until_at: datetime) -> int:
    """How much accelerator time a reserved clause's commitment holds ready within a span, in µs."""
    contract, commitment = clause.agreed()
    end = until_at if contract.ends_at is None else min(until_at, contract.ends_at)
    length = end - max(from_at, contract.from_at)
    whole = (length.days * 86_400 + length.seconds) * 1_000_000 + length.microseconds
    return max(0, whole) * commitment.count
