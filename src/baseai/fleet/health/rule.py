"""A rule says what one kind of evidence means: how often it must be seen, and what is then done. Together: the policy.

Invariant: every decision of health names the rule it rests on, and every rule names its source. Rules are data, in
the files beside this one; an operator's own file changes keys of a rule or adds rules. Whatever breaks the grammar is
a PolicyBroken with file and line. Only `shipped_policy` and `policy_of` make a policy; nobody changes one.
"""

import csv
import io
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from importlib.resources import files
from types import MappingProxyType
from typing import Any

from baseai.fleet.node import Health
from baseai.ground.fault import Fault
from baseai.telemetry.field import FAMILIES, Throttle

CODES = ("xid", "sxid", "recovery", "afid")
RULES = "rules.toml"


class Severity(StrEnum):
    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


class Action(StrEnum):
    """What a rule asks for, from the mildest to the gravest."""

    NOTE = "note"
    TICKET = "ticket"
    CORDON = "cordon"
    RESET_IDLE = "reset_idle"
    FABRIC = "fabric"
    RESET = "reset"
    REBOOT = "reboot"
    POWER_CYCLE = "power_cycle"
    RESEAT = "reseat"
    INSPECT = "inspect"
    RMA = "rma"

    @property
    def rank(self) -> int:
        return _RANK[self]

    @property
    def health(self) -> Health:
        """What a subject is while a rule that asks for this stands."""
        if self.rank < _RANK[Action.CORDON]:
            return Health.HEALTHY
        return Health.SUSPECT if self.rank < _RANK[Action.FABRIC] else Health.FAULTY

    @property
    def drains(self) -> bool:
        return self.health is Health.FAULTY


_RANK = {action: rank for rank, action in enumerate(Action)}


class Look(StrEnum):
    """What a metric rule looks for."""

    ABOVE = "above"
    BITS = "bits"
    RISES = "rises"  # a counter, by so much within the window
    ABOVE_PEERS = "above_peers"  # by so much over the median of the node
    BELOW_PEERS = "below_peers"  # less than this share of the median of the run
    BELOW_BEST = "below_best"  # less than this share of the best it ever was
    FALLS = "falls"  # zero after it was not
    FEWER_THAN = "fewer_than"  # than another field
    LOST = "lost"  # so many ticks older than its neighbours on the node
    SILENT = "silent"  # so many ticks old


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """What must be measured for a rule to be met by one reading, and by how many of the last ones."""

    family: str
    look: Look
    value: float
    field: str = ""
    other: str = ""  # the field to compare with
    clear: float | None = None  # below it (above it, for those that look for little) the condition is over
    seen_k: int = 1
    seen_n: int = 1
    window_s: float = 0.0
    when_field: str = ""
    when_above: float = float("-inf")
    when_below: float = float("inf")
    when_ever: bool = False  # whether the guard looks at the best the field ever was, not at what it is

    @property
    def latched(self) -> bool:
        """Whether what was found stays found: a counter that rose does not un-rise."""
        return self.look is Look.RISES


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One kind of evidence, and what follows."""

    rule_id: str
    action: Action
    severity: Severity
    says: str
    source: str
    k: int = 1  # incidents,
    window_s: float = 0.0  # within so long; 0: however long ago
    tenants: int = 0  # from at least so many
    for_s: float = 0.0  # stands only after it has lasted so long
    expires_s: float | None = None  # after its last incident; None: until a repair or a person ends it
    condition: Condition | None = None  # of a metric
    kind: str = ""  # of a witness
    pattern: str = ""  # in its sentence
    when: str = ""  # its severity
    of: frozenset[str] = frozenset()  # rules whose incidents a pool counts together
    code_class: str = ""  # of a code


@dataclass(frozen=True, slots=True, kw_only=True)
class Together:
    """Another action for a rule whose evidence has company."""

    rule: str
    company: tuple[str, ...]  # ids of rules, `*` stands for anything
    within_s: float
    action: Action
    says: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds on what health does by itself."""

    tenant_share: float = 0.02  # of one tenant's nodes drained at once; one always may
    site_share: float = 0.1  # of one site's nodes held back at once; one always may
    reboots: int = 2  # by the agent, on one node, within
    reboots_days: float = 7.0  # so many days
    resets_before_reboot: int = 1  # of one device within `again_days`
    reboots_before_rma: int = 2
    again_days: float = 30.0
    repair_grace_s: float = 900.0  # for an agent to carry out a step


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """All rules."""

    rules: Mapping[str, Rule]  # by id: codes, events, metrics and pools
    events: tuple[Rule, ...]  # in the order in which they are tried
    metrics: tuple[Rule, ...]
    pools: tuple[Rule, ...]
    together: tuple[Together, ...]
    classes: Mapping[str, Rule]
    limits: Limits
    incidents: Mapping[str, int] = field(repr=False)  # rule → how many of its incidents anything can count

    def code(self, table: str, code: int | str) -> Rule:
        """The rule of a code; of one that its table does not know, the class `unnamed`."""
        rule_id = f"{table}.{code}"
        known = self.rules.get(rule_id)
        return known or replace(self.classes["unnamed"], rule_id=rule_id, says="a code that no table knows")

    def rule(self, rule_id: str) -> Rule:
        """The rule of that id, also where it has left the policy since the evidence came."""
        known = self.rules.get(rule_id)
        return known or replace(
            self.classes["unnamed"], rule_id=rule_id, says="a rule that the policy no longer has"
        )


class PolicyBroken(Fault):
    """A file of the health policy does not say what it must."""

    def __init__(self, file: str, line: int, problem: str) -> None:
        super().__init__(file, line, problem)
        self.file = file
        self.line = line
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}: {self.problem}"


def shipped_policy(own: tuple[str, str] | None = None) -> Policy:
    """The policy that comes with baseai, changed by an operator's own file (its name and text). Raises PolicyBroken."""
    folder = files("baseai.fleet.health") / "policy"
    texts = {
        name: (folder / name).read_text(encoding="utf-8") for name in (RULES, *(f"{c}.csv" for c in CODES))
    }
    return policy_of(texts, own)


def policy_of(texts: Mapping[str, str], own: tuple[str, str] | None = None) -> Policy:
    """The policy in these files, by name. Raises PolicyBroken with file and line."""
    sheet = _Sheet.read(RULES, texts[RULES])
    tables = {kind: list(sheet.tables(kind)) for kind in ("class", "together", "pool", "event", "metric")}
    limits = sheet.limits(Limits())
    codes = [entry for table in CODES for entry in _codes(f"{table}.csv", texts[f"{table}.csv"], table)]
    if own is not None:
        theirs = _Sheet.read(*own)
        for kind in ("together", "pool", "event", "metric"):
            tables[kind] = [*theirs.tables(kind), *tables[kind]]
        changes = {entry.take("id"): entry for entry in theirs.tables("rule")}
        limits = theirs.limits(limits)
    else:
        changes = {}
    return _Builder(tables, codes, changes, limits).policy()


@dataclass(slots=True)
class _Entry:
    """One table of a file; each key is taken out once, and what is left over is wrong."""

    file: str
    line: int
    lines: Mapping[str, int]
    values: dict[str, Any]
    name: str = ""

    def wrong(self, key: str, problem: str) -> PolicyBroken:
        return PolicyBroken(self.file, self.lines.get(key, self.line), f"{key} {problem}")

    def take(self, key: str) -> str:
        value = self.values.pop(key, None)
        if not isinstance(value, str) or not value:
            raise self.wrong(key, "must be a text")
        return value

    def text(self, key: str, default: str) -> str:
        return self.take(key) if key in self.values else default

    def number(self, key: str, default: float) -> float:
        value = self.values.pop(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.wrong(key, "must be a number")
        return float(value)

    def whole(self, key: str, default: int) -> int:
        value = self.number(key, default)
        if value != int(value) or value < 0:
            raise self.wrong(key, "must be a whole number")
        return int(value)

    def flag(self, key: str) -> bool:
        value = self.values.pop(key, False)
        if not isinstance(value, bool):
            raise self.wrong(key, "must be true or false")
        return value

    def one_of(self, key: str, kind: type[StrEnum], default: str | None = None) -> Any:
        value = self.values.pop(key, default)
        if value not in list(kind):
            raise self.wrong(key, f"must be one of {', '.join(kind)}")
        return kind(value)

    def over(self, changed: "_Entry") -> "_Entry":
        """This entry with the keys of `changed`, whose lines are told from then on."""
        return replace(changed, values={**self.values, **changed.values}, name=self.name)

    def end(self) -> None:
        for key in self.values:
            raise self.wrong(key, "is not a key here")


@dataclass(frozen=True, slots=True)
class _Sheet:
    """One TOML file with the lines its tables and keys stand in."""

    file: str
    document: Mapping[str, Any]
    lines: Sequence[str]

    @staticmethod
    def read(file: str, text: str) -> "_Sheet":
        try:
            document = tomllib.loads(text)
        except tomllib.TOMLDecodeError as wrong:
            line = re.search(r"at line (\d+)", str(wrong))
            last = len(text.splitlines())
            raise PolicyBroken(file, int(line[1]) if line else last, str(wrong).split(" (at")[0]) from None
        sheet = _Sheet(file, document, text.splitlines())
        for key in document:
            if key not in ("class", "together", "pool", "event", "metric", "rule", "limits"):
                raise PolicyBroken(file, sheet._place(key, 0)[0], f"{key} is not a table here")
        return sheet

    def tables(self, kind: str) -> Iterator[_Entry]:
        found = self.document.get(kind, [])
        if isinstance(found, dict) and kind == "class":
            for name, values in found.items():
                yield self._entry(rf"class\.{re.escape(name)}", 0, values, name)
        elif isinstance(found, list):
            for number, values in enumerate(found):
                yield self._entry(kind, number, values, "")
        else:
            raise PolicyBroken(
                self.file, self._place(kind, 0)[0], f"write [[{kind}]], for there may be several"
            )

    def limits(self, usual: Limits) -> Limits:
        values = self.document.get("limits", {})
        if not isinstance(values, dict):
            raise PolicyBroken(self.file, self._place("limits", 0)[0], "limits must be a table")
        entry = self._entry("limits", 0, values, "")
        given = {
            each.name: (entry.whole if isinstance(getattr(usual, each.name), int) else entry.number)(
                each.name, getattr(usual, each.name)
            )
            for each in fields(Limits)
        }
        entry.end()
        return Limits(**given)  # type: ignore[arg-type]

    def _entry(self, header: str, number: int, values: object, name: str) -> _Entry:
        line, lines = self._place(header, number)
        if not isinstance(values, dict):
            raise PolicyBroken(self.file, line, "a table is wanted here")
        return _Entry(self.file, line, lines, dict(values), name)

    def _place(self, header: str, number: int) -> tuple[int, Mapping[str, int]]:
        """The line of the table with that header, the n-th of it, and the lines of its keys."""
        heads = [
            at for at, line in enumerate(self.lines, 1) if re.match(rf"\s*\[+\s*{header}\b\s*\]+", line)
        ] or [1]
        start = heads[min(number, len(heads) - 1)]
        keys: dict[str, int] = {}
        for at, line in enumerate(self.lines[start:], start + 1):
            if line.lstrip().startswith("["):
                break
            if key := re.match(r"\s*([A-Za-z_]+)\s*=", line):
                keys[key[1]] = at
        return start, keys


def _codes(file: str, text: str, table: str) -> Iterator[_Entry]:
    """The codes of one table as entries: id, class, meaning."""
    kept = [(at, line) for at, line in enumerate(text.splitlines(), 1) if line and not line.startswith("#")]
    head = ["code", "mnemonic", "class", "vendor", "meaning"]
    if not kept or kept[0][1].split(",") != head:
        raise PolicyBroken(file, kept[0][0] if kept else 1, f"the first row must be {','.join(head)}")
    for at, line in kept[1:]:
        row = next(csv.reader(io.StringIO(line)))
        if len(row) != len(head) or not row[0].isdigit():
            raise PolicyBroken(file, at, f"a row has {len(head)} columns, the first a number")
        code, mnemonic, code_class, vendor, meaning = row
        name = mnemonic if table == "afid" else code
        yield _Entry(
            file, at, {},
            {"id": f"{table}.{name}", "class": code_class, "says": meaning, "vendor": f"{mnemonic} {vendor}".strip()},
        )  # fmt: skip


_FLAGS: Mapping[str, Mapping[str, int]] = MappingProxyType(
    {
        "throttle_bits": {bit.name.lower(): int(bit) for bit in Throttle},
        "row_remap": {"remap_pending": 1, "remap_failed": 2},
    }
)


class _Builder:
    """Turns entries into rules, and sees that what they name exists."""

    def __init__(
        self,
        tables: Mapping[str, Sequence[_Entry]],
        codes: Sequence[_Entry],
        changes: Mapping[str, _Entry],
        limits: Limits,
    ) -> None:
        self._tables = tables
        self._codes = codes
        self._changes = dict(changes)
        self._limits = limits
        self._used: set[str] = set()

    def policy(self) -> Policy:
        classes = {entry.name: self._class(entry) for entry in self._tables["class"]}
        codes = [self._code(entry, classes) for entry in self._codes]
        nonfatal = [
            replace(
                classes["nvlink5_nonfatal"],
                rule_id=f"{rule.rule_id}.nonfatal",
                says=f"{rule.says}; it recovered",
            )
            for rule in codes
            if rule.code_class == "nvlink5"
        ]
        events = [self._named(entry, self._event) for entry in self._tables["event"]]
        metrics = [self._named(entry, self._metric) for entry in self._tables["metric"]]
        pools = [self._named(entry, self._pool) for entry in self._tables["pool"]]
        known = [*codes, *nonfatal, *events, *metrics]
        pools = [replace(pool, of=_members(pool.of, known)) for pool in pools]
        together = [self._together(entry) for entry in self._tables["together"]]
        for rule_id, entry in self._changes.items():
            if rule_id not in self._used:
                raise entry.wrong("id", f"names the rule {rule_id}, which does not exist")
        rules: dict[str, Rule] = {}
        for rule in reversed([*events, *metrics, *pools, *codes, *nonfatal]):
            rules[rule.rule_id] = rule  # an operator's come first and win
        incidents = {
            rule_id: max([rule.k, *(pool.k for pool in pools if rule_id in pool.of)])
            for rule_id, rule in rules.items()
        }
        return Policy(
            rules=MappingProxyType(rules),
            events=tuple(events),
            metrics=tuple(rules[rule_id] for rule_id in dict.fromkeys(rule.rule_id for rule in metrics)),
            pools=tuple(pools),
            together=tuple(together),
            classes=MappingProxyType(classes),
            limits=self._limits,
            incidents=MappingProxyType(incidents),
        )

    def _changed(self, rule_id: str, entry: _Entry) -> _Entry:
        change = self._changes.get(rule_id)
        if change is None:
            return entry
        self._used.add(rule_id)
        return entry.over(change)

    def _named(self, entry: _Entry, build: Any) -> Any:
        rule_id = entry.take("id")
        changed = self._changed(rule_id, entry)
        rule = build(changed, rule_id)
        changed.end()
        return rule

    def _class(self, entry: _Entry) -> Rule:
        changed = self._changed(f"class.{entry.name}", entry)
        changed.values.setdefault("says", "a class of codes")
        rule = self._rule(changed, f"class.{entry.name}")
        changed.end()
        return rule

    def _rule(self, entry: _Entry, rule_id: str) -> Rule:
        return Rule(
            rule_id=rule_id,
            action=entry.one_of("action", Action),
            severity=entry.one_of("severity", Severity),
            says=entry.take("says"),
            source=entry.text("source", "an operator's own rule"),
            k=max(1, entry.whole("k", 1)),
            window_s=entry.number("window_s", 0.0),
            tenants=entry.whole("tenants", 0),
            for_s=entry.number("for_s", 0.0),
            expires_s=entry.number("expires_s", 0.0) or None,
            code_class=entry.name,
        )

    def _code(self, entry: _Entry, classes: Mapping[str, Rule]) -> Rule:
        rule_id = entry.take("id")
        entry = self._changed(rule_id, entry)
        name = entry.take("class")
        if name not in classes:
            raise entry.wrong("class", f"{name} is not a class of {RULES}")
        rule = classes[name]
        vendor = entry.take("vendor")
        rule = replace(
            rule,
            rule_id=rule_id,
            says=entry.text("says", rule.says),
            source=f"{rule.source}; {vendor}",
            action=entry.one_of("action", Action, rule.action),
            severity=entry.one_of("severity", Severity, rule.severity),
            k=max(1, entry.whole("k", rule.k)),
            window_s=entry.number("window_s", rule.window_s),
            for_s=entry.number("for_s", rule.for_s),
            expires_s=entry.number("expires_s", rule.expires_s or 0.0) or None,
        )
        entry.end()
        return rule

    def _event(self, entry: _Entry, rule_id: str) -> Rule:
        kind, pattern = entry.take("kind"), entry.text("pattern", "")
        when = entry.one_of("when", Severity) if "when" in entry.values else ""
        try:
            re.compile(pattern)
        except re.error as wrong:
            raise entry.wrong("pattern", f"is not a regular expression: {wrong}") from None
        return replace(self._rule(entry, rule_id), kind=kind, pattern=pattern, when=when)

    def _pool(self, entry: _Entry, rule_id: str) -> Rule:
        of = entry.values.pop("of", None)
        if not isinstance(of, list) or not all(isinstance(each, str) for each in of):
            raise entry.wrong("of", "must list rules, or classes as class:user")
        return replace(self._rule(entry, rule_id), of=frozenset(of))

    def _together(self, entry: _Entry) -> Together:
        company = entry.values.pop("with", None)
        if not isinstance(company, list) or not all(isinstance(each, str) for each in company):
            raise entry.wrong("with", "must list rules")
        together = Together(
            rule=entry.take("rule"),
            company=tuple(company),
            within_s=entry.number("within_s", 60.0),
            action=entry.one_of("action", Action),
            says=entry.take("says"),
        )
        entry.end()
        return together

    def _metric(self, entry: _Entry, rule_id: str) -> Rule:
        family = entry.take("family")
        if family not in FAMILIES:
            raise entry.wrong("family", f"must be one of {', '.join(FAMILIES)}")
        looks = [look for look in Look if look.value in entry.values]
        if len(looks) != 1:
            raise entry.wrong("id", f"must look for one of {', '.join(Look)}")
        [look] = looks
        other, value = "", 0.0
        asked = entry.values.get(look.value)
        name = entry.text("field", "")
        if look is Look.FEWER_THAN:
            other = entry.take(look.value)
        elif look is Look.BITS:
            value = self._bits(entry, name)
        elif look is Look.FALLS:
            if entry.values.pop(look.value) is not True:
                raise entry.wrong(look.value, "must be true")
        else:
            value = entry.number(look.value, 0.0)
        when_field = entry.text("when_field", "")
        for key, wanted in (("field", name), (look.value, other), ("when_field", when_field)):
            if (
                wanted or (key == "field" and look not in (Look.LOST, Look.SILENT))
            ) and wanted not in FAMILIES[family].index:
                raise entry.wrong(key, f"names {wanted or asked!r}, which is no field of {family}")
        condition = Condition(
            family=family,
            look=look,
            value=value,
            field=name,
            other=other,
            clear=entry.number("clear", 0.0) if "clear" in entry.values else None,
            seen_k=entry.whole("seen_k", 1),
            seen_n=entry.whole("seen_n", 1),
            window_s=entry.number("window_s", 0.0),
            when_field=when_field,
            when_above=entry.number("when_above", float("-inf")),
            when_below=entry.number("when_below", float("inf")),
            when_ever=entry.flag("when_ever"),
        )
        if not 1 <= condition.seen_k <= condition.seen_n <= 64:
            raise entry.wrong("seen_k", "must be from 1 to seen_n, and that at most 64")
        if look is Look.RISES and condition.window_s <= 0:
            raise entry.wrong("window_s", "is needed where a counter rises")
        return replace(self._rule(entry, rule_id), condition=condition)

    def _bits(self, entry: _Entry, name: str) -> float:
        names = entry.values.pop("bits")
        flags = _FLAGS.get(name, {})
        if not isinstance(names, list) or not names or any(each not in flags for each in names):
            raise entry.wrong(
                "bits", f"must list some of {', '.join(flags) or 'the flags of a field that has flags'}"
            )
        return float(sum(flags[each] for each in names))


def _members(of: frozenset[str], known: Sequence[Rule]) -> frozenset[str]:
    classes = {each.removeprefix("class:") for each in of if each.startswith("class:")}
    return frozenset(
        rule.rule_id
        for rule in known
        if rule.rule_id in of or (rule.code_class and rule.code_class in classes)
    )
