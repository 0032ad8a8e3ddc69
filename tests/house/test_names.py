"""Names come from the house's words, and a name that could sit in any project names nothing."""

import ast
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pytest

from tests.house.source import PACKAGE, ROOT, Module, module_of, modules, parsed

NAMES_NOTHING = frozenset({"base", "common", "core", "helper", "helpers", "manager", "misc", "util", "utils"})

# One word per thing: the word we do not use, and the one we do.
OTHER_WORDS: Mapping[str, str] = {
    "Allocation": "Lease",
    "Helper": "the noun it builds",
    "Host": "Node",
    "Job": "Run",
    "Manager": "what it holds or decides",
    "Util": "the noun it builds",
    "Utils": "the noun it builds",
}

# Rooms that have no README.md yet. May only shrink.
WITHOUT_README = frozenset({"settings"})  # one file; its page is docs/settings.md

WORDS = ROOT / "docs" / "words.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """One row of docs/words.md."""

    noun: str
    meaning: str
    is_not: str
    code: str  # dotted below baseai, or empty while only people use the word
    column: str


def words_of(page: str) -> tuple[Word, ...]:
    """The rows of every table of the page. Raises ValueError for a row that has not five cells."""
    rows = []
    for line in page.splitlines():
        if not line.startswith("|") or re.fullmatch(r"[|:\- ]+", line):
            continue
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) != 5:
            raise ValueError(f"{line!r} has {len(cells)} cells instead of 5")
        noun, meaning, is_not, code, column = cells
        if noun.lower() != "word":
            rows.append(Word(noun=noun, meaning=meaning, is_not=is_not, code=code.strip("`"), column=column))
    return tuple(rows)


def defined_in(module: Module) -> set[str]:
    """Every class, function and constant at the top of a module, dotted below baseai."""
    names = set()
    for node in module.tree.body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names.update(target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return {f"{module.name}.{name}" for name in names} | {module.name}


def foreign_classes(found: Iterable[Module]) -> list[str]:
    """Class names that say something else than the house does, each with the word to use."""
    sentences = []
    for module in found:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ClassDef):
                parts = re.findall(r"[A-Z][a-z0-9]*", node.name)
                sentences += [
                    f"{module.name}.{node.name}: say {OTHER_WORDS[p]}" for p in parts if p in OTHER_WORDS
                ]
    return sentences


@pytest.mark.parametrize("folder", ["src", "tests", "bench"])
def test_every_file_is_python_as_the_oldest_version_reads_it(folder: str) -> None:
    for path in (ROOT / folder).rglob("*.py"):
        parsed(path)


def test_no_file_is_named_after_nothing() -> None:
    named = [path for folder in (PACKAGE, ROOT / "tests") for path in folder.rglob("*.py")]
    parts = {path: {*path.relative_to(ROOT).with_suffix("").parts, *path.stem.split("_")} for path in named}
    assert [path for path, own in parts.items() if own & NAMES_NOTHING] == []


def test_classes_use_the_words_of_the_house() -> None:
    assert foreign_classes(modules()) == []


def test_a_foreign_word_is_found() -> None:
    [sentence] = foreign_classes([module_of("fleet.node", "class HostFacts: ...")])
    assert sentence == "fleet.node.HostFacts: say Node"


def rooms_without_readme() -> set[str]:
    rooms = {path.parent for path in PACKAGE.glob("*/__init__.py")}
    return {room.name for room in rooms if not (room / "README.md").is_file()}


def test_each_room_has_a_readme() -> None:
    assert rooms_without_readme() - WITHOUT_README == set()


DEFINED = frozenset(name for module in modules() for name in defined_in(module))


@pytest.mark.parametrize("word", words_of(WORDS.read_text(encoding="utf-8")) if WORDS.is_file() else ())
def test_a_word_is_explained_and_exists(word: Word) -> None:
    assert word.meaning, f"{word.noun} has no meaning"
    if word.code:
        assert word.code in DEFINED


def test_a_noun_stands_once() -> None:
    if not WORDS.is_file():
        pytest.skip("docs/words.md is not written yet")
    nouns = [word.noun.lower() for word in words_of(WORDS.read_text(encoding="utf-8"))]
    assert sorted(noun for noun in set(nouns) if nouns.count(noun) > 1) == []
    assert len(nouns) >= 20


def test_every_decision_is_listed_and_says_what_else_was_possible() -> None:
    folder = ROOT / "docs" / "decisions"
    listed = (folder / "README.md").read_text(encoding="utf-8")
    pages = [page for page in folder.glob("*.md") if page.name != "README.md"]
    assert [page.name for page in pages if f"({page.name})" not in listed] == []
    for page in pages:
        headings = re.findall(r"^## (\w+)", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert headings == ["Context", "Decision", "Consequences", "Alternatives"], page.name


def test_a_row_with_a_hole_is_refused() -> None:
    with pytest.raises(ValueError, match="has 3 cells"):
        words_of(
            "| word | meaning | is not | code | column |\n|---|---|---|---|---|\n| node | a machine | x |"
        )
