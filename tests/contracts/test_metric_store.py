"""What every metric store holds: in memory, on DuckDB, and in any that joins by a line in STORES.

A store is asked at every stage of a sample's life (just appended, sealed, opened again), and the answers must agree.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields as fields_of
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from baseai.telemetry.duckdb import DuckStore
from baseai.telemetry.field import ACCELERATOR, NODE, Origin, State
from baseai.telemetry.memory import MemoryStore
from baseai.telemetry.sample import Batch, code_of
from baseai.telemetry.store import Aggregate, Appended, By, MetricStore, Place, Retention, Series, Tier
from tests.telemetry.sampled import DAY, HOUR, MINUTE, T0, S, batch, ticks

STORES: Mapping[str, Callable[[Path], MetricStore]] = {
    "memory": lambda folder: MemoryStore(),
    "duckdb": lambda folder: DuckStore(folder / "store"),
}
DURABLE = tuple(name for name in STORES if name != "memory")
SEALED = T0 + 40 * DAY  # long after all that these tests append
NEW, REPEATED = Appended(rows=1, repeated=False), Appended(rows=0, repeated=True)
ONE_BUCKET = {"from_ms": T0, "until_ms": T0 + HOUR, "points_max": 1}


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MetricStore]:
    opened = STORES[request.param](tmp_path)
    yield opened
    opened.close()


@pytest.fixture(params=["appended", "sealed"])
def stage(request: pytest.FixtureRequest) -> Callable[[MetricStore], MetricStore]:
    """The samples where they are just after `append`, and where they are for good."""

    def settled(store: MetricStore) -> MetricStore:
        if request.param == "sealed":
            store.rollup(now_ms=SEALED)
        return store

    return settled


def one(store: MetricStore, field: str, part: str, *, by: By = By.FLEET) -> dict[str, float]:
    """One part of an aggregate over the first hour, by group."""
    found = store.aggregate(ACCELERATOR, field, by=by, **ONE_BUCKET)  # type: ignore[arg-type]
    return dict(zip(found.groups, getattr(found, part)[:, 0].tolist(), strict=True))


def assert_equal(left: Aggregate | Series, right: Aggregate | Series, *, exact: bool = True) -> None:
    """Every part alike, NaN like NaN; bit for bit, or as near as sums in another order are."""
    for each in fields_of(left):
        a, b = getattr(left, each.name), getattr(right, each.name)
        if each.name == "boots":
            a, b = np.diff(a) != 0, np.diff(b) != 0  # which numbers is the store's own affair
        if isinstance(a, np.ndarray) and not exact and a.dtype.kind == "f":
            np.testing.assert_allclose(a, b, rtol=1e-12, err_msg=each.name)
        elif isinstance(a, np.ndarray):
            np.testing.assert_array_equal(a, b, err_msg=each.name)
        else:
            assert a == b, each.name


# ---- appended


def test_a_batch_is_counted_once_however_often_it_comes(store: MetricStore) -> None:
    tick = batch(("a", 0, {"power_w": 300}))
    assert [store.append(tick), store.append(tick)] == [NEW, REPEATED]
    store.rollup(now_ms=SEALED)
    assert store.append(tick) == REPEATED
    assert one(store, "power_w", "count") == {"fleet": 1}


def test_several_batches_are_appended_as_if_one_by_one(store: MetricStore) -> None:
    first, second = batch(("a", 0, {"power_w": 1})), batch(("a", 10, {"power_w": 2}))
    assert list(store.append_all([first, second, first])) == [NEW, NEW, REPEATED]


def test_an_instant_of_a_thing_is_kept_once_and_the_first_one_stays(store: MetricStore) -> None:
    store.append(batch(("a", 0, {"power_w": 1}), ("a", 0, {"power_w": 2})))
    assert store.append(batch(("a", 0, {"power_w": 3}), ("a", 10, {"power_w": 4}))).rows == 1
    store.rollup(now_ms=SEALED)
    assert store.append(batch(("a", 0, {"power_w": 5}))).rows == 0
    assert series(store, "power_w").values.tolist() == [[1], [4]]


def test_an_empty_batch_is_no_news(store: MetricStore) -> None:
    assert store.append(batch()) == Appended(rows=0, repeated=False)


@pytest.mark.parametrize("between", ["nothing", "a rollup"])
def test_late_and_reordered_rows_find_their_place(store: MetricStore, between: str) -> None:
    for at_s in (30, 10, 20, 0):
        store.append(batch(("a", at_s, {"energy_j": at_s * 10, "power_w": at_s})))
        if between == "a rollup":
            store.rollup(now_ms=SEALED)
    assert series(store, "power_w").values.ravel().tolist() == [0, 10, 20, 30]
    assert one(store, "energy_j", "delta") == {"fleet": 300}
    assert one(store, "power_w", "last") == {"fleet": 30}


def test_rows_of_hours_long_sealed_are_worked_in(store: MetricStore) -> None:
    store.append(ticks("a", "energy_j", [0, 100], every_s=2 * 3_600))
    store.rollup(now_ms=SEALED)
    store.append(batch(("a", 3_600, {"energy_j": 40})))
    before = store.aggregate(ACCELERATOR, "energy_j", from_ms=T0, until_ms=T0 + 3 * HOUR, points_max=3)
    store.rollup(now_ms=SEALED)
    after = store.aggregate(ACCELERATOR, "energy_j", from_ms=T0, until_ms=T0 + 3 * HOUR, points_max=3)
    assert after.delta.tolist() == [[0, 40, 60]]
    assert_equal(before, after)


# ---- one thing


def series(store: MetricStore, *fields: str, key: str = "a", until_s: float = 7_200) -> Series:
    return store.range(ACCELERATOR, key, fields, from_ms=T0, until_ms=T0 + round(until_s * S))


def test_what_is_not_known_stays_unknown_with_its_reason(
    store: MetricStore, stage: Callable[[MetricStore], MetricStore]
) -> None:
    states = {"temp_mem_c": State.UNSUPPORTED, "tensor_pct": State.PAUSED, "membw_pct": State.BLANK}
    store.append(batch(("a", 0, {"power_w": 300}), states=states))
    found = series(stage(store), "power_w", "temp_mem_c", "tensor_pct", "membw_pct", "util_pct")
    assert found.values[0, 0] == 300
    assert np.isnan(found.values[0, 1:]).all()
    expected = [State.VALUE, State.UNSUPPORTED, State.PAUSED, State.BLANK, State.ABSENT]
    assert found.codes[0].tolist() == [code_of(state) for state in expected]


def test_where_a_value_comes_from_travels_with_it(
    store: MetricStore, stage: Callable[[MetricStore], MetricStore]
) -> None:
    tick = batch(("a", 0, {"power_w": 300}), sources={"power_w": "nvml 13"})
    tick.codes[0, ACCELERATOR.index["power_w"]] = code_of(State.VALUE, Origin.ESTIMATED)
    store.append(tick)
    assert series(stage(store), "power_w").codes.tolist() == [[code_of(State.VALUE, Origin.ESTIMATED)]]
    store.append(batch(("a", 10, {"util_pct": 1}), sources={"util_pct": "dcgm 4"}))
    assert store.sources(ACCELERATOR, "a") == {"power_w": "nvml 13", "util_pct": "dcgm 4"}
    assert store.sources(ACCELERATOR, "nobody") == {}


def test_a_range_has_its_beginning_and_not_its_end(
    store: MetricStore, stage: Callable[[MetricStore], MetricStore]
) -> None:
    store.append(ticks("a", "power_w", [1, 2, 3, 4]))
    found = stage(store).range(ACCELERATOR, "a", ["power_w"], from_ms=T0 + 10 * S, until_ms=T0 + 30 * S)
    assert (found.ts_ms - T0).tolist() == [10 * S, 20 * S]
    assert found.values.ravel().tolist() == [2, 3]
    assert found.tier is Tier.RAW


def test_a_thing_nobody_knows_has_an_empty_range(store: MetricStore) -> None:
    assert len(series(store, "power_w", key="nobody").ts_ms) == 0
    assert len(store.range(ACCELERATOR, "nobody", ["power_w"], **ONE_BUCKET).ts_ms) == 0  # type: ignore[arg-type]


def test_a_bucket_has_the_mean_of_levels_flags_together_and_the_last_of_the_rest(
    store: MetricStore, stage: Callable[[MetricStore], MetricStore]
) -> None:
    store.append(
        batch(
            ("a", 0, {"power_w": 100, "throttle_bits": 1, "fault_code": 79, "energy_j": 5}),
            ("a", 10, {"power_w": 200, "throttle_bits": 4}),
            ("a", 20, {"throttle_bits": 0, "fault_code": 48, "energy_j": 9}),
        )
    )
    names = ("power_w", "throttle_bits", "fault_code", "energy_j", "temp_c")
    found = stage(store).range(ACCELERATOR, "a", names, **ONE_BUCKET)  # type: ignore[arg-type]
    assert found.tier is Tier.HOUR
    np.testing.assert_array_equal(found.values, [[150, 5, 48, 9, np.nan]])
    assert found.codes.tolist() == [[0, 0, 0, 0, code_of(State.ABSENT)]]


def test_a_start_of_the_node_shows_in_the_series(
    store: MetricStore, stage: Callable[[MetricStore], MetricStore]
) -> None:
    store.append(batch(("a", 0, {"energy_j": 1}), ("a", 10, {"energy_j": 2})))
    store.append(batch(("a", 20, {"energy_j": 1}), boot="boot-2"))
    assert (np.diff(series(stage(store), "energy_j").boots) != 0).tolist() == [False, True]


# ---- the newest


def test_the_newest_row_of_each_thing_is_known_however_old(
    store: MetricStore, stage: Callable[[MetricStore], MetricStore]
) -> None:
    store.append(batch(("b", 50, {"power_w": 2}), ("a", 0, {"power_w": 1}), ("b", 40, {"power_w": 9})))
    store.append(batch(("b", 30 * 86_400, {"power_w": 3})))
    found = stage(store).latest(ACCELERATOR)
    assert found.keys == ("a", "b")
    assert ((found.ts_ms - T0) // S).tolist() == [0, 30 * 86_400]
    assert found.values[:, ACCELERATOR.index["power_w"]].tolist() == [1, 3]
    assert found.codes[:, ACCELERATOR.index["temp_c"]].tolist() == [code_of(State.ABSENT)] * 2
    assert store.latest(ACCELERATOR, ["b", "nobody"]).keys == ("b",)
    assert store.latest(NODE).keys == ()


def test_a_thing_stands_where_it_was_told_to_or_where_its_samples_come_from(store: MetricStore) -> None:
    store.append(batch(("a", 0, {}), ("b", 0, {}), node="n", site="s"))
    store.place(ACCELERATOR, {"a": Place(node_id="m", site="t", model="h100-sxm", rack="r1")})
    store.place(ACCELERATOR, {"z": Place(node_id="m", site="t")})
    expected = (Place(node_id="m", site="t", model="h100-sxm", rack="r1"), Place(node_id="n", site="s"))
    assert store.latest(ACCELERATOR).places == expected


# ---- aggregates


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        pytest.param(By.FLEET, {"fleet": 900}, id="all of them"),
        pytest.param(By.SITE, {"gru": 500, "sao": 400}, id="by site"),
        pytest.param(By.MODEL, {"h100": 300, "mi300x": 600}, id="by model"),
        pytest.param(By.NODE, {"n1": 300, "n2": 200, "n3": 400}, id="by node"),
        pytest.param(By.KEY, {"a": 100, "b": 200, "c": 200, "d": 400}, id="by thing"),
    ],
)
def test_an_aggregate_is_broken_down(
    store: MetricStore, stage: Callable[[MetricStore], MetricStore], by: By, expected: dict[str, float]
) -> None:
    store.append(batch(*((key, 0, {"power_w": value}) for key, value in zip("abcd", (100, 200, 200, 400)))))  # noqa: B905
    store.place(
        ACCELERATOR,
        {
            "a": Place(node_id="n1", site="gru", model="h100"),
            "b": Place(node_id="n1", site="gru", model="h100"),
            "c": Place(node_id="n2", site="gru", model="mi300x"),
            "d": Place(node_id="n3", site="sao", model="mi300x"),
        },
    )
    assert one(stage(store), "power_w", "total", by=by) == expected
    some = store.aggregate(ACCELERATOR, "power_w", by=By.KEY, keys=["d", "a", "nobody"], **ONE_BUCKET)  # type: ignore[arg-type]
    assert some.groups == ("a", "d")


def test_every_part_of_an_aggregate(store: MetricStore, stage: Callable[[MetricStore], MetricStore]) -> None:
    store.append(ticks("a", "power_w", [100, float("nan"), 300]))
    store.append(ticks("b", "power_w", [500, 450]))
    found = stage(store).aggregate(ACCELERATOR, "power_w", from_ms=T0, until_ms=T0 + 2 * MINUTE, points_max=2)
    assert (found.tier, found.step_ms) == (Tier.MINUTE, MINUTE)
    assert (found.ts_ms - T0).tolist() == [0, MINUTE]
    for part, known in (("low", 100), ("high", 500), ("total", 1_350), ("last", 750), ("mean", 337.5)):
        np.testing.assert_array_equal(getattr(found, part), [[known, np.nan]], err_msg=part)
    assert found.count.tolist() == [[4, 0]]
    assert np.isnan(found.delta).all()  # a level counts nothing


def test_flags_of_several_things_are_put_together_and_the_highest_code_is_told(
    store: MetricStore, stage: Callable[[MetricStore], MetricStore]
) -> None:
    store.append(batch(("a", 0, {"throttle_bits": 1, "fault_code": 79}), ("a", 10, {"fault_code": 31})))
    store.append(batch(("b", 0, {"throttle_bits": 8, "fault_code": 48})))
    assert one(stage(store), "throttle_bits", "last") == {"fleet": 9}
    assert one(store, "fault_code", "last") == {"fleet": 48}
    assert one(store, "fault_code", "high") == {"fleet": 79}


def test_nothing_known_is_no_line(store: MetricStore) -> None:
    store.append(batch(("a", 0, {"power_w": 1})))
    found = store.aggregate(ACCELERATOR, "temp_c", from_ms=T0, until_ms=T0 + MINUTE)
    assert found.groups == ()
    assert found.low.shape == (0, 6)


# ---- counters


@pytest.mark.parametrize(
    ("readings", "expected"),
    [
        pytest.param([(0, 100, 1), (10, 130, 1), (20, 150, 1)], 50, id="it rises"),
        pytest.param([(0, 100, 1), (10, 20, 1), (20, 50, 1)], 50, id="it fell: from zero"),
        pytest.param(
            [(0, 100, 1), (10, 120, 2)], 120, id="the node started anew: from zero, though it is higher"
        ),
        pytest.param([(0, 100, 1), (10, None, 1), (20, 150, 1)], 50, id="over a gap"),
        pytest.param([(0, 100, 1), (10, None, 2), (20, 150, 2)], 150, id="a start within a gap"),
        pytest.param([(50, 100, 1), (70, 160, 1)], 60, id="from one minute to the next"),
        pytest.param([(590, 100, 1), (610, 160, 1), (3_590, 200, 1)], 100, id="from ten minutes to the next"),
        pytest.param([(0, 100, 1)], 0, id="one reading tells nothing"),
    ],
)
def test_a_counter_counts_what_lies_between_its_readings(
    store: MetricStore,
    stage: Callable[[MetricStore], MetricStore],
    readings: list[tuple[float, float | None, int]],
    expected: float,
) -> None:
    for at_s, value, boot in readings:
        store.append(batch(("a", at_s, {} if value is None else {"energy_j": value}), boot=f"boot-{boot}"))
    assert one(stage(store), "energy_j", "delta") == {"fleet": expected}
    assert np.isnan(one(store, "energy_j", "total")["fleet"])  # readings added up say nothing


@pytest.mark.parametrize("gap_s", [60, 3_600, 5 * 3_600, 9 * 86_400])
def test_what_a_counter_counted_over_adjoining_ranges_adds_up(
    store: MetricStore, stage: Callable[[MetricStore], MetricStore], gap_s: float
) -> None:
    store.append(ticks("a", "energy_j", [1_000, 1_000 + gap_s, 1_020 + gap_s], every_s=gap_s))
    store.append(ticks("b", "energy_j", [7, 9], from_s=gap_s))
    stage(store)
    cut, end = T0 + round(gap_s * S), T0 + 3 * round(gap_s * S)
    deltas = [
        np.nansum(store.aggregate(ACCELERATOR, "energy_j", from_ms=from_ms, until_ms=until_ms).delta)
        for from_ms, until_ms in ((T0, cut), (cut, end), (T0, end))
    ]
    assert deltas == [0, gap_s + 22, gap_s + 22]


# ---- kept and forgotten


def test_each_tier_is_kept_for_its_time(store: MetricStore) -> None:
    retention = Retention(raw_days=1, minute_days=2, ten_minutes_days=3)
    for day in range(5):
        store.append(ticks("a", "energy_j", [1, 2, 4], from_s=day * 86_400))
    store.rollup(now_ms=T0 + 5 * DAY)
    whole = store.aggregate(ACCELERATOR, "energy_j", from_ms=T0, until_ms=T0 + 5 * DAY)
    assert store.expire(now_ms=T0 + 5 * DAY, retention=retention) > 0
    assert store.expire(now_ms=T0 + 5 * DAY, retention=retention) == 0
    raw = store.range(ACCELERATOR, "a", ["energy_j"], from_ms=T0, until_ms=T0 + 5 * DAY)
    assert ((raw.ts_ms - T0) // DAY).tolist() == [4, 4, 4]
    tiers = [
        store.aggregate(
            ACCELERATOR, "energy_j", from_ms=T0 + day * DAY, until_ms=T0 + day * DAY + 10 * MINUTE
        )
        for day in range(5)
    ]
    assert [each.tier for each in tiers] == [Tier.HOUR, Tier.HOUR, Tier.TEN_MINUTES, Tier.MINUTE, Tier.RAW]
    assert [np.nansum(each.high) > 0 for each in tiers] == [True] * 5
    after = store.aggregate(ACCELERATOR, "energy_j", from_ms=T0, until_ms=T0 + 5 * DAY, points_max=120)
    assert np.nansum(after.delta) == np.nansum(whole.delta)  # what was billed can be recomputed


def test_what_is_older_than_what_is_kept_is_not_taken(store: MetricStore) -> None:
    store.append(batch(("a", 5 * 86_400, {"power_w": 1})))
    store.expire(now_ms=T0 + 5 * DAY, retention=Retention(raw_days=1))
    assert store.append(batch(("a", 0, {"power_w": 1}), ("a", 5 * 86_400 - 10, {"power_w": 2}))).rows == 1


# ---- any life of a sample

FIELDS = ("util_pct", "energy_j", "throttle_bits", "fault_code")
VALUES = {
    "util_pct": st.floats(0, 100),
    "energy_j": st.floats(0, 1e9),
    "throttle_bits": st.integers(0, 255).map(float),
    "fault_code": st.integers(0, 200).map(float),
}


@st.composite
def lives(draw: st.DrawFn) -> list[Batch | int]:
    """Batches with holes, resets, duplicates and late rows, and instants at which the store keeps house."""
    steps: list[Batch | int] = []
    for number in range(draw(st.integers(1, 8))):
        rows = draw(
            st.lists(
                st.tuples(
                    st.sampled_from("abc"),
                    st.integers(0, 3 * 360).map(lambda tick: tick * 10.0),
                    st.fixed_dictionaries({}, optional=VALUES),
                ),
                max_size=12,
            )
        )
        steps.append(batch(*rows, batch_id=f"b{number}", boot=draw(st.sampled_from(["boot-1", "boot-2"]))))
        if draw(st.booleans()):
            steps.append(T0 + draw(st.integers(0, 4)) * HOUR + 2 * MINUTE)
    return steps


def told(step: Batch | int) -> str:
    """A step of a life in a line."""
    if isinstance(step, int):
        return f"house kept at {(step - T0) / S:g} s"
    rows = [
        (key, (int(at_ms) - T0) / S, {name: row[ACCELERATOR.index[name]] for name in FIELDS})
        for key, at_ms, row in zip(step.keys, step.ts_ms, step.values, strict=True)
    ]
    return f"{step.batch_id} of {step.boot_id}: {rows}"


RANGES = (
    (0, 3 * HOUR, 300),
    (0, 3 * HOUR, 4),
    (HOUR // 2, 2 * HOUR, 30),
    (90 * MINUTE, 100 * MINUTE, 100),
    (0, DAY, 1),
)


@pytest.mark.parametrize("name", DURABLE)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(life=lives())
def test_whatever_happens_to_samples_the_answers_are_those_of_the_definitions(
    name: str, life: list[Batch | int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Sealed or not, opened again or not: bit for bit the same, and near those of the plainest store there is."""
    note("\n".join(map(told, life)))
    folder = tmp_path_factory.mktemp("life")
    plain, store, never_sealed = MemoryStore(), STORES[name](folder), STORES[name](folder / "unsealed")
    try:
        for step in life:
            if isinstance(step, int):
                store.rollup(now_ms=step)
            else:
                answers = [each.append(step) for each in (plain, store, never_sealed)]
                assert answers[0] == answers[1] == answers[2]
        store.close()
        store = STORES[name](folder)
        for field in FIELDS:
            for from_ms, until_ms, points in RANGES:
                asked = {"from_ms": T0 + from_ms, "until_ms": T0 + until_ms, "points_max": points}
                for by in (By.FLEET, By.KEY):
                    found = [
                        each.aggregate(ACCELERATOR, field, by=by, **asked)  # type: ignore[arg-type]
                        for each in (plain, store, never_sealed)
                    ]
                    assert_equal(found[1], found[2])
                    assert_equal(found[0], found[1], exact=False)
        for asked in ({"points_max": None}, {"points_max": 40}, {"points_max": 2}):
            lines = [
                each.range(ACCELERATOR, "a", FIELDS, from_ms=T0, until_ms=T0 + 3 * HOUR, **asked)
                for each in (plain, store, never_sealed)
            ]
            assert_equal(lines[1], lines[2])
            assert_equal(lines[0], lines[1], exact=False)
    finally:
        store.close()
        never_sealed.close()
