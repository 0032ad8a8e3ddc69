"""An outcome is reckoned from segments alone, beside bounds that no policy beats, and told on one page."""

import math
import re

import numpy as np
import pytest

from baseai.scheduling.hall import Bay, Hall, Spot
from baseai.twin.bound import jct_bound_s, makespan_bound_s
from baseai.twin.neutral import Segment, Submission
from baseai.twin.outcome import outcome_of, packing_outcome_of
from baseai.twin.report import report_of, span_text
from tests.scheduling.halls import gang, hall

JOBS = (
    Submission(gang=gang("a0", 2000), duration_s=10, by_model={}),
    Submission(gang=gang("a1", 1000, submit_s=2), duration_s=4, by_model={}),
)
RAN = (
    Segment("a0", 0.0, 5.0, (Spot(0, (0, 1)),)),
    Segment("a1", 5.0, 9.0, (Spot(0, (0,)),)),
    Segment("a0", 9.0, 14.0, (Spot(0, (0, 1)),)),
)


def test_waits_completion_and_use_are_what_a_hand_reckons() -> None:
    found = outcome_of(JOBS, RAN, hall(2))
    assert (found.wait_mean_s, found.wait_max_s, found.jct_mean_s) == (1.5, 3, (14 + 7) / 2)
    assert (found.makespan_s, found.preemptions, found.segments) == (14, 1, 3)
    assert found.utilisation_ratio == pytest.approx((20 + 4) / 28)
    assert np.mean(found.busy.values) == pytest.approx(100 * 24 / 28)
    assert np.mean(found.queue.values) == pytest.approx((3 + 4) / 14)  # a1 from 2 to 5, a0 from 5 to 9


def test_bounds_are_what_a_hand_reckons() -> None:
    assert makespan_bound_s(JOBS, hall(2)) == 12  # 24 accelerator-seconds over 2
    # On one machine of speed 2, a1 from 2 to 4, a0 before and until 12: ends give (12 + 2) / 2, middles more.
    assert jct_bound_s(JOBS, hall(2)) == pytest.approx((6.6 + 10 / 2 + (3 - 2) + 4 / 2) / 2)
    alike = [Submission(gang=gang(f"a{number}", 2000), duration_s=4, by_model={}) for number in range(2)]
    assert jct_bound_s(alike, hall(2)) == (4 + 8) / 2  # who fills the machine: ends and middles say the same
    two = Hall([Bay(node_id="a", model="A", devices=1), Bay(node_id="b", model="B", devices=3)])
    only_a = [
        Submission(gang=gang(f"a{number}", models=("A",)), duration_s=5, by_model={}) for number in range(4)
    ]
    assert makespan_bound_s(only_a, two) == 20  # B is of no use to them
    fast = [Submission(gang=gang("a0"), duration_s=None, by_model={"A": 9, "B": 3})]
    assert (makespan_bound_s(fast, two), jct_bound_s(fast, two)) == (3, 3)


def test_packing_is_measured_when_so_much_has_arrived() -> None:
    jobs = [Submission(gang=gang(f"a{number}", 1000), duration_s=None, by_model={}) for number in range(12)]
    placed = [Segment(f"a{number}", number, math.inf, (Spot(0, (number,)),)) for number in range(9)]
    found = packing_outcome_of(jobs, placed, hall(10))
    assert (found.refused, found.allocated_ratio, found.asked_ratio, found.allocated_bound_ratio) == (
        3,
        0.9,
        1.2,
        1.0,
    )
    assert dict(found.allocated_at_ratio)[100] == pytest.approx(0.9)
    assert dict(found.allocated_at_ratio)[50] == pytest.approx(0.5)


def test_a_replay_of_nothing_comes_to_nothing() -> None:
    assert outcome_of([], [], hall(2)).makespan_s == 0
    assert packing_outcome_of([], [], hall(2)).allocated_ratio == 0
    assert "<svg" in report_of(outcome_of([], [], hall(2)), {})


def test_a_report_is_one_small_page_without_script_that_escapes_what_it_is_told() -> None:
    page = report_of(outcome_of(JOBS, RAN, hall(2)), {"workload": "<script>alert(1)</script>"})
    assert page == report_of(outcome_of(JOBS, RAN, hall(2)), {"workload": "<script>alert(1)</script>"})
    assert "<script" not in page
    assert not re.search(r"(src|href)=", page)
    assert "Simulated" in page
    assert "≥ 12 s" in page  # the makespan's bound
    assert len(page) < 40_000
    assert "turned away" in report_of(packing_outcome_of(JOBS, RAN[:1], hall(2)), {})


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (90, "90 s"), (150, "2.5 min"), (7300, "2.03 h"), (3e5, "3.47 d"), (4e8, "4,630 d")],
)
def test_spans_are_said_with_three_digits(seconds: float, text: str) -> None:
    assert span_text(seconds) == text
