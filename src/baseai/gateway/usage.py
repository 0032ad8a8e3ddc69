"""Usage is what requests are charged for: how many, and the tokens that replicas read and wrote for them.

Invariant: what was not served is not charged. An error costs nothing, a bad request neither; an answer that is kept or
shared costs its request and no tokens, since no replica worked for it; of a stream whose client left, what had gone out
is charged. Uses add up over segments; an event names the segments it sums, so that the same ones give the same event.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any

from baseai.finance.measure import MEASURES
from baseai.finance.usage_event import UsageEvent
from baseai.gateway.seams import Told

HOUR_S = 3600
METERS = ("requests", "tokens_in", "tokens_out")
UseKey = tuple[str, int, str | None, int]  # service, version, replica, hour in seconds since 1970


@dataclass(frozen=True, slots=True, kw_only=True)
class Charged:
    """What one request is charged for."""

    requests: int
    tokens_in: int
    tokens_out: int


NOTHING = Charged(requests=0, tokens_in=0, tokens_out=0)
ANSWER_ALONE = Charged(requests=1, tokens_in=0, tokens_out=0)


def charged(told: Told) -> Charged:
    """What a request is charged for, by how it ended."""
    served = told.outcome == "served" and told.status < 400
    in_part = told.outcome == "gone" and told.first_byte_ms is not None
    if not (served or in_part):
        return NOTHING
    if told.cache is not None:
        return ANSWER_ALONE
    return Charged(requests=1, tokens_in=told.tokens_in, tokens_out=told.tokens_out)


@dataclass(slots=True, kw_only=True)
class Use:
    """What one replica of one version was used for within one hour, growing."""

    service_id: str
    version_no: int
    run_id: str | None  # of the replica whose answers they were, kept ones too
    hour_s: int
    tenant_id: str
    project_id: str
    from_s: float  # the first request's end
    until_s: float  # the last one's
    requests: int = 0
    tokens_in: int = 0
    tokens_out: int = 0

    def add(self, one: Charged, *, at_s: float) -> None:
        self.from_s = min(self.from_s, at_s)
        self.until_s = max(self.until_s, at_s)
        self.requests += one.requests
        self.tokens_in += one.tokens_in
        self.tokens_out += one.tokens_out

    @property
    def key(self) -> UseKey:
        return self.service_id, self.version_no, self.run_id, self.hour_s

    def to_json(self) -> dict[str, Any]:
        return {one.name: getattr(self, one.name) for one in fields(self)}


def summed(uses: Iterable[Use]) -> list[Use]:
    """Uses of several segments, those of one replica and hour as one; in order, so that equal segments sum equally."""
    sums: dict[UseKey, Use] = {}
    for one in uses:
        known = sums.get(one.key)
        if known is None:
            sums[one.key] = Use(**one.to_json())
        else:
            known.until_s = max(known.until_s, one.until_s)
            known.add(
                Charged(requests=one.requests, tokens_in=one.tokens_in, tokens_out=one.tokens_out),
                at_s=one.from_s,
            )
    return [sums[key] for key in sorted(sums, key=lambda key: (key[0], key[1], key[2] or "", key[3]))]


def events_of(
    uses: Sequence[Use], *, gateway: str, first_no: int, last_no: int, models: Mapping[str, str]
) -> list[UsageEvent]:
    """The usage events of a gateway's segments `first_no` to `last_no`.

    models: service → name of its model. What is not in it is left out.
    """
    return [
        UsageEvent(
            source=f"gateway {gateway}",
            event_id=f"{first_no}-{last_no} {use.service_id} v{use.version_no} {use.run_id} {use.hour_s} {meter}",
            tenant_id=use.tenant_id,
            project_id=use.project_id,
            meter=meter,
            quantity=quantity,
            unit=MEASURES[meter].counted_in,
            from_at=datetime.fromtimestamp(use.from_s, UTC),
            until_at=datetime.fromtimestamp(use.until_s, UTC),
            run_id=use.run_id,
            model=models[use.service_id],
        )
        for use in uses
        if use.service_id in models
        for meter in METERS
        if (quantity := getattr(use, meter)) > 0
    ]
