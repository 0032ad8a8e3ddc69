"""A file of mounts is read whole, and what is wrong in it is told by line and column."""

import pickle

import pytest

from baseai.fleet.fabric.mount import Mount
from baseai.fleet.fabric.rehang import BadFile, Rehang, part_of, rehangs_in
from baseai.ground.fault import Refused


def parts(text: str) -> list[tuple[str, dict[str, str | None]]]:
    return [(one.node, dict(one.parts)) for one in rehangs_in(text, "nodes.csv")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            "node,rack,leaf,pod\na,r1,l1,p1\n", [("a", {"rack": "r1", "leaf": "l1", "pod": "p1"})], id="all"
        ),
        pytest.param(
            "pod , node\np1, a \n", [("a", {"pod": "p1"})], id="columns in any order, and only some"
        ),
        pytest.param(
            "node,rack,leaf\na,,l1\n", [("a", {"leaf": "l1"})], id="an empty field leaves what is known"
        ),
        pytest.param("node,rack\na,-\n", [("a", {"rack": None})], id="a dash takes it off"),
        pytest.param(
            "\ufeffnode,rack\r\n\r\na,r1\r\n,\r\n", [("a", {"rack": "r1"})], id="as spreadsheets write it"
        ),
        pytest.param("node,rack\n", [], id="nobody"),
    ],
)
def test_rows(text: str, expected: list[tuple[str, dict[str, str | None]]]) -> None:
    assert parts(text) == expected


@pytest.mark.parametrize(
    ("text", "places"),
    [
        pytest.param("", ["1:1"], id="an empty file"),
        pytest.param("rack,leaf\nr,l\n", ["1:1"], id="no node is named"),
        pytest.param("node\na\n", ["1:1"], id="nothing is said of them"),
        pytest.param("node,rack,leef,rack\na,b,c,d\n", ["1:3", "1:4"], id="columns that are none"),
        pytest.param("node,rack\na,r 1\n,r1\na,r1\n", ["2:2", "3:1", "4:1"], id="every bad field"),
        pytest.param("leaf,node\nl1\nl1,b,c\n", ["2:2", "3:3"], id="too few fields and too many"),
        pytest.param('node,rack\n"a"b,r1\n', ["2:1"], id="no CSV"),
    ],
)
def test_what_is_wrong_is_told_by_line_and_column(text: str, places: list[str]) -> None:
    with pytest.raises(BadFile) as refused:
        rehangs_in(text, "nodes.csv")
    assert [f"{one.line}:{one.column}" for one in refused.value.errors] == places
    assert str(refused.value).splitlines()[0].startswith(f"nodes.csv:{places[0]} ")


def test_a_column_that_is_misspelt_is_told_which_is_meant() -> None:
    with pytest.raises(BadFile, match=r"nodes.csv:1:3 leef: there is no such column; did you mean leaf\?"):
        rehangs_in("node,rack,leef\n", "nodes.csv")


def test_a_part_that_is_not_named_stays() -> None:
    change = Rehang(node="a", parts={"leaf": "l2", "pod": None})
    assert change.of(Mount(rack="r1", leaf="l1", pod="p1")) == Mount(rack="r1", leaf="l2", pod=None)


@pytest.mark.parametrize("written", ["", "r 1", "-r", "r" * 101, "é"])
def test_names_that_are_none(written: str) -> None:
    with pytest.raises(Refused, match="is no name"):
        part_of(written)


def test_a_bad_file_survives_pickling() -> None:
    with pytest.raises(BadFile) as refused:
        rehangs_in("", "nodes.csv")
    assert str(pickle.loads(pickle.dumps(refused.value))) == str(refused.value)
