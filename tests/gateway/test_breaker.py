"""When a replica is spared, for how long, and how it comes back."""

import pytest

from baseai.gateway.breaker import FIRST_S, LONGEST_S, Breaker, Failing


def broken(*failures: Failing, may_eject: bool = True) -> Breaker:
    breaker = Breaker()
    for failing in failures:
        breaker.failed(failing, may_eject=may_eject, now_s=0.0)
    return breaker


@pytest.mark.parametrize(
    ("failures", "admitted"),
    [
        pytest.param(["refused"], False, id="nobody listens"),
        pytest.param(["broken"], True, id="one request broke off"),
        pytest.param(["broken", "broken"], False, id="two in a row broke off"),
        pytest.param(["error"] * 5, True, id="five errors in a row may be of the requests"),
        pytest.param(["error"] * 6, False, id="six are of the replica"),
    ],
)
def test_failures_in_a_row_eject(failures: list[Failing], admitted: bool) -> None:
    assert broken(*failures).admits(0.0) is admitted


def test_an_answer_between_failures_begins_the_row_anew() -> None:
    breaker = broken("broken")
    breaker.answered(0.0)
    breaker.failed("broken", may_eject=True, now_s=0.0)
    assert breaker.admits(0.0)


def test_half_open_lets_one_request_try() -> None:
    breaker = broken("refused")
    assert not breaker.admits(FIRST_S - 0.01)
    assert breaker.admits(FIRST_S)
    breaker.sent()
    assert not breaker.admits(FIRST_S)
    breaker.answered(FIRST_S)
    assert breaker.admits(FIRST_S)


def test_a_trial_whose_client_left_says_nothing() -> None:
    breaker = broken("refused")
    breaker.sent()
    breaker.abandoned()
    assert breaker.admits(FIRST_S)


def test_each_ejection_is_twice_as_long_up_to_half_a_minute() -> None:
    breaker, now_s, lengths = Breaker(), 0.0, []
    for _ in range(9):
        breaker.sent()
        breaker.failed("refused", may_eject=True, now_s=now_s)
        assert breaker.until_s is not None
        lengths.append(breaker.until_s - now_s)
        now_s = breaker.until_s
    assert lengths[:3] == [0.5, 1.0, 2.0]
    assert lengths[-1] == LONGEST_S


def test_where_too_few_would_be_left_nobody_is_ejected() -> None:
    assert broken(*["error"] * 20, may_eject=False).admits(0.0)


def test_what_fails_after_the_ejection_is_no_news() -> None:
    breaker = broken("refused")
    until_s = breaker.until_s
    assert not breaker.failed("broken", may_eject=True, now_s=0.1)
    assert breaker.until_s == until_s
