"""Asks the TPU runtime of this node for its metrics, over gRPC on loopback.

Invariant: the runtime answers only while a workload holds the chips; its silence is then no failure and no zero. Power,
temperature, energy and memory errors are never told by it. Outside things touched: the runtime's port, /sys for whether
there are chips at all; the package grpcio is imported at the first look.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from baseai.telemetry.collector import Collected, NothingThere, SourceFailed
from baseai.telemetry.field import ACCELERATOR
from baseai.telemetry.mapping import Dialect, rows_of
from baseai.telemetry.sample import Row, Trouble
from baseai.telemetry.tpu_message import GET_METRIC, numbers_in, request_of
from baseai.telemetry.translation import Numbers, Remembered, Said, number_of, translated

ADDRESS = "localhost:8431"  # of libtpu; one port for each process that holds chips, from here on
PCI = Path("/sys/bus/pci/devices")
GOOGLE = "0x1ae0"
METRICS = tuple(
    sorted(
        {
            term.text
            for row in rows_of(Dialect.TPU)
            for term in row.terms
            if term.text.startswith("tpu.runtime.")
        }
    )
)


class Tpu:
    """The source for the TPU chips of this node."""

    name = "tpu"

    def __init__(
        self, *, addresses: Sequence[str] = (ADDRESS,), answer_s: float = 2.0, pci: Path | None = PCI
    ) -> None:
        """answer_s: for each question. pci: where chips show on the bus; None does not look there."""
        self._addresses = addresses
        self._answer_s = answer_s
        self._pci = pci
        self._channels: dict[str, Any] = {}
        self._remembered: dict[str, Remembered] = {}

    def observe(self, now: datetime) -> Collected:
        """Raises NothingThere on a node without chips or package, SourceFailed for an answer that makes no sense."""
        if self._pci is not None and not self._has_chips(self._pci):
            raise NothingThere("no TPU on the bus of this node")
        try:
            import grpc
        except ImportError:
            raise NothingThere("the package grpcio is not installed (extra `tpu`)") from None
        at_ms = round(now.timestamp() * 1000)
        troubles: list[Trouble] = []
        numbers: dict[int, dict[str, Numbers]] = {}
        for address in self._addresses:
            channel = self._channels.setdefault(address, None) or grpc.insecure_channel(address)
            self._channels[address] = channel
            ask = channel.unary_unary(GET_METRIC, request_serializer=bytes, response_deserializer=bytes)
            for metric in METRICS:
                try:
                    told = numbers_in(ask(request_of(metric), timeout=self._answer_s))
                except grpc.RpcError as error:
                    if error.code() is grpc.StatusCode.UNAVAILABLE:
                        break  # no workload holds chips behind this port
                    why = f"{metric}: {error.code().name.lower()}"
                    troubles.append(Trouble(source=f"tpu {address}", key=None, field=None, sentence=why))
                    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                        raise SourceFailed(
                            f"tpu {address}", f"no answer within {self._answer_s:g} s"
                        ) from None
                    continue
                except ValueError as error:
                    raise SourceFailed(f"tpu {address}", f"{metric}: {error}") from None
                for each in told:
                    numbers.setdefault(each.device, {})[metric] = number_of(each.value)
        rows = [self._row(device, said, at_ms, troubles) for device, said in sorted(numbers.items())]
        return Collected(rows={ACCELERATOR.name: rows}, troubles=troubles)

    def _row(self, device: int, numbers: Mapping[str, Numbers], at_ms: int, troubles: list[Trouble]) -> Row:
        key = f"tpu/{device}"
        told = translated(
            Dialect.TPU,
            Said(key=key, at_ms=at_ms, numbers=numbers, source=self.name),
            self._remembered.get(key),
        )
        self._remembered[key] = told.remembered
        troubles += told.troubles
        return Row(key=key, ts_ms=at_ms, fields=told.fields)

    @staticmethod
    def _has_chips(pci: Path) -> bool:
        for vendor in pci.glob("*/vendor"):
            try:
                if vendor.read_text().strip() == GOOGLE and _is_accelerator(vendor.with_name("class")):
                    return True
            except OSError:
                continue
        return False


def _is_accelerator(path: Path) -> bool:
    """By the bus's class: processing accelerators, or none said. Google's network adapters are on the bus as well."""
    return path.read_text().strip().startswith(("0x12", "0xff", "0x00"))
