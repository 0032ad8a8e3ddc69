"""An alarm is a condition that a controller reports of one part: a leak, a lost supply, an accelerator not well.

Invariant: an alarm is raised once when it begins and ended once when its part was seen well again; a part that did not
answer ends nothing. What a controller tells as an event or a log entry has an id made of its own facts, so that the
same event, told again after a lost connection or a restart, is the same witness.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from baseai.ground.identity import derived
from baseai.telemetry.board.readout import TIGHT, leak_of
from baseai.telemetry.board.resource import (
    Address,
    Ask,
    Resource,
    Seen,
    at,
    instant,
    link,
    number,
    plain,
    text,
)
from baseai.telemetry.board.rota import COUNTED
from baseai.telemetry.board.survey import Survey
from baseai.telemetry.board.unit import Unit
from baseai.telemetry.witness import Witness

CLOCK_OFF = timedelta(hours=1)  # a controller's clock that is further off is not believed
OLD_NEWS = timedelta(days=1)  # log entries from before are history
ENDED = "redfish_ended"  # a kind of its own: that a condition is over speaks against nobody
EVENTS_MAX = 500  # of one message

_WELL = frozenset({"OK", ""})
_LOST = frozenset({"UnavailableOffline", "Degraded"})  # states of a redundant group that is none
_XID = re.compile(r"\b(?P<sw>S)?Xid\b(?:\s*\(PCI:[^)]*\))?[^\w]{0,4}(?P<code>\d{1,5})\b", re.IGNORECASE)
_SEVERITY: Mapping[str, str] = {"Critical": "critical", "Fatal": "critical", "Warning": "warning"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """One condition that stands."""

    what: str  # leak, supply, supply_input, redundancy, fan, thermal, accelerator, device_lost, link_fatal
    place: Address
    severity: str  # warning or critical
    sentence: str
    key: str | None = None  # of the accelerator it is about; None: the node
    raw: str = ""  # the controller's own word


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What one poll found of all that is watched."""

    alarms: Mapping[str, Alarm]  # by place and kind
    looked_at: frozenset[Address]  # places that answered
    counts: Mapping[Address, float]  # of errors that are news when they become more


def looked(survey: Survey, seen: Seen) -> Look:
    """Every condition that stands, as far as the poll shows."""
    alarms: dict[str, Alarm] = {}
    for unit in survey.units:
        for alarm in _alarms_of(unit, seen):
            alarms[f"{alarm.place} {alarm.what}"] = alarm
    answered = frozenset(unit.place for unit in survey.units if unit.place.path in seen)
    counts: dict[Address, float] = {}
    for found in survey.accelerators:
        for pointer in COUNTED:
            place = Address(link(seen[found.paths[0]], "/Metrics"), pointer)
            value = number(seen.raw(place)).value if place.path else None
            if value is not None:
                counts[place] = value
    return Look(alarms=alarms, looked_at=answered, counts=counts)


def turned(survey: Survey, before: Look | None, now: Look, *, at_instant: datetime) -> tuple[Witness, ...]:
    """What began, what ended and what became more since the look before."""
    old = before.alarms if before is not None else {}
    raised = [
        each for name, each in now.alarms.items() if name not in old or old[name].severity != each.severity
    ]
    ended = [each for name, each in old.items() if name not in now.alarms and each.place in now.looked_at]
    witnesses = [_witness(survey, each, at_instant, has_ended=False) for each in raised]
    witnesses += [_witness(survey, each, at_instant, has_ended=True) for each in ended]
    if before is not None:
        owner = {path: found for found in survey.accelerators for path in found.paths}
        for place, count in now.counts.items():
            more = count - before.counts.get(place, count)
            found = owner.get(place.path.rpartition("/")[0])
            if more > 0 and found is not None:
                fatal = place.pointer == COUNTED[0]
                alarm = Alarm(
                    what="link_fatal",
                    place=place,
                    severity="critical" if fatal else "warning",
                    sentence=f"{found.label}: {more:g} more {'fatal' if fatal else 'non-fatal'} PCIe errors",
                    key=found.key,
                    raw=f"{count:g}",
                )
                witnesses.append(_witness(survey, alarm, at_instant, has_ended=False))
    return tuple(witnesses)


def merged(before: Look | None, now: Look) -> Look:
    """What is known after a poll: what did not answer this time stays as it was."""
    if before is None:
        return now
    kept = {name: each for name, each in before.alarms.items() if each.place not in now.looked_at}
    return Look(
        alarms=kept | dict(now.alarms),
        looked_at=before.looked_at | now.looked_at,
        counts={**before.counts, **now.counts},
    )


def witnesses_of(survey: Survey, message: Resource, *, received_at: datetime) -> tuple[Witness, ...]:
    """What a message of the event service tells that is worth telling on: warnings, criticals, Xids and leaks."""
    events = at(message, "/Events")
    found = []
    for place, event in enumerate(events[:EVENTS_MAX] if isinstance(events, list) else ()):
        origin = link(event, "/OriginOfCondition") or plain(str(at(event, "/OriginOfCondition")))
        facts = (text(event, "/EventId") or text(message, "/Id"), text(event, "/MemberId") or place)
        stamp = text(event, "/EventTimestamp")
        if witness := _told(survey, event, origin, facts, stamp, received_at=received_at):
            found.append(witness)
    return tuple(found)


def witnesses_of_log(survey: Survey, log: Resource, *, read_at: datetime) -> tuple[Witness, ...]:
    """What the entries of a log tell that is worth telling on and is no history."""
    entries = at(log, "/Members")
    found = []
    for entry in entries if isinstance(entries, list) else ():
        stamp = text(entry, "/Created")
        created = instant(stamp)
        if created is None or read_at - created > OLD_NEWS:
            continue
        origin = link(entry, "/Links/OriginOfCondition")
        facts = (plain(str(at(entry, "/@odata.id"))), text(entry, "/Id"))
        if witness := _told(survey, entry, origin, facts, stamp, received_at=read_at):
            found.append(witness)
    return tuple(found)


def newest(path: str, log: Resource) -> Ask:
    """The ask that brings the newest entries of a log which was too long for one answer: logs begin with the oldest."""
    count = number(at(log, "/Members@odata.count")).value
    listed = at(log, "/Members")
    if count is None or not isinstance(listed, list) or not 0 < len(listed) < count:
        return path
    return f"{path}?$skip={int(count) - len(listed)}"


def xid_of(sentence: str) -> tuple[str, int] | None:
    """`xid` or `sxid` and its number, of a sentence in which a driver's or firmware's error is named."""
    found = _XID.search(sentence)
    return ("sxid" if found["sw"] else "xid", int(found["code"])) if found else None


# ---- conditions -------------------------------------------------------------------------------------------------


def _alarms_of(unit: Unit, seen: Seen) -> Iterator[Alarm]:
    if unit.place.path not in seen:
        return
    health = text(seen[unit.place.path], unit.place.pointer + "/Status/Health")
    state = text(seen[unit.place.path], unit.place.pointer + "/Status/State")

    def alarm(what: str, severity: str, sentence: str, raw: str) -> Alarm:
        return Alarm(what=what, place=unit.place, severity=severity, sentence=sentence, key=unit.key, raw=raw)

    if unit.kind == "detector":
        word = leak_of(unit, seen)
        if word is not None and word not in TIGHT:
            yield alarm("leak", "critical", f"{unit.label} reports a leak: {word}", word)
        return
    if unit.kind == "accelerator":
        if state in ("Absent", "UnavailableOffline"):
            yield alarm("device_lost", "critical", f"{unit.label} is {state} to its board", state)
        elif health not in _WELL:
            yield alarm("accelerator", _severity(health), f"{unit.label}: health {health}", health)
        return
    if state in ("Absent", "Disabled"):
        return
    if unit.kind == "supply":
        line = text(seen[unit.place.path], unit.place.pointer + "/LineInputStatus")
        if line not in ("Normal", ""):
            severity = "critical" if line == "LossOfInput" else "warning"
            yield alarm("supply_input", severity, f"{unit.label}: line input {line}", line)
    if unit.kind == "redundancy":
        if health not in _WELL or state in _LOST:
            severity = "critical" if health == "Critical" else "warning"
            yield alarm(
                "redundancy",
                severity,
                f"redundancy of {unit.label} is lost: {health or state}",
                health or state,
            )
        return
    what = "thermal" if unit.kind in ("thermal", "sensor") else unit.kind
    if health not in _WELL:
        reading = _reading(seen, unit)
        yield alarm(what, _severity(health), f"{unit.label}: health {health}{reading}", health)
    elif unit.kind == "sensor" and (limit := _over_limit(seen, unit)) is not None:
        yield alarm(
            what, "critical", f"{unit.label} is over its critical limit of {limit:g} °C", "UpperCritical"
        )


def _reading(seen: Seen, unit: Unit) -> str:
    reading = number(seen.raw(unit.place.below("/Reading"))).value
    return f", it reads {reading:g}" if reading is not None else ""


def _over_limit(seen: Seen, unit: Unit) -> float | None:
    """The limit that a temperature has passed though its sensor still calls itself well."""
    reading = number(seen.raw(unit.place.below("/Reading"))).value
    limit = number(seen.raw(unit.place.below("/Thresholds/UpperCritical/Reading"))).value
    return limit if reading is not None and limit is not None and limit > 0 and reading >= limit else None


def _severity(health: str) -> str:
    return _SEVERITY.get(health, "warning")


def _witness(survey: Survey, alarm: Alarm, now: datetime, *, has_ended: bool) -> Witness:
    return Witness(
        event_id=derived(
            "wit", survey.service, alarm.place, alarm.what, alarm.severity, has_ended, now.isoformat()
        ),
        at=now,
        kind=ENDED if has_ended else "device_lost" if alarm.what == "device_lost" else "redfish",
        key=alarm.key,
        code=None,
        severity="info" if has_ended else alarm.severity,
        sentence=f"no longer: {alarm.sentence}" if has_ended else alarm.sentence,
        payload={
            "what": alarm.what,
            "resource": alarm.place.path,
            "property": alarm.place.pointer,
            "word": alarm.raw,
            "ended": has_ended,
            "service": survey.service,
            "source": "redfish",  # who saw it, whatever the kind
        },
    )


# ---- events and log entries -------------------------------------------------------------------------------------


def _told(
    survey: Survey,
    event: object,
    origin: str,
    facts: Sequence[object],
    stamp: str,
    *,
    received_at: datetime,
) -> Witness | None:
    arguments = at(event, "/MessageArgs")
    words = [str(each) for each in arguments] if isinstance(arguments, list) else []
    message = text(event, "/Message") or " ".join(words)
    message_id = text(event, "/MessageId")
    whole = " ".join([message, *words])
    severity = _SEVERITY.get(text(event, "/MessageSeverity") or text(event, "/Severity"), "info")
    xid = xid_of(whole)
    leaks = "leak" in f"{whole} {message_id}".lower() and severity != "info"
    if severity == "info" and xid is None:
        return None
    created = instant(stamp)
    believed = created is not None and abs(received_at - created) <= CLOCK_OFF
    found = _accelerator_of(survey, origin, whole)
    kind, code = xid or ("redfish", None)
    return Witness(
        event_id=derived("wit", survey.service, message_id, origin, stamp, message, *facts),
        at=created if believed and created is not None else received_at,
        kind=kind,
        key=found,
        code=code,
        severity="critical" if leaks else severity,
        sentence=message[:500] or message_id,
        payload={
            "what": "leak" if leaks else "event",
            "resource": origin,
            "message_id": message_id,
            "stamp": stamp,
            "ended": False,
            "service": survey.service,
            "source": "redfish",  # who saw it, whatever the kind
        },
    )


def _accelerator_of(survey: Survey, origin: str, sentence: str) -> str | None:
    """The accelerator that an event comes from or names; None for the node."""
    for found in survey.accelerators:
        if any(origin == path or origin.startswith(f"{path}/") for path in found.paths):
            return found.key
    named = [each.key for each in survey.accelerators if re.search(rf"\b{re.escape(each.label)}\b", sentence)]
    return named[0] if len(named) == 1 else None
