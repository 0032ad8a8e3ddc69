"""A segment is some seconds of one gateway process: a line for each request while it is open, sums once it is closed.

Invariant: the sums of a segment are those of its lines, whoever adds them up: the gateway as it goes, or another one
after it died. Segments of a gateway are numbered from 1, in the order in which they are taken in.
"""

import json
from collections.abc import Iterable
from typing import Any, cast

from baseai.gateway.seams import Outcome, Told
from baseai.gateway.traffic import Stretch, StretchKey, stretch_of
from baseai.gateway.usage import HOUR_S, NOTHING, Use, UseKey, charged

NONE = "-"
CACHES = {NONE: None, "hit": "hit", "collapsed": "collapsed"}
FIELDS = 17


def line_of(told: Told) -> bytes:
    """What is counted of a request, and no more: neither who asked nor what. One line."""
    first_byte = NONE if told.first_byte_ms is None else f"{told.first_byte_ms:.3f}"
    return (
        f"{told.service_id}\t{told.version_no}\t{told.tenant_id}\t{told.project_id}\t{told.run_id or NONE}\t"
        f"{told.at_s:.3f}\t{told.status}\t{told.outcome}\t{told.latency_ms:.3f}\t{first_byte}\t{told.tokens_in}\t"
        f"{told.tokens_out}\t{told.bytes_in}\t{told.bytes_out}\t{told.cache or NONE}\t{told.retries}\t{told.slow:d}\n"
    ).encode()


def told_in(line: bytes) -> Told | None:
    """A request as its line tells it; None for a line that was cut off."""
    parts = line.decode(errors="replace").split("\t")
    if len(parts) != FIELDS or not line.endswith(b"\n"):
        return None
    try:
        return Told(
            service_id=parts[0],
            version_no=int(parts[1]),
            tenant_id=parts[2],
            project_id=parts[3],
            run_id=None if parts[4] == NONE else parts[4],
            at_s=float(parts[5]),
            status=int(parts[6]),
            outcome=cast(Outcome, parts[7]),
            latency_ms=float(parts[8]),
            first_byte_ms=None if parts[9] == NONE else float(parts[9]),
            tokens_in=int(parts[10]),
            tokens_out=int(parts[11]),
            bytes_in=int(parts[12]),
            bytes_out=int(parts[13]),
            cache=cast(Any, CACHES[parts[14]]),
            retries=int(parts[15]),
            slow=parts[16] == "1\n",
            key_id=None,
            request_id="",
        )
    except (ValueError, KeyError):
        return None


class Sums:
    """What a segment comes to."""

    __slots__ = ("_stretches", "_uses")

    def __init__(self, stretches: Iterable[Stretch] = (), uses: Iterable[Use] = ()) -> None:
        self._stretches: dict[StretchKey, Stretch] = {
            (one.service_id, one.version_no, one.from_s): one for one in stretches
        }
        self._uses: dict[UseKey, Use] = {one.key: one for one in uses}

    def __bool__(self) -> bool:
        return bool(self._stretches)

    @property
    def stretches(self) -> list[Stretch]:
        return list(self._stretches.values())

    @property
    def uses(self) -> list[Use]:
        return list(self._uses.values())

    def add(self, told: Told) -> None:
        """Count one request. About 3 µs."""
        key = stretch_of(told)
        stretch = self._stretches.get(key)
        if stretch is None:
            stretch = self._stretches[key] = Stretch(
                service_id=told.service_id,
                version_no=told.version_no,
                from_s=key[2],
                tenant_id=told.tenant_id,
                project_id=told.project_id,
            )
        stretch.add(told)
        one = charged(told)
        if one is NOTHING:
            return
        ended_s = told.at_s + told.latency_ms / 1000
        hour_s = int(ended_s) // HOUR_S * HOUR_S
        use_key = (told.service_id, told.version_no, told.run_id, hour_s)
        use = self._uses.get(use_key)
        if use is None:
            use = self._uses[use_key] = Use(
                service_id=told.service_id,
                version_no=told.version_no,
                run_id=told.run_id,
                hour_s=hour_s,
                tenant_id=told.tenant_id,
                project_id=told.project_id,
                from_s=ended_s,
                until_s=ended_s,
            )
        use.add(one, at_s=ended_s)

    def to_bytes(self) -> bytes:
        document = {
            "stretches": [one.to_json() for one in self._stretches.values()],
            "uses": [one.to_json() for one in self._uses.values()],
        }
        return json.dumps(document, separators=(",", ":")).encode()

    @staticmethod
    def from_bytes(stored: bytes) -> "Sums":
        """What `to_bytes` gave. Raises ValueError for anything else."""
        try:
            document = json.loads(stored)
            return Sums(
                [Stretch.from_json(one) for one in document["stretches"]],
                [Use(**one) for one in document["uses"]],
            )
        except (KeyError, TypeError, AttributeError) as wrong:
            raise ValueError(f"these are no sums of a segment: {wrong}") from wrong
