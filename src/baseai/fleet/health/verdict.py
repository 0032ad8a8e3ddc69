"""A verdict is what stands about one accelerator or node, by the evidence that stands against it.

Invariant: a verdict follows from evidence, policy and the instant alone, in whatever order the evidence comes; it
names the signs it rests on, and each sign the evidence behind it. Evidence that somebody acknowledged is seen to by
a person and asks for nothing by itself.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from fnmatch import fnmatchcase

from baseai.fleet.health.evidence import REPAIRED, Evidence, Subject
from baseai.fleet.health.rule import Action, Policy, Rule, Severity
from baseai.fleet.node import Health
from baseai.ground.identity import NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class Sign:
    """One rule that stands against one subject."""

    rule_id: str
    subject: Subject
    action: Action  # the rule's own, or what its company makes of it
    severity: Severity
    since: datetime
    sentence: str
    evidence_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What stands about one subject: the worst of its signs."""

    subject: Subject
    health: Health
    signs: tuple[Sign, ...]  # the gravest first

    @property
    def worst(self) -> Sign | None:
        return self.signs[0] if self.signs else None


def weigh(policy: Policy, evidence: Iterable[Evidence], now: datetime) -> tuple[Sign, ...]:
    """The rules that stand, the gravest first, then by rule and subject."""
    by_subject: dict[Subject, list[Evidence]] = {}
    repaired: dict[Subject, list[Evidence]] = {}
    for each in evidence:
        if each.stands(policy.rule(each.rule_id), now):
            by_subject.setdefault(each.subject, []).append(each)
        elif each.ended_by == REPAIRED:
            repaired.setdefault(each.subject, []).append(each)
    signs: list[Sign] = []
    for subject, kept in by_subject.items():
        kept.sort(key=lambda each: (each.at, each.evidence_id))
        by_rule: dict[str, list[Evidence]] = {}
        for each in kept:
            by_rule.setdefault(each.rule_id, []).append(each)
        for rule_id, incidents in by_rule.items():
            rule = policy.rule(rule_id)
            counted = _counted(rule, incidents, now)
            if counted:
                signs.append(_sign(policy, rule, subject, counted, kept))
        for pool in policy.pools:
            again = [each for each in kept if each.rule_id in pool.of]
            if again:  # what a repair ended stays on the record: that it came back is the point
                again = [*(each for each in repaired.get(subject, ()) if each.rule_id in pool.of), *again]
                again.sort(key=lambda each: (each.at, each.evidence_id))
            counted = _counted(pool, again, now)
            if counted:
                signs.append(_sign(policy, pool, subject, counted, kept))
    signs.sort(key=lambda sign: (-sign.action.rank, sign.rule_id, sign.subject.key))
    return tuple(signs)


def verdicts_of(signs: Sequence[Sign]) -> dict[Subject, Verdict]:
    """A verdict for each accelerator with signs, and for each node: its own and its accelerators' together."""
    mine: dict[Subject, list[Sign]] = {}
    for sign in signs:  # the gravest first, and so they stay
        node = Subject(node_id=sign.subject.node_id)
        if sign.subject.serial is not None:
            mine.setdefault(sign.subject, []).append(sign)
        mine.setdefault(node, []).append(sign)
    return {
        subject: Verdict(subject=subject, health=kept[0].action.health, signs=tuple(kept))
        for subject, kept in mine.items()
    }


def node_verdict(verdicts: dict[Subject, Verdict], node_id: NodeId) -> Verdict:
    """The verdict about one node: healthy where nothing stands against it."""
    subject = Subject(node_id=node_id)
    return verdicts.get(subject) or Verdict(subject=subject, health=Health.HEALTHY, signs=())


def _counted(rule: Rule, incidents: Sequence[Evidence], now: datetime) -> list[Evidence]:
    """The incidents that make the rule stand; none where it does not."""
    counted = list(incidents)
    if rule.window_s and rule.condition is None:
        counted = [each for each in counted if now - each.last_at <= timedelta(seconds=rule.window_s)]
    tenants = {each.tenant_id for each in counted if each.tenant_id is not None}
    if len(counted) < rule.k or len(tenants) < rule.tenants:
        return []
    if rule.for_s and now - counted[0].at < timedelta(seconds=rule.for_s):
        return []
    return counted


def _sign(
    policy: Policy, rule: Rule, subject: Subject, counted: Sequence[Evidence], company: Sequence[Evidence]
) -> Sign:
    action, says = rule.action, ""
    for together in policy.together:
        if together.rule == rule.rule_id and any(
            abs(other.at - own.at) <= timedelta(seconds=together.within_s)
            and other.rule_id != rule.rule_id
            and any(fnmatchcase(other.rule_id, wanted) for wanted in together.company)
            for own in counted
            for other in company
        ):
            action, says = together.action, f"; {together.says}"
            break
    if all(each.acknowledged_by for each in counted):
        action = min(action, Action.NOTE, key=lambda each: each.rank)
    sentence = counted[-1].sentence if not rule.of else f"{rule.says}: {len(counted)} incidents"
    return Sign(
        rule_id=rule.rule_id,
        subject=subject,
        action=action,
        severity=rule.severity,
        since=counted[0].at,
        sentence=sentence + says,
        evidence_ids=tuple(each.evidence_id for each in counted),
    )
