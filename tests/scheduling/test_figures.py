"""The table that ends a run of the scheduling bench says every wanted figure, reached or not, and what was skipped."""

from pathlib import Path

import pytest

from bench.scheduling import estimates, policies, verdict
from bench.scheduling.contenders import CONTENDERS
from bench.scheduling.targets import TARGETS


def queue_of(*, ours_jct_s: float, ours_p99_s: float) -> dict[tuple[str, str], dict[str, float]]:
    """One set on which SJF completes in 100 s and EASY lets nobody wait longer than 50 s."""
    return {
        ("set", "sjf"): {"jct_mean_s": 100.0, "wait_p99_s": 900.0},
        ("set", "easy"): {"jct_mean_s": 200.0, "wait_p99_s": 50.0},
        ("set", "ours"): {"jct_mean_s": ours_jct_s, "wait_p99_s": ours_p99_s, "jct_mean_bound_s": 10.0},
    }


@pytest.mark.parametrize(
    ("ours_jct_s", "ours_p99_s", "reached"),
    [
        pytest.param(100.0, 50.0, [True, True], id="as good is good enough"),
        pytest.param(100.1, 49.0, [False, True], id="the mean is missed"),
        pytest.param(99.0, 50.1, [True, False], id="the tail is missed"),
    ],
)
def test_each_figure_has_its_own_verdict(ours_jct_s: float, ours_p99_s: float, reached: list[bool]) -> None:
    table = queue_of(ours_jct_s=ours_jct_s, ours_p99_s=ours_p99_s)
    assert [each.reached for each in TARGETS["queue"](table, "ours")] == reached


def test_a_missed_figure_is_printed_as_missed(capsys: pytest.CaptureFixture[str]) -> None:
    verdict.show(list(TARGETS["queue"](queue_of(ours_jct_s=120.0, ours_p99_s=40.0), "ours")))
    _, mean_line, tail_line, count = capsys.readouterr().out.splitlines()
    assert mean_line.endswith("MISSED")
    assert "bound 10" in mean_line
    assert tail_line.endswith("reached")
    assert count == "1 of 2 figures reached"


def test_a_bench_whose_trace_is_not_there_is_skipped_by_name(tmp_path: Path) -> None:
    (tmp_path / "gavel").mkdir()
    skipped = [*policies.skipped(tmp_path, None), *estimates.skipped(tmp_path)]
    assert [each.bench for each in skipped] == ["B1", "B2", "B3", "B5", "B8", "starts"]
    assert all(each.why.startswith(f"skipped: {tmp_path}") and each.reached is None for each in skipped)


def test_every_role_is_held_to_a_target() -> None:
    roles = {each.role for contenders in CONTENDERS.values() for each in contenders if each.role}
    assert roles == set(TARGETS)
