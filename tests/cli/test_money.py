"""A run's money on a terminal: a customer reads what it pays, we read what remains as well."""

from decimal import Decimal

import pytest

from baseai.api.schemas import CostView
from baseai.cli.runs import _money_facts


@pytest.mark.parametrize(
    ("ours", "names"),
    [
        pytest.param(None, ["accelerator-hours", "revenue"], id="a customer"),
        pytest.param(
            Decimal("0.1"), ["accelerator-hours", "revenue", "cost", "contribution"], id="an operator"
        ),
    ],
)
def test_money_facts(ours: Decimal | None, names: list[str]) -> None:
    money = CostView(
        subject="run_1", label="r", accelerator_hours=Decimal(1), revenue=Decimal("0.2"), cost=ours,
        contribution=ours, accruing=True,
    )  # fmt: skip
    facts = _money_facts(money)
    assert [name for name, _ in facts] == names
    assert dict(facts)["revenue"] == "USD 0.20 (estimate until posted)"
