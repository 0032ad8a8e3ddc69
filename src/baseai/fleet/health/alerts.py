"""The alert pack: the policy's rules as a Prometheus reads them, over the names of our own `/metrics`.

Invariant: the text is a function of the policy alone, so that a rule and its alert never part. What a Prometheus
cannot see or ask (codes, kernel lines, silence, ports, several things together) is told by the gauge of evidence that
stands. An alert tells a person; what is done by itself, the platform does.
"""

from collections.abc import Iterator, Mapping

from baseai.catalog.accelerator import CPU_SLOT
from baseai.fleet.health.rule import CODES, Condition, Look, Policy, Rule, Severity
from baseai.fleet.health.scan import TICK_MS
from baseai.telemetry.field import FAMILIES, Kind

EVIDENCE = "baseai_evidence"  # labels: node, site, serial, rule, severity, action
LEAST_WINDOW_S = 60  # a range below two scrapes holds nothing
EXPOSED = ("accelerator", "node")  # families that `/metrics` tells
OWN: Mapping[str, str] = {
    "accelerator": "serial",
    "node": "node",
}  # the label by which two fields of one thing meet


def alert_pack(policy: Policy) -> str:
    """A file of alerting rules, YAML."""
    lines = [
        "# Alerts for a Prometheus that reads baseai's /metrics. Written from the rules of health by",
        "# tools/alerts_page.py: change those. Severities: critical, warning, info.",
        "groups:",
    ]
    for name, alerts in (("measured", _measured(policy)), ("codes", _codes(policy)), ("told", _told(policy))):
        lines += [f"  - name: baseai-{name}", "    rules:"]
        for alert in alerts:
            lines += alert
    return "\n".join([*lines, ""])


def _measured(policy: Policy) -> Iterator[list[str]]:
    for rule in policy.metrics:
        condition = rule.condition
        assert condition is not None
        expression = _expression(condition)
        if expression is not None:
            held_s = max(rule.for_s, (condition.seen_k - 1) * TICK_MS / 1000)
            yield _alert(rule.rule_id, expression, rule, held_s)


def _codes(policy: Policy) -> Iterator[list[str]]:
    """One alert for each class of codes."""
    for name, of in policy.classes.items():
        ids = sorted(
            rule.rule_id
            for rule in policy.rules.values()
            if rule.code_class == name and rule.rule_id.partition(".")[0] in CODES
        )
        if ids and of.severity is not Severity.INFO:
            wanted = "|".join(each.replace(".", "[.]") for each in ids)
            yield _alert(f"class_{name}", f'{EVIDENCE}{{rule=~"{wanted}"}} > 0', of, 0.0)


def _told(policy: Policy) -> Iterator[list[str]]:
    for rule in (*policy.metrics, *policy.events, *policy.pools):
        seen = rule.condition is not None and _expression(rule.condition) is not None
        if not seen and rule.severity is not Severity.INFO:
            yield _alert(rule.rule_id, f'{EVIDENCE}{{rule="{rule.rule_id}"}} > 0', rule, 0.0)


def _expression(condition: Condition) -> str | None:
    """What a Prometheus asks; None for what it cannot see."""
    if condition.family not in EXPOSED or condition.look in (
        Look.LOST,
        Look.SILENT,
        Look.FALLS,
        Look.BELOW_BEST,
    ):
        return None
    name = _name(condition.family, condition.field)
    own = OWN[condition.family]
    match condition.look:
        case Look.ABOVE:
            asked = f"{name} > {condition.value:g}"
        case Look.BITS:
            bits = [1 << bit for bit in range(32) if int(condition.value) >> bit & 1]
            asked = " or ".join(f"floor({name} / {bit}) % 2 == 1" for bit in bits)
        case Look.RISES:
            window_s = max(LEAST_WINDOW_S, int(condition.window_s))
            asked = f"increase({name}[{window_s}s]) >= {condition.value:g}"
        case Look.FEWER_THAN:
            asked = f"{name} < {_name(condition.family, condition.other)}"
        case Look.ABOVE_PEERS:
            asked = f"{name} - on (node) group_left () quantile by (node) (0.5, {name}) > {condition.value:g}"
        case _:
            busy = _name(condition.family, condition.field, 'run!=""')
            asked = f"{busy} < on (run) group_left () {condition.value:g} * quantile by (run) (0.5, {busy})"
    if condition.when_field:
        guard = _name(condition.family, condition.when_field)
        if condition.when_above > float("-inf"):
            asked = f"({asked}) and on ({own}) {guard} > {condition.when_above:g}"
        if condition.when_below < float("inf"):
            asked = f"({asked}) and on ({own}) {guard} < {condition.when_below:g}"
    return asked


def _name(family: str, field: str, *chosen: str) -> str:
    """A field's name in `/metrics`, of all that can be at fault by itself: a CPU slot is a part of its node."""
    suffix = "_total" if FAMILIES[family][field].kind is Kind.COUNTER else ""
    labels = [f'model!="{CPU_SLOT}"', *chosen] if family == "accelerator" else list(chosen)
    return f"baseai_{family}_{field}{suffix}" + (f"{{{','.join(labels)}}}" if labels else "")


def _alert(name: str, expression: str, rule: Rule, held_s: float) -> list[str]:
    words = "".join(part.capitalize() for part in name.replace(".", "_").split("_"))
    says = (
        rule.says
        if not rule.rule_id.startswith("class.")
        else rule.rule_id.removeprefix("class.").replace("_", " ")
    )
    held = [f"        for: {held_s:g}s"] if held_s else []
    return [
        f"      - alert: Baseai{words}",
        f"        expr: {_quoted(expression)}",
        *held,
        "        labels:",
        f"          severity: {rule.severity.value}",
        f"          action: {rule.action.value}",
        "        annotations:",
        f"          summary: {_quoted(f'{{{{ $labels.node }}}} {{{{ $labels.serial }}}}: {says}')}",
        f"          source: {_quoted(rule.source)}",
    ]


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
