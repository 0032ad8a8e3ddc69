"""Uses add up exactly, in any order, and are as well founded as the weakest of them."""

from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseai.telemetry.field import Origin
from baseai.telemetry.tally import Tally, tallied, tally_of
from baseai.telemetry.use import Method, Use


def use(**differing: object) -> Use:
    told: dict[str, object] = {
        "accel": "GPU-1", "owner": "lea_1", "from_ms": 0, "until_ms": 1000, "seen_ms": 1000, "util_pct": 50.0,
        "mem_used_max_b": 7.0, "energy_mj": 3_600_000, "energy_origin": Origin.MEASURED, "throttled_ms": 10,
        "method": Method.WHOLE_DEVICE,
    }  # fmt: skip
    return Use(**(told | differing))  # type: ignore[arg-type]


def test_a_mean_is_weighted_by_what_was_seen() -> None:
    total = tallied(
        [tally_of(use(util_pct=100.0, seen_ms=3000), held=True), tally_of(use(util_pct=0.0), held=False)]
    )
    assert (total.util_pct, total.ms, total.held_ms) == (75.0, 2000, 1000)
    assert total.energy_wh == 2.0


def test_what_no_part_tells_stays_unknown_and_what_one_tells_is_known() -> None:
    silent = tally_of(use(util_pct=None, energy_mj=None, throttled_ms=None, mem_used_max_b=None), held=True)
    assert (silent.util_pct, silent.energy_wh, silent.energy_origin, silent.throttled_ms) == (None,) * 4
    told = tallied([silent, tally_of(use(), held=True)])
    assert (told.util_pct, told.energy_mj, told.throttled_ms, told.mem_used_max_b) == (
        50.0,
        3_600_000,
        10,
        7.0,
    )


@pytest.mark.parametrize("weaker", [Origin.ESTIMATED, Origin.SIMULATED])
def test_energy_is_as_well_founded_as_its_weakest_part(weaker: Origin) -> None:
    parts = [tally_of(use(), held=True), tally_of(use(energy_origin=weaker), held=True)]
    assert tallied(parts).energy_origin is weaker


@given(
    st.lists(st.tuples(st.integers(0, 10**12), st.integers(0, 10**9), st.booleans()), min_size=1, max_size=6)
)
def test_the_order_makes_no_difference_to_time_and_energy(parts: list[tuple[int, int, bool]]) -> None:
    tallies = [tally_of(use(energy_mj=mj, seen_ms=seen), held=held) for mj, seen, held in parts]
    forth, back = tallied(tallies), reduce(Tally.plus, reversed(tallies), Tally())
    for name in ("ms", "held_ms", "seen_ms", "energy_mj", "throttled_ms", "energy_origin", "methods"):
        assert getattr(forth, name) == getattr(back, name)
    assert forth.energy_mj == sum(mj for mj, _, _ in parts)
