"""A check holds the files of one export to the rules, and says file, line, column and rule of what is wrong.

Invariant: amounts are compared as exact decimals, never as floating point and without tolerance. Rows are seen once and
not kept, so that a month of a large fleet can be checked; what rows must have in common is kept as sums and sets.
"""

import csv
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from typing import TYPE_CHECKING

from baseai.finance.focus.row_rule import ASKED_OF_NOTHING, DIGITS, RowRule, decimal_of, row_rule
from baseai.finance.focus.rule import (
    Condition,
    Dataset,
    Row,
    Rule,
    RuleKind,
    columns_of,
    condition_of,
    load_rules,
)

if TYPE_CHECKING:
    from _csv import Reader

SHOWN_MOST = 20  # findings of one rule and file; the rest is counted


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


_ByColumn = dict[str, list[tuple[Rule, Condition | None, RowRule]]]
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
        """Go through one file. What its rows are to be held to is chosen once, by its heading."""
        reader = csv.reader(lines, strict=True)
        try:
            heading = next(reader, [])
        except csv.Error as torn:
            self._broken(dataset, 1, torn)
            heading = []
        self._heading(dataset, [rule for rule in self.rules if rule.dataset is dataset], heading)
        there = set(heading)
        filled, empty = self._asked(dataset, there)
        wanted = {
            name.partition(".")[2]
            for rule in self.rules
            if rule.kind is RuleKind.REFERENCE and (name := rule.value).startswith(f"{dataset.value}.")
        } & there
        totals = [
            total
            for rule in self.rules
            if rule.kind is RuleKind.SUM
            for total in _totals(rule, dataset)
            if there >= set(total[2:])
        ]
        self.rows[dataset.file] = 0
        for line, row in self._rows(dataset, reader, heading):
            for name, value in row.items():
                for rule, holds, made in (filled if value else empty).get(name, ()):
                    if (holds is None or holds(row)) and (wrong := made(row)) is not None:
                        self.find(rule, line, wrong)
            for name in wanted:
                self.kept[f"{dataset.value}.{name}"].add(row[name])
            for total in totals:
                self._add(total, row)

    def _asked(self, dataset: Dataset, there: set[str]) -> tuple[_ByColumn, _ByColumn]:
        """By column: what is asked of a cell with a value, and of one without."""
        filled: _ByColumn = defaultdict(list)
        empty: _ByColumn = defaultdict(list)
        for rule in self.rules:
            if rule.dataset is not dataset or rule.column not in there:
                continue
            made = row_rule(rule, self._known(rule))
            if made is None:
                continue
            asked = (rule, condition_of(rule.when), made)
            if rule.kind is not RuleKind.NOT_NULL:
                filled[rule.column].append(asked)
            if rule.kind in ASKED_OF_NOTHING:
                empty[rule.column].append(asked)
        return filled, empty

    def _rows(self, dataset: Dataset, reader: "Reader", heading: Sequence[str]) -> Iterator[tuple[int, Row]]:
        """Each whole row with its line. A torn one is found and left out; nothing behind a broken one can be read."""
        while True:
            try:
                cells = next(reader, None)
            except csv.Error as torn:
                self._broken(dataset, reader.line_num, torn)
                return
            if cells is None:
                return
            self.rows[dataset.file] += 1
            if len(cells) == len(heading):
                yield reader.line_num, dict(zip(heading, cells, strict=True))
            else:
                sentence = (
                    f"the row has {len(cells)} cells and the heading {len(heading)}; it is not looked at"
                )
                self.find(self._of_file(dataset), reader.line_num, sentence)

    def _add(self, total: tuple[str, str, str, str], row: Row) -> None:
        rule_id, side, key, amount = total
        exact = decimal_of(row[amount])
        if row[key] and exact is not None:
            which = (row.get("InvoiceIssuerName", ""), row.get("InvoiceId", ""), row[key])
            with localcontext(prec=DIGITS):
                self.sums[f"{rule_id}/{side}"][which] += exact

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

    def _broken(self, dataset: Dataset, line: int, torn: csv.Error) -> None:
        self.find(self._of_file(dataset), line, f"this is no CSV from here on: {torn}")

    def _of_file(self, dataset: Dataset) -> Rule:
        """The rule under which faults of a file's form are found."""
        return next(
            rule for rule in self.rules if rule.dataset is dataset and rule.kind is RuleKind.CUSTOM_COLUMN
        )

    def _known(self, rule: Rule) -> set[str] | None:
        """What a reference may name; None where the other file is not there."""
        if rule.kind is not RuleKind.REFERENCE or Dataset(rule.value.partition(".")[0]) not in self.files:
            return None
        return self.kept[rule.value]


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
