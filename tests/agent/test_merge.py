"""What several collectors say of one device becomes one row, field by field."""

import math

import pytest

from baseai.agent.merge import Told, Voices, grouped, merged, samples_of, sound
from baseai.telemetry.field import ACCELERATOR, Origin, State
from baseai.telemetry.sample import Reading, Row, code_of


def said(value: float | State, source: str = "", origin: Origin = Origin.MEASURED) -> Reading:
    if isinstance(value, State):
        return Reading(value=None, state=value, source=source, origin=origin)
    return Reading(value=value, source=source, origin=origin)


def told(collector: str, rank: int, key: str = "S", **fields: Reading) -> Told:
    return Told(collector=collector, rank=rank, rows=[Row(key=key, ts_ms=1, fields=fields)])


def fields_of(*several: Told, voices: Voices | None = None) -> dict[str, Reading]:
    (row,) = merged(ACCELERATOR, several, ts_ms=7, voices=voices or Voices())
    assert row.ts_ms == 7
    return dict(row.fields)


def test_the_driver_counts_before_the_exporter_whoever_came_first() -> None:
    fields = fields_of(
        told("dcgm", 1, temp_c=said(61, "dcgm"), power_w=said(500, "dcgm")),
        told("nvml", 0, temp_c=said(62, "nvml")),
    )
    assert {name: each.source for name, each in fields.items()} == {"temp_c": "nvml", "power_w": "dcgm"}


@pytest.mark.parametrize(
    ("driver", "exporter", "value"),
    [
        pytest.param(said(State.BLANK), said(61), 61, id="a value beats blank"),
        pytest.param(said(State.UNSUPPORTED), said(State.PAUSED), State.PAUSED, id="paused says more"),
        pytest.param(said(5, origin=Origin.ESTIMATED), said(6), 6, id="measured beats estimated"),
        pytest.param(said(0.0), said(6), 0.0, id="zero is a value"),
    ],
)
def test_which_word_counts(driver: Reading, exporter: Reading, value: float | State) -> None:
    best = fields_of(told("nvml", 0, power_w=driver), told("dcgm", 1, power_w=exporter))["power_w"]
    assert (best.state if best.value is None else best.value) == value


def test_a_counter_stays_with_who_spoke_first() -> None:
    voices = Voices()
    both = [told("nvml", 0, energy_j=said(100)), told("dcgm", 1, energy_j=said(5000))]
    assert fields_of(*both, voices=voices)["energy_j"].value == 100
    assert fields_of(both[1], voices=voices)["energy_j"].state is State.ABSENT
    assert fields_of(*both, voices=voices)["energy_j"].value == 100


def test_a_counter_that_is_measured_is_preferred_from_the_start() -> None:
    voices = Voices()
    guess = told("host", 0, energy_j=said(9, origin=Origin.ESTIMATED))
    assert fields_of(guess, told("dcgm", 1, energy_j=said(5)), voices=voices)["energy_j"].value == 5
    assert fields_of(guess, voices=voices)["energy_j"].state is State.ABSENT


@pytest.mark.parametrize("value", [math.nan, math.inf, 141.0, -1e9])
def test_a_number_that_cannot_be_is_blank_and_named(value: float) -> None:
    row = Row(key="GPU-1", ts_ms=1, fields={"temp_c": said(value), "power_w": said(5)})
    whole, (trouble,) = sound(ACCELERATOR, row, "nvml")
    assert (whole.fields["temp_c"].state, whole.fields["power_w"].value) == (State.BLANK, 5)
    assert (trouble.source, trouble.key, trouble.field) == ("nvml", "GPU-1", "temp_c")


def test_rows_of_other_sources_travel_apart() -> None:
    rows = [
        Row(key="a", ts_ms=1, fields={"temp_c": said(1, "nvml")}),
        Row(key="b", ts_ms=1, fields={"temp_c": said(1, "host"), "power_w": said(1, "host")}),
        Row(key="c", ts_ms=1, fields={"temp_c": said(1, "nvml"), "power_w": said(1, "dcgm")}),
    ]
    groups = [(sources, [row.key for row in members]) for sources, members in grouped(rows)]
    assert groups == [
        ({"temp_c": "nvml", "power_w": "dcgm"}, ["a", "c"]),
        ({"temp_c": "host", "power_w": "host"}, ["b"]),
    ]


def test_columns_say_no_more_than_they_must() -> None:
    rows = [
        Row(key="a", ts_ms=1, fields={"temp_c": said(1), "energy_j": said(3, origin=Origin.ESTIMATED)}),
        Row(key="b", ts_ms=1, fields={"power_w": said(State.PAUSED), "util_pct": said(State.ABSENT)}),
    ]
    batch = samples_of(ACCELERATOR, rows, batch_id="bat", boot_id="boot", sources={})
    assert batch.values == {"temp_c": [1, None], "power_w": [None, None], "energy_j": [3, None]}
    assert batch.codes == {
        "power_w": [code_of(State.ABSENT), code_of(State.PAUSED)],
        "energy_j": [code_of(State.VALUE, Origin.ESTIMATED), code_of(State.ABSENT)],
    }
