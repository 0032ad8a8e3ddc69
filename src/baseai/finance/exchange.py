"""An exchange takes an amount out of one currency and puts its worth into another, as two transfers of one entry.

Invariant: no transfer has two currencies. One row credits the conversion account in the currency given, the other
debits it in the currency got; both carry the rate, its source and its day, and the amounts agree with the rate. Half
an exchange is refused. What the conversion account holds is what the rates of the day made of the rates of before.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date
from decimal import ROUND_HALF_EVEN, Decimal, localcontext

from baseai.finance.chart import WrongCurrency
from baseai.finance.transfer import Transfer

CONVERSION = "conversion:"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeRate:
    """What one unit of `base` was worth in `quote` on a day, by whom."""

    base: str  # ISO 4217
    quote: str
    rate: Decimal
    source: str  # a word without a colon: `ptax`
    on: date

    def __post_init__(self) -> None:
        if self.rate <= 0:
            raise ValueError(f"a rate of {self.rate}")
        if self.base == self.quote:
            raise ValueError(f"{self.base} for {self.quote} is no exchange")


def exchanged(micros: int, currency: str, rate: ExchangeRate) -> tuple[int, str]:
    """The worth of an amount in the other currency of `rate`, half to even. Raises WrongCurrency."""
    with localcontext() as context:
        context.prec = 60
        if currency == rate.base:
            exact = micros * rate.rate
        elif currency == rate.quote:
            exact = micros / rate.rate
        else:
            raise WrongCurrency(f"a rate of {rate.base} in {rate.quote} exchanges no {currency}")
        worth = int(exact.to_integral_value(rounding=ROUND_HALF_EVEN))
    return worth, rate.quote if currency == rate.base else rate.base


def exchange(given: Transfer, rate: ExchangeRate, *, into: str) -> tuple[Transfer, Transfer]:
    """Both rows of an exchange.

    given: debits whatever takes the amount in (a bank); its credit account is put in place here.
    into: the account that is credited in the other currency (a receivable that is settled).
    """
    account = CONVERSION + rate.source
    worth, currency = exchanged(given.amount_micros, given.currency, rate)
    first = replace(given, credit_account=account, fx_rate=rate.rate, fx_source=rate.source, fx_on=rate.on)
    second = replace(
        first,
        transfer_id=f"{given.transfer_id}-{currency.lower()}",
        debit_account=account,
        credit_account=into,
        amount_micros=worth,
        currency=currency,
    )
    return first, second


def check_exchanges(transfers: Iterable[Transfer]) -> None:
    """Raises WrongCurrency for rows on a conversion account that are not both halves of one exchange.

    `transfers` are what is new of one group.
    """
    halves: dict[tuple[str, str], list[Transfer]] = defaultdict(list)
    for transfer in transfers:
        sides = (transfer.debit_account, transfer.credit_account)
        accounts = [account for account in sides if account.startswith(CONVERSION)]
        if accounts and transfer.fx_rate is None:
            raise WrongCurrency(f"{transfer.transfer_id} stands on {accounts[0]} and names no rate")
        if not accounts and transfer.fx_rate is not None:
            raise WrongCurrency(f"{transfer.transfer_id} names a rate and stands on no conversion account")
        for account in accounts:
            halves[transfer.entry_id, account].append(transfer)
    for (entry_id, account), rows in halves.items():
        out = [row for row in rows if row.credit_account == account]
        back = [row for row in rows if row.debit_account == account]
        if len(out) != 1 or len(back) != 1 or out[0].currency == back[0].currency:
            raise WrongCurrency(
                f"{entry_id} is no exchange: one amount goes through {account}, in two currencies"
            )
        _check_rate(out[0], back[0])


def _check_rate(out: Transfer, back: Transfer) -> None:
    told = (out.fx_rate, out.fx_source, out.fx_on)
    if (back.fx_rate, back.fx_source, back.fx_on) != told or out.kind is not back.kind:
        raise WrongCurrency(f"{out.transfer_id} and {back.transfer_id} are one exchange and name two rates")
    if out.reverses_id is not None and back.reverses_id is not None:
        return  # as much as went through the other way, which was checked then
    assert out.fx_rate is not None
    assert out.fx_on is not None
    for base, quote in ((out.currency, back.currency), (back.currency, out.currency)):
        rate = ExchangeRate(base=base, quote=quote, rate=out.fx_rate, source=str(out.fx_source), on=out.fx_on)
        if exchanged(out.amount_micros, out.currency, rate)[0] == back.amount_micros:
            return
    raise WrongCurrency(
        f"{out.transfer_id} and {back.transfer_id}: {out.amount_micros} micro-{out.currency} at {out.fx_rate} are not"
        f" {back.amount_micros} micro-{back.currency}"
    )
