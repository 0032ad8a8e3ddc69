"""Ten thousand drawn cases: no accelerator in two places, no gang split, equal arguments give equal plans."""

import numpy as np
import pytest

from baseai.scheduling.gang import Gang, Shape
from baseai.scheduling.hall import Bay, Hall
from baseai.scheduling.policy.registry import PACKING, TIMING, packing_named, timing_named
from baseai.twin.neutral import Submission
from baseai.twin.replay import Costs, Replay
from tests.twin.counted import assert_feasible

CASES = 10_000
SEED = 20_261_126


def drawn(rng: np.random.Generator) -> tuple[Hall, list[Submission]]:
    """A small cluster and a queue that overloads it as often as not."""
    hall = Hall(
        [
            Bay(node_id=f"n{number}", model="AB"[int(rng.integers(2))], devices=int(rng.integers(1, 5)),
                cpu_milli=int(rng.integers(1, 7)) * 1000, leaf=f"l{number // 2}", pod=f"p{number // 4}")
            for number in range(int(rng.integers(1, 6)))
        ]
    )  # fmt: skip
    found: list[Submission] = []
    at_s = 0.0
    for number in range(int(rng.integers(1, 10))):
        at_s += float(rng.choice((0.0, 0.0, 0.5, 3.0)))
        milli = int(rng.choice((0, 250, 600, 1000, 2000, 4000)))
        shape = Shape(
            pods=int(rng.choice((1, 1, 1, 2, 3))),
            milli=milli,
            cpu_milli=int(rng.choice((0, 500, 2000))),
            models=("A",) if milli and rng.random() < 0.2 else (),
            apart=bool(rng.random() < 0.2),
        )
        if not hall.could_ever(shape):
            gang = Gang(run_id=f"r{number}", number=len(found), shape=shape, submit_s=at_s)
            found.append(
                Submission(gang=gang, duration_s=float(rng.choice((0.0, 0.25, 1.0, 7.5, 40.0))), by_model={})
            )
    return hall, found


@pytest.mark.slow
def test_ten_thousand_replays_are_feasible_and_the_same_again() -> None:
    rng = np.random.default_rng(SEED)
    policies, packings = sorted(TIMING), sorted(PACKING)
    for number in range(CASES):
        hall, jobs = drawn(rng)
        policy, packing = policies[number % len(policies)], packings[number // len(policies) % len(packings)]
        restart_s = float(rng.choice((0.0, 2.0)))
        plans = []
        for _ in range(2 if number % 10 == 0 else 1):
            own, chance = hall.copy(), np.random.default_rng(number)
            chosen = timing_named(policy)(own, chance, packing_named(packing)(own, chance))
            plans.append(Replay(jobs, own, chosen, costs=Costs(restart_s=restart_s)).run())
            assert not own.held, (SEED, number)
        assert plans[0] == plans[-1], (SEED, number)
        assert_feasible(hall, jobs, plans[0], restart_s)
