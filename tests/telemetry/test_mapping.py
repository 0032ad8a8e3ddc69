"""Every row of every table fills the field it names, in that field's unit; what is refused fills nothing."""

import pytest

from baseai.telemetry.exposition import Parser, Scrape
from baseai.telemetry.field import ACCELERATOR, HARMFUL, State, Throttle
from baseai.telemetry.mapping import (
    Dialect,
    How,
    MappingRow,
    Term,
    refused_by,
    row_of,
    rows_of,
    term_of,
    throttle_of,
)
from baseai.telemetry.normalise import Normaliser
from baseai.telemetry.part import Part
from baseai.telemetry.sample import Reading
from baseai.telemetry.translation import Remembered, Said, number_of, translated

# Written down from the definitions of the units: vendor's unit → (field's unit, how many of them one is).
UNITS: dict[str, tuple[str, float]] = {
    "ratio": ("%", 100),
    "%": ("%", 1),
    "°C": ("°C", 1),
    "MHz": ("MHz", 1),
    "ns": ("ms", 1 / 1_000_000),
    "MiB": ("B", 1024 * 1024),
    "MB": ("B", 1_000_000),
    "B": ("B", 1),
    "W": ("W", 1),
    "mW": ("W", 1 / 1_000),
    "µW": ("W", 1 / 1_000_000),
    "mJ": ("J", 1 / 1_000),
    "µJ": ("J", 1 / 1_000_000),
    "B/s": ("B/s", 1),
    "KB/s": ("B/s", 1_000),
    "MiB/s": ("B/s", 1024 * 1024),
    "Mbit/s": ("B/s", 1_000_000 / 8),
    "errors": ("", 1),
    "Xid": ("", 1),
    "AFID": ("", 1),
}
ACCUMULATED: dict[str, float] = {"KB": 1_000, "KiB": 1024, "B": 1}  # becomes B/s over a time

# What a device at work says, in the field's unit.
USUAL: dict[str, float] = {
    "%": 42.0,
    "°C": 55.0,
    "MHz": 1500.0,
    "ms": 5000.0,
    "B": 65520 * 1024 * 1024.0,
    "W": 350.0,
    "J": 123_456.0,
    "B/s": 2.5e9,
    "": 7.0,
}
MI300X = "AMD INSTINCT MI300X"
SPOKEN_BY_EXPORTERS = (Dialect.DCGM, Dialect.AMD_EXPORTER, Dialect.TPU)
EVERY_ROW = [row for dialect in Dialect for row in rows_of(dialect)]
EVERY_REFUSAL = [row for dialect in Dialect for row in refused_by(dialect)]


def named(row: MappingRow) -> str:
    return f"{row.dialect} {row.field} {row.terms[0].text}"


def line(term: Term, number: float, more: str = "") -> str:
    """One line of an exporter that speaks the term's dialect."""
    labels = ",".join(f'{label}="{value}"' for label, value in term.labels)
    identity = (
        f'gpu="0",UUID="GPU-1",gpu_id="0",serial_number="S1",card_model="{MI300X}",accelerator_id="GPU-1"'
    )
    name = term.name.replace(".", "_")
    return f"{name}{{{identity}{',' + labels if labels else ''}{more}}} {number!r}\n"


def scrape(*lines: str) -> Scrape:
    return Parser().parse("".join(lines))


def read_twice(
    row: MappingRow, first: dict[Term, float], second: dict[Term, float], more: str = ""
) -> Reading:
    """The row's field after two ticks, ten seconds apart, in which the source said nothing else."""
    if row.dialect in SPOKEN_BY_EXPORTERS:
        told: dict[str, Remembered] = {}
        fields: dict[str, Reading] = {}
        for at_ms, numbers in ((0, first), (10_000, second)):
            text = scrape(
                *(line(term, number, more) for term, number in numbers.items()), 'other{gpu="0"} 1\n'
            )
            read = Normaliser().normalise(text, at_ms=at_ms, before=told)
            told = dict(read.remembered)
            fields = dict(read.rows[-1].fields) if read.rows else {}
        return fields[row.field]
    before: Remembered | None = None
    for at_ms, numbers in ((0, first), (10_000, second)):
        said = Said(
            key="d",
            at_ms=at_ms,
            part=Part(model=MI300X),
            numbers={term.text: number_of(number) for term, number in numbers.items()},
        )
        told_of = translated(row.dialect, said, before)
        before = told_of.remembered
    return told_of.fields[row.field]


@pytest.mark.parametrize("row", [row for row in EVERY_ROW if row.how in (How.SUM, How.MAX)], ids=named)
def test_a_number_arrives_in_the_fields_unit(row: MappingRow) -> None:
    unit, one_is = UNITS[row.unit]
    assert unit == ACCELERATOR[row.field].unit
    number = USUAL[unit] / one_is / (len(row.terms) if row.how is How.SUM else 1)
    reading = read_twice(row, dict.fromkeys(row.terms, number), dict.fromkeys(row.terms, number))
    assert reading.value == pytest.approx(USUAL[unit], rel=1e-9)
    assert row.terms[0].text in reading.source


@pytest.mark.parametrize("row", [row for row in EVERY_ROW if row.how is How.RATE], ids=named)
def test_an_accumulator_becomes_a_rate_of_bytes(row: MappingRow) -> None:
    assert ACCELERATOR[row.field].unit == "B/s"
    reading = read_twice(row, dict.fromkeys(row.terms, 1e6), dict.fromkeys(row.terms, 1e6 + 5_000))
    assert reading.value == pytest.approx(5_000 * ACCUMULATED[row.unit] / 10)


@pytest.mark.parametrize("row", [row for row in EVERY_ROW if row.how is How.BITS], ids=named)
def test_a_word_of_reasons_becomes_our_bits(row: MappingRow) -> None:
    reading = read_twice(row, {row.terms[0]: 0x44}, {row.terms[0]: 0x44})
    assert reading.value == Throttle.POWER_CAP | Throttle.THERMAL_HW


@pytest.mark.parametrize("row", [row for row in EVERY_ROW if row.how is How.FLAG], ids=named)
def test_a_violation_sets_its_bit(row: MappingRow) -> None:
    assert row.field == "throttle_bits"
    assert read_twice(row, {row.terms[0]: 3}, {row.terms[0]: 3}).value == row.bit
    assert read_twice(row, {row.terms[0]: 0}, {row.terms[0]: 0}).value == 0


@pytest.mark.parametrize(
    "row", [row for row in EVERY_ROW if row.how in (How.COUNT, How.PENDING, How.FAILED)], ids=named
)
def test_a_part_of_row_remap_stands_in_its_place(row: MappingRow) -> None:
    assert row.field == "row_remap"
    place = {How.PENDING: 1, How.FAILED: 2, How.COUNT: 4 * len(row.terms)}[row.how]
    numbers: dict[Term, float] = dict.fromkeys(row.terms, 1)
    assert read_twice(row, numbers, numbers).value == place


@pytest.mark.parametrize("row", [row for row in EVERY_ROW if row.how is How.RESIDENCY], ids=named)
def test_residency_is_the_share_of_the_firmwares_ticks(row: MappingRow) -> None:
    *reasons, ticks = row.terms
    for reason in reasons:
        reading = read_twice(row, {reason: 100, ticks: 1_000}, {reason: 350, ticks: 2_000})
        assert reading.value == pytest.approx(2_500)  # a quarter of ten seconds


@pytest.mark.parametrize("row", [row for row in EVERY_ROW if row.how is How.RISEN], ids=named)
def test_a_count_that_rises_is_a_fault(row: MappingRow) -> None:
    term = row.terms[0]
    assert read_twice(row, {term: 0}, {term: 1}, f',{row.label}="79"').value == 79
    assert read_twice(row, {term: 1}, {term: 1}, f',{row.label}="79"').value == 0


@pytest.mark.parametrize("row", [row for row in EVERY_ROW if row.how is How.APPEARED], ids=named)
def test_a_code_that_appears_is_a_fault(row: MappingRow) -> None:
    term = row.terms[0]
    assert read_twice(row, {term: 24}, {term: 30}).value == 30
    assert read_twice(row, {term: 24}, {term: 24}).value == 0


@pytest.mark.parametrize("row", EVERY_REFUSAL, ids=named)
def test_what_is_refused_fills_nothing(row: MappingRow) -> None:
    assert row.why
    number = {row.terms[0]: 79.0}
    reading = read_twice(row, number, number)
    assert reading.state in (State.ABSENT, State.UNSUPPORTED)


def test_no_kind_of_row_is_without_a_test() -> None:
    assert {row.how for row in EVERY_ROW} | {How.REFUSED} == set(How)
    assert {Dialect(row.dialect) for row in EVERY_ROW} == set(Dialect)


def test_a_lower_rank_waits_for_the_better_one() -> None:
    active, busy = (row.terms[0] for row in rows_of("dcgm") if row.field == "util_pct")
    both = scrape(line(active, 0.25), line(busy, 100))
    alone = scrape(line(busy, 100))
    [one] = Normaliser().normalise(both, at_ms=0).rows
    [other] = Normaliser().normalise(alone, at_ms=0).rows
    assert one.fields["util_pct"].value == 25
    assert other.fields["util_pct"].value == 100
    assert "weaker" in other.fields["util_pct"].source


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("power?", Term(text="power", name="power", optional=True)),
        ("a.b.percent", Term(text="a.b.percent", name="a.b.percent")),
        ("c{t=x,u=y}", Term(text="c{t=x,u=y}", name="c", labels=(("t", "x"), ("u", "y")))),
        ("nvmlX(A,B).k.2", Term(text="nvmlX(A,B).k.2", name="nvmlX", arguments=("A", "B"), keys=("k", "2"))),
        ("amdsmi_e.a*b", Term(text="amdsmi_e.a*b", name="amdsmi_e", keys=("a*b",))),
    ],
)
def test_a_term_is_taken_apart(text: str, expected: Term) -> None:
    assert term_of(text) == expected


@pytest.mark.parametrize("text", ["", "a b", "a{", "a(", "x{}"])
def test_what_is_no_term_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no term"):
        term_of(text)


def test_a_table_may_name_only_fields_that_are() -> None:
    cells = {"field": "power", "rank": "0", "terms": "x", "how": "sum", "unit": "W", "factor": "1"}
    with pytest.raises(ValueError, match="no field power"):
        row_of(Dialect.DCGM, cells)


@pytest.mark.parametrize(
    ("reasons", "bits", "harmful"),
    [
        pytest.param(0, 0, False, id="nothing"),
        pytest.param(0x1 | 0x2, 0, False, id="idle and the user's own clocks slow nobody down"),
        pytest.param(0x4, Throttle.POWER_CAP, False, id="the power cap is normal at full load"),
        pytest.param(0x20, Throttle.THERMAL_SW, True, id="heat, by software"),
        pytest.param(0x8 | 0x40, Throttle.THERMAL_HW, True, id="heat, by hardware"),
        pytest.param(0x8 | 0x80, Throttle.POWER_BRAKE, True, id="a power supply is lost"),
        pytest.param(0x8, Throttle.POWER_BRAKE, True, id="hardware slows down and names no heat"),
        pytest.param(0x400, Throttle.RELIABILITY, False, id="reliability"),
        pytest.param(0x10000, Throttle.OTHER, False, id="a reason nobody knows"),
    ],
)
def test_reasons_of_nvml(reasons: int, bits: int, harmful: bool) -> None:
    assert throttle_of(reasons) == bits
    assert bool(throttle_of(reasons) & HARMFUL) is harmful
