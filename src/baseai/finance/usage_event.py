"""A usage event says that something was used: tokens, requests, storage, energy, told by whoever serves it.

Invariant: an event is known by its source and its id there. The same one again is harmless, another body under a known
id contradicts and nothing of its group is kept. It has two clocks: when it was used, and when we were told; so it may
come late and in any order. What is wrong is corrected by another event that names it, never edited.
"""

import hashlib
from dataclasses import astuple, dataclass
from datetime import UTC, datetime, timedelta

from baseai.finance.measure import ACCELERATOR_TIME, MEASURES
from baseai.finance.use import MeteredUse
from baseai.ground.identity import derived

AHEAD_MOST = timedelta(minutes=5)  # clocks differ; beyond it an event is of the future


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageEvent:
    """One thing used by one project."""

    source: str  # who tells: a gateway's name
    event_id: str  # made by the source before it is sent, the same at each try
    tenant_id: str
    project_id: str
    meter: str
    quantity: int  # 0 only in a correction: it never happened
    unit: str  # what quantity counts, repeated here so that a wrong one is seen
    from_at: datetime
    until_at: datetime  # exclusive; of a moment the same
    run_id: str | None = None
    model: str | None = None
    site_id: str | None = None
    corrects: str | None = None  # the event_id, of the same source, that this one stands for from now on

    @property
    def usage_id(self) -> str:
        return usage_id_of(self.tenant_id, self.source, self.event_id)

    @property
    def digest(self) -> str:
        """The same for equal bodies, whatever zone the instants were written in."""
        facts = (fact.astimezone(UTC) if isinstance(fact, datetime) else fact for fact in astuple(self))
        return hashlib.sha256("\x1f".join(repr(fact) for fact in facts).encode()).hexdigest()

    def use(self) -> MeteredUse:
        """As rating takes it."""
        return MeteredUse(
            usage_id=self.usage_id,
            tenant_id=self.tenant_id,
            project_id=self.project_id,
            from_at=self.from_at,
            until_at=self.until_at,
            quantity=self.quantity,
            meter=self.meter,
            run_id=self.run_id,
            model=self.model,
            site_id=self.site_id,
        )


def usage_id_of(tenant_id: str, source: str, event_id: str) -> str:
    return derived("uev", tenant_id, source, event_id)


def event_wrong(event: UsageEvent, *, began_at: datetime | None, now: datetime) -> str | None:
    """Why an event cannot be taken, naming it; None when it can.

    began_at: since when its meter counts for its tenant; None when there is no such meter.
    """
    name = f"event {event.event_id} of {event.source}"
    measure = MEASURES.get(event.meter)
    if measure is None or began_at is None:
        return f"{name}: no meter {event.meter!r}; there are {', '.join(sorted(MEASURES))}"
    if event.meter == ACCELERATOR_TIME:
        return f"{name}: accelerator time is measured from leases and never told by an event"
    if event.unit != measure.counted_in:
        return f"{name}: {event.meter} counts {measure.counted_in}, not {event.unit!r}"
    if event.from_at.tzinfo is None or event.until_at.tzinfo is None:
        return f"{name}: an instant names no zone"
    if event.until_at < event.from_at:
        return f"{name} ends before it begins"
    if event.quantity < 0 or (event.quantity == 0 and event.corrects is None):
        return f"{name}: a quantity of {event.quantity}; only a correction may be 0"
    if event.from_at < began_at:
        return (
            f"{name} is of {event.from_at.isoformat()}, before its meter began at {began_at.isoformat()};"
            " what is older than the meter is not billed"
        )
    if event.until_at > now + AHEAD_MOST:
        return f"{name} is of {event.until_at.isoformat()}, which is to come"
    if event.corrects == event.event_id:
        return f"{name} corrects itself"
    return None


def correction_wrong(event: UsageEvent, corrected: UsageEvent | None) -> str | None:
    """Why an event cannot stand for the one it names; None when it can."""
    name = f"event {event.event_id} of {event.source}"
    if corrected is None:
        return f"{name} corrects {event.corrects}, which is not known; send that one first, or with it"
    if (event.project_id, event.meter) != (corrected.project_id, corrected.meter):
        return f"{name} corrects {event.corrects}, which is of another project or meter"
    return None
