"""InfiniBand and RoCE ports as the kernel shows them below /sys/class/infiniband.

Invariant: data counters are in words of four bytes and leave here in bytes; a counter that stands at its ceiling has
stopped counting, is blank and said to be so; a file that is not there is unsupported, one that cannot be read is a
trouble. Outside thing touched: that folder.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from baseai.telemetry.collector import Collected, NothingThere
from baseai.telemetry.counter import INFINIBAND_CEILINGS, saturated_sentence
from baseai.telemetry.field import NODE, PORT, State
from baseai.telemetry.sample import Reading, Row, Trouble

ROOT = Path("/sys/class/infiniband")
WORD_BYTES = 4
RATE = re.compile(r"([\d.]+)\s*Gb/sec")

# Field of a port → files below the port whose numbers add up to it, and the factor.
COUNTERS: Mapping[str, tuple[Sequence[str], float]] = {
    "rx_b": (("counters/port_rcv_data",), WORD_BYTES),
    "tx_b": (("counters/port_xmit_data",), WORD_BYTES),
    "wait_ticks": (("counters/port_xmit_wait",), 1),
    "symbol_err": (("counters/symbol_error",), 1),
    "rx_err": (("counters/port_rcv_errors",), 1),
    "discards": (("counters/port_xmit_discards",), 1),
    "link_downed": (("counters/link_downed",), 1),
    "retrans": (
        (
            "hw_counters/out_of_sequence",
            "hw_counters/packet_seq_err",
            "hw_counters/local_ack_timeout_err",
            "hw_counters/rnr_nak_retry_err",
            "hw_counters/roce_adp_retrans",
        ),
        1,
    ),
    "congestion": (("hw_counters/np_cnp_sent", "hw_counters/rp_cnp_handled"), 1),
}


class Infiniband:
    """The source for the ports of all adapters, and the node's traffic over those that are InfiniBand."""

    name = "infiniband"

    def __init__(self, root: Path = ROOT) -> None:
        self._root = root

    def observe(self, now: datetime) -> Collected:
        """Raises NothingThere where the kernel knows no adapter."""
        ports = sorted(self._root.glob("*/ports/*"), key=lambda port: (port.parent.parent.name, port.name))
        if not ports:
            raise NothingThere(f"no adapter below {self._root}")
        at_ms = round(now.timestamp() * 1000)
        troubles: list[Trouble] = []
        rows = [
            Row(
                key=f"{port.parent.parent.name}/{port.name}", ts_ms=at_ms, fields=self._fields(port, troubles)
            )
            for port in ports
        ]
        traffic = {
            f"ib_{way}_b": [
                row.fields[f"{way}_b"].value
                for row, port in zip(rows, ports, strict=True)
                if _text(port / "link_layer") == "InfiniBand"
            ]
            for way in ("rx", "tx")
        }
        node = {
            name: Reading(
                value=sum(value for value in values if value is not None), source="infiniband: sum of ports"
            )
            for name, values in traffic.items()
            if values and None not in values  # a sum with a hole would look like a reset
        }
        found: dict[str, list[Row]] = {PORT.name: rows}
        if node:
            found[NODE.name] = [Row(key="", ts_ms=at_ms, fields=node)]
        return Collected(rows=found, troubles=troubles)

    def _fields(self, port: Path, troubles: list[Trouble]) -> dict[str, Reading]:
        key = f"{port.parent.parent.name}/{port.name}"
        fields = {
            name: self._counter(port, key, name, files, factor, troubles)
            for name, (files, factor) in COUNTERS.items()
        }
        state = _text(port / "state")
        if state is not None:
            fields["up"] = Reading(value=float("ACTIVE" in state), source="infiniband: state")
        rate = RATE.search(_text(port / "rate") or "")
        if rate:
            fields["rate_bps"] = Reading(value=float(rate[1]) * 1e9, source="infiniband: rate, Gb/s × 1e9")
        return fields

    def _counter(
        self, port: Path, key: str, name: str, files: Sequence[str], factor: float, troubles: list[Trouble]
    ) -> Reading:
        there = [file for file in files if (port / file).exists()]
        source = "infiniband: " + " + ".join(there or files) + (f" × {factor:g}" if factor != 1 else "")
        if not there:
            return Reading(value=None, state=State.UNSUPPORTED, source=source)
        total = 0
        for file in there:
            text = _text(port / file)
            if text is None or not text.isdigit():
                sentence = f"{file} holds no number" if text is not None else f"{file} cannot be read"
                troubles.append(Trouble(source=self.name, key=key, field=name, sentence=sentence))
                return Reading(value=None, state=State.BLANK, source=source)
            number = int(text)
            if number == INFINIBAND_CEILINGS.get(file.rpartition("/")[2]):
                sentence = saturated_sentence(name, number)
                troubles.append(Trouble(source=self.name, key=key, field=name, sentence=sentence))
                return Reading(value=None, state=State.BLANK, source=source)
            total += number
        return Reading(value=total * factor, source=source)


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
