"""A check holds the files of one export to the rules, and says file, line, column and rule of what is wrong.

Invariant: amounts are compared as exact decimals, never as floating point and without tolerance. Rows are seen once and
not kept, so that a month of a large fleet can be checked; what rows must have in common is kept as sums and sets.
"""

import csv
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal, localcontext

from baseai.finance.focus.rule import Dataset, Row, Rule, RuleKind, columns_of, condition_of, load_rules

SHOWN_MOST = 20  # findings of one rule and file; the rest is counted
DECIMAL = re.compile(r"-?\d+(\.\d+)?(E-?\d+)?")
INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
STAND_INS = frozenset({"null", "none", "n/a", "na", "not applicable", "-"})
DIGITS = 200  # more than any product of two columns has
# ISO 4217; a standard of its own, so that this list stands here and not in the table.
CURRENCIES = frozenset(
    re.findall(
        "[A-Z]{3}",
        """AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF
        CLP CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD
        HNL HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL
        LYD MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP
        PKR PLN PYG QAR RON RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT
        TND TOP TRY TTD TWD TZS UAH UGX USD UYU UZS VED VES VND VUV WST XAF XCD XOF XPF YER ZAR ZMW ZWG""",
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is not as a rule wants it."""

    file: str
    line: int | None  # of the file, its heading being 1; None for the file as a whole
    column: str
    rule_id: str
    must: bool
    sentence: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{place} {self.column or '-'}: {self.sentence} [{self.rule_id}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a check found."""

    rows: Mapping[str, int]  # by file
    findings: tuple[Finding, ...]  # the first of each rule and file
    counts: Mapping[str, int]  # by rule, all of them

    @property
    def passes(self) -> bool:
        """Whether every rule that must hold does."""
        return not any(finding.must for finding in self.findings)


Files = Mapping[Dataset, Iterable[str]]  # the lines of each file that is there


def check(files: Files, rules: Sequence[Rule] | None = None) -> Report:
    """Hold files to the rules. Lines are read once; what others refer to is read first."""
    seen = _Seen(files, load_rules() if rules is None else rules)
    order = (
        Dataset.BILLING_PERIOD,
        Dataset.INVOICE_DETAIL,
        Dataset.CONTRACT_COMMITMENT,
        Dataset.COST_AND_USAGE,
    )
    for dataset in order:
        if dataset in files:
            seen.read(dataset, files[dataset])
    seen.finish()
    return Report(rows=seen.rows, findings=tuple(seen.findings), counts=dict(seen.counts))


@dataclass(slots=True)
class _Seen:
    """What has been read so far."""

    files: Files
    rules: Sequence[Rule]
    findings: list[Finding] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    rows: dict[str, int] = field(default_factory=dict)
    kept: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))  # by `Dataset.Column`
    sums: dict[str, dict[tuple[str, ...], Decimal]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(Decimal))
    )  # by rule and side

    def find(self, rule: Rule, line: int | None, sentence: str) -> None:
        self.counts[rule.rule_id] += 1
        if self.counts[rule.rule_id] <= SHOWN_MOST:
            self.findings.append(
                Finding(
                    file=rule.dataset.file,
                    line=line,
                    column=rule.column,
                    rule_id=rule.rule_id,
                    must=rule.must,
                    sentence=sentence,
                )
            )

    def read(self, dataset: Dataset, lines: Iterable[str]) -> None:
        own = [rule for rule in self.rules if rule.dataset is dataset]
        reader = csv.reader(lines, strict=True)
        heading = next(reader, [])
        self._heading(dataset, own, heading)
        there = set(heading)
        wanted = {
            name.partition(".")[2]
            for rule in self.rules
            if rule.kind is RuleKind.REFERENCE and (name := rule.value).startswith(f"{dataset.value}.")
        } & there
        checks = [
            (rule, condition_of(rule.when), made)
            for rule in own
            if rule.column in there and (made := self._row_check(rule)) is not None
        ]
        totals = [
            total
            for rule in self.rules
            if rule.kind is RuleKind.SUM
            for total in _totals(rule, dataset)
            if there >= set(total[2:])
        ]
        count = 0
        for cells in reader:
            line = reader.line_num
            count += 1
            if len(cells) != len(heading):
                self._misfit(dataset, line, len(cells), len(heading))
                continue
            row = dict(zip(heading, cells, strict=True))
            for rule, holds, made in checks:
                if holds is None or holds(row):
                    wrong = made(row)
                    if wrong is not None:
                        self.find(rule, line, wrong)
            for name in wanted:
                self.kept[f"{dataset.value}.{name}"].add(row[name])
            for rule_id, side, key, amount in totals:
                if row[key] and (exact := _decimal(row[amount])) is not None:
                    which = (row.get("InvoiceIssuerName", ""), row.get("InvoiceId", ""), row[key])
                    with localcontext(prec=DIGITS):
                        self.sums[f"{rule_id}/{side}"][which] += exact
        self.rows[dataset.file] = count

    def finish(self) -> None:
        """What only all rows together show."""
        for rule in self.rules:
            if rule.kind is RuleKind.PRESENT_FILE and rule.dataset not in self.files:
                self.find(rule, None, f"the folder has no {rule.dataset.file}")
            if rule.kind is not RuleKind.SUM:
                continue
            other = Dataset(rule.value.partition("=")[2].partition(".")[0])
            if rule.dataset not in self.files or other not in self.files:
                continue
            own, theirs = self.sums[f"{rule.rule_id}/own"], self.sums[f"{rule.rule_id}/other"]
            for which in sorted(own.keys() | theirs.keys()):
                ours, asked = own.get(which, Decimal(0)), theirs.get(which, Decimal(0))
                if ours != asked:
                    self.find(
                        rule,
                        None,
                        f"{which[2]}: charges come to {ours:f} and {other.file} says {asked:f}; {rule.text}",
                    )

    def _heading(self, dataset: Dataset, own: Sequence[Rule], heading: Sequence[str]) -> None:
        there = set(heading)
        known = set(columns_of(dataset))
        for rule in own:
            if rule.kind is RuleKind.PRESENT and rule.column not in there:
                self.find(rule, 1, f"there is no such column; {rule.text}")
            elif rule.kind is RuleKind.PRESENT_WITH and rule.column not in there:
                companion = rule.value
                if companion.startswith("dataset:"):
                    with_it = Dataset(companion.partition(":")[2]) in self.files
                else:
                    with_it = companion in there
                if with_it:
                    self.find(rule, 1, f"there is no such column; {rule.text}")
            elif rule.kind is RuleKind.CUSTOM_COLUMN:
                for name in heading:
                    if name not in known and not name.startswith("x_"):
                        self.find(rule, 1, f"{name!r} is no column of the standard; {rule.text}")
                for name, times in Counter(heading).items():
                    if times > 1:
                        self.find(rule, 1, f"{name!r} stands {times} times in the heading")

    def _misfit(self, dataset: Dataset, line: int, cells: int, columns: int) -> None:
        rule = next(
            rule for rule in self.rules if rule.dataset is dataset and rule.kind is RuleKind.CUSTOM_COLUMN
        )
        self.find(rule, line, f"the row has {cells} cells and the heading {columns}; it is not looked at")

    def _row_check(self, rule: Rule) -> "Callable[[Row], str | None] | None":
        """What finds the rule's fault in a row, as a sentence; None for rules that are not about one row."""
        column, value, values = rule.column, rule.value, frozenset(rule.values)
        told = rule.text
        match rule.kind:
            case RuleKind.TYPE:
                fits = TYPES[value]
                return lambda row: (
                    None if not row[column] or fits(row[column]) else f"{row[column]!r}; {told}"
                )
            case RuleKind.NOT_NULL:
                return lambda row: None if row[column] else f"there is nothing; {told}"
            case RuleKind.NULL:
                return lambda row: f"{row[column]!r}; {told}" if row[column] else None
            case RuleKind.ALLOWED:
                return lambda row: (
                    f"{row[column]!r}; {told}" if row[column] and row[column] not in values else None
                )
            case RuleKind.NOT_IN:
                return lambda row: f"{row[column]!r}; {told}" if row[column] in values else None
            case RuleKind.EQUAL:
                return lambda row: (
                    None
                    if _same(row[column], row.get(value, ""))
                    else f"{row[column]!r} and {value} {row.get(value)!r}; {told}"
                )
            case RuleKind.IS_NUMBER | RuleKind.NON_NEGATIVE | RuleKind.RATIO:
                return _bounded(rule)
            case RuleKind.AT_LEAST | RuleKind.AT_MOST | RuleKind.BEFORE:
                return _ordered(rule)
            case RuleKind.PRODUCT:
                return _product(rule)
            case RuleKind.UNIQUE:
                return _unique(rule)
            case RuleKind.ONE_PARENT:
                return _one_parent(rule)
            case RuleKind.REFERENCE:
                return self._reference(rule)
        return None

    def _reference(self, rule: Rule) -> Callable[[Row], str | None] | None:
        other, _, _ = rule.value.partition(".")
        if Dataset(other) not in self.files:
            return None
        kept = self.kept[rule.value]
        return lambda row: (
            f"{row[rule.column]!r} stands not in {rule.value}; {rule.text}"
            if row[rule.column] and row[rule.column] not in kept
            else None
        )


def _totals(rule: Rule, dataset: Dataset) -> list[tuple[str, str, str, str]]:
    """What a rule adds up in a dataset: rule, side, key column, amount column."""
    own, _, other = rule.value.partition("=")
    name, _, amount = other.partition(".")
    found = []
    if rule.dataset is dataset:
        found.append((rule.rule_id, "own", rule.column, own))
    if name == dataset.value:
        found.append((rule.rule_id, "other", rule.column, amount))
    return found


def _decimal(text: str) -> Decimal | None:
    return Decimal(text) if DECIMAL.fullmatch(text) else None


def _is_instant(text: str) -> bool:
    if not INSTANT.fullmatch(text):
        return False
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def _is_object(text: str) -> bool:
    return isinstance(_json(text), dict)


def _is_key_value(text: str) -> bool:
    found = _json(text)
    return isinstance(found, dict) and not any(isinstance(one, (dict, list)) for one in found.values())


def _json(text: str) -> object:
    def once(pairs: list[tuple[str, object]]) -> dict[str, object]:
        if len({key for key, _ in pairs}) < len(pairs):
            raise ValueError("a key stands twice")
        return dict(pairs)

    try:
        return json.loads(text, object_pairs_hook=once)
    except ValueError:
        return None


TYPES: Mapping[str, Callable[[str], bool]] = {
    "string": lambda text: bool(text.strip()) and text.strip().lower() not in STAND_INS,
    "decimal": lambda text: DECIMAL.fullmatch(text) is not None,
    "datetime": _is_instant,
    "json": _is_object,
    "key_value": _is_key_value,
    "currency": lambda text: text in CURRENCIES,
}


def _same(one: str, other: str) -> bool:
    if one == other:
        return True
    a, b = _decimal(one), _decimal(other)
    return a is not None and b is not None and a == b


def _bounded(rule: Rule) -> Callable[[Row], str | None]:
    least = Decimal(rule.value) if rule.kind is RuleKind.IS_NUMBER else Decimal(0)
    most = {RuleKind.IS_NUMBER: least, RuleKind.RATIO: Decimal(1)}.get(rule.kind)

    def wrong(row: Row) -> str | None:
        found = _decimal(row[rule.column])
        if found is None or (least <= found and (most is None or found <= most)):
            return None
        return f"{row[rule.column]}; {rule.text}"

    return wrong


def _ordered(rule: Rule) -> Callable[[Row], str | None]:
    def wrong(row: Row) -> str | None:
        one, other = row[rule.column], row.get(rule.value, "")
        if not (_is_instant(one) and _is_instant(other)):
            return None  # what is no instant is found by its type
        right = {
            RuleKind.AT_LEAST: one >= other,
            RuleKind.AT_MOST: one <= other,
            RuleKind.BEFORE: one < other,
        }[rule.kind]
        return None if right else f"{one}, and {rule.value} is {other}; {rule.text}"

    return wrong


def _product(rule: Rule) -> Callable[[Row], str | None]:
    price, quantity = rule.values

    def wrong(row: Row) -> str | None:
        a, b, cost = (_decimal(row.get(name, "")) for name in (price, quantity, rule.column))
        if a is None or b is None or cost is None:
            return None
        with localcontext(prec=DIGITS):
            exact = a * b
        return None if exact == cost else f"{cost} is not {a} × {b} = {exact:f}; {rule.text}"

    return wrong


def _unique(rule: Rule) -> Callable[[Row], str | None]:
    seen: set[tuple[str, ...]] = set()

    def wrong(row: Row) -> str | None:
        key = tuple(row.get(name, "") for name in rule.values)
        if key in seen:
            return f"{' / '.join(key)} stands twice; {rule.text}"
        seen.add(key)
        return None

    return wrong


def _one_parent(rule: Rule) -> Callable[[Row], str | None]:
    parents: dict[str, str] = {}

    def wrong(row: Row) -> str | None:
        child, parent = row[rule.column], row.get(rule.value, "")
        if not child or not parent:
            return None
        known = parents.setdefault(child, parent)
        return (
            None if known == parent else f"{child!r} has {rule.value} {known!r} and {parent!r}; {rule.text}"
        )

    return wrong
