"""Capacity that is held: who uses it, what of it stands unused, and on which accelerators that is told."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseai.finance.bucket import HOUR, Bucket, Claim, Interval
from baseai.finance.claim import LeaseFacts, Terms
from baseai.finance.held import HeldBy, Hold, Presence, Step, first_claims, unused_steps
from baseai.finance.hours.facts import AcceleratorFacts, Facts, reckoned
from tests.finance.leased import HOUR_US, TEN, after

B = Bucket
SIX = (TEN, after(6))


def there(accelerator_no: int, start: float, end: float) -> Presence:
    return Presence(accelerator_no=accelerator_no, from_at=after(start), until_at=after(end))


def step(count: int, start: float, end: float) -> Step:
    return Step(count=count, from_at=after(start), until_at=after(end))


def hold(count: int, start: float, end: float, by: HeldBy = HeldBy.CALENDAR, **other: str) -> Hold:
    usual = {"tenant_id": "acme", "model": "H100"} | other
    return Hold(count=count, by=by, from_at=after(start), until_at=after(end), **usual)


def hours(claims: Mapping[int, Sequence[Claim]]) -> dict[int, list[tuple[float, float]]]:
    return {
        number: [((c.from_at - TEN) / HOUR, ((c.until_at or TEN) - TEN) / HOUR) for c in each]
        for number, each in claims.items()
    }


@pytest.mark.parametrize(
    ("steps", "present", "expected"),
    [
        pytest.param(
            [step(2, 1, 3)], [there(n, 0, 4) for n in (3, 1, 2)],
            {1: [(1, 3)], 2: [(1, 3)]}, id="the lowest numbers",
        ),
        pytest.param(
            [step(1, 0, 4)], [there(1, 0, 2), there(2, 0, 4)],
            {1: [(0, 2)], 2: [(2, 4)]}, id="the next stands in when the first is gone",
        ),
        pytest.param(
            [step(1, 0, 2), step(1, 1, 3)], [there(1, 0, 4), there(2, 0, 4)],
            {1: [(0, 3)], 2: [(1, 2)]}, id="what overlaps adds up",
        ),
        pytest.param([step(2, 0, 1)], [there(1, 2, 3)], {}, id="nothing is there"),
        pytest.param([], [there(1, 0, 1)], {}, id="nothing is wanted"),
    ],
)  # fmt: skip
def test_first(
    steps: Sequence[Step], present: Sequence[Presence], expected: dict[int, list[tuple[float, float]]]
) -> None:
    assert hours(first_claims(B.RESERVED_UNUSED, steps, present)) == expected


@pytest.mark.parametrize(
    ("holds", "leased", "expected"),
    [
        pytest.param([hold(2, 0, 4)], [], [step(2, 0, 4)], id="nobody uses it"),
        pytest.param(
            [hold(2, 0, 4)], [there(1, 1, 2), there(2, 0, 2)],
            [step(1, 0, 1), step(2, 2, 4)], id="less what is leased",
        ),
        pytest.param(
            [hold(2, 0, 4, HeldBy.CONTRACT), hold(3, 1, 2)], [],
            [step(2, 0, 1), step(3, 1, 2), step(2, 2, 4)], id="the calendar is how a contract is kept",
        ),
        pytest.param([hold(1, 0, 2)], [there(1, 0, 9), there(2, 0, 9)], [], id="more than is held is leased"),
    ],
)  # fmt: skip
def test_unused(holds: Sequence[Hold], leased: Sequence[Presence], expected: list[Step]) -> None:
    assert unused_steps(holds, leased) == expected


def accelerator(number: int, *leases: LeaseFacts, model: str = "H100", site: str = "SP4") -> AcceleratorFacts:
    return AcceleratorFacts(
        accelerator_no=number,
        model=model,
        site_id=site,
        installed=Interval(from_at=TEN - HOUR),
        state="in_service",
        moves=(),
        node_state="ready",
        node_moves=(),
        leases=leases,
    )


def used(start: float, end: float, *, tenant: str = "acme", terms: Terms = Terms.ON_DEMAND) -> LeaseFacts:
    return LeaseFacts(
        terms=terms,
        tenant_id=tenant,
        project_id="main",
        granted_at=after(start),
        until_at=after(end),
        observed_from=after(start),
        observed_until=after(end),
    )


def total(accelerators: Sequence[AcceleratorFacts], *holds: Hold) -> dict[Bucket, float]:
    """Accelerator-hours by bucket from ten o'clock to four."""
    facts = Facts(window=SIX, accelerators=accelerators, fragmented={}, holds=holds)
    sums: dict[Bucket, float] = {}
    for of_hour in reckoned(facts).values():
        assert sum(of_hour.values()) == HOUR_US
        for bucket, us in of_hour.items():
            sums[bucket] = sums.get(bucket, 0) + us / HOUR_US
    return sums


def test_a_commitment_covers_what_its_tenant_runs_first() -> None:
    fleet = [
        accelerator(1, used(0, 6)),
        accelerator(2, used(0, 3)),
        accelerator(3, used(0, 6, tenant="rival")),
    ]
    assert total(fleet, hold(2, 0, 6, HeldBy.CONTRACT)) == {
        B.RESERVED: 9,
        B.ON_DEMAND: 6,
        B.RESERVED_UNUSED: 3,
    }
    assert total(fleet, hold(1, 0, 6, HeldBy.CONTRACT)) == {B.RESERVED: 6, B.ON_DEMAND: 9, B.IDLE: 3}


def test_spot_of_its_tenant_is_not_within_a_commitment() -> None:
    fleet = [accelerator(1, used(0, 6, terms=Terms.SPOT)), accelerator(2)]
    assert total(fleet, hold(1, 0, 6, HeldBy.CONTRACT)) == {B.SPOT: 6, B.RESERVED_UNUSED: 6}


def test_a_commitment_to_one_project_is_not_used_by_another() -> None:
    fleet = [accelerator(1, used(0, 6)), accelerator(2)]
    committed = hold(1, 0, 6, HeldBy.CONTRACT, project_id="other")
    assert total(fleet, committed) == {B.ON_DEMAND: 6, B.RESERVED_UNUSED: 6}
    assert total(fleet, replace(committed, project_id="main")) == {B.RESERVED: 6, B.IDLE: 6}


def test_what_is_held_at_one_site_stands_unused_there() -> None:
    fleet = [accelerator(1, site="MI1"), accelerator(2), accelerator(3, model="A100")]
    facts = Facts(window=SIX, accelerators=fleet, fragmented={}, holds=[hold(5, 0, 6, site_id="SP4")])
    assert {no for (no, _), sums in reckoned(facts).items() if B.RESERVED_UNUSED in sums} == {2}


def test_two_tenants_are_not_held_the_same_accelerator() -> None:
    fleet = [accelerator(1), accelerator(2), accelerator(3)]
    held = [hold(1, 0, 6, tenant_id="a", site_id="SP4"), hold(1, 0, 6, tenant_id="b")]
    assert total(fleet, *held) == {B.RESERVED_UNUSED: 12, B.IDLE: 6}


spells = st.tuples(st.integers(0, 12), st.integers(0, 12)).map(
    lambda pair: (min(pair) / 2, max(pair) / 2 + 0.25)
)
leases = st.builds(
    lambda spell, tenant, terms: used(*spell, tenant=tenant, terms=terms),
    spells,
    st.sampled_from(["a", "b"]),
    st.sampled_from([Terms.ON_DEMAND, Terms.SPOT, Terms.RESERVED]),
)
fleets = st.lists(st.lists(leases, max_size=2), min_size=1, max_size=4).map(
    lambda each: [accelerator(number, *some) for number, some in enumerate(each, 1)]
)
held = st.lists(
    st.builds(
        lambda spell, count, tenant, by: hold(count, *spell, by, tenant_id=tenant),
        spells,
        st.integers(1, 3),
        st.sampled_from(["a", "b"]),
        st.sampled_from(HeldBy),
    ),
    max_size=3,
)


@given(fleet=fleets, holds=held, cut=st.integers(1, 5))
def test_whatever_is_held_sums_are_whole_and_windows_agree(
    fleet: list[AcceleratorFacts], holds: list[Hold], cut: int
) -> None:
    whole = reckoned(Facts(window=SIX, accelerators=fleet, fragmented={}, holds=holds))
    assert len(whole) == 6 * len(fleet)
    assert all(sum(of_hour.values()) == HOUR_US for of_hour in whole.values())
    parts = [
        reckoned(Facts(window=window, accelerators=fleet, fragmented={}, holds=holds)).items()
        for window in ((TEN, after(cut)), (after(cut), SIX[1]))
    ]
    assert dict(chain.from_iterable(parts)) == whole
