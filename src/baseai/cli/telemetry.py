"""The commands around measurements: what a saved scrape says, once every vendor's words are ours.

Invariant: `parse` needs no platform. Standard output holds rows, and whatever could not be read is said on standard
error with its line; one row that was read makes the command a success.
"""

import json
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from baseai.cli.call import Call, command
from baseai.cli.column import ABSENT, Column, bytes_text, figure, plain
from baseai.cli.query import add_query
from baseai.ground.clock import instant, now_utc
from baseai.ground.fault import Fault, Refused

if TYPE_CHECKING:
    from baseai.telemetry.field import Family
    from baseai.telemetry.normalise import Normalised
    from baseai.telemetry.sample import Reading, Row, Trouble

FILE_BYTES_MAX = 2**30
VENDORS: Mapping[str, str] = {  # what people type → dialect
    "nvidia": "dcgm",
    "dcgm": "dcgm",
    "amd": "amd_exporter",
    "amd_exporter": "amd_exporter",
    "tpu": "tpu",
    "google": "tpu",
    "node": "node",
}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class NothingRead(Fault):
    """A file of which not one row could be read."""

    def __init__(self, file: str, why: str) -> None:
        super().__init__(file, why)
        self.file = file
        self.why = why

    def __str__(self) -> str:
        return f"nothing was read from {self.file}: {self.why}"


def add_telemetry(app: typer.Typer, environ: Mapping[str, str]) -> None:
    """Register the commands."""
    room = typer.Typer(help="What is measured.", no_args_is_help=True, rich_markup_mode=None)
    app.add_typer(room, name="telemetry")
    add_parse(room, environ)
    add_query(room, environ)


def add_parse(room: typer.Typer, environ: Mapping[str, str]) -> None:
    @command(room, "parse", example="baseai telemetry parse scrape.prom", environ=environ)
    def parse(
        call: Call,
        file: Annotated[
            str, typer.Argument(metavar="FILE", help="Exposition text, also as .gz; - is standard input.")
        ],
        vendor: Annotated[
            str | None,
            typer.Option(
                "--vendor",
                help=f"Read only what it says: {', '.join(VENDORS)}; without it, whatever is there.",
            ),
        ] = None,
        at: Annotated[
            str | None,
            typer.Option(
                "--at", help="Instant of the samples that name none, 2026-11-26T12:00:00Z; now by default."
            ),
        ] = None,
    ) -> None:
        """Read a scrape of DCGM, AMD's or TPU's exporter or of node_exporter into normalised rows.

        With --json one line for each accelerator (node, port) and tick.
        """
        from baseai.telemetry.exposition import Parser
        from baseai.telemetry.mapping import Dialect
        from baseai.telemetry.node_exporter import is_node_exporter, machine_of
        from baseai.telemetry.normalise import normalised

        dialect = _dialect(vendor)
        at_ms = (_instant(at) - EPOCH) // timedelta(milliseconds=1)
        content, cut = _content(file)
        scrape = Parser().parse(content)
        _tell(call, scrape.troubles)
        if cut:
            call.screen.note(cut)
        read = (
            None
            if dialect == "node"
            else normalised(scrape, at_ms=at_ms, dialect=Dialect(dialect) if dialect else None)
        )
        machine = (
            machine_of(scrape, at_ms=at_ms)
            if dialect in (None, "node") and is_node_exporter(scrape)
            else None
        )
        if (read is None or not read.rows) and machine is None:
            count = len(scrape)
            held = f"{count} sample{'' if count == 1 else 's'}, none of" if count else "no sample of"
            raise NothingRead(file, f"it holds {held} an accelerator or a node")
        if read is not None:
            _tell(call, read.troubles)
            _show_accelerators(call, read)
        if machine is not None:
            from baseai.telemetry.field import NODE, PORT

            _tell(call, machine.troubles)
            _show(call, NODE, "node", [machine.node])
            _show(call, PORT, "port", machine.ports)


def _dialect(vendor: str | None) -> str | None:
    if vendor is None:
        return None
    found = VENDORS.get(vendor.lower())
    if found is None:
        raise Refused(f"--vendor {vendor}: nobody here speaks that; one of {', '.join(VENDORS)}")
    return found


def _instant(at: str | None) -> datetime:
    if at is None:
        return now_utc()
    try:
        return instant(at)
    except ValueError as wrong:
        raise Refused(f"--at {at}: {wrong}") from wrong


def _content(file: str) -> tuple[bytes, str]:
    """The text of a file, unpacked, and a sentence when it was cut. Raises NothingRead."""
    try:
        if file == "-":
            raw = sys.stdin.buffer.read(FILE_BYTES_MAX)
        else:
            with Path(file).open("rb") as opened:
                raw = opened.read(FILE_BYTES_MAX)
    except OSError as wrong:
        raise NothingRead(file, wrong.strerror or str(wrong)) from wrong
    if not raw.startswith(b"\x1f\x8b"):
        return raw, ""
    unpacking = zlib.decompressobj(wbits=31)
    try:
        text = unpacking.decompress(raw, FILE_BYTES_MAX)
    except zlib.error as wrong:
        raise NothingRead(file, f"it is no whole gzip file: {wrong}") from wrong
    return text, "" if unpacking.eof else "the packed file ends early: what followed is missing"


def _tell(call: Call, troubles: "Sequence[Trouble]") -> None:
    for each in troubles:
        where = plain(" ".join(part for part in (each.key, each.field) if part))
        call.screen.note(f"{each.source}: {where}{': ' if where else ''}{plain(each.sentence)}")


def _show_accelerators(call: Call, read: "Normalised") -> None:
    from baseai.telemetry.field import ACCELERATOR

    if call.screen.as_json or len(read.rows) == 1:
        _show(call, ACCELERATOR, "accel", read.rows)
        return
    if read.rows:
        call.screen.table(
            [
                Column(head="ACCELERATOR"),
                *(Column(head=head, right=True) for head, _ in OVERVIEW),
                Column(head="MODEL"),
            ],
            [
                (
                    row.key,
                    *(_cell(name, row.fields[name]) for _, name in OVERVIEW),
                    read.identities[row.key].model,
                )
                for row in read.rows
            ],
        )


OVERVIEW = (
    ("UTIL %", "util_pct"),
    ("TENSOR %", "tensor_pct"),
    ("BANDWIDTH %", "membw_pct"),
    ("°C", "temp_c"),
    ("MEMORY °C", "temp_mem_c"),
    ("MHZ", "clock_mhz"),
    ("IN USE", "mem_used_b"),
    ("OF", "mem_total_b"),
    ("WATTS", "power_w"),
    ("THROTTLE", "throttle_bits"),
    ("FAULT", "fault_code"),
)


def _show(call: Call, family: "Family", noun: str, rows: "Sequence[Row]") -> None:
    if call.screen.as_json:
        for row in rows:
            call.screen.document(json.dumps(as_line(noun, row), ensure_ascii=False))
        return
    for row in rows:
        call.screen.say(plain(" ".join(part for part in (noun, row.key, _instant_text(row.ts_ms)) if part)))
        call.screen.table(
            [
                Column(head="FIELD"),
                Column(head="VALUE", right=True),
                Column(head="UNIT"),
                Column(head="STATE"),
                Column(head="SOURCE"),
            ],
            [
                (name, figure(reading.value), family[name].unit, reading.state.name.lower(), reading.source)
                for name, reading in row.fields.items()
            ],
        )


def as_line(noun: str, row: "Row") -> dict[str, Any]:
    """A row as one JSON object. An origin stands in a field only where the value is not measured."""
    return {noun: row.key, "ts": _instant_text(row.ts_ms), "fields": dict(_fields(row))}


def _fields(row: "Row") -> Iterator[tuple[str, dict[str, object]]]:
    from baseai.telemetry.field import Origin

    for name, reading in row.fields.items():
        told: dict[str, object] = {
            "value": None if reading.value is None else float(reading.value),
            "state": reading.state.name.lower(),
            "source": reading.source,
        }
        if reading.origin is not Origin.MEASURED:
            told["origin"] = reading.origin.name.lower()
        yield name, told


def _cell(name: str, reading: "Reading") -> str:
    if reading.value is None:
        return ABSENT if reading.state.name == "ABSENT" else reading.state.name.lower()
    return bytes_text(reading.value) if name.endswith("_b") else figure(float(reading.value))


def _instant_text(ts_ms: int) -> str:
    at = EPOCH + timedelta(milliseconds=ts_ms)
    return at.isoformat(timespec="milliseconds" if ts_ms % 1000 else "seconds").replace("+00:00", "Z")
