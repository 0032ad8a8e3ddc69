"""Lines are final, exact and the same however often and whenever the meter looks."""

from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseai.finance.meter import ObservedLease, UsageLine, micro_seconds, observed_span, usage_of
from tests.finance.leased import HOUR_US, TEN, after, leased


def spans(lines: tuple[UsageLine, ...]) -> list[tuple[datetime, datetime]]:
    return [(line.from_at, line.to_at) for line in lines]


@pytest.mark.parametrize(
    ("lease", "now", "expected"),
    [
        pytest.param(leased(seen=None), after(5), [], id="what nobody saw is not used"),
        pytest.param(leased(seen=(TEN, after(0.9))), after(0.9), [], id="an hour that is not over waits"),
        pytest.param(leased(seen=(TEN, after(0.9))), after(2), [], id="an hour not seen to its end waits"),
        pytest.param(
            leased(seen=(TEN, after(1))), after(2), [], id="seen exactly to the hour: the end is open"
        ),
        pytest.param(
            leased(seen=(after(0.5), after(1, us=1))),
            after(2),
            [(after(0.5), after(1))],
            id="an hour that is over",
        ),
        pytest.param(
            leased(seen=(after(0.5), after(2.5)), ends_at=after(2)),
            after(3),
            [(after(0.5), after(1))],
            id="the hour in which the lease may still be extended waits",
        ),
        pytest.param(
            leased(seen=(after(0.5), after(2.5)), ended=True),
            after(2.5),
            [(after(0.5), after(1)), (after(1), after(2)), (after(2), after(2.5))],
            id="an ended lease is metered to its end",
        ),
        pytest.param(
            leased(seen=(after(-1), after(9)), ends_at=after(2), released_at=after(1.5), ended=True),
            after(9),
            [(TEN, after(1)), (after(1), after(1.5))],
            id="what lies outside the lease does not count",
        ),
        pytest.param(
            leased(seen=(after(0.5), after(2.5)), metered_until=after(2), ended=True),
            after(3),
            [(after(2), after(2.5))],
            id="what is metered is not metered again",
        ),
    ],
)
def test_final_time(lease: ObservedLease, now: datetime, expected: list[tuple[datetime, datetime]]) -> None:
    assert spans(usage_of(lease, now=now).lines) == expected


def test_the_verdict_falls_on_the_end_and_hours_before_it_are_presumed_billable() -> None:
    lease = leased(seen=(after(0.5), after(2.5)), ended=True, billable=False)
    assert [line.billable for line in usage_of(lease, now=after(3)).lines] == [True, True, False]


def test_a_run_of_our_own_is_never_billed_from_its_first_line_on() -> None:
    lease = replace(leased(seen=(after(0.5), after(2.5)), ended=True, billable=True), unbilled_for="burn_in")
    lines = usage_of(lease, now=after(3)).lines
    assert [(line.billable, line.reason) for line in lines] == [(False, "burn_in")] * 3


def test_an_ended_lease_is_done_with_even_when_nothing_was_seen_inside_it() -> None:
    lease = leased(seen=(after(-1), TEN), ended=True)
    assert usage_of(lease, now=after(3)).metered_until == TEN


def test_each_accelerator_has_its_own_line() -> None:
    lines = usage_of(
        leased(seen=(TEN, after(0, us=7)), accelerator_nos=(3, 1), ended=True), now=after(1)
    ).lines
    assert [(line.accelerator_no, line.micro_seconds) for line in lines] == [(1, 7), (3, 7)]
    assert len({line.line_id for line in lines}) == 2


instants = st.integers(-HOUR_US, 6 * HOUR_US).map(lambda us: after(us=us))


@st.composite
def lives(draw: st.DrawFn) -> tuple[ObservedLease, list[datetime]]:
    """A lease as it looks when all is over, and the instants at which the meter looked before that."""
    granted, first, last = sorted(draw(st.lists(instants, min_size=3, max_size=3, unique=True)))
    released = last + timedelta(microseconds=draw(st.integers(0, HOUR_US)))
    ends_at = draw(
        st.one_of(st.just(released), instants.map(lambda at: max(at, granted + timedelta(seconds=1))))
    )
    lease = leased(
        seen=(first, last),
        granted_at=granted,
        ends_at=ends_at,
        released_at=min(released, ends_at),
        ended=True,
        billable=draw(st.sampled_from([True, False, None])),
        accelerator_nos=(1, 2),
    )
    return lease, sorted(draw(st.lists(instants, max_size=12)))


@given(lives())
def test_metering_in_pieces_gives_the_lines_of_metering_once(
    life: tuple[ObservedLease, list[datetime]],
) -> None:
    final, looks = life
    once = usage_of(final, now=after(8)).lines
    assert final.observed_from is not None
    assert final.observed_until is not None
    lines: list[UsageLine] = []
    metered_until = None
    for look in looks:
        if look < final.observed_from or (final.released_at and look >= final.released_at):
            continue
        so_far = replace(
            final,
            observed_until=min(look, final.observed_until),
            released_at=None,
            ended=False,
            billable=None,
            metered_until=metered_until,
        )
        piece = usage_of(so_far, now=look)
        assert usage_of(so_far, now=look) == piece  # beside another copy
        assert usage_of(replace(so_far, metered_until=piece.metered_until), now=look).lines == ()  # twice
        lines += piece.lines
        metered_until = piece.metered_until
    lines += usage_of(replace(final, metered_until=metered_until), now=after(8)).lines
    assert tuple(lines) == once


@given(lives())
def test_the_lines_of_an_ended_lease_are_its_observed_time(
    life: tuple[ObservedLease, list[datetime]],
) -> None:
    lease, _ = life
    lines = usage_of(lease, now=after(8)).lines
    span = observed_span(lease)
    observed_us = micro_seconds(span[1] - span[0]) if span else 0
    for accelerator_no in lease.accelerator_nos:
        own = [line for line in lines if line.accelerator_no == accelerator_no]
        assert sum(line.micro_seconds for line in own) == observed_us
        assert all(one.to_at == two.from_at for one, two in pairwise(own))
        assert all(line.hour <= line.from_at < line.to_at <= line.hour + timedelta(hours=1) for line in own)
