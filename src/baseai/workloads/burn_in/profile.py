"""A profile is how long and how hard a burn-in loads an accelerator.

Invariant: a profile names amounts and times, never a limit: what is good enough is judged where the figures are
kept. `quick` stays under 20 s on two CPU cores; `standard` admits a node; `soak` finds what only heat brings out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Device = Literal["cpu", "cuda"]  # torch's names; a ROCm device is a `cuda` one to it
MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What one kind of device is given to do."""

    gemm_rows: int  # of the square matrices
    gemm_formats: tuple[str, ...]  # number formats, in this order
    memory_mib: int  # of each of the three arrays: far beyond any cache
    bus_least_bytes: int
    bus_most_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One length of burn-in."""

    name: str
    loads: Mapping[Device, Load]
    gemm_s: float  # for each number format
    memory_s: float  # for each way to move memory
    bus_s: float  # for each collective: no further doubling once it is spent
    soak_s: float
    max_duration_s: int  # of the whole run, for its lease


PROFILES: Mapping[str, Profile] = MappingProxyType(
    {
        profile.name: profile
        for profile in (
            Profile(
                name="quick",
                loads={
                    "cpu": Load(
                        gemm_rows=1024, gemm_formats=("fp32",), memory_mib=64,
                        bus_least_bytes=MIB // 4, bus_most_bytes=4 * MIB,
                    ),
                    "cuda": Load(
                        gemm_rows=8192, gemm_formats=("fp32", "bf16"), memory_mib=1024,
                        bus_least_bytes=MIB, bus_most_bytes=256 * MIB,
                    ),
                },
                gemm_s=1.5, memory_s=0.7, bus_s=0.8, soak_s=2.0, max_duration_s=600,
            ),
            Profile(
                name="standard",
                loads={
                    "cpu": Load(
                        gemm_rows=2048, gemm_formats=("fp32", "bf16", "int8"), memory_mib=256,
                        bus_least_bytes=MIB // 4, bus_most_bytes=64 * MIB,
                    ),
                    "cuda": Load(
                        gemm_rows=8192, gemm_formats=("fp32", "bf16", "fp8", "int8"), memory_mib=4096,
                        bus_least_bytes=MIB, bus_most_bytes=4096 * MIB,
                    ),
                },
                gemm_s=15.0, memory_s=5.0, bus_s=20.0, soak_s=120.0, max_duration_s=1_800,
            ),
            Profile(
                name="soak",
                loads={
                    "cpu": Load(
                        gemm_rows=2048, gemm_formats=("fp32", "bf16", "int8"), memory_mib=256,
                        bus_least_bytes=MIB // 4, bus_most_bytes=64 * MIB,
                    ),
                    "cuda": Load(
                        gemm_rows=16384, gemm_formats=("fp32", "bf16", "fp8", "int8"), memory_mib=4096,
                        bus_least_bytes=MIB, bus_most_bytes=4096 * MIB,
                    ),
                },
                gemm_s=60.0, memory_s=30.0, bus_s=60.0, soak_s=4 * 3600.0, max_duration_s=8 * 3_600,
            ),
        )
    }
)  # fmt: skip
