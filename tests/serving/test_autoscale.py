"""How many replicas: enough for what is usual, at once for what is urgent, never out of bounds, calm on calm demand."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baseai.serving.autoscale import Remembered, ReplicasSeen, Wanted, desired, looks_back_s
from baseai.serving.demand import DemandSecond
from baseai.workloads.service import Scaling

BEGAN_S = 1_000_000.0
SCALING = Scaling(least=0, most=20, target=4.0)


def asked(
    concurrency: Sequence[float], *, held: int = 0, arrivals: int | None = None, from_s: float = BEGAN_S
) -> list[DemandSecond]:
    """A second for each concurrency, one after the other."""
    return [
        DemandSecond(
            at_s=from_s + number, concurrency=each, held=held,
            arrivals=round(each) if arrivals is None else arrivals,
        )
        for number, each in enumerate(concurrency)
    ]  # fmt: skip


def decided(
    seconds: Sequence[DemandSecond],
    replicas: ReplicasSeen,
    scaling: Scaling = SCALING,
    *,
    after_s: float | None = None,
    remembered: Remembered | None = None,
) -> Wanted:
    """As the last of the seconds is over, or so many seconds after the first began."""
    now_s = BEGAN_S + after_s if after_s is not None else seconds[-1].at_s + 1
    return desired(scaling, seconds, replicas, now_s=now_s, remembered=remembered)


@dataclass(frozen=True, slots=True)
class Lived:
    """What was wanted second by second."""

    wanted: tuple[Wanted, ...]

    @property
    def replicas(self) -> list[int]:
        return [each.replicas for each in self.wanted]


def live(
    scaling: Scaling,
    seconds: int,
    demand: Callable[[int, int], DemandSecond],
    *,
    ready: int,
    warm_up_s: int = 5,
    leaving: int = 0,
) -> Lived:
    """A service whose replicas come `warm_up_s` after they are ordered and go at once. demand(second, ready)."""
    told: list[DemandSecond] = []
    coming: list[int] = []
    remembered: Remembered | None = None
    wanted = []
    for second in range(seconds):
        told.append(demand(second, ready))
        now = second + 1
        ready += sum(at <= now for at in coming)
        coming = [at for at in coming if at > now]
        seen = ReplicasSeen(
            ready=ready, starting=len(coming), leaving=min(leaving, ready), warm_up_s=float(warm_up_s)
        )
        one = desired(
            scaling,
            [each for each in told if each.at_s > BEGAN_S + now - looks_back_s(scaling)],
            seen,
            now_s=BEGAN_S + now,
            remembered=remembered,
        )
        remembered = one.remembered
        wanted.append(one)
        coming += [now + warm_up_s] * one.start
        for _ in range(one.stop):
            if coming:
                coming.pop()
            else:
                ready -= 1
    return Lived(tuple(wanted))


def clients(
    count: Callable[[int], int], *, places: int, service_s: float
) -> Callable[[int, int], DemandSecond]:
    """Who asks again as soon as he is answered, of replicas with so many places each."""

    def one(second: int, ready: int) -> DemandSecond:
        now = count(second)
        under_way = min(now, ready * places)
        joined = max(0, now - count(second - 1)) if second else now
        return DemandSecond(
            at_s=BEGAN_S + second, concurrency=float(now), held=now - under_way,
            arrivals=joined + round(under_way / service_s),
        )  # fmt: skip

    return one


# ------------------------------------------------------------------------------------------------------- a step


def test_a_step_from_1_to_20_is_decided_within_3_s_and_overshoots_by_one_replica_at_most() -> None:
    """A model that takes 200 ms, with 5 places and a target of 5: 20 at once are 4 replicas."""
    at = 60
    scaling = replace(SCALING, target=5.0, most=20)
    lived = live(
        scaling, 200, clients(lambda second: 20 if second >= at else 1, places=5, service_s=0.2), ready=1
    )
    assert lived.replicas[at - 1] == 1
    assert max(lived.replicas[: at + 3]) >= 4
    assert max(lived.replicas) <= 5
    assert min(lived.replicas[at + 3 :]) >= 4


def test_after_the_step_it_goes_back_and_to_rest() -> None:
    def count(second: int) -> int:
        return 0 if second >= 190 else 20 if 60 <= second < 120 else 1

    scaling = replace(SCALING, target=5.0, stable_window_s=60.0, to_zero_after_s=30.0)
    lived = live(scaling, 300, clients(count, places=5, service_s=0.2), ready=1)
    assert lived.replicas[189] == 1
    assert lived.replicas[190 + 85] == 1
    assert lived.replicas[190 + 92] == 0


def test_a_queue_that_grows_while_replicas_start_orders_none_twice() -> None:
    """Ten a second at 2 s each are 20 at once, 5 replicas; they take 60 s to come, and 500 are held meanwhile."""

    def one(second: int, ready: int) -> DemandSecond:
        held = max(0, min(second, 60) * 8 - 10)
        return DemandSecond(at_s=BEGAN_S + second, concurrency=4.0 + held, held=held, arrivals=10)

    def before(second: int, ready: int) -> DemandSecond:
        calm = DemandSecond(at_s=BEGAN_S + second, concurrency=4.0, held=0, arrivals=2)
        return calm if second < 60 else replace(one(second - 60, ready), at_s=BEGAN_S + second)

    lived = live(SCALING, 115, before, ready=2, warm_up_s=60)
    assert max(lived.replicas) <= 8
    assert max(lived.replicas) >= 5


def test_what_is_held_at_a_service_at_rest_wakes_it_at_once() -> None:
    seconds = asked([0.2], held=1, arrivals=1)
    assert decided(seconds, ReplicasSeen(ready=0)).start == 1


def test_a_crowd_that_is_held_counts_in_full_though_nothing_is_known_of_it() -> None:
    crowd = asked([0.0] * 3, arrivals=0) + asked([40.0, 40.0, 40.0], held=40, from_s=BEGAN_S + 3, arrivals=0)
    assert decided(crowd, ReplicasSeen(ready=0)).replicas == 10


# ------------------------------------------------------------------------------------------------------- calm


@pytest.mark.parametrize("concurrency", [0.3, 1.0, 3.9, 4.0, 8.0, 11.7, 40.0])
def test_constant_demand_does_not_flap(concurrency: float) -> None:
    def steady(second: int, ready: int) -> DemandSecond:
        return asked([concurrency], from_s=BEGAN_S + second)[0]

    settled = live(SCALING, 300, steady, ready=1).replicas[30:]
    assert len(set(settled)) == 1
    assert settled[0] * SCALING.target >= concurrency


def test_starting_replicas_are_not_ordered_twice() -> None:
    seconds = asked([2.0] * 60 + [20.0] * 6)
    first = decided(seconds, ReplicasSeen(ready=1))
    again = decided(
        seconds, ReplicasSeen(ready=1, starting=first.start), after_s=67, remembered=first.remembered
    )
    assert first.start >= 4
    assert (again.start, again.stop) == (0, 0)


def test_in_panic_no_replica_goes() -> None:
    panicked = decided(asked([2.0] * 60 + [30.0] * 4), ReplicasSeen(ready=2))
    calmer = decided(
        asked([2.0] * 57 + [30.0] * 4 + [2.0] * 3),
        ReplicasSeen(ready=panicked.replicas),
        after_s=67,
        remembered=panicked.remembered,
    )
    assert panicked.panic
    assert (calmer.panic, calmer.stop) == (True, 0)


def test_a_decision_at_most_halves() -> None:
    fewer = decided(asked([1.0] * 60), ReplicasSeen(ready=16))
    assert (fewer.replicas, fewer.stop) == (8, 8)


def test_a_controller_that_has_just_begun_lets_nobody_go_before_it_knows() -> None:
    assert decided(asked([1.0] * 3), ReplicasSeen(ready=6)).stop == 0
    assert desired(SCALING, [], ReplicasSeen(ready=6), now_s=BEGAN_S).stop == 0


def test_fewer_only_after_the_delay_of_the_spec() -> None:
    patient = replace(SCALING, scale_down_delay_s=120.0)

    def falling(second: int, ready: int) -> DemandSecond:
        return asked([20.0 if second < 60 else 2.0], from_s=BEGAN_S + second)[0]

    hasty = live(SCALING, 300, falling, ready=6).replicas
    delayed = live(patient, 300, falling, ready=6).replicas
    first = next(second for second, count in enumerate(hasty) if count < hasty[59])
    assert delayed[first + 115] == hasty[59]
    assert delayed[-1] < hasty[59]


# -------------------------------------------------------------------------------------- terms of the spec


@pytest.mark.parametrize(
    ("seconds", "replicas", "scaling", "wanted", "start", "stop"),
    [
        pytest.param([], ReplicasSeen(ready=0), SCALING, 0, 0, 0, id="nobody asks, nobody is there"),
        pytest.param([], ReplicasSeen(ready=0), replace(SCALING, least=2), 2, 2, 0, id="the least"),
        pytest.param([], ReplicasSeen(ready=0), replace(SCALING, warm=1), 1, 1, 0, id="a standby also at rest"),
        pytest.param(asked([4.0] * 60), ReplicasSeen(ready=2), replace(SCALING, warm=2), 4, 2, 0, id="standbys beside"),
        pytest.param(asked([400.0] * 60), ReplicasSeen(ready=20), SCALING, 20, 0, 0, id="the most"),
        pytest.param(
            asked([4.0] * 60), ReplicasSeen(ready=2, leaving=1), SCALING, 2, 1, 0, id="who leaves is replaced before"
        ),
        pytest.param(
            asked([400.0] * 60), ReplicasSeen(ready=20, leaving=1), SCALING, 20, 1, 0, id="also when there are the most"
        ),
        pytest.param(
            asked([0.1] * 60, arrivals=30), ReplicasSeen(ready=1), replace(SCALING, metric="requests", target=10.0),
            4, 3, 0, id="requests a second, 30 of them and their straying",
        ),
    ],
)  # fmt: skip
def test_desired(
    seconds: list[DemandSecond], replicas: ReplicasSeen, scaling: Scaling, wanted: int, start: int, stop: int
) -> None:
    found = decided(seconds, replicas, scaling, after_s=60)
    assert (found.replicas, found.start, found.stop) == (wanted, start, stop)


def test_gateways_add_up_in_any_order() -> None:
    whole = asked([12.0, 4.0] * 30)
    halves = [replace(each, concurrency=each.concurrency / 2, arrivals=each.arrivals // 2) for each in whole]
    seen = ReplicasSeen(ready=2)
    assert decided(whole, seen) == decided([*reversed(halves), *halves], seen, after_s=60)


def test_a_decision_says_why() -> None:
    assert decided(asked([4.0] * 60), ReplicasSeen(ready=2)).why == "4 requests at once ± 1.4, 4 each"
    assert "all of a sudden" in decided(asked([2.0] * 60 + [30.0] * 4), ReplicasSeen(ready=1)).why
    assert decided(asked([400.0] * 60), ReplicasSeen(ready=20)).why.endswith("20 at most")


def test_a_steady_rise_is_met_before_it_is_there() -> None:
    rising = asked([4.0 + 0.2 * second for second in range(60)])
    soon = decided(rising, ReplicasSeen(ready=4, warm_up_s=1.0))
    late = decided(rising, ReplicasSeen(ready=4, warm_up_s=60.0))
    assert late.replicas == soon.replicas + 1


# --------------------------------------------------------------------------------------------- what always holds

demands = st.lists(st.floats(0.0, 200.0), min_size=1, max_size=70)
crews = st.builds(
    lambda ready, starting, leaving: ReplicasSeen(
        ready=ready, starting=starting, leaving=min(ready, leaving), warm_up_s=20.0
    ),
    st.integers(0, 30),
    st.integers(0, 30),
    st.integers(0, 3),
)


@given(demands, crews, st.integers(0, 5), st.integers(1, 40), st.integers(0, 3), st.integers(0, 50))
def test_bounds_hold_and_equal_asks_get_equal_answers(
    concurrency: list[float], replicas: ReplicasSeen, least: int, most: int, warm: int, held: int
) -> None:
    scaling = Scaling(least=min(least, most), most=most, warm=warm)
    seconds = asked(concurrency, held=held)
    found = decided(seconds, replicas, scaling)
    assert scaling.least <= found.replicas <= scaling.most
    assert (found.start, found.stop) == (
        max(0, found.replicas - replicas.staying),
        max(0, replicas.staying - found.replicas),
    )
    assert decided(seconds, replicas, scaling) == found


@settings(max_examples=60)
@given(demands, crews, st.floats(1.0, 5.0))
def test_more_demand_of_the_same_kind_never_wants_fewer(
    concurrency: list[float], replicas: ReplicasSeen, factor: float
) -> None:
    more = decided(asked([each * factor for each in concurrency]), replicas, replace(SCALING, most=1000))
    assert more.replicas >= decided(asked(concurrency), replicas, replace(SCALING, most=1000)).replicas


@pytest.mark.parametrize("seen", [{"ready": 1, "leaving": 2}, {"ready": -1}, {"ready": 1, "warm_up_s": -1.0}])
def test_replicas_that_cannot_be_are_refused(seen: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="cannot be seen"):
        ReplicasSeen(**seen)
