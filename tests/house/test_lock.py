"""constraints.txt pins every package exactly, and plain pip can read it on any machine."""

import re
import tomllib

import pytest

from tests.house.source import ROOT

LINES = [
    line
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
]
PIN = re.compile(r"^(?P<name>[a-z0-9][a-z0-9.-]*)==(?P<version>[0-9][\w.!]*)(?: ; (?P<marker>.+))?$")


def plain(name: str) -> str:
    """A package's name as the lock writes it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def asked_for() -> list[str]:
    """The name of every package that pyproject.toml asks for, extras included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [
        *project["dependencies"],
        *(need for needs in project["optional-dependencies"].values() for need in needs),
    ]
    return [plain(re.split(r"[\[<>=!~;\s]", need)[0]) for need in asked]


@pytest.mark.parametrize("line", LINES)
def test_a_line_is_an_exact_pin_and_nothing_else(line: str) -> None:
    pin = PIN.match(line)
    assert pin
    assert "+" not in pin["version"]  # a local build, as torch's for the CPU, satisfies the public number


@pytest.mark.parametrize("name", asked_for())
def test_what_the_project_asks_for_is_pinned(name: str) -> None:
    assert name in {pin["name"] for line in LINES if (pin := PIN.match(line))}


def test_torch_is_one_version() -> None:
    assert [line for line in LINES if line.startswith("torch==")] == ["torch==2.13.0"]
