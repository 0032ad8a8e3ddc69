"""Evidence is one thing that speaks against an accelerator or node, under the rule that took it up.

Invariant: one incident is one piece of evidence, whoever saw it: a Xid in the kernel log and the same in a counter,
of the same device within a minute, count once and name both witnesses. Evidence is never deleted: it ends, and says
by what. `gather` decides what is new; the database keeps it.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from baseai.fleet.health.rule import Policy, Rule
from baseai.ground.identity import NodeId, derived
from baseai.telemetry.witness import Witness

REPAIRED, CEASED, EXPIRED = "repaired", "ceased", "expired"  # by what evidence ends, beside a person's name
INCIDENT_S = 60.0  # what is said of one device and code within so long is one incident

_RECOVERY = re.compile(r"to\s+(?:0x)?([0-9a-f]+)\b", re.IGNORECASE)
_NONFATAL = re.compile(r"\bnon-?fatal\b", re.IGNORECASE)
_AMD_SEVERITY: Mapping[str, str] = {
    "info": "non_fatal_corrected",
    "warning": "non_fatal_uncorrected",
    "critical": "fatal",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Whom evidence is about: an accelerator by its serial, or the node itself, or one port of it."""

    node_id: NodeId
    serial: str | None = None
    part: str | None = None  # a port, as device/number

    @property
    def kind(self) -> str:
        return "node" if self.serial is None else "accelerator"

    @property
    def name(self) -> str:
        return self.node_id if self.serial is None else self.serial

    @property
    def key(self) -> str:
        """By which samples of it are known."""
        return self.serial or (f"{self.node_id}/{self.part}" if self.part else self.node_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one witness says at one instant, with the rule it falls under."""

    rule_id: str
    subject: Subject
    at: datetime
    witness: str  # metrics, kernel, redfish, runs, ...
    sentence: str
    code: int | None = None
    before: float | None = None  # the raw counter or value before, and
    after: float | None = None  # as it was found
    tenant_id: str | None = None  # who held the device then


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One incident."""

    evidence_id: str
    rule_id: str
    subject: Subject
    at: datetime
    last_at: datetime
    witnesses: tuple[str, ...]
    sentence: str
    code: int | None = None
    before: float | None = None
    after: float | None = None
    tenant_id: str | None = None
    ended_at: datetime | None = None
    ended_by: str | None = None
    acknowledged_by: str | None = None

    def stands(self, rule: Rule, now: datetime) -> bool:
        """Whether it still speaks against its subject."""
        if self.ended_at is not None:
            return False
        return rule.expires_s is None or now - self.last_at < timedelta(seconds=rule.expires_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """What findings come to."""

    new: tuple[Evidence, ...]
    grown: tuple[Evidence, ...]  # known evidence that another finding belongs to, as it is now


def gather(policy: Policy, findings: Iterable[Finding], known: Iterable[Evidence]) -> Gathered:
    """Which findings are news, and which belong to evidence that is known and has not ended.

    Findings may come in any order and more than once. Beyond as many incidents as anything can count, more of the
    same only grow the last one, so that a storm of lines makes few rows.
    """
    by_rule: dict[tuple[str, Subject], list[Evidence]] = {}
    for evidence in known:
        by_rule.setdefault((evidence.rule_id, evidence.subject), []).append(evidence)
    before = {evidence.evidence_id: evidence for kept in by_rule.values() for evidence in kept}
    new: dict[str, None] = {}
    for finding in sorted(findings, key=_order):
        kept = by_rule.setdefault((finding.rule_id, finding.subject), [])
        place = _place_of(policy, finding, kept)
        if place is None:
            evidence = _first(finding)
            if not any(each.evidence_id == evidence.evidence_id for each in kept):
                kept.append(evidence)
                new[evidence.evidence_id] = None
        else:
            kept[place] = _grown(kept[place], finding)
    after = {evidence.evidence_id: evidence for kept in by_rule.values() for evidence in kept}
    return Gathered(
        new=tuple(after[evidence_id] for evidence_id in new),
        grown=tuple(after[key] for key, was in before.items() if after[key] != was),
    )


def _order(finding: Finding) -> tuple[object, ...]:
    """A total order over findings that differ, so that it is all the same in which they come."""
    return (
        finding.at, finding.rule_id, finding.subject.key, finding.tenant_id or "", finding.witness, finding.sentence,
        finding.after if finding.after is not None else -1.0,
    )  # fmt: skip


def _place_of(policy: Policy, finding: Finding, kept: Sequence[Evidence]) -> int | None:
    """The incident a finding belongs to: one within a minute, or the last where there are enough of that tenant.

    What befalls a whole node befalls all its tenants, and is one incident still.
    """
    own = [
        place
        for place, evidence in enumerate(kept)
        if evidence.ended_at is None or abs(finding.at - evidence.at) <= timedelta(seconds=INCIDENT_S)
    ]
    near = [
        place
        for place in own
        if abs(finding.at - kept[place].at) <= timedelta(seconds=INCIDENT_S)
        and (finding.subject.serial is None or finding.tenant_id in (None, kept[place].tenant_id))
    ]
    if near:
        return near[0]
    standing = [place for place in own if kept[place].ended_at is None]
    alike = [place for place in standing if kept[place].tenant_id == finding.tenant_id]
    enough = policy.incidents.get(finding.rule_id, policy.rule(finding.rule_id).k)
    return alike[-1] if len(alike) >= enough else None


def _first(finding: Finding) -> Evidence:
    return Evidence(
        evidence_id=derived(
            "evi", finding.rule_id, finding.subject.key, finding.at.isoformat(), finding.tenant_id or ""
        ),
        rule_id=finding.rule_id,
        subject=finding.subject,
        at=finding.at,
        last_at=finding.at,
        witnesses=(finding.witness,),
        sentence=finding.sentence,
        code=finding.code,
        before=finding.before,
        after=finding.after,
        tenant_id=finding.tenant_id,
    )


def _grown(evidence: Evidence, finding: Finding) -> Evidence:
    later = finding.at > evidence.last_at
    return replace(
        evidence,
        last_at=max(evidence.last_at, finding.at),
        witnesses=tuple(sorted({*evidence.witnesses, finding.witness})),
        after=finding.after if later and finding.after is not None else evidence.after,
        before=evidence.before if evidence.before is not None else finding.before,
        tenant_id=evidence.tenant_id or finding.tenant_id,
    )


def finding_of(
    policy: Policy, witness: Witness, node_id: NodeId, *, tenant_id: str | None = None
) -> Finding | None:
    """The rule that an event falls under, with what it says; None for one that no rule knows."""
    rule = _rule_of(policy, witness)
    if rule is None:
        return None
    return Finding(
        rule_id=rule.rule_id,
        subject=Subject(node_id=node_id, serial=witness.key),
        at=witness.at,
        witness=_seen_by(witness),
        sentence=witness.sentence or rule.says,
        code=witness.code,
        before=_number(witness.payload.get("before")),
        after=_number(witness.payload.get("after")),
        tenant_id=tenant_id,
    )


def _rule_of(policy: Policy, witness: Witness) -> Rule | None:
    if witness.kind in ("xid", "sxid") and witness.code is not None:
        rule = policy.code(witness.kind, witness.code)
        if rule.code_class == "nvlink5" and _NONFATAL.search(witness.sentence):
            return policy.rule(f"{rule.rule_id}.nonfatal")
        if rule.code_class == "recovery" and (action := _RECOVERY.search(witness.sentence)):
            return policy.code("recovery", int(action[1], 16))
        return rule
    if witness.kind in ("recovery", "recovery_action") and witness.code is not None:
        return policy.code("recovery", witness.code)
    if witness.kind == "afid":
        severity = str(witness.payload.get("severity") or _AMD_SEVERITY.get(witness.severity, ""))
        return policy.code("afid", severity.replace("-", "_"))
    for rule in policy.events:
        if rule.kind != witness.kind or (rule.when and rule.when != witness.severity):
            continue
        if re.search(rule.pattern, witness.sentence, re.IGNORECASE):
            return rule
    return None


def _seen_by(witness: Witness) -> str:
    """Who saw it, in a word: the source named in the payload, or else what the kind implies."""
    source = witness.payload.get("source")
    if isinstance(source, str) and source:
        return source
    return {"xid": "kernel", "sxid": "kernel", "run": "runs", "device_lost": "driver"}.get(
        witness.kind, witness.kind
    )


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
