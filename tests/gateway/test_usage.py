"""Usage: what was not served is not charged, and the same segments give the same events."""

from dataclasses import replace

import pytest

from baseai.gateway.segment import Sums
from baseai.gateway.usage import Use, charged, events_of, summed
from tests.gateway.counted import NOON_S, told


@pytest.mark.parametrize(
    ("said", "requests", "tokens"),
    [
        pytest.param({}, 1, (10, 3), id="served"),
        pytest.param({"status": 400}, 0, (0, 0), id="a bad request"),
        pytest.param({"outcome": "failed", "status": 500}, 0, (0, 0), id="the replica failed"),
        pytest.param({"outcome": "failed"}, 0, (0, 0), id="it broke off in the middle"),
        pytest.param({"outcome": "lost", "status": 503}, 0, (0, 0), id="no replica answered"),
        pytest.param({"outcome": "refused", "status": 429}, 0, (0, 0), id="over the limit"),
        pytest.param({"cache": "hit"}, 1, (0, 0), id="a kept answer costs its request"),
        pytest.param({"cache": "collapsed"}, 1, (0, 0), id="so does one that was shared"),
        pytest.param({"outcome": "gone", "status": 499}, 1, (10, 3), id="gone after the first byte"),
        pytest.param(
            {"outcome": "gone", "status": 499, "first_byte_ms": None}, 0, (0, 0), id="gone before it"
        ),
    ],
)
def test_what_a_request_is_charged_for(
    said: dict[str, object], requests: int, tokens: tuple[int, int]
) -> None:
    one = charged(told(**said))
    assert (one.requests, (one.tokens_in, one.tokens_out)) == (requests, tokens)


def uses(*requests: dict[str, object]) -> list[Use]:
    sums = Sums()
    for said in requests:
        sums.add(told(**said))
    return sums.uses


def test_uses_of_several_segments_add_up_by_replica_and_hour() -> None:
    one = uses({}, {"run_id": "run_2"}, {"at_s": NOON_S + 3600})
    other = uses({"at_s": NOON_S + 30}, {"status": 404})
    both = summed([*other, *one])
    assert [(use.run_id, use.requests, use.tokens_in) for use in both] == [
        ("run_1", 2, 20),
        ("run_1", 1, 10),
        ("run_2", 1, 10),
    ]
    assert both[0].from_s == pytest.approx(NOON_S + 0.02)
    assert both[0].until_s == pytest.approx(NOON_S + 30.02)
    assert summed([*one, *other]) == both


def test_events_name_their_segments_and_leave_out_what_is_nothing() -> None:
    both = uses({"tokens_out": 0}, {"service_id": "svc_gone"})
    events = events_of(both, gateway="gw_1", first_no=3, last_no=8, models={"svc_1": "chat"})
    assert [(one.meter, one.quantity, one.unit) for one in events] == [
        ("requests", 1, "requests"),
        ("tokens_in", 10, "tokens"),
    ]
    assert {(one.source, one.model, one.run_id) for one in events} == {("gateway gw_1", "chat", "run_1")}
    again = events_of(both, gateway="gw_1", first_no=3, last_no=8, models={"svc_1": "chat"})
    assert [one.usage_id for one in again] == [one.usage_id for one in events]
    later = events_of(both, gateway="gw_1", first_no=9, last_no=14, models={"svc_1": "chat"})
    assert {one.usage_id for one in later}.isdisjoint(one.usage_id for one in events)


def test_the_hour_is_that_of_the_end() -> None:
    [use] = uses({"at_s": NOON_S - 0.01})
    assert use == replace(use, hour_s=int(NOON_S), requests=1)
