"""A scrape is normalised when every accelerator in it has one row, whatever its vendor calls things.

Invariant: one device, one row a tick: instances, partitions and pods are parts of it, and nothing that a device says
of itself is added up over them. A device is known by what its exporter calls it until the agent resolves that to a
serial of the platform, for which an identity stands beside each row.

How parts become a device:
    MIG          every instance repeats the device's power, energy, temperature and clocks: they count once. Activity is
                 the mean weighted by compute slices out of all the device has, bandwidth by memory, memory is the sum
                 where the instances cover the device.
    CPX and kin  partition 0 speaks for the device; what other partitions print is not used.
    pods         a device shared by several is said once for each of them; the first counts.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from baseai.telemetry.exposition import Metric, Scrape
from baseai.telemetry.field import State
from baseai.telemetry.mapping import Dialect, How, MappingRow, Parts, all_rows
from baseai.telemetry.part import Part
from baseai.telemetry.sample import Row, Trouble
from baseai.telemetry.translation import Remembered, Said, translated

SPOKEN = (Dialect.DCGM, Dialect.AMD_EXPORTER, Dialect.TPU)  # dialects that exporters speak
KNOWN_MAX = 100_000  # metrics whose place is kept
FORGET_AFTER_MS = 3_600_000  # a device that was not seen for so long is new when it comes again


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What a source calls a device, for the platform to find its serial by. "" where the source says nothing."""

    key: str  # of the row
    dialect: Dialect
    uuid: str = ""
    serial: str = ""
    index: str = ""  # as the driver counts
    pci: str = ""  # domain:bus:device.function, lower case
    model: str = ""
    node: str = ""  # name of the machine as the exporter knows it
    parts: tuple[str, ...] = ()  # MIG instances or partitions that the source named


@dataclass(frozen=True, slots=True, kw_only=True)
class Normalised:
    """What one scrape says of accelerators."""

    rows: tuple[Row, ...]  # by instant, then in the order of the text
    identities: Mapping[str, Identity]  # by key of row
    codes: Mapping[
        str, tuple[int, ...]
    ]  # key → every fault code that is new; the row's field holds the highest
    troubles: tuple[Trouble, ...]
    remembered: Mapping[str, Remembered]  # to hand in with the next scrape of the same exporter


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where the number of a metric belongs."""

    dialect: Dialect
    device: str  # what names the device in the text
    index: str
    part: str  # MIG instance or partition; "" for the device itself
    term: str
    dimension: str


@dataclass(slots=True, kw_only=True)
class _Unit:
    """What was said of one part of one device."""

    labels: Mapping[str, str]
    numbers: dict[str, dict[str, float]] = field(default_factory=dict)
    stamp_ms: int | None = None


class Normaliser:
    """Turns scrapes into rows; keeps where each metric belongs, and nothing of what they said."""

    def __init__(self) -> None:
        self._places: dict[Metric, _Place | None] = {}

    def normalise(
        self,
        scrape: Scrape,
        *,
        at_ms: int,
        source: str = "",
        dialect: Dialect | None = None,
        before: Mapping[str, Remembered] | None = None,
    ) -> Normalised:
        """One row for each accelerator and tick.

        at_ms: the instant of reading, for samples without one of their own. source: for troubles. dialect: read only
        what this one says; None reads all. before: what the scrape before gave back.
        """
        remembered = dict(before or {})
        rows: list[Row] = []
        troubles: list[Trouble] = []
        identities: dict[str, Identity] = {}
        codes: dict[str, tuple[int, ...]] = {}
        for tick in _ticks(scrape):
            units = self._units(scrape, tick, dialect)
            devices = [device for spoken in SPOKEN for device in _devices(spoken, units, troubles, source)]
            for device in devices:
                stamps = [unit.stamp_ms for unit in device.units if unit.stamp_ms is not None]
                said = device.said(at_ms=max(stamps, default=at_ms), source=source, whole=scrape.whole)
                told = translated(device.dialect, said, remembered.get(device.key))
                remembered[device.key] = told.remembered
                rows.append(Row(key=device.key, ts_ms=said.at_ms, fields=told.fields))
                identities[device.key] = device.identity
                troubles += [
                    replace(each, source=each.source or str(device.dialect)) for each in told.troubles
                ]
                if told.codes:
                    codes[device.key] = tuple(sorted({*codes.get(device.key, ()), *told.codes}))
            troubles += _uneven(rows[len(rows) - len(devices) :], identities, source)
        newest_ms = max((each.at_ms for each in remembered.values()), default=at_ms)
        return Normalised(
            rows=tuple(rows),
            identities=identities,
            codes=codes,
            troubles=tuple(troubles),
            remembered={
                key: each for key, each in remembered.items() if newest_ms - each.at_ms <= FORGET_AFTER_MS
            },
        )

    def _units(
        self, scrape: Scrape, tick: Sequence[int], dialect: Dialect | None
    ) -> dict[tuple[Dialect, str, str, str], _Unit]:
        """The numbers of one tick, by dialect, device, index and part."""
        units: dict[tuple[Dialect, str, str, str], _Unit] = {}
        metrics, values, stamps = scrape.metrics, scrape.values, scrape.stamps_ms
        if len(self._places) > KNOWN_MAX:
            self._places.clear()
        places = self._places
        for at in tick:
            metric = metrics[at]
            if metric in places:
                place = places[metric]
            else:
                place = places[metric] = place_of(metric)
            if place is None or (dialect is not None and place.dialect is not dialect):
                continue
            name = (place.dialect, place.device, place.index, place.part)
            unit = units.get(name)
            if unit is None:
                unit = units[name] = _Unit(labels=metric.folded)
            unit.numbers.setdefault(place.term, {}).setdefault(place.dimension, values[at])
            if at in stamps:
                unit.stamp_ms = max(unit.stamp_ms or 0, stamps[at])
        return units


def normalised(scrape: Scrape, *, at_ms: int, source: str = "", dialect: Dialect | None = None) -> Normalised:
    """One scrape by itself: what takes two is absent."""
    return Normaliser().normalise(scrape, at_ms=at_ms, source=source, dialect=dialect)


def dialects_of(scrape: Scrape) -> tuple[Dialect, ...]:
    """The dialects in which a scrape speaks of accelerators."""
    spoken = {place.dialect for place in map(place_of, scrape.metrics) if place is not None}
    return tuple(each for each in SPOKEN if each in spoken)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Device:
    """All that was said of one device at one tick."""

    key: str
    dialect: Dialect
    units: tuple[_Unit, ...]
    whole: _Unit | None  # what is said of the device itself
    instances: Mapping[str, _Unit]  # MIG
    identity: Identity

    def said(self, *, at_ms: int, source: str, whole: bool) -> Said:
        part = Part(model=self.identity.model)
        numbers: dict[str, Mapping[str, float]] = dict(self.whole.numbers) if self.whole else {}
        notes: dict[str, str] = {}
        if self.instances:
            numbers, notes = _aggregated(part, numbers, self.instances)
        if self.dialect is Dialect.AMD_EXPORTER and self.whole is not None:
            memory = self.whole.labels.get("gpu_memory_partition_type", "").lower()
            if memory not in ("", "nps1"):  # partition 0 then sees its own part of the memory
                numbers = {term: held for term, held in numbers.items() if term not in MEMORY_TERMS}
        return Said(
            key=self.key, at_ms=at_ms, numbers=numbers, part=part, source=source, whole=whole, notes=notes
        )


def _ticks(scrape: Scrape) -> Iterator[Sequence[int]]:
    """Places of the samples of each tick. A text is one tick unless it says a metric at several instants."""
    if not scrape.stamps_ms or len(set(scrape.metrics)) == len(scrape.metrics):
        yield range(len(scrape))
        return
    ticks: dict[int, list[int]] = {}
    for at in range(len(scrape)):
        ticks.setdefault(scrape.stamps_ms.get(at, 0), []).append(at)
    for stamp in sorted(ticks):
        yield ticks[stamp]


# Which metric is which term.


def canonical(name: str) -> str:
    """A metric's name as tables compare it: case, points and customary prefixes make no difference."""
    plain = name.lower().replace(".", "_")
    for prefix in ("amd_", "kubernetes_io_container_accelerator_", "kubernetes_io_node_accelerator_"):
        plain = plain.removeprefix(prefix)
    return plain


def _terms() -> Mapping[str, tuple[MappingRow, ...]]:
    """Canonical name → the rows that name it."""
    found: dict[str, list[MappingRow]] = {}
    for spoken in SPOKEN:
        for row in all_rows(spoken):
            for term in row.terms:
                found.setdefault(canonical(term.name), []).append(row)
    return {name: tuple(rows) for name, rows in found.items()}


ROWS_BY_NAME = _terms()
MEMORY_TERMS = frozenset(
    term.text
    for row in all_rows(Dialect.AMD_EXPORTER)
    if row.field in ("mem_used_b", "mem_total_b")
    for term in row.terms
)
PARTS_BY_TERM: Mapping[str, Parts] = {
    term.text: row.parts for row in all_rows(Dialect.DCGM) for term in row.terms
}
TPU_LABELS = ("accelerator_id", "device_id", "chip_id", "tpu_device_id")


def place_of(metric: Metric) -> _Place | None:
    """Where the number of a metric belongs; None when it says nothing that a field takes."""
    name = canonical(metric.name)
    rows = ROWS_BY_NAME.get(name)
    if rows is None:
        return None
    labels = metric.folded
    dialect = rows[0].dialect
    node = labels.get("hostname", "") or labels.get("node", "")
    if dialect is Dialect.DCGM:
        index = labels.get("gpu", "")
        device = labels.get("uuid") or labels.get("gpu_uuid") or (index and f"{node or 'gpu'}/{index}")
        part = labels.get("gpu_i_id", "")
    elif dialect is Dialect.AMD_EXPORTER:
        index = labels.get("gpu_id", "")
        device = (
            labels.get("serial_number") or labels.get("gpu_uuid") or (index and f"{node or 'gpu'}/{index}")
        )
        part = labels.get("gpu_partition_id", "0")
    else:
        index = next((labels[label] for label in TPU_LABELS if label in labels), "")
        device = f"{node}/{index}" if node and index else index
        part = ""
        if "nvidia" in (labels.get("make", "") + labels.get("accelerator_type", "")).lower():
            return None
    if not device:
        return None
    for row in rows:
        for term in row.terms:
            if canonical(term.name) == name and all(
                labels.get(label, "").lower() == value for label, value in term.labels
            ):
                return _Place(
                    dialect=dialect,
                    device=device,
                    index=index,
                    part=part,
                    term=term.text,
                    dimension=labels.get(row.label, "") if row.how is How.RISEN else _dimension(labels),
                )
    return None


def _dimension(labels: Mapping[str, str]) -> str:
    """Which of several numbers of one device this is: a link, a die, a place in a list."""
    return ",".join(
        value
        for label, value in sorted(labels.items())
        if label in ("nvlink", "severity") or label.endswith("_index")
    )


# Which parts are one device.


def _devices(
    dialect: Dialect,
    units: Mapping[tuple[Dialect, str, str, str], _Unit],
    troubles: list[Trouble],
    source: str,
) -> Iterator[_Device]:
    groups: dict[str, dict[tuple[str, str], _Unit]] = {}
    for (spoken, device, index, part), unit in units.items():
        if spoken is dialect:
            groups.setdefault(device, {})[index, part] = unit
    for device, held in groups.items():
        parts = [part for _, part in held]
        if dialect is Dialect.AMD_EXPORTER and len(set(parts)) < len(parts):
            indices = sorted({index for index, _ in held})
            troubles.append(
                Trouble(
                    source=source or str(dialect),
                    key=device,
                    field=None,
                    sentence=f"GPUs {', '.join(indices)} all give the serial {device}: each is kept by its index",
                )
            )
            for index in indices:
                own = {(other, part): unit for (other, part), unit in held.items() if other == index}
                yield _device(dialect, f"{device}/{index}", own, named=False)
        else:
            yield _device(dialect, device, held, named=True)


def _device(dialect: Dialect, key: str, held: Mapping[tuple[str, str], _Unit], *, named: bool) -> _Device:
    """One device of its parts. `named`: whether its key is a serial or UUID of its own."""
    if dialect is Dialect.AMD_EXPORTER:
        whole = next((unit for (_, part), unit in held.items() if part == "0"), None)
        instances: dict[str, _Unit] = {}
        parts = tuple(part for _, part in held) if len(held) > 1 else ()
    else:
        bare = [unit for (_, part), unit in held.items() if not part]
        whole = _joined(bare) if bare else None
        instances = {part: unit for (_, part), unit in held.items() if part}
        parts = tuple(
            f"{part} {unit.labels.get('gpu_i_profile', '')}".strip() for part, unit in instances.items()
        )
    first = (whole or next(iter(held.values()))).labels
    index = next((index for (index, _), unit in held.items() if unit is whole), next(iter(held))[0])
    return _Device(
        key=key,
        dialect=dialect,
        units=tuple(held.values()),
        whole=whole,
        instances=instances,
        identity=Identity(
            key=key,
            dialect=dialect,
            uuid=first.get("uuid") or first.get("gpu_uuid", ""),
            serial=first.get("serial_number", "") if named else "",
            index=index,
            pci=first.get("pci_bus_id", "").lower(),
            model=_model(first),
            node=first.get("hostname", "") or first.get("node", ""),
            parts=parts,
        ),
    )


def _model(labels: Mapping[str, str]) -> str:
    """The longest of the names that the labels give a model."""
    labelled = ("modelname", "model_name", "card_model", "card_series", "accelerator_type")
    return max((labels.get(label, "") for label in labelled), key=len)


def _joined(units: Sequence[_Unit]) -> _Unit:
    """Units of one device that differ in how it was counted, as one."""
    if len(units) == 1:
        return units[0]
    joined = _Unit(labels=units[0].labels)
    for unit in units:
        for term, numbers in unit.numbers.items():
            joined.numbers[term] = {**numbers, **joined.numbers.get(term, {})}
    return joined


# MIG.

PROFILE = re.compile(r"(\d+)g\.(\d+)gb", re.IGNORECASE)
COVERED_RATIO = 0.95  # instances with less of the device's memory than this do not cover it


def _aggregated(
    part: Part, own: Mapping[str, Mapping[str, float]], instances: Mapping[str, _Unit]
) -> tuple[dict[str, Mapping[str, float]], dict[str, str]]:
    """The device's numbers out of its instances', and how each was put together."""
    numbers: dict[str, Mapping[str, float]] = {}
    notes: dict[str, str] = {}
    shapes = {
        name: (float(found[1]), float(found[2]))
        for name, unit in instances.items()
        if (found := PROFILE.search(unit.labels.get("gpu_i_profile", "")))
    }
    covered = part.memory_gb is None or (
        len(shapes) == len(instances)
        and sum(memory for _, memory in shapes.values()) >= COVERED_RATIO * part.memory_gb
    )
    for term in dict.fromkeys(term for unit in instances.values() for term in unit.numbers):
        said = {name: unit.numbers[term] for name, unit in instances.items() if term in unit.numbers}
        how = PARTS_BY_TERM[term]
        if how is Parts.NONE or term in own:
            continue
        if how is Parts.DEVICE:
            numbers[term] = next(iter(said.values()))
            notes[term] = "MIG: each instance repeats the device's"
        elif how is Parts.SUM:
            if covered or term in USED_TERMS:
                numbers[term] = {"": sum(sum(each.values()) for each in said.values())}
                notes[term] = f"MIG: sum of {len(said)} instances"
        elif len(shapes) == len(instances) == len(said):
            by_memory = how is Parts.MEMORY and part.memory_gb is not None
            every = part.memory_gb if by_memory and part.memory_gb else float(part.compute_slices)
            numbers[term] = {
                "": sum(
                    sum(each.values()) * shapes[name][1 if by_memory else 0] for name, each in said.items()
                )
                / every
            }
            notes[term] = (
                f"MIG: {len(said)} instances weighted by {'memory' if by_memory else 'compute slices'}"
            )
    kept = {term: held for term, held in own.items() if PARTS_BY_TERM[term] is not Parts.NONE}
    return numbers | kept, notes


USED_TERMS = frozenset(
    term.text for row in all_rows(Dialect.DCGM) if row.field == "mem_used_b" for term in row.terms
)

# What one device says and its neighbour does not.


def _uneven(rows: Sequence[Row], identities: Mapping[str, Identity], source: str) -> Iterator[Trouble]:
    """A field that most devices of one kind have and some lack: half a scrape, or an exporter that lost a device."""
    kinds: dict[tuple[Dialect, str], list[Row]] = {}
    for row in rows:
        identity = identities[row.key]
        if not identity.parts:
            kinds.setdefault((identity.dialect, identity.model), []).append(row)
    for (dialect, _), alike in kinds.items():
        for name in alike[0].fields if len(alike) > 1 else ():
            lacking = [row for row in alike if row.fields[name].state is State.ABSENT]
            have = sum(row.fields[name].state is State.VALUE for row in alike)
            if lacking and have > len(lacking):
                for row in lacking:
                    yield Trouble(
                        source=source or str(dialect),
                        key=row.key,
                        field=name,
                        sentence=f"said nothing, while {have} of {len(alike)} devices like it did",
                    )
