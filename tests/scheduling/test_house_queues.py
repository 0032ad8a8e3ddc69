"""Queues through the policy of the house, on a virtual clock: what they are guaranteed, share and may not exceed."""

import random
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
import pytest

from baseai.scheduling.gang import Gang
from baseai.scheduling.policy.house import Agreed, House
from baseai.scheduling.policy.registry import packing_named
from baseai.scheduling.queue_tree import QueueTree
from baseai.twin.neutral import Submission
from baseai.twin.replay import Costs, Replay
from tests.scheduling.halls import hall
from tests.scheduling.queues import queue, tree, waiting

Jobs = Sequence[tuple[Gang, float]]


class Replayed:
    """What queues held over a replay on two nodes of four accelerators."""

    def __init__(self, of: QueueTree, jobs: Jobs) -> None:
        one, rng = hall(4, 4, model="A"), np.random.default_rng(1)
        house = House(one, rng, packing_named("best_fit")(one, rng), Agreed(tree=of))
        submissions = [Submission(gang=gang, duration_s=seconds, by_model={}) for gang, seconds in jobs]
        segments = Replay(submissions, one, house, costs=Costs(restart_s=0.0), durations_known=True).run()
        gangs = {gang.run_id: gang for gang, _ in jobs}
        self.started = {segment.run_id for segment in segments}
        self._changes = sorted(
            (at_s, sign * gangs[segment.run_id].shape.devices, gangs[segment.run_id].terms.queue)
            for segment in segments
            for at_s, sign in ((segment.start_s, 1), (segment.end_s, -1))
        )

    def most(self, name: str) -> int:
        """The most it held at once."""
        held, most = 0, 0
        for _, change, holder in self._changes:
            held += change if holder == name else 0
            most = max(most, held)
        return most

    def mean(self, from_s: float, until_s: float) -> dict[str, float]:
        """Accelerators held by each queue on average."""
        held: Counter[str] = Counter()
        area: defaultdict[str, float] = defaultdict(float)
        last_s = 0.0
        for at_s, change, holder in self._changes:
            for name, count in held.items():
                area[name] += count * max(0.0, min(at_s, until_s) - max(last_s, from_s))
            held[holder] += change
            last_s = at_s
        return {name: seconds / (until_s - from_s) for name, seconds in area.items()}


def flood(*names: str, count: int, sizes: Sequence[int] = (1,), seed: int = 3) -> Jobs:
    """More than can be served, all of it in the first minute."""
    rng = random.Random(seed)
    return [
        (
            waiting(
                number, names[number % len(names)], rng.choice(sizes), submit_s=float(rng.randint(0, 60))
            ),
            float(rng.randint(50, 400)),
        )
        for number in range(count)
    ]


def test_under_a_flood_queues_hold_what_their_weights_say() -> None:
    replayed = Replayed(tree(queue("a"), queue("b", weight=3)), flood("a", "b", count=240))
    held = replayed.mean(500, 2500)
    assert held["b"] / held["a"] == pytest.approx(3.0, rel=0.1)
    assert len(replayed.started) == 240


def test_a_quota_is_held_against_the_heavy_and_a_limit_by_an_idle_fleet() -> None:
    of = tree(queue("a", quota={"A": 4}, weight=0.01), queue("b", weight=100, limit={"A": 3}), queue("c"))
    replayed = Replayed(of, flood("a", "b", "c", count=240))
    held = replayed.mean(500, 2000)
    assert held["a"] == pytest.approx(4.0, rel=0.05)
    assert held["b"] == pytest.approx(3.0, rel=0.05)
    assert replayed.most("b") == 3
    assert len(replayed.started) == 240


def test_gangs_of_a_whole_node_start_amid_a_flood_of_small_ones() -> None:
    replayed = Replayed(tree(queue("a"), queue("b")), flood("a", "b", count=120, sizes=(1, 1, 1, 4)))
    assert len(replayed.started) == 120
