"""A batch is believed as far as it can be: devices of its node, numbers that can be, times of these days."""

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baseai.telemetry.field import ACCELERATOR, NODE, State
from baseai.telemetry.intake import (
    AGE_MAX_MS,
    Sent,
    TakenIn,
    clock_sentence,
    clock_shift_ms,
    taken_in,
)
from baseai.telemetry.sample import Batch, code_of, state_of

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
NOW_MS = round(NOW.timestamp() * 1000)


def sent(**differing: Any) -> Sent:
    told: dict[str, Any] = {
        "batch_id": "bat_1", "family": "accelerator", "boot_id": "boot", "keys": ["GPU-1"], "ts_ms": [NOW_MS],
        "values": {"temp_c": [41.0]},
    }  # fmt: skip
    return Sent(**(told | differing))


def judged(batch: Sent, *, shift_ms: int = 0) -> TakenIn:
    return taken_in(
        batch, node_id="nod_1", site="gru", serials={"GPU-1", "GPU-2"}, shift_ms=shift_ms, now_ms=NOW_MS
    )


def kept(batch: Sent, *, shift_ms: int = 0) -> Batch:
    found = judged(batch, shift_ms=shift_ms).batch
    assert found is not None
    return found


def state(batch: Batch, field: str) -> State:
    return state_of(int(batch.codes[0, batch.family.index[field]]))


def test_a_number_that_can_be_is_kept_and_what_is_not_told_is_absent() -> None:
    batch = kept(sent())
    assert batch.values[0, ACCELERATOR.index["temp_c"]] == 41.0
    assert state(batch, "temp_c") is State.VALUE
    assert state(batch, "util_pct") is State.ABSENT
    assert (batch.node_id, batch.site) == ("nod_1", "gru")


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("temp_c", 300.0, "300 °C cannot be"),
        ("util_pct", -1.0, "-1 % cannot be"),
        ("power_w", float("inf"), "inf W cannot be"),
        ("mem_used_b", 2.0**63, "9.22337e+18 B cannot be"),
    ],
)
def test_a_number_that_cannot_be_is_blank_and_said_with_device_and_field(
    field: str, value: float, sentence: str
) -> None:
    found = judged(sent(values={field: [value], "clock_mhz": [1980.0]}))
    assert found.batch is not None
    assert state(found.batch, field) is State.BLANK
    assert np.isnan(found.batch.values[0, ACCELERATOR.index[field]])
    assert state(found.batch, "clock_mhz") is State.VALUE, "the rest is kept"
    [trouble] = found.troubles
    assert (trouble.key, trouble.field, trouble.sentence) == ("GPU-1", field, sentence)


@pytest.mark.parametrize(
    ("value", "code", "expected"),
    [
        pytest.param(41.0, code_of(State.VALUE), State.VALUE, id="a value"),
        pytest.param(None, code_of(State.UNSUPPORTED), State.UNSUPPORTED, id="why there is none"),
        pytest.param(0.0, code_of(State.PAUSED), State.PAUSED, id="a number beside a reason is none"),
        pytest.param(None, code_of(State.VALUE), State.ABSENT, id="a value that did not come"),
        pytest.param(41.0, 9, State.ABSENT, id="a state that nobody knows"),
        pytest.param(41.0, 0x70, State.ABSENT, id="an origin that nobody knows"),
    ],
)
def test_a_state_says_why_there_is_no_number(value: float | None, code: int, expected: State) -> None:
    batch = kept(sent(values={"temp_c": [value]}, codes={"temp_c": [code]}))
    assert state(batch, "temp_c") is expected
    assert np.isnan(batch.values[0, ACCELERATOR.index["temp_c"]]) == (expected is not State.VALUE)


def test_an_unknown_field_is_dropped_with_the_nearest_known() -> None:
    found = judged(sent(values={"temp": [41.0], "power_w": [1.0]}))
    assert [trouble.sentence for trouble in found.troubles] == [
        "'temp' is not known and was dropped; the nearest is temp_c"
    ]


def test_rows_of_strangers_are_refused_and_the_rest_is_kept() -> None:
    found = judged(sent(keys=["GPU-1", "GPU-9"], ts_ms=[NOW_MS] * 2, values={"temp_c": [1.0, 2.0]}))
    assert found.batch is not None
    assert found.batch.keys == ("GPU-1",)
    assert list(found.rows_refused) == ["GPU-9"]


def test_a_node_speaks_for_itself_under_its_own_id() -> None:
    node = kept(sent(family="node", keys=["nod_2"], values={"cpu_pct": [1.0]}))
    assert (node.keys, node.family) == (("nod_1",), NODE)
    port = sent(family="port", keys=["nod_2/mlx5_0/1"], values={"rx_b": [1.0]})
    assert kept(port).keys == ("nod_1/mlx5_0/1",)
    assert (judged(sent(family="port", keys=["mlx5_0"], values={})).refused or "").startswith("which port?")


@pytest.mark.parametrize(
    ("differing", "why"),
    [
        ({"family": "gpu"}, "'gpu' is no family"),
        ({"ts_ms": []}, "1 keys and 0 instants"),
        ({"values": {"temp_c": [1.0, 2.0]}}, "values of temp_c: 1 expected, 2 came"),
        ({"codes": {"temp_c": []}}, "codes of temp_c: 1 expected, 0 came"),
        ({"ts_ms": [1 << 62]}, "an instant is beyond all time"),
        ({"ts_ms": [0]}, "the instant 0 ms is not of these days"),
        ({"ts_ms": [NOW_MS + 120_000]}, "is not of these days"),
        ({"ts_ms": [NOW_MS - AGE_MAX_MS - 1]}, "is not of these days"),
        ({"keys": [], "ts_ms": [], "values": {}}, "it has no rows"),
        ({"boot_id": "a\x00b"}, "boot_id: 'a b' is no name"),
        ({"batch_id": "\ud800"}, "batch_id: ' ' is no name"),
        ({"batch_id": "x" * 500}, "batch_id:"),
    ],
)  # fmt: skip
def test_what_is_no_batch_is_refused_for_good(differing: dict[str, Any], why: str) -> None:
    found = judged(sent(**differing))
    assert found.batch is None
    assert why in (found.refused or "")


@pytest.mark.parametrize(
    ("off_s", "shift_s", "sentence"),
    [
        (3, 0, None),
        (-3, 0, None),
        (612, 612, "clock is 612 s behind: its instants are moved"),
        (-612, -612, "clock is 612 s ahead: its instants are moved"),
    ],
)
def test_a_clock_that_is_off_moves_instants(off_s: int, shift_s: int, sentence: str | None) -> None:
    shift_ms = clock_shift_ms(NOW - timedelta(seconds=off_s), NOW)
    assert (shift_ms, clock_sentence(shift_ms)) == (shift_s * 1000, sentence)
    batch = kept(sent(ts_ms=[NOW_MS - off_s * 1000]), shift_ms=shift_ms)
    assert batch.ts_ms[0] == NOW_MS - (off_s - shift_s) * 1000


@settings(deadline=None, max_examples=200)
@given(
    st.lists(
        st.tuples(st.sampled_from(["GPU-1", "GPU-2", "GPU-9"]), st.integers(NOW_MS - 10**6, NOW_MS)),
        max_size=5,
    ),
    st.dictionaries(st.sampled_from([*ACCELERATOR.names, "nonsense"]), st.none() | st.floats(), max_size=6),
    st.dictionaries(st.sampled_from(ACCELERATOR.names), st.integers(0, 300), max_size=6),
)
def test_whatever_comes_a_batch_keeps_its_promise(
    rows: list[tuple[str, int]], values: dict[str, float | None], codes: dict[str, int]
) -> None:
    count = len(rows)
    found = judged(
        sent(
            keys=[key for key, _ in rows],
            ts_ms=[at for _, at in rows],
            values={name: [value] * count for name, value in values.items()},
            codes={name: [code] * count for name, code in codes.items()},
        )
    )
    if found.batch is None:
        assert found.refused
        return
    is_value = (found.batch.codes & 15) == State.VALUE
    assert np.array_equal(~np.isnan(found.batch.values), is_value)
    for column, field in enumerate(ACCELERATOR.fields):
        numbers = found.batch.values[:, column][is_value[:, column]]
        assert np.all((numbers >= field.low) & (numbers <= field.high))
