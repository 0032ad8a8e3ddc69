"""Asks NVIDIA's driver library (NVML) about every accelerator, in the terms of the table `mappings/nvml.csv`.

Invariant: a call that the device does not support is unsupported from then on and not called again until the library is
opened anew; one that fails is absent this time. A device that is lost costs its own row, not the others'. Events (Xids)
are waited for in a thread of their own and told with the next look. Outside thing touched: `libnvidia-ml.so.1`, through
the package nvidia-ml-py, which is imported at the first look.
"""

import contextlib
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from baseai.ground.clock import now_utc
from baseai.ground.identity import derived
from baseai.telemetry.collector import Collected, NothingThere, SourceFailed
from baseai.telemetry.field import ACCELERATOR, State
from baseai.telemetry.mapping import Dialect, Term, rows_of
from baseai.telemetry.part import Part
from baseai.telemetry.sample import Reading, Row, Trouble
from baseai.telemetry.translation import Numbers, Remembered, Said, number_of, translated
from baseai.telemetry.witness import Witness

EVENT_WAIT_MS = 1000
EVENTS_KEPT = 1000  # between two looks
RECOVERY = "NVML_FI_DEV_GET_GPU_RECOVERY_ACTION"
# nvml.h of 13.x, nvmlDeviceGpuRecoveryAction_t: what the driver asks for.
RECOVERIES = (
    "none", "gpu reset", "node reboot", "drain of peer traffic", "drain and reset", "recovery of the IMEX domain",
    "bus reset", "system reboot",
)  # fmt: skip


@dataclass(slots=True, kw_only=True)
class _Device:
    """One accelerator the library knows."""

    index: int
    handle: Any
    uuid: str
    serial: str
    pci: str
    part: Part
    has_gpm: bool
    gpm_before: Any = None  # the sample of the look before
    unsupported: set[str] = field(default_factory=set)  # texts of terms
    remembered: Remembered | None = None
    recovery: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name in (self.uuid, self.pci, self.serial) if name)


class Nvml:
    """The source for NVIDIA's accelerators. `library`: the module pynvml, or one that answers like it."""

    name = "nvml"

    def __init__(self, *, boot_id: str, library: Any = None) -> None:
        self._boot_id = boot_id
        self._library = library
        self._devices: list[_Device] = []
        self._is_open = False
        self._events: list[tuple[datetime, str, int]] = []  # (at, uuid, Xid)
        self._lock = threading.Lock()
        self._listener: threading.Thread | None = None
        self._event_no = 0

    def observe(self, now: datetime) -> Collected:
        """Raises NothingThere without package, driver or device, SourceFailed when the driver is out of order."""
        if not self._is_open:
            self._open()
        at_ms = round(now.timestamp() * 1000)
        rows: list[Row] = []
        troubles: list[Trouble] = []
        witnesses: list[Witness] = []
        names: dict[str, tuple[str, ...]] = {}
        events = self._taken_events()
        for device in self._devices:
            key = device.uuid or f"nvidia/{device.index}"
            names[key] = device.names
            try:
                xids = [code for _, uuid, code in events if uuid == device.uuid]
                row = self._row(device, key, at_ms, xids, troubles)
            except _Lost as lost:
                troubles.append(Trouble(source=self.name, key=key, field=None, sentence=str(lost)))
                continue
            rows.append(row)
            witnesses += self._recovery(device, key, now)
        witnesses += [self._witness(at, uuid, code) for at, uuid, code in events]
        if not rows and self._devices:
            self._close()  # a driver that was loaded anew has other handles
            raise SourceFailed(self.name, troubles[0].sentence)
        if len(rows) < len(self._devices):
            self._close()
        return Collected(
            rows={ACCELERATOR.name: rows}, other_names=names, witnesses=witnesses, troubles=troubles
        )

    # ---- the library ------------------------------------------------------------------------------------------

    def _open(self) -> None:
        if self._library is None:
            try:
                import pynvml
            except ImportError:
                raise NothingThere("the package nvidia-ml-py is not installed (extra `nvidia`)") from None
            self._library = pynvml
        lib = self._library
        try:
            lib.nvmlInit()
            count = lib.nvmlDeviceGetCount()
        except lib.NVMLError as error:
            if error.value in (
                lib.NVML_ERROR_LIBRARY_NOT_FOUND, lib.NVML_ERROR_DRIVER_NOT_LOADED, lib.NVML_ERROR_NOT_FOUND,
            ):  # fmt: skip
                raise NothingThere(f"no driver of NVIDIA: {error}") from None
            raise SourceFailed(self.name, str(error)) from None
        if count == 0:
            lib.nvmlShutdown()
            raise NothingThere("NVIDIA's driver knows no device")
        self._devices = [device for index in range(count) if (device := self._found(index)) is not None]
        self._is_open = True
        if self._listener is None or not self._listener.is_alive():
            self._listener = threading.Thread(target=self._listen, name="nvml events", daemon=True)
            self._listener.start()

    def _close(self) -> None:
        self._is_open = False
        with contextlib.suppress(self._library.NVMLError):
            self._library.nvmlShutdown()

    def _found(self, index: int) -> _Device | None:
        lib = self._library
        try:
            handle = lib.nvmlDeviceGetHandleByIndex(index)
        except lib.NVMLError:
            return None  # fell off the bus: it is missed by who knows that it was there
        has_gpm = False
        with contextlib.suppress(lib.NVMLError, AttributeError):
            has_gpm = bool(lib.nvmlGpmQueryDeviceSupport(handle).isSupportedDevice)
        return _Device(
            index=index,
            handle=handle,
            uuid=self._said(lib.nvmlDeviceGetUUID, handle),
            serial=self._said(lib.nvmlDeviceGetSerial, handle),
            pci=self._said(lambda handle: lib.nvmlDeviceGetPciInfo(handle).busId, handle),
            part=Part(model=self._said(lib.nvmlDeviceGetName, handle)),
            has_gpm=has_gpm,
        )

    def _said(self, call: Any, handle: Any) -> str:
        try:
            said = call(handle)
        except self._library.NVMLError:
            return ""
        return said.decode() if isinstance(said, bytes) else str(said)

    # ---- one device -------------------------------------------------------------------------------------------

    def _row(self, device: _Device, key: str, at_ms: int, xids: list[int], troubles: list[Trouble]) -> Row:
        numbers: dict[str, Numbers] = {}
        for text, term in TERMS.items():
            if term.name == "nvmlEventSetWait_v2":
                numbers[text] = {str(place): float(code) for place, code in enumerate(xids)} or number_of(0)
            elif text not in device.unsupported and not term.name.startswith("nvmlGpm"):
                self._ask(device, text, term, numbers)
        if device.has_gpm:
            numbers |= self._gpm(device)
        said = Said(key=key, at_ms=at_ms, numbers=numbers, part=device.part, source=self.name)
        told = translated(Dialect.NVML, said, device.remembered)
        device.remembered = told.remembered
        troubles += told.troubles
        fields = dict(told.fields)
        without = device.unsupported if device.has_gpm else device.unsupported | GPM.keys()
        for name, terms in TERMS_OF.items():
            if fields[name].state is State.ABSENT and terms <= without:
                fields[name] = Reading(value=None, state=State.UNSUPPORTED, source=fields[name].source)
        return Row(key=key, ts_ms=at_ms, fields=fields)

    def _ask(self, device: _Device, text: str, term: Term, numbers: dict[str, Numbers]) -> None:
        lib = self._library
        try:
            numbers[text] = number_of(self._value(device.handle, term))
        except lib.NVMLError as error:
            if error.value in (lib.NVML_ERROR_NOT_SUPPORTED, lib.NVML_ERROR_FUNCTION_NOT_FOUND):
                device.unsupported.add(text)
            elif error.value in (
                lib.NVML_ERROR_GPU_IS_LOST, lib.NVML_ERROR_RESET_REQUIRED, lib.NVML_ERROR_UNINITIALIZED,
            ):  # fmt: skip
                raise _Lost(str(error)) from None
        except AttributeError:
            device.unsupported.add(text)  # an older package without the call or the constant

    def _value(self, handle: Any, term: Term) -> float:
        """One call of the table. Fields and links have ways of their own; the rest is call, arguments, keys."""
        lib = self._library
        if term.name == "nvmlDeviceGetFieldValues":
            return self._field(handle, term.arguments[0])
        if term.name == "nvmlDeviceGetNvLinkErrorCounter":
            counter = getattr(lib, term.arguments[0])
            found = list(self._per_link(handle, counter))
            if not found:
                raise lib.NVMLError(lib.NVML_ERROR_NOT_SUPPORTED)
            return float(sum(found))
        arguments = [getattr(lib, name) for name in term.arguments]
        answer = getattr(lib, term.name)(handle, *arguments)
        for key in term.keys:
            answer = answer[int(key)] if key.isdigit() else getattr(answer, key)
        return float(answer)

    def _per_link(self, handle: Any, counter: int) -> Iterable[int]:
        lib = self._library
        for link in range(lib.NVML_NVLINK_MAX_LINKS):
            try:
                if lib.nvmlDeviceGetNvLinkState(handle, link):
                    yield lib.nvmlDeviceGetNvLinkErrorCounter(handle, link, counter)
            except lib.NVMLError as error:
                if error.value in (lib.NVML_ERROR_INVALID_ARGUMENT, lib.NVML_ERROR_NOT_SUPPORTED):
                    return  # there are no more links, or none at all
                raise

    def _field(self, handle: Any, name: str) -> float:
        lib = self._library
        # Sums over all links have the scope "all", which the library writes as the largest number.
        scope = 2**32 - 1 if "NVLINK" in name else 0
        answer = lib.nvmlDeviceGetFieldValues(handle, [(getattr(lib, name), scope)])[0]
        if answer.nvmlReturn != lib.NVML_SUCCESS:
            raise lib.NVMLError(answer.nvmlReturn)
        kinds = {
            lib.NVML_VALUE_TYPE_DOUBLE: "dVal",
            lib.NVML_VALUE_TYPE_UNSIGNED_INT: "uiVal",
            lib.NVML_VALUE_TYPE_UNSIGNED_LONG: "ulVal",
            lib.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG: "ullVal",
            lib.NVML_VALUE_TYPE_SIGNED_LONG_LONG: "sllVal",
        }
        return float(getattr(answer.value, kinds.get(answer.valueType, "siVal")))

    def _gpm(self, device: _Device) -> Mapping[str, Numbers]:
        """Hopper and later: shares of the time between two samples of the profiler's counters."""
        lib = self._library
        numbers: dict[str, Numbers] = {}
        with contextlib.suppress(lib.NVMLError, AttributeError):
            sample = lib.nvmlGpmSampleAlloc()
            try:
                lib.nvmlGpmSampleGet(device.handle, sample)
            except lib.NVMLError:
                lib.nvmlGpmSampleFree(sample)
                raise
            before, device.gpm_before = device.gpm_before, sample
            if before is None:
                return {}
            asked = lib.c_nvmlGpmMetricsGet_t()
            asked.version = lib.NVML_GPM_METRICS_GET_VERSION
            asked.sample1, asked.sample2 = before, sample
            asked.numMetrics = len(GPM)
            for place, term in enumerate(GPM.values()):
                asked.metrics[place].metricId = getattr(lib, term.arguments[0])
            lib.nvmlGpmMetricsGet(asked)
            for place, text in enumerate(GPM):
                if asked.metrics[place].nvmlReturn == lib.NVML_SUCCESS:
                    numbers[text] = number_of(asked.metrics[place].value)
            lib.nvmlGpmSampleFree(before)
        return numbers

    # ---- events -----------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        """Wait for Xids until the library is closed."""
        lib = self._library
        try:
            events = lib.nvmlEventSetCreate()
            uuids = {}
            for device in self._devices:
                with contextlib.suppress(lib.NVMLError):
                    lib.nvmlDeviceRegisterEvents(device.handle, lib.nvmlEventTypeXidCriticalError, events)
                    uuids[_address(device.handle)] = device.uuid
            while self._is_open and uuids:
                try:
                    event = lib.nvmlEventSetWait_v2(events, EVENT_WAIT_MS)
                except lib.NVMLError as error:
                    if error.value == lib.NVML_ERROR_TIMEOUT:
                        continue
                    break
                uuid = uuids.get(_address(event.device)) or self._said(lib.nvmlDeviceGetUUID, event.device)
                with self._lock:
                    self._events.append((now_utc(), uuid, int(event.eventData)))
                    del self._events[:-EVENTS_KEPT]
            lib.nvmlEventSetFree(events)
        except (lib.NVMLError, AttributeError):
            return  # this driver tells no events; the kernel log is the other witness

    def _taken_events(self) -> list[tuple[datetime, str, int]]:
        with self._lock:
            events, self._events = self._events, []
        return events

    def _witness(self, at: datetime, uuid: str, code: int) -> Witness:
        self._event_no += 1
        return Witness(
            event_id=derived("wit", self._boot_id, "nvml", uuid, code, at.isoformat(), self._event_no),
            at=at,
            kind="xid",
            key=uuid or None,
            code=code,
            severity="critical",
            sentence=f"the driver reports Xid {code}",
            payload={"source": "nvml"},
        )

    def _recovery(self, device: _Device, key: str, now: datetime) -> list[Witness]:
        """What the driver itself says must be done with the device, when that has changed."""
        try:
            action = int(self._field(device.handle, RECOVERY))
        except (self._library.NVMLError, AttributeError):
            return []
        before, device.recovery = device.recovery, action
        if action in (0, before):
            return []
        asks = RECOVERIES[action] if action < len(RECOVERIES) else f"action {action}"
        return [
            Witness(
                event_id=derived("wit", self._boot_id, "recovery", key, action, now.isoformat()),
                at=now,
                kind="recovery",
                key=key,
                code=action,
                severity="critical",
                sentence=f"the driver asks for {asks}",
                payload={"source": "nvml"},
            )
        ]


class _Lost(Exception):
    """The device does not answer any more."""


def _address(handle: Any) -> int:
    """By what two handles of one device are equal."""
    import ctypes

    with contextlib.suppress(TypeError, ValueError):
        return ctypes.cast(handle, ctypes.c_void_p).value or 0
    return id(handle)


TERMS: Mapping[str, Term] = {term.text: term for row in rows_of(Dialect.NVML) for term in row.terms}
GPM: Mapping[str, Term] = {text: term for text, term in TERMS.items() if term.name == "nvmlGpmMetricsGet"}
TERMS_OF: Mapping[str, frozenset[str]] = {
    name: frozenset(term.text for row in rows_of(Dialect.NVML) if row.field == name for term in row.terms)
    for name in {row.field for row in rows_of(Dialect.NVML)}
}
