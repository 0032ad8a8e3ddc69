"""A suggestion is a price that the rules of yield would set, with what led to it; it changes nothing by itself.

Invariant: the first rule that fits decides; its step is bounded, per step and over the month, both ways, and no price
goes below the variable cost of the hour that is sold. Rules are data, in `yield_rules.csv`. Only an operator applies
one.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_HALF_EVEN, Decimal
from enum import StrEnum
from functools import cache
from importlib.resources import files

from baseai.finance.price_list import Term

DIGITS = 4  # of a suggested price


class SuggestionState(StrEnum):
    PROPOSED = "proposed"
    APPLIED = "applied"  # a price follows from it
    DECLINED = "declined"
    SUPERSEDED = "superseded"  # a newer one took its place


class SuggestionEvent(StrEnum):
    APPLY = "apply"
    DECLINE = "decline"
    SUPERSEDE = "supersede"


TRANSITIONS: Mapping[tuple[SuggestionState, SuggestionEvent], SuggestionState] = {
    (SuggestionState.PROPOSED, SuggestionEvent.APPLY): SuggestionState.APPLIED,
    (SuggestionState.PROPOSED, SuggestionEvent.DECLINE): SuggestionState.DECLINED,
    (SuggestionState.PROPOSED, SuggestionEvent.SUPERSEDE): SuggestionState.SUPERSEDED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """From an amount on, below another; either may be open."""

    least: Decimal | None
    below: Decimal | None

    def holds(self, amount: Decimal | None) -> bool:
        if amount is None:
            return self.least is None and self.below is None
        return (self.least is None or amount >= self.least) and (self.below is None or amount < self.below)

    def __str__(self) -> str:
        if self.least is None:
            return "any" if self.below is None else f"below {self.below}"
        return f"from {self.least}" if self.below is None else f"from {self.least} and below {self.below}"


@dataclass(frozen=True, slots=True, kw_only=True)
class YieldRule:
    """When a price moves, how far, and why. Either by a step of its own, or towards a share of the list price."""

    rule: str
    term: Term
    utilisation: Range
    waiting: Range
    contribution: Range
    step: Decimal | None  # of the price now
    of_list: Decimal | None  # of the on-demand price, for idle hours
    step_most: Decimal
    month_most: Decimal
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Selling:
    """How one model sells at one site on one term."""

    model: str
    site_id: str
    term: Term
    currency: str
    rate: Decimal | None  # now, an accelerator-hour; None where there is no price yet
    month_rate: Decimal | None  # when the month began
    list_rate: Decimal  # on demand, now
    variable_cost: Decimal  # of an accelerator-hour that is sold, what collecting takes included
    utilisation_ratio: Decimal | None  # sold ÷ available
    waiting_ratio: Decimal  # accelerators that waiting runs ask for ÷ available accelerators
    contribution_ratio: (
        Decimal | None
    )  # of the hours that were sold: what they brought over what they cost to run

    def facts(self) -> dict[str, str | None]:
        """What a suggestion is explained by."""
        return {
            "utilisation_ratio": _text(self.utilisation_ratio),
            "waiting_ratio": _text(self.waiting_ratio),
            "contribution_ratio": _text(self.contribution_ratio),
            "list_rate": str(self.list_rate),
            "variable_cost": _text(self.variable_cost),
            "month_rate": _text(self.month_rate),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggested:
    """The price, and by which rule."""

    selling: Selling
    rule: str
    rate: Decimal
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """The price stays as it is."""

    selling: Selling
    sentence: str


@cache
def yield_rules() -> tuple[YieldRule, ...]:
    text = files("baseai.finance.costs").joinpath("yield_rules.csv").read_text(encoding="utf-8")
    return tuple(
        YieldRule(
            rule=row["rule"],
            term=Term(row["term"]),
            utilisation=_range(row, "utilisation"),
            waiting=_range(row, "waiting"),
            contribution=_range(row, "contribution"),
            step=_amount(row["step"]),
            of_list=_amount(row["of_list"]),
            step_most=Decimal(row["step_most"]),
            month_most=Decimal(row["month_most"]),
            why=row["why"],
        )
        for row in csv.DictReader(io.StringIO(text))
    )


def suggest(selling: Selling, rules: Sequence[YieldRule]) -> Suggested | Kept:
    """What the first rule that fits makes of a price.

    Bounds: at most `step_most` away from the price now, then at most `month_most` away from the one that the month
    began with, and never below the variable cost, which goes before both.
    """
    rule = next(
        (
            one
            for one in rules
            if one.term is selling.term
            and one.utilisation.holds(selling.utilisation_ratio)
            and one.waiting.holds(selling.waiting_ratio)
            and one.contribution.holds(selling.contribution_ratio)
        ),
        None,
    )
    told = _told(selling)
    if rule is None:
        return Kept(selling=selling, sentence=f"no rule asks for another price: {told}")
    wanted = _wanted(selling, rule)
    if wanted is None:
        return Kept(selling=selling, sentence=f"there is no price to move yet: {told}")
    bounded, how = _bounded(selling, rule, wanted)
    rate = bounded if bounded == selling.rate else _rounded(bounded, up=False)
    if rate < selling.variable_cost:
        rate, how = (
            _rounded(selling.variable_cost, up=True),
            "raised to the variable cost, the least there is",
        )
    if rate == selling.rate:
        return Kept(selling=selling, sentence=f"{rule.rule}: the price is there already; {told}")
    now = "new" if selling.rate is None else f"{(rate / selling.rate - 1) * 100:+.1f} %"
    return Suggested(
        selling=selling,
        rule=rule.rule,
        rate=rate,
        sentence=f"{rate} {selling.currency} ({now}): {rule.why}; {told}" + (f"; {how}" if how else ""),
    )


def _wanted(selling: Selling, rule: YieldRule) -> Decimal | None:
    if rule.of_list is not None:
        # Idle hours are worth something between the cost of running and the list price.
        return (
            selling.variable_cost + max(Decimal(0), selling.list_rate - selling.variable_cost) * rule.of_list
        )
    if rule.step is None or selling.rate is None:
        return None
    return selling.rate * (1 + rule.step)


def _bounded(selling: Selling, rule: YieldRule, wanted: Decimal) -> tuple[Decimal, str]:
    bounded, how = wanted, ""
    for base, most, name in (
        (selling.rate, rule.step_most, "step"),
        (selling.month_rate, rule.month_most, "month"),
    ):
        if base is None:
            continue
        inside = min(max(bounded, base * (1 - most)), base * (1 + most))
        if inside != bounded:
            bounded, how = inside, f"bounded to {most * 100:.0f} % a {name}"
    if selling.rate is not None and (bounded - selling.rate) * (wanted - selling.rate) < 0:
        return selling.rate, how  # it is past the month's bound already: it stays, and does not turn around
    return bounded, how


def _rounded(rate: Decimal, *, up: bool) -> Decimal:
    """To DIGITS digits that count."""
    if not rate:
        return rate
    unit = Decimal(1).scaleb(rate.adjusted() - DIGITS + 1)
    return rate.quantize(unit, ROUND_CEILING if up else ROUND_HALF_EVEN)


def _told(selling: Selling) -> str:
    utilised = "nothing was there to be sold"
    if selling.utilisation_ratio is not None:
        utilised = f"{selling.utilisation_ratio * 100:.0f} % sold"
    earned = "nothing earned yet"
    if selling.contribution_ratio is not None:
        earned = f"a sold hour contributes {selling.contribution_ratio * 100:.0f} %"
    return (
        f"{utilised}, {selling.waiting_ratio * 100:.0f} % of it asked for in the queue, {earned}, running costs"
        f" {selling.variable_cost:.4f}"
    )


def _range(row: Mapping[str, str], name: str) -> Range:
    return Range(least=_amount(row[f"{name}_from"]), below=_amount(row[f"{name}_below"]))


def _amount(text: str) -> Decimal | None:
    return Decimal(text) if text else None


def _text(amount: Decimal | None) -> str | None:
    return None if amount is None else f"{amount:.6f}"
