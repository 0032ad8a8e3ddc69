"""NVIDIA's library as its header documents it, for machines without the driver: real constants, set answers."""

# ruff: noqa: N802 - the names are the library's

import queue
from types import SimpleNamespace
from typing import Any

import pynvml


class Driver:
    """Answers like the module pynvml. What is not set here is not supported, as on a part without it."""

    def __init__(self, *devices: dict[str, Any]) -> None:
        self.devices = list(devices)
        self.events: queue.SimpleQueue[tuple[int, int]] = queue.SimpleQueue()  # (index, Xid)
        self.asked: list[str] = []
        self.gpm: dict[str, float] = {}

    def __getattr__(self, name: str) -> Any:
        real = getattr(pynvml, name)  # AttributeError for what the real package does not have either
        if not callable(real) or not name.startswith("nvml") or name == "nvmlMemory_v2":
            return real

        def answer(handle: Any = None, *arguments: Any) -> Any:
            self.asked.append(name)
            said = self.devices[handle].get(name) if isinstance(handle, int) else None
            if isinstance(said, Exception):
                raise said
            if isinstance(said, dict):
                said = said.get(arguments[0] if len(arguments) == 1 else arguments)
            if said is None:
                raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
            return said

        return answer

    def nvmlInit(self) -> None: ...

    def nvmlShutdown(self) -> None: ...

    def nvmlDeviceGetCount(self) -> int:
        return len(self.devices)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlGpmQueryDeviceSupport(self, handle: int) -> Any:
        return SimpleNamespace(isSupportedDevice=int(bool(self.gpm)))

    def nvmlGpmSampleAlloc(self) -> object:
        return object()

    def nvmlGpmSampleGet(self, handle: int, sample: object) -> object:
        return sample

    def nvmlGpmSampleFree(self, sample: object) -> None: ...

    def c_nvmlGpmMetricsGet_t(self) -> Any:
        metrics = [SimpleNamespace(metricId=0, nvmlReturn=None, value=0.0) for _ in range(20)]
        return SimpleNamespace(metrics=metrics, numMetrics=0, version=0, sample1=None, sample2=None)

    def nvmlGpmMetricsGet(self, asked: Any) -> None:
        names = {getattr(pynvml, name): value for name, value in self.gpm.items()}
        for metric in asked.metrics[: asked.numMetrics]:
            known = metric.metricId in names
            metric.nvmlReturn = pynvml.NVML_SUCCESS if known else pynvml.NVML_ERROR_NOT_SUPPORTED
            metric.value = names.get(metric.metricId, 0.0)

    def nvmlDeviceGetFieldValues(self, handle: int, wanted: list[tuple[int, int]]) -> list[Any]:
        said = self.devices[handle].get("fields", {}).get(wanted[0][0])
        if said is None:
            return [SimpleNamespace(nvmlReturn=pynvml.NVML_ERROR_NOT_SUPPORTED)]
        value = SimpleNamespace(ullVal=said, uiVal=said)
        kind = pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG
        return [SimpleNamespace(nvmlReturn=pynvml.NVML_SUCCESS, valueType=kind, value=value)]

    def nvmlEventSetCreate(self) -> object:
        return object()

    def nvmlDeviceRegisterEvents(self, handle: int, kinds: int, events: object) -> None: ...

    def nvmlEventSetFree(self, events: object) -> None: ...

    def nvmlEventSetWait_v2(self, events: object, wait_ms: int) -> Any:
        try:
            index, code = self.events.get(timeout=wait_ms / 1000)
        except queue.Empty:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_TIMEOUT) from None
        return SimpleNamespace(device=index, eventData=code)


def h100(index: int = 0) -> dict[str, Any]:
    """One H100 under load, in the library's own units."""
    return {
        "nvmlDeviceGetUUID": f"GPU-{index}",
        "nvmlDeviceGetSerial": f"16549220123{index}",
        "nvmlDeviceGetName": "NVIDIA H100 80GB HBM3",
        "nvmlDeviceGetPciInfo": SimpleNamespace(busId=f"00000000:{index:02X}:00.0"),
        "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=97, memory=41),
        "nvmlDeviceGetTemperature": {pynvml.NVML_TEMPERATURE_GPU: 62},
        "nvmlDeviceGetClockInfo": {pynvml.NVML_CLOCK_SM: 1980, pynvml.NVML_CLOCK_MEM: 2619},
        "nvmlDeviceGetCurrentClocksEventReasons": 0x4 | 0x40,
        "nvmlDeviceGetMemoryInfo": SimpleNamespace(total=85520809984, used=70000000000, reserved=500000000),
        "nvmlDeviceGetPowerUsage": 689_123,  # mW
        "nvmlDeviceGetEnforcedPowerLimit": 700_000,
        "nvmlDeviceGetTotalEnergyConsumption": 9_876_543_210,  # mJ
        "nvmlDeviceGetTotalEccErrors": {
            (pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED, pynvml.NVML_VOLATILE_ECC): 3,
            (pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, pynvml.NVML_VOLATILE_ECC): 0,
        },
        "nvmlDeviceGetRemappedRows": (1, 2, 1, 0),
        "nvmlDeviceGetViolationStatus": {
            pynvml.NVML_PERF_POLICY_POWER: SimpleNamespace(violationTime=1_500_000_000),  # ns
            pynvml.NVML_PERF_POLICY_THERMAL: SimpleNamespace(violationTime=500_000_000),
        },
        "fields": {pynvml.NVML_FI_DEV_MEMORY_TEMP: 71, pynvml.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX: 1000},
    }
