"""Joules are carried over wraps and agents, and the cores' shares are the whole."""

from hypothesis import given
from hypothesis import strategies as st

from baseai.telemetry.energy import Meter, Zone, meter_of

WRAP = 262_143_328_850  # µJ, as Intel's package counters


def package(micro_j: int, name: str = "package-0") -> Zone:
    return Zone(name=name, micro_j=micro_j, wraps_at_micro_j=WRAP)


def test_the_first_look_is_where_it_begins() -> None:
    meter = Meter(boot_id="b")
    assert meter.advance([package(5_000_000)], {0: 1.0}) == 0
    assert meter.advance([package(8_000_000)], {0: 2.0}) == 3.0
    assert meter.total_j == 3.0


def test_a_counter_that_wraps_goes_on() -> None:
    meter = Meter(boot_id="b")
    meter.advance([package(WRAP - 1_000_000)], {})
    assert meter.advance([package(2_000_000)], {}) == 3.0


def test_cores_share_by_their_busy_time_and_evenly_when_none_was_busy() -> None:
    meter = Meter(boot_id="b")
    meter.advance([package(0)], {0: 0.0, 1: 0.0})
    meter.advance([package(8_000_000)], {0: 3.0, 1: 1.0})
    assert meter.core_j == {0: 6.0, 1: 2.0}
    meter.advance([package(10_000_000)], {0: 3.0, 1: 1.0})
    assert meter.core_j == {0: 7.0, 1: 3.0}


def test_the_next_agent_goes_on_and_another_start_of_the_node_begins_anew() -> None:
    meter = Meter(boot_id="b")
    meter.advance([package(0)], {0: 0.0})
    meter.advance([package(4_000_000)], {0: 1.0})
    again = meter_of(meter.to_record(), "b")
    assert again == meter
    again.advance([package(9_000_000)], {0: 2.0})  # what was drawn while no agent lived is not lost
    assert again.total_j == 9.0
    assert meter_of(meter.to_record(), "another") == Meter(boot_id="another")
    assert meter_of({"boot_id": "b", "total_j": "nonsense"}, "b") == Meter(boot_id="b")


@given(
    steps=st.lists(
        st.tuples(st.integers(0, WRAP - 1), st.lists(st.floats(0, 100), min_size=3, max_size=3)),
        min_size=1,
        max_size=20,
    )
)
def test_shares_add_up_to_the_whole_and_never_fall(steps: list[tuple[int, list[float]]]) -> None:
    meter = Meter(boot_id="b")
    busy = [0.0, 0.0, 0.0]
    micro_j = 0
    meter.advance([package(0)], dict(enumerate(busy)))
    for step, worked in steps:
        micro_j = (micro_j + step) % WRAP
        busy = [before + more for before, more in zip(busy, worked, strict=True)]
        before = dict(meter.core_j)
        meter.advance([package(micro_j)], dict(enumerate(busy)))
        assert all(joules >= before.get(core, 0.0) for core, joules in meter.core_j.items())
        assert abs(sum(meter.core_j.values()) - meter.total_j) <= 1e-9 * max(1.0, meter.total_j)
