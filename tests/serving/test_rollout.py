"""A new version takes over step by step, goes on only after its time, and back only when it is surely worse."""

import pytest

from baseai.serving.rollout import (
    Advance,
    Answered,
    Candidate,
    Hold,
    Promote,
    RollBack,
    Step,
    next_step,
    replicas_for,
)
from baseai.workloads.service import Rollout

ROLLOUT = Rollout(shares=(0.1, 0.5, 1.0), bake_s=30.0, most_error_ratio=0.02, burn=2.0)
GOOD_OLD = Answered(requests=5000, errors=5, slow=30)


def answered(requests: int, errors: int = 0, slow: int = 0) -> Answered:
    return Answered(requests=requests, errors=errors, slow=slow)


def candidate(
    share: float, *, ready: int = 4, failed: int = 0, why: str | None = None, ready_within_s: float = 600.0
) -> Candidate:
    return Candidate(
        share=share,
        step_at_s=0.0,
        ready=ready,
        failed_starts=failed,
        failed_why=why,
        ready_within_s=ready_within_s,
    )


def step(
    of: Candidate,
    new: Answered,
    *,
    now_s: float = 30.0,
    old: Answered = GOOD_OLD,
    wanted: int = 4,
    p99_ms: float | None = 100.0,
) -> Step:
    return next_step(ROLLOUT, of, new=new, old=old, wanted=wanted, now_s=now_s, p99_ms=p99_ms)


def kind(found: Step) -> str:
    return f"advance to {found.share:g}" if isinstance(found, Advance) else type(found).__name__.lower()


@pytest.mark.parametrize(
    ("of", "new", "now_s", "expected"),
    [
        pytest.param(candidate(0.0, ready=0), answered(0), 5, "hold", id="until its first replica is ready"),
        pytest.param(candidate(0.0, ready=1), answered(0), 5, "advance to 0.1", id="then the first share at once"),
        pytest.param(candidate(0.1), answered(900), 29, "hold", id="a step bakes"),
        pytest.param(candidate(0.1), answered(900), 30, "advance to 0.5", id="then comes the next"),
        pytest.param(candidate(0.1, ready=1), answered(900), 30, "hold", id="but not before its replicas are there"),
        pytest.param(candidate(0.1), answered(3), 60, "hold", id="three requests tell nothing"),
        pytest.param(candidate(0.1), answered(3), 300, "advance to 0.5", id="ten bake times tell enough"),
        pytest.param(candidate(1.0), answered(900), 30, "promote", id="after the last share it is the current one"),
        pytest.param(candidate(0.1), answered(19, 19), 300, "hold", id="19 requests roll nothing back"),
        pytest.param(candidate(0.1), answered(20, 20), 1, "rollback", id="20 of 20 failed: back within the bake time"),
        pytest.param(candidate(0.5), answered(1000, 60), 1, "rollback", id="6 % of many failed"),
        pytest.param(candidate(0.5), answered(50, 3), 30, "hold", id="6 % of few: neither forward nor back"),
        pytest.param(candidate(0.5), answered(1000, 19), 30, "advance to 1", id="less than may fail"),
        pytest.param(candidate(0.5), answered(1000, 0, 70), 30, "rollback", id="seven times as slow as may be"),
        pytest.param(candidate(0.5), answered(1000, 0, 19), 30, "advance to 1", id="slow within the burn"),
    ],
)  # fmt: skip
def test_next_step(of: Candidate, new: Answered, now_s: float, expected: str) -> None:
    assert kind(step(of, new, now_s=now_s)) == expected


@pytest.mark.parametrize(
    ("new", "old", "expected"),
    [
        pytest.param(
            answered(1000, 100), answered(1000, 110), "advance to 1", id="fails as often as the old one"
        ),
        pytest.param(answered(1000, 200), answered(1000, 110), "rollback", id="fails more often"),
        pytest.param(
            answered(1000, 0, 150), answered(1000, 0, 100), "advance to 1", id="slow as the old one"
        ),
        pytest.param(answered(1000, 0, 300), answered(1000, 0, 100), "rollback", id="three times as slow"),
        pytest.param(
            answered(1000, 60), answered(5, 5), "rollback", id="five requests of the old excuse nothing"
        ),
    ],
)
def test_the_old_version_is_the_measure(new: Answered, old: Answered, expected: str) -> None:
    assert kind(step(candidate(0.5), new, old=old)) == expected


def test_without_an_slo_nothing_is_slow() -> None:
    assert step(candidate(0.5), answered(1000, 0, 1000), p99_ms=None) == Advance(share=1.0)


def test_who_never_gets_ready_goes_back_with_the_reason() -> None:
    died = step(
        candidate(0.0, ready=0, failed=3, why="the file weights.onnx is not there"), answered(0), now_s=9
    )
    assert died == RollBack(
        sentence="3 replicas of the new version in a row ended before they were ready:"
        " the file weights.onnx is not there"
    )
    late = step(candidate(0.0, ready=0, ready_within_s=60.0), answered(0), now_s=60)
    assert late == RollBack(sentence="no replica of the new version was ready within 60 s")


def test_a_rollback_says_what_was_worse() -> None:
    found = step(candidate(0.5), answered(1000, 60))
    assert found == RollBack(
        sentence="60 of 1000 requests failed in the new version, 5 of 5000 in the old one; 2.0% may"
    )


def test_while_it_waits_it_says_how_many_replicas_the_next_share_needs() -> None:
    found = step(candidate(0.1, ready=1), answered(900), wanted=7)
    assert isinstance(found, Hold)
    assert found.replicas == 4


def test_a_service_is_promoted_through_all_its_shares_when_nothing_is_wrong() -> None:
    shares, share, now_s = [], 0.0, 0.0
    while True:
        of = Candidate(share=share, step_at_s=now_s, ready=4)
        now_s += ROLLOUT.bake_s
        found = next_step(ROLLOUT, of, new=answered(1000, 2), old=GOOD_OLD, wanted=4, now_s=now_s)
        if isinstance(found, Promote):
            break
        assert isinstance(found, Advance)
        share = found.share
        shares.append(share)
    assert shares == [0.1, 0.5, 1.0]


@pytest.mark.parametrize(
    ("share", "wanted", "expected"),
    [pytest.param(0.1, 4, 1, id="one at least"), pytest.param(0.7, 10, 7, id="to the number, not above"),
     pytest.param(0.5, 7, 4, id="rounded up"), pytest.param(0.1, 0, 1, id="one also of a service at rest")],
)  # fmt: skip
def test_replicas_for(share: float, wanted: int, expected: int) -> None:
    assert replicas_for(share, wanted) == expected
