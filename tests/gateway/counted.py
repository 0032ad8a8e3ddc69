"""What tests of counting need: a request that was told, and a quay in memory that keeps the rules of the real one."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from baseai.gateway.seams import Told
from baseai.gateway.shipper import Marks
from baseai.gateway.traffic import Stretch
from baseai.gateway.usage import Use
from baseai.ground.fault import Conflict
from baseai.serving.demand import DemandSecond
from baseai.truth.session import TruthUnavailable

NOON_S = 1_796_000_400.0  # a whole hour, and a whole stretch
SERVED = Told(
    service_id="svc_1", tenant_id="ten_a", project_id="prj_a", version_no=1, key_id=None, run_id="run_1", request_id="",
    at_s=NOON_S, status=200, outcome="served", latency_ms=20.0, first_byte_ms=15.0, tokens_in=10, tokens_out=3,
    bytes_in=100, bytes_out=200, cache=None, retries=0,
)  # fmt: skip


def told(**said: Any) -> Told:
    """A served request of 10 + 3 tokens in 20 ms at noon, but for what is said."""
    return replace(SERVED, **said)


class MemoryQuay:
    """Keeps in memory what is taken in; may be away."""

    def __init__(self) -> None:
        self.away = False
        self.known: dict[str, Marks] = {}
        self.stretches: list[Stretch] = []
        self.uses: list[Use] = []
        self.groups: list[tuple[str, int, int]] = []
        self.seconds: list[tuple[str, DemandSecond]] = []

    def _answer(self) -> None:
        if self.away:
            raise TruthUnavailable("gone")

    async def take_demand(self, gateway: str, seconds: Sequence[tuple[str, DemandSecond]]) -> None:
        self._answer()
        self.seconds += seconds

    async def marks(self, gateway: str) -> Marks:
        self._answer()
        return self.known.get(gateway, Marks(traffic_no=0, usage_no=0))

    async def take_traffic(self, gateway: str, no: int, stretches: Sequence[Stretch]) -> None:
        marks = await self.marks(gateway)
        if no > marks.traffic_no:
            self.stretches += stretches
            self.known[gateway] = Marks(traffic_no=no, usage_no=marks.usage_no)

    async def take_usage(self, gateway: str, first_no: int, last_no: int, uses: Sequence[Use]) -> None:
        marks = await self.marks(gateway)
        if first_no <= marks.usage_no:
            raise Conflict("recorded already")
        self.uses += uses
        self.groups.append((gateway, first_no, last_no))
        self.known[gateway] = Marks(traffic_no=marks.traffic_no, usage_no=last_no)


def names_in(folder: Path, suffix: str = "") -> list[str]:
    """The files of a journal's folder."""
    return sorted(path.name for path in folder.iterdir() if path.name.endswith(suffix))


class NoDemand:
    """Nothing was asked for."""

    def taken(self, *, now_s: float, wall_s: float) -> Sequence[tuple[str, DemandSecond]]:
        return ()
