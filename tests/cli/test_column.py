"""Figures stand under each other, and text of others stays text."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from baseai.cli.column import (
    Column,
    age,
    bytes_text,
    fact_lines,
    figure,
    money_column,
    money_text,
    plain,
    table_lines,
)


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        pytest.param("12", "12.00", id="at least two digits"),
        pytest.param("0.000417", "0.000417", id="as many as it needs"),
        pytest.param("-1234.5", "-1,234.50", id="a loss"),
    ],
)
def test_money_text(amount: str, text: str) -> None:
    assert money_text(Decimal(amount)) == text


def test_a_column_of_money_lines_its_points_up() -> None:
    column = money_column([Decimal("12"), None, Decimal("0.000417")])
    assert column == ["12.000000", "", "0.000417"]


def test_table_lines() -> None:
    columns = [Column(head="NAME"), Column(head="N", right=True), Column(head="WHY")]
    rows = [["a", "1", ""], ["日本", "100", "waits\nfor room"]]
    assert table_lines(columns, rows) == [
        "NAME    N  WHY",
        "a       1  -",
        "日本  100  waits for room",
    ]
    assert table_lines(columns, rows, width=16)[2] == "日本  100  wait…"


def test_a_fact_without_a_value_is_left_out() -> None:
    assert fact_lines([("name", "a"), ("why", " "), ("sentence", "b\n")]) == ["name      a", "sentence  b"]


def test_control_characters_do_not_reach_the_terminal() -> None:
    assert plain("a\x1b[31mb\x07\tc\x9b") == "a[31mb c"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59, "59s"), (245, "4m05s"), (12_000, "3h20m"), (187_200, "2d04h"), (-5, "0s")],
)
def test_age(seconds: int, text: str) -> None:
    now = datetime(2026, 1, 2, tzinfo=UTC)
    assert age(now - timedelta(seconds=seconds), now) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(None, ""), (True, ""), (7, "7"), (12_345, "12,345"), (2.34567, "2.346"), (12345.6, "12,346")],
)
def test_figure(number: object, text: str) -> None:
    assert figure(number) == text


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (1536, "1.5 KiB"), (3 * 1024**4, "3 TiB")])
def test_bytes_text(count: int, text: str) -> None:
    assert bytes_text(count) == text
