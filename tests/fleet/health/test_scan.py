"""What readings come to: each metric rule by K of N, what clears it, and everything that looks alike and is nothing."""

from typing import Any

import numpy as np
import pytest

from baseai.telemetry.field import ACCELERATOR, NODE, PORT, Family, Throttle, remap_code
from tests.fleet.health.ward import NODE_ID, Bench

GPU = "gpu-3"
PORT_KEY = f"{NODE_ID}/mlx5_0/1"


@pytest.mark.parametrize(
    ("rule", "family", "key", "changed", "ticks"),
    [
        ("temp_critical", ACCELERATOR, GPU, {"temp_c": 93}, 3),
        ("temp_outlier", ACCELERATOR, GPU, {"temp_c": 87}, 3),
        ("hbm_critical", ACCELERATOR, GPU, {"temp_mem_c": 106}, 3),
        ("thermal_brake", ACCELERATOR, GPU, {"throttle_bits": int(Throttle.THERMAL_HW)}, 3),
        ("power_brake", ACCELERATOR, GPU, {"throttle_bits": int(Throttle.POWER_BRAKE)}, 3),
        ("remap_failed", ACCELERATOR, GPU, {"row_remap": remap_code(pending=False, failed=True, count=3)}, 2),
        ("straggler", ACCELERATOR, GPU, {"clock_mhz": 1700}, 6),
        ("devices_missing", NODE, NODE_ID, {"accel_seen": 7}, 2),
        ("leak", NODE, NODE_ID, {"leak": 1}, 2),
        ("psu_lost", NODE, NODE_ID, {"psu_ok": 5}, 2),
        ("inlet_hot", NODE, NODE_ID, {"temp_inlet_c": 33}, 3),
        ("port_down", PORT, PORT_KEY, {"up": 0}, 2),
        ("port_slow", PORT, PORT_KEY, {"rate_bps": 2e11}, 3),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_rule_is_met_after_so_many_readings_and_not_before(
    rule: str, family: Family, key: str, changed: dict[str, float], ticks: int
) -> None:
    bench = Bench(family=family)
    bench.tick(count=3)
    bench.tick({key: changed}, count=ticks - 1)
    assert rule not in bench.standing()
    bench.tick({key: changed})
    assert rule in bench.standing()
    assert [each.subject.key for each in bench.evidence if each.rule_id == rule] == [key]
    bench.tick({key: changed}, count=20)
    assert sum(each.rule_id == rule for each in bench.evidence) == 1, "a condition that lasts is said once"


@pytest.mark.parametrize(
    ("rule", "changed", "for_s"),
    [
        ("temp_high", {"temp_c": 86}, 300),
        ("hbm_high", {"temp_mem_c": 96}, 300),
        ("zombie", {"util_pct": 0}, 1800),
        ("remap_pending", {"row_remap": remap_code(pending=True, failed=False, count=1)}, 86_400),
    ],
)
def test_a_rule_that_wants_time_stands_only_after_it(
    rule: str, changed: dict[str, float], for_s: int
) -> None:
    bench = Bench()
    everywhere = dict.fromkeys(bench.keys, changed)
    bench.tick(count=2)
    bench.tick(everywhere, count=for_s // 10)
    assert rule not in bench.standing()
    bench.tick(everywhere, count=6)
    assert rule in bench.standing()


def test_a_counter_that_rises_says_from_what_to_what() -> None:
    bench = Bench()
    bench.tick({GPU: {"ecc_ue": 4}}, count=2)
    [found] = bench.tick({GPU: {"ecc_ue": 6}})
    assert (found.rule_id, found.before, found.after) == ("ecc_uncorrected", 4, 6)
    assert found.sentence.endswith("ecc_ue rose from 4 to 6")
    bench.tick({GPU: {"ecc_ue": 6}}, count=100)
    assert bench.standing() == {"ecc_uncorrected": "reset"}, "what was lost stays lost until a repair"


def test_link_errors_count_over_the_hour() -> None:
    bench = Bench()
    for errors in range(0, 96, 5):
        bench.tick({GPU: {"link_err": errors}})
    assert bench.standing() == {}
    bench.tick({GPU: {"link_err": 101}})
    assert bench.standing() == {"link_errors": "cordon"}


def test_slow_link_errors_never_fill_the_hour() -> None:
    bench = Bench()
    for number in range(1000):  # about 72 an hour
        bench.tick({GPU: {"link_err": number // 5}})
    assert bench.standing() == {}


def test_a_condition_ends_when_it_is_over_and_not_at_the_threshold() -> None:
    bench = Bench()
    bench.tick({GPU: {"temp_c": 92}}, count=5)
    assert "temp_critical" in bench.standing()
    bench.tick({GPU: {"temp_c": 88}}, count=20)
    assert "temp_critical" in bench.standing(), "between clear and threshold it stays as it was"
    bench.tick({GPU: {"temp_c": 70}}, count=2)
    assert "temp_critical" in bench.standing()
    bench.tick({GPU: {"temp_c": 70}})
    assert "temp_critical" not in bench.standing()


# ---- what is nothing


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"temp_c": 97}, id="one hot reading"),
        pytest.param({"throttle_bits": int(Throttle.POWER_BRAKE)}, id="one brake"),
        pytest.param({"row_remap": 2}, id="one odd remap reading"),
    ],
)
def test_one_reading_is_no_evidence(changed: dict[str, float]) -> None:
    bench = Bench()
    bench.tick(count=2)
    assert bench.tick({GPU: changed}) == []
    assert bench.tick(count=20) == []


@pytest.mark.parametrize("missed", [1, 2, 3])
def test_a_lost_probe_or_three_kill_nothing(missed: int) -> None:
    bench = Bench()
    bench.tick(count=3)
    assert bench.tick(silent=[GPU], count=missed) == []
    assert bench.tick(count=10) == []


def test_a_device_of_which_nothing_is_heard_while_its_neighbours_speak_is_suspect() -> None:
    bench = Bench()
    bench.tick(count=3)
    bench.tick(silent=[GPU], count=4)
    assert bench.standing() == {"device_silent": "cordon"}
    bench.tick()
    assert bench.standing() == {}, "it speaks again"


def test_a_silent_node_accuses_none_of_its_devices() -> None:
    bench = Bench()
    bench.tick(count=3)
    assert bench.tick(silent=bench.keys, count=60) == []
    node = Bench(family=NODE)
    node.tick(count=3)
    node.tick(silent=node.keys, count=3)
    assert node.standing() == {"node_silent": "note"}, "unknown is not faulty"
    node.tick()
    assert node.standing() == {}


@pytest.mark.parametrize(
    ("field", "value"), [("temp_c", None), ("ecc_ue", None), ("row_remap", None), ("clock_mhz", None)]
)
def test_a_field_that_is_absent_counts_neither_way(field: str, value: None) -> None:
    bench = Bench()
    bench.tick({GPU: {"temp_c": 93}}, count=2)
    bench.tick({GPU: {field: value}}, count=30)
    assert bench.standing() == {}
    if field == "temp_c":
        bench.tick({GPU: {"temp_c": 93}})
        assert "temp_critical" in bench.standing(), "the readings beside the gap are three of three"


def test_the_first_reading_is_where_counters_begin() -> None:
    """A controller or an agent that starts finds old counts, old codes and old conditions, none of them news."""
    bench = Bench()
    old = {GPU: {"ecc_ue": 17, "link_err": 9e6, "fault_code": 79}}
    assert bench.tick(old, count=30) == []


def test_a_counter_that_fell_began_anew() -> None:
    bench = Bench()
    bench.tick({GPU: {"ecc_ue": 8}}, count=3)
    assert bench.tick({GPU: {"ecc_ue": 0}}, count=2) == [], "a driver was loaded again"
    assert bench.tick({GPU: {"ecc_ue": 5}})[0].before == 0


def test_a_code_that_stays_is_said_once_and_a_new_one_again() -> None:
    bench = Bench()
    bench.tick()
    said = [bench.tick({GPU: {"fault_code": code}}) for code in (13, 13, 13, 31, 31, 0, 13)]
    assert [[found.rule_id for found in tick] for tick in said] == [
        ["xid.13"], [], [], ["xid.31"], [], [], ["xid.13"],
    ]  # fmt: skip


def test_a_code_of_amd_says_nothing_without_its_severity() -> None:
    bench = Bench(model="MI300X")
    bench.tick()
    assert bench.tick({GPU: {"fault_code": 30}}) == []


def test_a_hot_room_is_not_a_hot_device() -> None:
    bench = Bench()
    bench.tick(count=2)
    bench.tick({key: {"temp_c": 88} for key in bench.keys}, count=40)
    assert set(bench.standing().values()) == {"note"}


def test_idle_clocks_and_other_runs_make_no_straggler() -> None:
    bench = Bench()
    bench.tick(count=2)
    assert bench.tick({GPU: {"clock_mhz": 345, "util_pct": 0, "mem_used_b": 0}}, count=20) == []
    bench.groups[GPU] = "run/other"
    assert bench.tick({GPU: {"clock_mhz": 1200}}, count=20) == []


def test_a_slot_of_the_processor_is_no_device_of_its_own() -> None:
    bench = Bench(model="cpu-slot")
    bench.tick(count=2)
    odd = {"temp_c": 97.0, "clock_mhz": 800.0}
    assert bench.tick({GPU: odd}, count=20) == []
    assert bench.tick(silent=[GPU], count=20) == []


def test_a_console_port_without_cable_is_nobodys_fault() -> None:
    bench = Bench(family=PORT)
    bench.values[PORT_KEY].update({"rate_bps": 1e9})
    bench.tick(count=3)
    assert bench.tick({PORT_KEY: {"up": 0}}, count=10) == []


def test_devices_may_come_and_go_between_ticks() -> None:
    bench = Bench()
    bench.tick({GPU: {"ecc_ue": 2}}, count=2)
    for key in ("gpu-0", "gpu-1"):
        bench.keys.remove(key)
    bench.keys.append("gpu-new")
    bench.ts_ms["gpu-new"], bench.values["gpu-new"] = 0, dict(bench.values[GPU])
    bench.values["gpu-new"]["ecc_ue"] = 50
    [found] = bench.tick({GPU: {"ecc_ue": 3}})
    assert (found.subject.serial, found.before, found.after) == (GPU, 2, 3)


def test_a_scan_leaves_the_memory_it_was_given() -> None:
    bench = Bench()
    bench.tick({GPU: {"temp_c": 93, "ecc_ue": 1}}, count=2)
    memory = bench.memory
    before: dict[str, Any] = {name: array.copy() for name, array in memory.hits.items()}
    last = memory.last.copy()
    bench.tick({GPU: {"temp_c": 93, "ecc_ue": 2}})
    assert all(np.array_equal(before[name], memory.hits[name]) for name in before)
    assert np.array_equal(last, memory.last, equal_nan=True)
