"""The neutral files: a cluster, a workload and decisions as CSV that any scheduler can read and any judge can check.

Invariant: a file is read whole or refused with file, line and field (`BadRow`); what is read can be replayed: every
gang fits into the empty cluster, and every id stands once. Text in, values out: opening files is for doors.

    cluster    node_id,gpu_model,gpus,cpu_milli,mem_mib[,leaf,pod,site,country,watts]
    workload   job_id,submit_s,duration_s,pods,gpu_milli,cpu_milli,mem_mib,gpu_models,group,duration_by_model
    failures   node_id,down_s,up_s
    decisions  job_id,pod,start_s,end_s,node_id,gpus

Empty cpu_milli or mem_mib of a node: not modelled there. `gpu_milli` is per pod: 0, a share below 1000, or k * 1000.
`gpu_models` A|B, empty for any; `duration_by_model` A=3600|B=7200 goes before duration_s. Decisions have a row for
each pod and stretch of running; `gpus` i;j;k; end_s is empty where it never ends.
"""

import csv
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from baseai.ground.fault import Fault, Refused
from baseai.scheduling.gang import WHOLE, Gang, Shape
from baseai.scheduling.hall import Bay, Hall, Spot

CLUSTER = ("node_id", "gpu_model", "gpus", "cpu_milli", "mem_mib", "leaf", "pod", "site", "country", "watts")
WORKLOAD = (
    "job_id", "submit_s", "duration_s", "pods", "gpu_milli", "cpu_milli", "mem_mib", "gpu_models", "group",
    "duration_by_model",
)  # fmt: skip
FAILURES = ("node_id", "down_s", "up_s")
DECISIONS = ("job_id", "pod", "start_s", "end_s", "node_id", "gpus")
CLUSTER_NEEDS = frozenset({"node_id", "gpus"})
WORKLOAD_NEEDS = frozenset({"job_id", "submit_s", "gpu_milli"})
AMOUNT_MOST = 1 << 53  # beyond it a float no longer counts


class BadRow(Refused):
    """A row of a file that cannot be meant."""

    def __init__(self, file: str, line: int, field: str, why: str) -> None:
        Fault.__init__(self, file, line, field, why)
        self.file = file
        self.line = line
        self.field = field
        self.why = why
        self.sentence = f"{file}, line {line}, {field}: {why}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """One gang and what only the replay knows of it: how long it runs."""

    gang: Gang
    duration_s: float | None  # None: it never ends, as in packing
    by_model: Mapping[str, float]  # where not empty, the models it runs on at all

    def work_s(self, model: str) -> float:
        """Seconds on that model; inf where it cannot run there, or never ends."""
        if self.by_model:
            return self.by_model.get(model, math.inf)
        return math.inf if self.duration_s is None else self.duration_s


class Segment(NamedTuple):
    """One stretch in which a gang ran."""

    run_id: str
    start_s: float
    end_s: float  # inf: for ever
    spots: tuple[Spot, ...]


class Outage(NamedTuple):
    """A node that is down from one instant to another."""

    node_id: str
    down_s: float
    up_s: float


class _Row:
    """The cells of one line, read by their names."""

    __slots__ = ("_cells", "_columns", "file", "line")

    def __init__(self, file: str, line: int, columns: Mapping[str, int], cells: Sequence[str]) -> None:
        self.file, self.line, self._columns, self._cells = file, line, columns, cells

    def bad(self, field: str, why: str) -> BadRow:
        return BadRow(self.file, self.line, field, why)

    def text(self, field: str) -> str:
        where = self._columns.get(field)
        return "" if where is None else self._cells[where].strip()

    def named(self, field: str) -> str:
        found = self.text(field)
        if not found:
            raise self.bad(field, "it is empty")
        return found

    def number(self, field: str) -> float | None:
        """A finite number, not negative; None where the cell is empty."""
        found = self.text(field)
        if not found:
            return None
        try:
            value = float(found)
        except ValueError:
            raise self.bad(field, f"{found!r} is not a number") from None
        if not 0 <= value <= AMOUNT_MOST:
            raise self.bad(field, f"{found} is not a number from 0 to 2^53")
        return value

    def needed(self, field: str) -> float:
        value = self.number(field)
        if value is None:
            raise self.bad(field, "it is empty")
        return value

    def whole(self, field: str, otherwise: int) -> int:
        value = self.number(field)
        if value is None:
            return otherwise
        if value != int(value):
            raise self.bad(field, f"{self.text(field)} is not a whole number")
        return int(value)

    def amount(self, field: str) -> int | None:
        """Of what a node has: a part of the smallest unit is not there."""
        value = self.number(field)
        return None if value is None else math.floor(value)

    def need(self, field: str) -> int:
        """Of what a pod takes: a part of the smallest unit is taken whole."""
        return math.ceil(self.number(field) or 0.0)


def bays_of(lines: Iterable[str], file: str) -> tuple[Bay, ...]:
    """The nodes of a cluster file. Raises BadRow."""
    bays, seen = list[Bay](), dict[str, int]()
    for row in _rows(lines, file, CLUSTER, CLUSTER_NEEDS):
        node_id = row.named("node_id")
        if node_id in seen:
            raise row.bad("node_id", f"{node_id} stands on line {seen[node_id]} already")
        seen[node_id] = row.line
        model, devices = row.text("gpu_model"), row.whole("gpus", 0)
        if "|" in model or "=" in model or ";" in model:
            raise row.bad("gpu_model", f"{model!r} holds a sign that separates names")
        bays.append(
            Bay(
                node_id=node_id,
                model=model,
                devices=devices,
                cpu_milli=row.amount("cpu_milli"),
                memory_mib=row.amount("mem_mib"),
                watts=row.amount("watts"),
                site=row.text("site"),
                country=row.text("country"),
                leaf=row.text("leaf"),
                pod=row.text("pod"),
            )
        )
    if not bays:
        raise BadRow(file, 1, "node_id", "the file has no node")
    return tuple(bays)


def submissions_of(
    lines: Iterable[str], file: str, hall: Hall, *, with_durations: bool
) -> tuple[Submission, ...]:
    """The gangs of a workload file in the order of their submission, each of which fits into the empty hall.

    with_durations: each must end some time, as replaying time needs. Raises BadRow.
    """
    shapes: dict[Shape, tuple[Shape, str]] = {}
    found: list[tuple[float, int, str, Shape, str, float | None, dict[str, float]]] = []
    seen: dict[str, int] = {}
    for row in _rows(lines, file, WORKLOAD, WORKLOAD_NEEDS):
        run_id = row.named("job_id")
        if run_id in seen:
            raise row.bad("job_id", f"{run_id} stands on line {seen[run_id]} already")
        seen[run_id] = row.line
        by_model = _by_model(row)
        shape, lacks = _shape(row, by_model, shapes, hall)
        if lacks:
            raise row.bad(lacks, f"run {run_id} fits nowhere, even into an empty cluster")
        duration_s = row.number("duration_s")
        if with_durations and duration_s is None and not by_model:
            raise row.bad("duration_s", "it is empty, and so is duration_by_model")
        found.append(
            (row.needed("submit_s"), row.line, run_id, shape, row.text("group"), duration_s, by_model)
        )
    found.sort(key=lambda each: each[:2])
    return tuple(
        Submission(
            gang=Gang(run_id=run_id, number=number, shape=shape, submit_s=submit_s, group=group),
            duration_s=duration_s,
            by_model=by_model,
        )
        for number, (submit_s, _, run_id, shape, group, duration_s, by_model) in enumerate(found)
    )


def outages_of(lines: Iterable[str], file: str, hall: Hall) -> tuple[Outage, ...]:
    """Nodes that fail and come back, in the order in which they fail. Raises BadRow."""
    known, found = frozenset(hall.node_ids), list[Outage]()
    for row in _rows(lines, file, FAILURES, frozenset(FAILURES)):
        node_id, down_s, up_s = row.named("node_id"), row.needed("down_s"), row.needed("up_s")
        if node_id not in known:
            raise row.bad("node_id", f"no node of the cluster is called {node_id}")
        if up_s <= down_s:
            raise row.bad("up_s", f"{up_s:g} is not after down_s {down_s:g}")
        for other in found:
            if other.node_id == node_id and other.down_s < up_s and down_s < other.up_s:
                raise row.bad("down_s", f"{node_id} is down already from {other.down_s:g} to {other.up_s:g}")
        found.append(Outage(node_id, down_s, up_s))
    return tuple(sorted(found, key=lambda outage: (outage.down_s, outage.node_id)))


def decision_lines(segments: Iterable[Segment], hall: Hall) -> Iterator[str]:
    """The decisions file, line by line, each with its end; instants to the microsecond."""
    yield ",".join(DECISIONS) + "\n"
    names = {name: _cell(name) for name in hall.node_ids}
    for segment in segments:
        run_id = _cell(segment.run_id)
        when = f"{second_text(segment.start_s)},{second_text(segment.end_s)}"
        for pod, spot in enumerate(segment.spots):
            devices = ";".join(map(str, spot.devices))
            yield f"{run_id},{pod},{when},{names[hall.node_ids[spot.row]]},{devices}\n"


def cluster_lines(bays: Iterable[Bay]) -> Iterator[str]:
    """The cluster file, line by line: `bays_of` reads the same bays from it."""
    yield ",".join(CLUSTER) + "\n"
    for bay in bays:
        cells = (
            bay.node_id, bay.model, bay.devices, bay.cpu_milli, bay.memory_mib, bay.leaf, bay.pod, bay.site,
            bay.country, bay.watts,
        )  # fmt: skip
        yield ",".join("" if cell is None else _cell(str(cell)) for cell in cells) + "\n"


def workload_lines(submissions: Iterable[Submission]) -> Iterator[str]:
    """The workload file, line by line: `submissions_of` reads the same gangs from it."""
    yield ",".join(WORKLOAD) + "\n"
    for each in submissions:
        gang, shape = each.gang, each.gang.shape
        by_model = "|".join(f"{model}={second_text(seconds)}" for model, seconds in each.by_model.items())
        duration = "" if each.duration_s is None else second_text(each.duration_s)
        cells = (
            gang.run_id, second_text(gang.submit_s), duration, shape.pods, shape.milli, shape.cpu_milli,
            shape.memory_mib, "|".join(shape.models), gang.group, by_model,
        )  # fmt: skip
        yield ",".join(_cell(str(cell)) for cell in cells) + "\n"


def second_text(seconds: float) -> str:
    """Seconds as the files write them: to the microsecond, without idle digits; empty for ever."""
    if math.isinf(seconds):
        return ""
    return str(int(seconds)) if seconds == int(seconds) else f"{seconds:.6f}".rstrip("0").rstrip(".")


def _cell(text: str) -> str:
    if any(sign in text for sign in ',"\r\n'):
        return '"' + text.replace('"', '""') + '"'
    return text


def _rows(lines: Iterable[str], file: str, known: Sequence[str], needed: frozenset[str]) -> Iterator[_Row]:
    """Every line but the first, whose names say what stands where; columns that are not ours are passed over."""
    reader = csv.reader(lines, strict=True)
    columns: dict[str, int] | None = None
    width = 0
    try:
        for cells in reader:
            if columns is None:
                columns = _columns(file, cells, known, needed)
                width = len(cells)
            elif cells:
                if len(cells) != width:
                    field = known[0] if len(cells) > width else list(columns)[-1]
                    raise BadRow(file, reader.line_num, field, f"{len(cells)} cells instead of {width}")
                yield _Row(file, reader.line_num, columns, cells)
    except csv.Error as wrong:
        raise BadRow(file, reader.line_num, known[0], f"this is no CSV: {wrong}") from wrong
    except UnicodeDecodeError as wrong:
        raise BadRow(file, reader.line_num + 1, known[0], "this is not UTF-8") from wrong
    except EOFError as wrong:
        raise BadRow(file, reader.line_num + 1, known[0], "the packed file is cut off") from wrong
    if columns is None:
        raise BadRow(file, 1, known[0], "the file is empty")


def _columns(file: str, cells: Sequence[str], known: Sequence[str], needed: frozenset[str]) -> dict[str, int]:
    names = [cell.strip().lstrip("\ufeff") for cell in cells]
    for name in known:
        if names.count(name) > 1:
            raise BadRow(file, 1, name, "two columns have this name")
        if name in needed and name not in names:
            raise BadRow(file, 1, name, "there is no column of this name")
    return {name: names.index(name) for name in known if name in names}


def _by_model(row: _Row) -> dict[str, float]:
    found: dict[str, float] = {}
    for part in row.text("duration_by_model").split("|"):
        if not part.strip():
            continue
        model, _, written = part.rpartition("=")
        try:
            seconds = float(written)
        except ValueError:
            seconds = math.nan
        if not model.strip() or not 0 <= seconds <= AMOUNT_MOST:
            raise row.bad("duration_by_model", f"{part!r} is not MODEL=SECONDS")
        found[model.strip()] = seconds
    return found


def _shape(
    row: _Row, by_model: Mapping[str, float], shapes: dict[Shape, tuple[Shape, str]], hall: Hall
) -> tuple[Shape, str]:
    """The shape of a row, the same object for equal ones, and the field that keeps it off an empty hall."""
    milli, pods = row.whole("gpu_milli", 0), row.whole("pods", 1)
    if milli > WHOLE and milli % WHOLE:
        raise row.bad("gpu_milli", f"{milli} is neither a share of one accelerator nor whole ones")
    if pods < 1:
        raise row.bad("pods", "a gang has at least one")
    models = tuple(name for part in row.text("gpu_models").split("|") if (name := part.strip()))
    if not milli:
        models = ()  # they say which accelerators, and it takes none
    if by_model:
        fastest = sorted(by_model, key=lambda name: by_model[name])
        models = tuple(name for name in fastest if not models or name in models)
        if not models:
            raise row.bad("duration_by_model", "no model of gpu_models is in it")
    shape = Shape(
        pods=pods,
        milli=milli,
        cpu_milli=row.need("cpu_milli"),
        memory_mib=row.need("mem_mib"),
        models=models,
        one_model=bool(by_model),
    )
    if shape not in shapes:
        shapes[shape] = (shape, hall.could_ever(shape))
    return shapes[shape]
