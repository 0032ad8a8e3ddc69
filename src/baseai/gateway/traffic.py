"""Traffic is what ten seconds of requests to one version of a service came to, at one gateway process.

Invariant: stretches add up: over gateways, versions and time, latencies as counts in buckets. A request is counted in
the stretch in which it ended. Changed by `add` alone, while its segment is open.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from baseai.gateway.seams import Told
from baseai.serving.latency import BUCKETS, bucket_of

STRETCH_S = 10
StretchKey = tuple[str, int, int]  # service, version, where the stretch begins in seconds since 1970


def stretch_of(told: Told) -> StretchKey:
    """Where a request is counted."""
    ended_s = int(told.at_s + told.latency_ms / 1000)
    return told.service_id, told.version_no, ended_s - ended_s % STRETCH_S


@dataclass(slots=True, kw_only=True)
class Stretch:
    """One row of `service_traffic`, growing."""

    service_id: str
    version_no: int
    from_s: int
    tenant_id: str
    project_id: str
    requests: int = 0  # all that found the service, however they ended
    errors: int = 0  # failed or lost: ours
    refused: int = 0  # limits, size, a full queue
    slow: int = 0  # served, and longer than promised
    cache_hits: int = 0
    collapsed: int = 0
    retried: int = 0  # other replicas asked after the first
    lost: int = 0  # errors before any first byte
    tokens_in: int = 0  # that replicas read and wrote; a kept answer takes none
    tokens_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    latency: dict[int, int] = field(default_factory=dict)  # bucket → requests that were served
    first_byte: dict[int, int] = field(default_factory=dict)

    def add(self, told: Told) -> None:
        """Count one request."""
        self.requests += 1
        outcome = told.outcome
        if outcome == "served":
            bucket = bucket_of(told.latency_ms)
            self.latency[bucket] = self.latency.get(bucket, 0) + 1
            if told.slow:
                self.slow += 1
        elif outcome == "refused":
            self.refused += 1
        elif outcome != "gone":
            self.errors += 1
            if outcome == "lost":
                self.lost += 1
        if told.first_byte_ms is not None and outcome != "refused":
            bucket = bucket_of(told.first_byte_ms)
            self.first_byte[bucket] = self.first_byte.get(bucket, 0) + 1
        if told.cache is None:
            self.tokens_in += told.tokens_in
            self.tokens_out += told.tokens_out
        elif told.cache == "hit":
            self.cache_hits += 1
        else:
            self.collapsed += 1
        self.retried += told.retries
        self.bytes_in += told.bytes_in
        self.bytes_out += told.bytes_out

    def to_json(self) -> dict[str, Any]:
        return {one.name: getattr(self, one.name) for one in fields(self)}

    @staticmethod
    def from_json(stored: Mapping[str, Any]) -> "Stretch":
        counts = {
            name: {int(bucket): count for bucket, count in stored[name].items()}
            for name in ("latency", "first_byte")
        }
        return Stretch(**{**stored, **counts})


def counts_of(buckets: Mapping[int, int]) -> list[int]:
    """As the column keeps them: shape (BUCKETS,)."""
    counts = [0] * BUCKETS
    for bucket, count in buckets.items():
        counts[bucket] = count
    return counts
