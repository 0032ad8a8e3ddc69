"""Yield: which price the rules would set, why, and within which bounds."""

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseai.finance.costs.suggestion import Kept, Selling, Suggested, suggest, yield_rules
from baseai.finance.price_list import Term


def selling(
    rate: str | None = "2.60",
    *,
    term: Term = Term.ON_DEMAND,
    utilisation: str | None = "0.60",
    waiting: str = "0",
    contribution: str | None = "0.5",
    month_rate: str | None = None,
    variable_cost: str = "0.90",
) -> Selling:
    return Selling(
        model="H100-SXM",
        site_id="SP4",
        term=term,
        currency="USD",
        rate=None if rate is None else Decimal(rate),
        month_rate=None if month_rate is None else Decimal(month_rate),
        list_rate=Decimal("2.60"),
        variable_cost=Decimal(variable_cost),
        utilisation_ratio=None if utilisation is None else Decimal(utilisation),
        waiting_ratio=Decimal(waiting),
        contribution_ratio=None if contribution is None else Decimal(contribution),
    )


@pytest.mark.parametrize(
    ("case", "rule", "rate"),
    [
        pytest.param(selling(utilisation="0.95", waiting="0.5"), "scarce", "2.808", id="sold out, and people wait"),
        pytest.param(selling(utilisation="0.80", waiting="0.05"), "tight", "2.704", id="nearly so"),
        pytest.param(selling(utilisation="0.20"), "slack", "2.47", id="idle, nobody waits, and it earns"),
        pytest.param(selling(utilisation="0.20", contribution="0.1"), None, None, id="idle and earning little: kept"),
        pytest.param(selling(utilisation="0.95"), None, None, id="sold out and nobody waits: kept"),
        pytest.param(selling("0.50", contribution="-0.8"), "loss", "0.9000", id="below cost: to the least there is"),
        pytest.param(
            selling(utilisation="0.95", waiting="0.5", month_rate="2.15"), "scarce", "2.688", id="bounded by the month"
        ),
        pytest.param(
            selling("3.00", utilisation="0.95", waiting="0.5", month_rate="2.00"), "", None,
            id="past the month's bound already: it stays",
        ),
        pytest.param(selling(None, term=Term.SPOT, utilisation="0.30"), "empty", "1.58", id="idle hours, cheap"),
        pytest.param(selling(None, term=Term.SPOT, utilisation="0.90"), "full", "2.26", id="few idle hours, dear"),
        pytest.param(
            selling("1.00", term=Term.SPOT, utilisation="0.90"), "full", "1.150", id="in steps, where there is a price"
        ),
    ],
)  # fmt: skip
def test_suggest(case: Selling, rule: str | None, rate: str | None) -> None:
    found = suggest(case, yield_rules())
    if rule is None or rate is None:
        assert isinstance(found, Kept)
        assert ("no rule asks" in found.sentence) is (rule is None)
    else:
        assert isinstance(found, Suggested)
        assert (found.rule, found.rate) == (rule, Decimal(rate))


def test_a_suggestion_says_which_utilisation_queue_and_contribution_led_to_it() -> None:
    found = suggest(selling(utilisation="0.95", waiting="0.5"), yield_rules())
    assert isinstance(found, Suggested)
    assert found.sentence == (
        "2.808 USD (+8.0 %): nearly all of it is sold and people wait; 95 % sold, 50 % of it asked for in the queue,"
        " a sold hour contributes 50 %, running costs 0.9000"
    )
    assert found.selling.facts()["utilisation_ratio"] == "0.950000"


RATIOS = st.decimals(min_value=0, max_value=1, places=3)
RATES = st.decimals(min_value=Decimal("0.01"), max_value=100, places=4)


@given(
    rate=st.none() | RATES,
    month_rate=st.none() | RATES,
    cost=RATES,
    listed=RATES,
    utilisation=RATIOS,
    waiting=RATIOS,
    contribution=st.decimals(min_value=-2, max_value=1, places=3),
    term=st.sampled_from([Term.ON_DEMAND, Term.RESERVED, Term.SPOT]),
)
def test_no_price_leaves_its_bounds_or_goes_below_the_variable_cost(
    rate: Decimal | None,
    month_rate: Decimal | None,
    cost: Decimal,
    listed: Decimal,
    utilisation: Decimal,
    waiting: Decimal,
    contribution: Decimal,
    term: Term,
) -> None:
    case = replace(
        selling(term=term),
        rate=rate,
        month_rate=month_rate,
        variable_cost=cost,
        list_rate=listed,
        utilisation_ratio=utilisation,
        waiting_ratio=waiting,
        contribution_ratio=contribution,
    )
    found = suggest(case, yield_rules())
    if isinstance(found, Kept):
        return
    assert found.rate >= cost
    rule = next(one for one in yield_rules() if (one.rule, one.term) == (found.rule, term))
    slack = Decimal("1.001")  # rounded to four digits
    if month_rate is not None and found.rate > cost * slack:
        assert (
            month_rate * (1 - rule.month_most) / slack
            <= found.rate
            <= month_rate * (1 + rule.month_most) * slack
        )
    elif rate is not None and month_rate is None and found.rate > cost * slack:
        assert rate * (1 - rule.step_most) / slack <= found.rate <= rate * (1 + rule.step_most) * slack
