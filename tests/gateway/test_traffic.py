"""Traffic: every way in which a request ends is counted in its own column, and latencies in buckets."""

import pytest

from baseai.gateway.segment import Sums
from baseai.gateway.traffic import Stretch, counts_of
from baseai.serving.latency import BUCKETS, bucket_of
from tests.gateway.counted import NOON_S, told


def stretch(*requests: dict[str, object]) -> Stretch:
    sums = Sums()
    for said in requests:
        sums.add(told(**said))
    [one] = sums.stretches
    return one


@pytest.mark.parametrize(
    ("said", "counted"),
    [
        pytest.param({}, {"requests"}, id="served"),
        pytest.param({"slow": True}, {"requests", "slow"}, id="served late"),
        pytest.param({"outcome": "failed", "status": 500}, {"requests", "errors"}, id="failed"),
        pytest.param({"outcome": "lost", "status": 503}, {"requests", "errors", "lost"}, id="lost"),
        pytest.param({"outcome": "refused", "status": 429}, {"requests", "refused"}, id="refused"),
        pytest.param({"outcome": "gone", "status": 499}, {"requests"}, id="the client left: nobody's error"),
        pytest.param({"cache": "hit"}, {"requests", "cache_hits"}, id="kept"),
        pytest.param({"cache": "collapsed"}, {"requests", "collapsed"}, id="shared"),
        pytest.param({"retries": 1}, {"requests", "retried"}, id="retried"),
    ],
)
def test_a_request_is_counted_by_how_it_ended(said: dict[str, object], counted: set[str]) -> None:
    one = stretch(said)
    columns = ("requests", "errors", "refused", "slow", "cache_hits", "collapsed", "retried", "lost")
    assert {name for name in columns if getattr(one, name)} == counted


def test_tokens_are_those_that_replicas_worked_for() -> None:
    one = stretch({}, {"cache": "hit"}, {"cache": "collapsed"})
    assert (one.tokens_in, one.tokens_out, one.bytes_out) == (10, 3, 600)


def test_latencies_are_of_what_was_served_and_first_bytes_of_what_began() -> None:
    one = stretch(
        {}, {"latency_ms": 900.0}, {"outcome": "failed"}, {"outcome": "lost", "first_byte_ms": None}
    )
    assert one.latency == {bucket_of(20.0): 1, bucket_of(900.0): 1}
    assert one.first_byte == {bucket_of(15.0): 3}
    assert (len(counts_of(one.latency)), sum(counts_of(one.latency))) == (BUCKETS, 2)


def test_a_request_belongs_to_the_stretch_in_which_it_ended() -> None:
    assert stretch({"at_s": NOON_S - 0.01}).from_s == NOON_S
    assert stretch({"at_s": NOON_S - 0.03}).from_s == NOON_S - 10
