"""A replay of requests: replicas take their time, what finds no room is held, and everything is paid for."""

from collections.abc import Sequence

import numpy as np
import pytest

from baseai.ground.fault import Refused
from baseai.serving.autoscale import ReplicasSeen
from baseai.serving.demand import DemandSecond
from baseai.twin.serving.outcome import ServingOutcome, outcome_of
from baseai.twin.serving.pace import FixedPace
from baseai.twin.serving.policy.registry import AUTOSCALERS, autoscaler_named
from baseai.twin.serving.policy.seam import Autoscaler
from baseai.twin.serving.replay import Carried, Clients, Hardware, ServingReplay
from baseai.twin.serving.trace import Draw, Request, trace_of
from baseai.workloads.service import Scaling


class Script:
    """Wants what it was told to want from each second on."""

    every_s = 1
    looks_back_s = 60

    def __init__(self, scaling: Scaling) -> None:
        self.wants: dict[int, int] = {}
        self.saw: list[tuple[DemandSecond, ReplicasSeen]] = []
        self._now = 0

    def wanted(self, seconds: Sequence[DemandSecond], replicas: ReplicasSeen, now_s: float) -> int:
        self.saw.append((seconds[-1], replicas))
        self._now = self.wants.get(round(now_s), self._now)
        return self._now


def scripted(wants: dict[int, int]) -> Script:
    script = Script(Scaling())
    script.wants = wants
    return script


def carried(
    at_s: Sequence[float],
    autoscaler: Autoscaler,
    *,
    each_s: float = 2.0,
    places: int = 1,
    warm_up_s: float = 10.0,
    begin_with: int = 0,
    until_s: float | None = None,
) -> Carried:
    hardware = Hardware(
        pace=FixedPace(each_s=each_s), concurrency=places, warm_up_s=warm_up_s, warm_up_spread=0.0
    )
    return ServingReplay(
        [Request(each, 0, 0) for each in at_s], hardware, autoscaler, np.random.default_rng(1),
        begin_with=begin_with, until_s=until_s,
    ).run()  # fmt: skip


def judged(found: Carried, *, slo_s: float = 1.0, places: int = 1, from_s: float = 0.0) -> ServingOutcome:
    return outcome_of(found, slo_s=slo_s, concurrency=places, from_s=from_s)


def waits(found: Carried) -> list[float]:
    return [wait_s for _, wait_s in sorted(found.waits)]


def test_requests_are_held_until_a_replica_is_ready_and_go_in_order() -> None:
    found = carried([0.0, 0.5], scripted({1: 1}))
    assert waits(found) == [11.0, 12.5]  # ordered at 1 s, ready at 11 s; the second after the first


def test_a_request_goes_to_the_replica_with_the_least_under_way() -> None:
    found = carried([0.0, 0.1, 0.2, 0.3], scripted({1: 2}), begin_with=2, places=2)
    assert waits(found) == [0.0] * 4


def test_who_is_drained_finishes_first_and_is_paid_until_then() -> None:
    found = carried([0.5], scripted({1: 1, 2: 0}), begin_with=1, each_s=5.0)
    assert [each.ended_s for each in found.replicas] == [5.5]
    assert judged(found).replica_s == 5.5


def test_of_replicas_that_are_too_many_those_go_first_that_are_not_ready() -> None:
    found = carried([0.0], scripted({1: 3, 4: 1}), begin_with=1, until_s=30)
    assert [(each.ordered_s, each.ready_s, each.ended_s) for each in found.replicas] == [
        (0.0, 0.0, None), (1.0, None, 4.0), (1.0, None, 4.0)
    ]  # fmt: skip
    assert judged(found).replica_s == 30 + 3 + 3


def test_demand_is_told_as_gateways_tell_it() -> None:
    script = scripted({1: 1})
    carried([0.25, 1.0, 1.5], script, begin_with=1, each_s=1.5, until_s=4)
    told = [(each.concurrency, each.held, each.arrivals) for each, _ in script.saw]
    assert told == [(0.75, 0, 1), (2.25, 1, 2), (2.0, 1, 0), (1.25, 0, 0)]


def test_what_is_never_begun_missed() -> None:
    found = judged(carried([0.0, 1.0], scripted({})), slo_s=1e9)
    assert (found.missed, found.missed_ratio, found.wait_p99_s) == (2, 1.0, None)


def test_the_first_stretch_is_left_out_of_both_figures() -> None:
    found = judged(carried([0.0, 20.0], scripted({1: 1}), until_s=50), from_s=15.0)
    assert (found.requests, found.missed, found.replica_s) == (1, 0, 35.0)


def requests(seed: int = 5) -> tuple[Request, ...]:
    """Ten minutes at 2 a second, ten at 8, ten at 1."""
    rates = "t_s,requests_per_s\n0,2\n600,8\n1200,1\n".splitlines()
    return trace_of(rates, "made", Draw(rng=np.random.default_rng(seed)))


def through(name: str, seed: int = 1, scaling: Scaling | None = None) -> Carried:
    hardware = Hardware(pace=FixedPace(each_s=2.0), concurrency=4, warm_up_s=15.0)
    autoscaler = autoscaler_named(name)(scaling or Scaling(least=1, most=20, target=3.0))
    return ServingReplay(requests(), hardware, autoscaler, np.random.default_rng(seed), begin_with=2).run()


@pytest.mark.parametrize("name", AUTOSCALERS)
def test_every_autoscaler_follows_the_demand_and_loses_nothing(name: str) -> None:
    found = through(name)
    assert len(found.waits) == len(requests())
    assert all(np.isfinite(wait_s) for _, wait_s in found.waits)

    def replicas_at(at_s: float) -> int:
        return sum(
            each.ordered_s <= at_s and (each.ended_s is None or each.ended_s > at_s)
            for each in found.replicas
        )

    assert replicas_at(1190) >= 5
    assert 1 <= replicas_at(1859) < replicas_at(1190)


def test_the_same_seed_gives_the_same_replay_and_another_another() -> None:
    assert through("ours", 1) == through("ours", 1)
    assert through("ours", 1) != through("ours", 2)


def test_ours_misses_less_than_others_for_less_on_a_step() -> None:
    ours = judged(through("ours"), places=4)
    for name in ("kpa", "hpa", "ray"):
        other = judged(through(name), places=4)
        assert ours.missed_ratio < other.missed_ratio or ours.replica_s < other.replica_s


def test_an_unknown_autoscaler_is_refused_with_those_there_are() -> None:
    with pytest.raises(Refused, match="there is no autoscaler yours; there are ours, kpa"):
        autoscaler_named("yours")


def test_a_step_of_clients_from_1_to_20_is_met_as_the_figures_say() -> None:
    """Issue figure f1, in simulation: a model of 200 ms with 5 places, 4 replicas at most, and to rest again."""
    clients = [
        Clients(count=1, from_s=0.0, until_s=300.0),
        Clients(count=19, from_s=120.0, until_s=240.0),
    ]
    hardware = Hardware(pace=FixedPace(each_s=0.2), concurrency=5, warm_up_s=3.0)
    found = ServingReplay(
        [], hardware, autoscaler_named("ours")(Scaling(least=0, most=4, target=5.0)), np.random.default_rng(1),
        clients=clients, until_s=500.0,
    ).run()  # fmt: skip
    reached_s = next(each.at_s for each in found.decisions if each.wanted >= 4)
    assert reached_s - 120 <= 3
    assert judged(found, places=5).replicas_most == 4
    assert found.decisions[-1].wanted == 0
    assert 300 + 85 <= found.decisions[-1].at_s <= 300 + 95
    assert all(np.isfinite(wait_s) for _, wait_s in found.waits)


def test_hardware_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="no replica is like"):
        Hardware(pace=FixedPace(each_s=1.0), concurrency=0, warm_up_s=1.0)
