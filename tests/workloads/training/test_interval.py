import math

import pytest

from baseai.workloads.training.interval import (
    FIRST_AFTER_S,
    OVERHEAD_RATIO,
    PRIOR_MTBF_S,
    Cost,
    Rule,
    interval_s,
    rule_of,
)


def saves(stall_s: float, stolen_cpu_s: float, times: int = 5) -> list[Cost]:
    return [Cost(stall_s=stall_s, stolen_cpu_s=stolen_cpu_s)] * times


def test_the_first_checkpoint_is_early() -> None:
    assert interval_s([], failures=0, elapsed_s=0) == FIRST_AFTER_S <= 10


def test_a_cheap_save_follows_young() -> None:
    assert interval_s(saves(0.01, 0.09), failures=0, elapsed_s=0) == pytest.approx(
        math.sqrt(2 * PRIOR_MTBF_S * 0.1)
    )


def test_a_dear_save_never_costs_more_than_the_bound() -> None:
    for cost_s in (0.001, 0.1, 2.0, 60.0):
        assert cost_s / interval_s(saves(cost_s, 0), failures=50, elapsed_s=60) <= OVERHEAD_RATIO + 1e-9


def test_failures_shorten_and_quiet_lengthens() -> None:
    assert interval_s(saves(0.01, 0), failures=3, elapsed_s=60) < interval_s(
        saves(0.01, 0), failures=0, elapsed_s=60
    )
    assert interval_s(saves(0.01, 0), failures=0, elapsed_s=1e5) > interval_s(
        saves(0.01, 0), failures=0, elapsed_s=60
    )


def test_rules() -> None:
    assert rule_of("auto") == Rule(auto=True)
    assert rule_of("never").never
    assert rule_of({"steps": 50}) == Rule(steps=50)
    assert rule_of({"seconds": 0.5}) == Rule(seconds=0.5)
    for wrong in ("sometimes", {"steps": 0}, {"hours": 1}, {}):
        with pytest.raises(ValueError, match="checkpoint_every"):
            rule_of(wrong)
