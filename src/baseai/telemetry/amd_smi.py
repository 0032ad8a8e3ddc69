"""Asks AMD's driver library (AMD SMI) about every accelerator, in the terms of the table `mappings/amd_smi.csv`.

Invariant: a call that the device does not support is unsupported from then on and not called again; one that fails is
absent this time; "N/A" is no number. Of a partitioned accelerator only the first partition is asked for what belongs
to the whole. Outside thing touched: `libamd_smi.so`, through the package amdsmi, which is imported at the first look.
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from baseai.ground.identity import derived
from baseai.telemetry.collector import Collected, NothingThere, SourceFailed
from baseai.telemetry.field import ACCELERATOR, State
from baseai.telemetry.mapping import Dialect, Term, rows_of
from baseai.telemetry.part import Part
from baseai.telemetry.sample import Reading, Row, Trouble
from baseai.telemetry.translation import Numbers, Remembered, Said, number_of, translated
from baseai.telemetry.witness import Witness

# amdsmi.h of 7.0: the arguments of the table are members of these enumerations.
ENUMERATIONS: Mapping[str, Sequence[str]] = {
    "amdsmi_get_temp_metric": ("AmdSmiTemperatureType", "AmdSmiTemperatureMetric"),
    "amdsmi_get_clock_info": ("AmdSmiClkType",),
    "amdsmi_get_gpu_memory_usage": ("AmdSmiMemoryType",),
    "amdsmi_get_gpu_memory_total": ("AmdSmiMemoryType",),
    "amdsmi_get_gpu_ecc_count": ("AmdSmiGpuBlock",),
}
NOT_SUPPORTED = (2, 3)  # AMDSMI_STATUS_NOT_SUPPORTED, _NOT_YET_IMPLEMENTED
BAD_PAGES = "amdsmi_get_gpu_bad_page_info"
PAGE_STATUS = {"reserved": 0, "pending": 1, "unreservable": 2}  # amdsmi_memory_page_status_t
AFIDS = "amdsmi_get_afids_from_cper"
ALL_SEVERITIES = 0b1111
SEVERITY_OF = {"fatal": "critical", "non_fatal_uncorrected": "warning", "non_fatal_corrected": "info"}


@dataclass(slots=True, kw_only=True)
class _Device:
    """One accelerator the library knows."""

    index: int
    handle: Any
    uuid: str
    serial: str
    pci: str
    part: Part
    unsupported: set[str] = field(default_factory=set)
    remembered: Remembered | None = None
    cper_cursor: int = 0
    cper_begun: bool = False  # what lay in the log before the first look is not news

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name in (self.serial, self.uuid, self.pci) if name)


class AmdSmi:
    """The source for AMD's accelerators. `library`: the module amdsmi, or one that answers like it."""

    name = "amd_smi"

    def __init__(self, *, boot_id: str, library: Any = None) -> None:
        self._boot_id = boot_id
        self._library = library
        self._devices: list[_Device] = []
        self._is_open = False

    def observe(self, now: datetime) -> Collected:
        """Raises NothingThere without package, driver or device, SourceFailed when the driver is out of order."""
        if not self._is_open:
            self._open()
        at_ms = round(now.timestamp() * 1000)
        rows: list[Row] = []
        troubles: list[Trouble] = []
        witnesses: list[Witness] = []
        names: dict[str, tuple[str, ...]] = {}
        for device in self._devices:
            key = device.serial or f"amd/{device.index}"
            answered = False
            numbers: dict[str, Numbers] = {}
            said_before: dict[tuple[str, tuple[str, ...]], Any] = {}  # one call may answer several terms
            for text, term in TERMS.items():
                if text in device.unsupported or term.name == AFIDS:
                    continue
                found = self._ask(device, text, term, said_before)
                if found is not None:
                    numbers[text] = found
                    answered = True
            if not answered:
                sentence = "no call was answered"
                troubles.append(Trouble(source=self.name, key=key, field=None, sentence=sentence))
                continue
            afids = self._afids(device)
            numbers[AFIDS] = {str(place): float(code) for place, (code, _) in enumerate(afids)} or number_of(
                0
            )
            said = Said(key=key, at_ms=at_ms, numbers=numbers, part=device.part, source=self.name)
            told = translated(Dialect.AMD_SMI, said, device.remembered)
            device.remembered = told.remembered
            troubles += told.troubles
            names[key] = device.names
            rows.append(Row(key=key, ts_ms=at_ms, fields=self._with_unsupported(device, told.fields)))
            witnesses += [
                self._witness(key, code, severity, now, place) for place, (code, severity) in enumerate(afids)
            ]
        if not rows and self._devices:
            self._close()
            raise SourceFailed(self.name, "no device answered")
        return Collected(
            rows={ACCELERATOR.name: rows}, other_names=names, witnesses=witnesses, troubles=troubles
        )

    def _open(self) -> None:
        if self._library is None:
            try:
                import amdsmi
            except ImportError:
                raise NothingThere("the package amdsmi is not installed (extra `amd`)") from None
            except (KeyError, OSError) as error:  # it looks for its library as it is imported
                raise NothingThere(f"no library of AMD: {error}") from None
            self._library = amdsmi
        lib = self._library
        try:
            lib.amdsmi_init()
            handles = lib.amdsmi_get_processor_handles()
        except lib.AmdSmiException as error:
            raise NothingThere(f"no driver of AMD: {error}") from None
        if not handles:
            raise NothingThere("AMD's driver knows no device")
        found = [self._found(index, handle) for index, handle in enumerate(handles)]
        by_serial: dict[str, _Device] = {}
        for device in found:  # partitions share a serial, and the first speaks for all
            by_serial.setdefault(device.serial or f"amd/{device.index}", device)
        self._devices = list(by_serial.values())
        self._is_open = True

    def _close(self) -> None:
        self._is_open = False
        with contextlib.suppress(self._library.AmdSmiException):
            self._library.amdsmi_shut_down()

    def _found(self, index: int, handle: Any) -> _Device:
        lib = self._library
        asic: Mapping[str, Any] = {}
        uuid = pci = ""
        with contextlib.suppress(lib.AmdSmiException):
            asic = lib.amdsmi_get_gpu_asic_info(handle)
        with contextlib.suppress(lib.AmdSmiException):
            uuid = str(lib.amdsmi_get_gpu_device_uuid(handle))
        with contextlib.suppress(lib.AmdSmiException):
            pci = str(lib.amdsmi_get_gpu_device_bdf(handle))
        serial = str(asic.get("asic_serial") or "")
        return _Device(
            index=index,
            handle=handle,
            uuid=uuid,
            serial="" if serial == "N/A" else serial,
            pci=pci,
            part=Part(model=str(asic.get("market_name") or "")),
        )

    # ---- one device -------------------------------------------------------------------------------------------

    def _ask(
        self, device: _Device, text: str, term: Term, said_before: dict[tuple[str, tuple[str, ...]], Any]
    ) -> Numbers | None:
        lib = self._library
        asked = (term.name, term.arguments)
        try:
            if asked not in said_before:
                enumerations = ENUMERATIONS.get(term.name, ())
                arguments = [
                    getattr(getattr(lib, kind), name)
                    for kind, name in zip(enumerations, term.arguments, strict=True)
                ]
                said_before[asked] = getattr(lib, term.name)(device.handle, *arguments)
            return _numbers(said_before[asked], term)
        except lib.AmdSmiLibraryException as error:
            if error.get_error_code() in NOT_SUPPORTED:
                device.unsupported.add(text)
        except (lib.AmdSmiException, KeyError, TypeError, ValueError):
            pass  # absent this time
        except AttributeError:
            device.unsupported.add(text)  # an older package without the call
        return None

    def _afids(self, device: _Device) -> list[tuple[int, str]]:
        """Codes of the error records since the look before, each with AMD's word for how grave it is."""
        lib = self._library
        if AFIDS in device.unsupported:
            return []
        found: list[tuple[int, str]] = []
        try:
            entries, device.cper_cursor, records, _ = lib.amdsmi_get_gpu_cper_entries(
                device.handle, ALL_SEVERITIES, cursor=device.cper_cursor
            )
            for entry, record in zip(entries.values(), records, strict=False):
                codes, _ = lib.amdsmi_get_afids_from_cper([record])
                found += [(int(code), str(entry.get("error_severity", ""))) for code in codes]
        except lib.AmdSmiLibraryException as error:
            if error.get_error_code() in NOT_SUPPORTED:
                device.unsupported.add(AFIDS)
        except (lib.AmdSmiException, AttributeError, TypeError, ValueError):
            device.unsupported.add(AFIDS)
        is_news, device.cper_begun = device.cper_begun, True
        return found if is_news else []

    def _with_unsupported(self, device: _Device, fields: Mapping[str, Reading]) -> Mapping[str, Reading]:
        known = dict(fields)
        for name, terms in TERMS_OF.items():
            if known[name].state is State.ABSENT and terms <= device.unsupported:
                known[name] = Reading(value=None, state=State.UNSUPPORTED, source=known[name].source)
        return known

    def _witness(self, key: str, code: int, severity: str, now: datetime, place: int) -> Witness:
        plain = severity.lower().replace("-", "_")
        return Witness(
            event_id=derived("wit", self._boot_id, "afid", key, code, now.isoformat(), place),
            at=now,
            kind="afid",
            key=key,
            code=code,
            severity=SEVERITY_OF.get(plain, "warning"),
            sentence=f"an error record of the device: AFID {code}, {severity or 'severity unknown'}",
            payload={"source": self.name, "severity": plain},
        )


def _numbers(answer: Any, term: Term) -> Numbers:
    """What of an answer the term means. Raises KeyError, TypeError or ValueError where it holds no number."""
    if term.name == BAD_PAGES:
        status = PAGE_STATUS[term.keys[0]]
        return number_of(sum(1 for page in answer if int(page["status"]) == status))
    for place, key in enumerate(term.keys):
        if "*" in key:
            left, right = key.split("*")
            return number_of(float(answer[left]) * float(answer[right]))
        if isinstance(answer, (list, tuple)):  # each link by itself: they come and go
            return {str(link): float(_below(each, term.keys[place:])) for link, each in enumerate(answer)}
        answer = answer[key]
    return number_of(float(answer))


def _below(answer: Any, keys: Sequence[str]) -> Any:
    for key in keys:
        answer = answer[key]
    return answer


TERMS: Mapping[str, Term] = {term.text: term for row in rows_of(Dialect.AMD_SMI) for term in row.terms}
TERMS_OF: Mapping[str, frozenset[str]] = {
    name: frozenset(term.text for row in rows_of(Dialect.AMD_SMI) if row.field == name for term in row.terms)
    for name in {row.field for row in rows_of(Dialect.AMD_SMI)}
}
