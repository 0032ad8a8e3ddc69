"""Traffic told as rates, shares and percentiles, and how a service stands against its SLO."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from baseai.views.services.traffic import (
    COUNTED,
    WINDOWS,
    Steps,
    points_of,
    ready_steps,
    slo_of,
    told_of,
    under_way,
)
from tests.views.services import counts

AT = datetime(2026, 11, 22, 15, 0, tzinfo=UTC)


def counted(*latencies: tuple[float, int], **facts: Any) -> dict[str, Any]:
    requests = sum(many for _, many in latencies)
    nothing = dict.fromkeys(COUNTED, 0)
    return (
        nothing
        | {"requests": requests, "latency": counts(*latencies), "first_byte": counts(*latencies)}
        | facts
    )


def after(seconds: float) -> datetime:
    return AT + timedelta(seconds=seconds)


def test_shares_are_of_what_reached_the_service() -> None:
    told = told_of(
        counted((10.0, 90), requests=120, refused=20, errors=10, lost=4, slow=9, cache_hits=30, collapsed=20),
        10,
    )
    assert (told["requests_per_s"], told["answered"]) == (12.0, 90)
    assert (told["error_ratio"], told["cache_hit_ratio"], told["slow_ratio"]) == (0.1, 0.5, 0.1)


@pytest.mark.parametrize("nothing", [None, counted(), counted(requests=5, refused=5)])
def test_where_nothing_reached_it_there_is_no_share_and_no_percentile(nothing: dict[str, Any] | None) -> None:
    told = told_of(nothing, 10)
    unknown = {name for name, value in told.items() if value is None}
    assert unknown == {
        "error_ratio", "cache_hit_ratio", "slow_ratio", "p50_ms", "p95_ms", "p99_ms", "first_byte_p50_ms",
        "first_byte_p99_ms",
    }  # fmt: skip


def test_ready_replicas_are_counted_as_they_come_and_go() -> None:
    ready = ready_steps([(after(1), None), (after(2), after(4)), (None, None), (after(4), after(5))])
    assert [ready.as_of(after(second)) for second in range(7)] == [None, 1, 2, 2, 2, 1, 1]


def test_every_step_has_its_point_as_things_stood_at_its_end() -> None:
    wanted = Steps(at=(after(-100), after(15)), values=(1, 3))
    points = points_of(
        {AT: counted((10.0, 50))}, AT, after(30), 10, concurrency={after(10): 2.5}, wanted=wanted,
        ready=Steps(at=(), values=()),
    )  # fmt: skip
    assert [(one["requests"], one["concurrency"], one["wanted"], one["ready"]) for one in points] == [
        (50, pytest.approx(0.05, rel=0.1), 1, 0), (0, 2.5, 3, 0), (0, 0.0, 3, 0),
    ]  # fmt: skip


def test_requests_under_way_are_reckoned_from_how_long_they_took() -> None:
    assert under_way(counted((500.0, 40), (2_000.0, 10)), 10) == pytest.approx(4.0, rel=0.1)
    assert under_way(None, 10) == 0.0


@pytest.mark.parametrize(
    ("short", "long", "state", "burn"),
    [
        pytest.param((1000, 5), (10_000, 50), "kept", 0.5, id="few are slow"),
        pytest.param((1000, 50), (10_000, 60), "burning", 0.6, id="many are slow just now"),
        pytest.param((1000, 0), (10_000, 200), "missed", 2.0, id="too many were over the hour"),
        pytest.param((10, 10), (10_000, 20), "kept", 0.2, id="too few just now to say"),
        pytest.param((0, 0), (99, 99), "unmeasured", 100.0, id="too few at all"),
        pytest.param((0, 0), (0, 0), "unmeasured", None, id="nothing was asked"),
    ],
)
def test_an_slo_is_on_one_in_a_hundred(
    short: tuple[int, int], long: tuple[int, int], state: str, burn: float | None
) -> None:
    seen = [told_of(counted((10.0, requests), slow=slow), 60) for requests, slow in (short, long)]
    told = slo_of(100.0, *seen)
    assert told is not None
    assert (told["state"], told["burn"]) == (state, pytest.approx(burn) if burn is not None else None)
    assert slo_of(None, *seen) is None


def test_steps_hold_whole_stretches_and_windows_whole_steps() -> None:
    for window in WINDOWS.values():
        assert window.step_s % 10 == 0
        assert window.span_s % window.step_s == 0
        assert window.span_s / window.step_s <= 400
