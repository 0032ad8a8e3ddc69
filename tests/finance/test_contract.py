"""Contracts: what may be agreed, and what contradicts another one."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from baseai.finance.contract import Commitment, Contract, contract_faults
from baseai.finance.price_list import Term
from tests.finance.agreed import NOVEMBER, at, contract


def until(year: int, month: int, day: int = 1, hour: int = 3) -> datetime:
    return datetime(year, month, day, hour, tzinfo=UTC)


@pytest.mark.parametrize(
    ("until_at", "allowed"),
    [
        pytest.param(until(2027, 5), True, id="six months"),
        pytest.param(until(2029, 11), True, id="thirty-six"),
        pytest.param(until(2027, 4), False, id="five"),
        pytest.param(until(2029, 12), False, id="thirty-seven"),
        pytest.param(until(2027, 6, 15), False, id="half a month over"),
        pytest.param(None, False, id="without end"),
    ],
)
def test_a_reserved_contract_lasts_6_to_36_whole_months(until_at: datetime | None, allowed: bool) -> None:
    if allowed:
        assert contract(until_at=until_at).until_at == until_at
    else:
        with pytest.raises(ValueError, match="alfa: a reserved contract lasts 6 to 36 whole months"):
            contract(until_at=until_at)


OPEN = contract("beta", term=Term.ON_DEMAND, until_at=None)


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        pytest.param(contract(), contract("beta"), True, id="the same model at any site"),
        pytest.param(contract(site="sp4"), contract("beta", site="rj2"), False, id="different sites"),
        pytest.param(contract(site="sp4"), contract("beta"), True, id="any site holds every site"),
        pytest.param(contract(), contract("beta", tenant="ten_2"), False, id="different tenants"),
        pytest.param(contract(), OPEN, False, id="different terms"),
        pytest.param(
            contract(until_at=until(2027, 5)),
            contract("beta", from_at=until(2027, 5), until_at=until(2027, 11)),
            False,
            id="one after the other",
        ),
        pytest.param(
            contract(ended_at=at(9, 0)), contract("beta", from_at=at(9, 0), until_at=until(2027, 5, 9)), False,
            id="the first was ended",
        ),
        pytest.param(
            contract(term=Term.RESEARCH, project="prj_1"),
            contract("beta", term=Term.RESEARCH, project="prj_2"),
            False,
            id="different projects",
        ),
    ],
)  # fmt: skip
def test_contracts_that_cover_the_same_are_told_by_name(
    one: Contract, other: Contract, overlap: bool
) -> None:
    faults = contract_faults([other, one])
    assert bool(faults) is overlap
    if overlap:
        assert "alfa and beta overlap" in faults[0]


def test_a_contract_commits_a_model_once_at_a_place() -> None:
    twice = (Commitment(model="h100", count=1), Commitment(model="h100", count=2, site_id="sp4"))
    with pytest.raises(ValueError, match="alfa commits h100 twice at any site"):
        replace(contract(), commitments=twice)


def test_what_is_ended_early_still_was_agreed_for_its_months() -> None:
    ended = contract(ended_at=at(9, 0))
    assert (ended.months, ended.ends_at) == (12, at(9, 0))
    assert [ended.holds(one) for one in (NOVEMBER, at(8, 23), at(9, 0))] == [True, True, False]
