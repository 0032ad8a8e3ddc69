"""The table of complaints in this folder's README names tests that exist, and each of them by its numbers."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
ROW = re.compile(
    r"^\| (?P<complaint>[\w-]+#[^|]+?) \| [^|]*\| `(?P<file>[\w/]+\.py)::(?P<test>\w+)` \|$", re.MULTILINE
)
ROWS = [
    match.groupdict() for match in ROW.finditer((TESTS / "finance" / "README.md").read_text(encoding="utf-8"))
]


def test_no_row_was_passed_over() -> None:
    text = (TESTS / "finance" / "README.md").read_text(encoding="utf-8")
    assert len(ROWS) == len(re.findall(r"^\| [\w-]+#", text, re.MULTILINE)) > 20


@pytest.mark.parametrize("row", ROWS, ids=[f"{row['complaint']} {row['test']}" for row in ROWS])
def test_a_complaint_has_its_test(row: dict[str, str]) -> None:
    tree = ast.parse((TESTS / row["file"]).read_text(encoding="utf-8"))
    names = {
        node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    }
    assert row["test"] in names
    first = re.search(r"\d+", row["complaint"])
    assert first is not None
    assert first[0] in row["test"]
