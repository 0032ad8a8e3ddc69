"""What is published stands on its own: no path of one machine, no registry's address, nothing left out of the wheel."""

import fnmatch
import re
import tomllib
from pathlib import Path

import pytest

from tests.house.source import PACKAGE, ROOT, tracked_files

FOREIGN = (
    (
        "a path of one machine",
        re.compile(r"(?<![\w.~$}-])/(?:root|work|opt/wheels)/"),
    ),
    ("a registry's address", re.compile(r"pythonhosted\.org|pypi\.org/simple|registry\.npmjs")),
    ("an index option", re.compile(r"--(?:extra-)?index-url|--find-links|--trusted-host")),
)
BINARY = frozenset({".png", ".jpg", ".ico", ".woff2", ".gz", ".mo"})

TRACKED = tracked_files()


def foreign_lines(text: str) -> list[str]:
    """Each line that means something on one machine or in one network only."""
    return [
        f"line {number}: {what}: {line.strip()[:120]}"
        for number, line in enumerate(text.splitlines(), 1)
        for what, pattern in FOREIGN
        if pattern.search(line)
    ]


@pytest.fixture
def tracked() -> tuple[Path, ...]:
    if not TRACKED:
        pytest.skip("needs a git checkout to know what is published")
    return TRACKED


def test_nothing_published_belongs_to_one_machine(tracked: tuple[Path, ...]) -> None:
    found = {
        str(path.relative_to(ROOT)): lines
        for path in tracked
        if path.suffix not in BINARY
        and path != Path(__file__)
        and (lines := foreign_lines(path.read_text(encoding="utf-8")))
    }
    assert found == {}


@pytest.mark.parametrize(
    "line",
    [
        "cd /work/main",
        'path = "/root/.cache/x"',
        "pip install --index-url https://mirror.example/simple",
        "see https://files.pythonhosted.org/x",
    ],
)
def test_a_foreign_line_is_found(line: str) -> None:
    assert len(foreign_lines(line)) == 1


@pytest.mark.parametrize("line", ["src/root/x", "https://example.com/work/x", "~/work/x", "$HOME/root/"])
def test_an_innocent_line_is_left_alone(line: str) -> None:
    assert foreign_lines(line) == []


def test_every_file_of_the_package_is_in_the_wheel(tracked: tuple[Path, ...]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    shipped = project["tool"]["setuptools"]["package-data"]["*"]
    forgotten = [
        str(path.relative_to(ROOT))
        for path in tracked
        if path.is_relative_to(PACKAGE)
        and path.suffix != ".py"
        and not any(fnmatch.fnmatch(path.name, pattern) for pattern in shipped)
    ]
    assert forgotten == []


def test_the_readme_opens_with_the_two_commands() -> None:
    pages = sorted(ROOT.glob("README*.md"))
    if not pages:
        pytest.skip("no README yet")
    for page in pages:
        head = page.read_text(encoding="utf-8").splitlines()[:30]
        commands = [line.split("#")[0].strip() for line in head if line.lstrip().startswith("make ")]
        assert commands[:2] == ["make demo", "make test"], page.name


def test_the_changelog_has_room_for_the_next_version() -> None:
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings[0] == "Unreleased"
