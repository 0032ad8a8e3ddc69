"""Cells as numbers: unknown is never zero, what changed is sent alone, and both read back as they were."""

import struct

import numpy as np
import pytest

from baseai.telemetry.field import ACCELERATOR, Origin, State
from baseai.telemetry.store import Latest, Place
from baseai.web.floorplan import Floorplan, floorplan_of
from baseai.web.heatmap import ASPECTS, Cells, Shown, cells_of, packed, packed_changes, seen_of
from baseai.web.summary import summaries_by_node, summary_of
from tests.web.fleet import TICK_MS, Asked, batch, installed

NOW = 1_800_000_000_000


def plan_of(count: int = 4) -> Floorplan:
    return floorplan_of(installed(count, 1), names_holders=True)


def latest_of(
    columns: dict[str, list[float]], keys: list[str], *, ts_ms: int = NOW, **states: State
) -> Latest:
    own = batch(
        ACCELERATOR, keys, ts_ms, {name: np.array(column) for name, column in columns.items()}, batch_id="b",
        unsaid=states,
    )  # fmt: skip
    eyes = Asked()
    eyes.store.place(ACCELERATOR, {key: Place(node_id="n", site="s") for key in keys})
    eyes.append(own)
    return eyes.store.latest(ACCELERATOR)


def code(state: int, origin: Origin = Origin.MEASURED) -> int:
    return state | origin << 4


def test_a_level_is_scaled_and_carries_how_it_arose() -> None:
    plan = plan_of(2)
    seen = seen_of(plan, latest_of({"temp_c": [41.25, -12.0]}, list(plan.serials)), now_ms=NOW)
    cells = cells_of(ASPECTS["temp_c"], plan, seen)
    assert cells.numbers.tolist() == [
        2125,
        0,
    ]  # (41.25 − 20) × 100; below the scale is its low end, not unknown
    assert cells.codes.tolist() == [code(State.VALUE, Origin.SIMULATED)] * 2


@pytest.mark.parametrize("state", [State.ABSENT, State.UNSUPPORTED, State.BLANK, State.PAUSED])
def test_what_has_no_value_says_why_and_is_not_zero(state: State) -> None:
    plan = plan_of(1)
    seen = seen_of(plan, latest_of({}, list(plan.serials), power_w=state), now_ms=NOW)
    assert cells_of(ASPECTS["power_w"], plan, seen).codes.tolist() == [code(state)]
    assert summary_of(plan, seen).power_w is None


def test_what_fell_silent_and_what_never_spoke_are_two_things() -> None:
    plan = plan_of(3)
    old = latest_of({"util_pct": [50.0, 60.0]}, list(plan.serials[:2]), ts_ms=NOW - 7 * TICK_MS)
    seen = seen_of(plan, old, now_ms=NOW)
    assert cells_of(ASPECTS["util_pct"], plan, seen).codes.tolist() == [Shown.STALE, Shown.STALE, Shown.NEVER]
    assert summary_of(plan, seen).heard == 0


def test_without_a_store_nothing_is_known_of_any_cell() -> None:
    plan = plan_of(2)
    seen = seen_of(plan, None, now_ms=NOW)
    assert cells_of(ASPECTS["util_pct"], plan, seen).codes.tolist() == [Shown.NEVER] * 2
    summary = summary_of(plan, seen)
    assert (summary.cells, summary.heard, summary.util_pct, summary.power_w) == (2, 0, None, None)


def test_memory_is_a_share_of_what_is_installed() -> None:
    plan = plan_of(2)
    latest = latest_of({"mem_used_b": [40.0, 1.0], "mem_total_b": [80.0, 0.0]}, list(plan.serials))
    cells = cells_of(ASPECTS["mem_pct"], plan, seen_of(plan, latest, now_ms=NOW))
    assert cells.numbers[0] == 5000
    assert cells.codes[1] & 15 == State.ABSENT  # a share of nothing is not 0 %


def test_health_and_holder_come_from_the_inventory() -> None:
    plan = plan_of(3)
    seen = seen_of(plan, None, now_ms=NOW)
    assert cells_of(ASPECTS["health"], plan, seen).numbers.tolist() == [0, 0, 0]
    assert sorted(cells_of(ASPECTS["holder"], plan, seen).numbers.tolist()) == [0, 2, 3]


def unpacked(told: bytes, cells: Cells | None = None) -> tuple[list[int], list[int]]:
    """What a browser has after it took these bytes in."""
    count, partial = struct.unpack("<II", told[:8])
    at = 8 + (4 * count if partial else 0)
    numbers = np.frombuffer(told[at : at + 2 * count], "<u2")
    codes = np.frombuffer(told[at + 2 * count :], np.uint8)
    if not partial:
        return numbers.tolist(), codes.tolist()
    assert cells is not None
    places = np.frombuffer(told[8:at], "<u4")
    own_numbers, own_codes = cells.numbers.copy(), cells.codes.copy()
    own_numbers[places], own_codes[places] = numbers, codes
    return own_numbers.tolist(), own_codes.tolist()


def test_only_what_changed_is_sent_and_gives_the_same_as_everything() -> None:
    rng = np.random.default_rng(3)
    before = Cells(numbers=rng.integers(0, 9, 500).astype(np.uint16), codes=np.zeros(500, np.uint8))
    numbers, codes = before.numbers.copy(), before.codes.copy()
    numbers[[3, 77]], codes[499] = 1000, State.PAUSED
    after = Cells(numbers=numbers, codes=codes)
    told = packed_changes(before, after)
    assert len(told) == 8 + 3 * 7
    assert unpacked(told, before) == unpacked(packed(after)) == (numbers.tolist(), codes.tolist())
    assert packed_changes(after, after) == b""


def test_a_summary_says_over_how_many_it_was_taken() -> None:
    plan = plan_of(4)
    latest = latest_of(
        {
            "util_pct": [10, 30, np.nan, np.nan],
            "power_w": [100, 200, 300, np.nan],
            "throttle_bits": [4, 1, 0, 8],
        },
        list(plan.serials),
    )
    latest.codes[np.isnan(latest.values)] = State.BLANK
    summary = summary_of(plan, seen_of(plan, latest, now_ms=NOW))
    assert (summary.util_pct, summary.power_w, summary.power_cells) == (20, 600, 3)
    assert summary.throttled == 2  # at the power limit is normal
    assert summary.origin is Origin.SIMULATED


def test_each_node_has_its_line() -> None:
    plan = floorplan_of(installed(3, 2), names_holders=True)
    latest = latest_of({"temp_c": [30, 31, 50, 51, 70, 71]}, sorted(plan.serials))
    lines = summaries_by_node(
        plan, seen_of(plan, latest, now_ms=NOW), {"nod_0000", "nod_0001", "nod_0002", "none"}
    )
    assert {node: line.temp_max_c for node, line in lines.items()} == {
        "nod_0000": 31,
        "nod_0001": 51,
        "nod_0002": 71,
    }
