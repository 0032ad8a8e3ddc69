"""A rule is one requirement of FOCUS 1.4 that a file can be held to, as data.

Invariant: the table `rules.csv` says everything: which columns a dataset has and in which order, what may stand in them
and how they hang together. Whoever writes files and whoever checks them reads the same table. A rule changes by an edit
of the table; its id is for ever.
"""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib.resources import files

VERSION = "1.4"


class Dataset(StrEnum):
    COST_AND_USAGE = "CostAndUsage"
    CONTRACT_COMMITMENT = "ContractCommitment"
    INVOICE_DETAIL = "InvoiceDetail"
    BILLING_PERIOD = "BillingPeriod"

    @property
    def file(self) -> str:
        return f"{self.value}.csv"


class RuleKind(StrEnum):
    """How a rule is checked. `value` is what it needs to know beside its column."""

    PRESENT_FILE = "present_file"  # the dataset is there
    PRESENT = "present"  # the column is there
    PRESENT_WITH = "present_with"  # the column is there where another is, or where `dataset:` is
    CUSTOM_COLUMN = "custom_column"  # columns of nobody's start with x_
    TYPE = "type"
    NOT_NULL = "not_null"
    NULL = "null"
    ALLOWED = "allowed"  # one of the values
    NOT_IN = "not_in"  # none of the values
    EQUAL = "equal"  # the same as another column, numbers as numbers
    IS_NUMBER = "is_number"  # this number
    AT_LEAST = "at_least"  # another column
    AT_MOST = "at_most"
    BEFORE = "before"
    PRODUCT = "product"  # of two other columns
    NON_NEGATIVE = "non_negative"
    RATIO = "ratio"  # 0 to 1
    UNIQUE = "unique"  # as a tuple of columns
    ONE_PARENT = "one_parent"  # for each value of the column, one of the other
    REFERENCE = "reference"  # `Dataset.Column` has the value
    SUM = "sum"  # by value of the column: `Own=Dataset.Other`


Row = Mapping[str, str]
Condition = Callable[[Row], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One requirement."""

    rule_id: str
    dataset: Dataset
    column: str  # empty for one about the whole file
    kind: RuleKind
    when: str  # in which rows it holds: terms joined by ` and `; empty for all
    value: str
    must: bool  # otherwise only advised
    text: str

    @property
    def values(self) -> tuple[str, ...]:
        return tuple(self.value.split("|")) if self.value else ()


def condition_of(when: str) -> Condition | None:
    """What a `when` says of a row, an empty cell being null; None for all rows.

    Terms: `A is null`, `A is not null`, `A in x|y`, `A not in x|y` (null is in nothing), `A equals B`.
    """
    terms = [_term(text) for text in when.split(" and ")] if when else []
    if not terms:
        return None
    if len(terms) == 1:
        return terms[0]
    return lambda row: all(term(row) for term in terms)


def _term(text: str) -> Condition:
    column, _, rest = text.partition(" ")
    if rest == "is null":
        return lambda row: not row.get(column)
    if rest == "is not null":
        return lambda row: bool(row.get(column))
    word, _, said = rest.partition(" ")
    values = frozenset(said.split("|"))
    if word == "in":
        return lambda row: row.get(column, "") in values
    if word == "equals":
        return lambda row: row.get(column) == row.get(said)
    word, _, said = said.partition(" ")
    if rest.startswith("not in "):
        outside = frozenset(said.split("|"))
        return lambda row: row.get(column, "") not in outside
    raise ValueError(f"{text!r} is no condition")


def rules_of(text: str) -> tuple[Rule, ...]:
    """The rules of a table. Raises ValueError, which names the line."""
    found, ids = [], set()
    for line, row in enumerate(csv.DictReader(io.StringIO(text)), start=2):
        try:
            rule = Rule(
                rule_id=row["id"],
                dataset=Dataset(row["dataset"]),
                column=row["column"],
                kind=RuleKind(row["kind"]),
                when=row["when"],
                value=row["value"],
                must={"must": True, "should": False}[row["level"]],
                text=row["text"],
            )
            condition_of(rule.when)
        except (KeyError, ValueError) as wrong:
            raise ValueError(f"rules.csv, line {line}: {wrong}") from wrong
        if rule.rule_id in ids:
            raise ValueError(f"rules.csv, line {line}: {rule.rule_id} stands twice")
        ids.add(rule.rule_id)
        found.append(rule)
    return tuple(found)


@cache
def load_rules() -> tuple[Rule, ...]:
    """The table that is shipped."""
    return rules_of(files("baseai.finance.focus").joinpath("rules.csv").read_text(encoding="utf-8"))


@cache
def columns_of(dataset: Dataset) -> Sequence[str]:
    """The columns that the standard gives a dataset, in the order of the table."""
    return tuple(
        rule.column
        for rule in load_rules()
        if rule.dataset is dataset and rule.kind in (RuleKind.PRESENT, RuleKind.PRESENT_WITH)
    )
