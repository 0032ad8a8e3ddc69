"""A leaf is under one pod and at one site, a rack at the site of its nodes, and only who was changed is blamed."""

import pytest

from baseai.fleet.fabric.mount import Hung, Mount, misfits

RACKS = {"r1": "SP4", "row-12": "SP4", "q1": "RJ2"}


def hung(name: str, site: str = "SP4", **mount: str) -> Hung:
    return Hung(name=name, site=site, mount=Mount(**mount))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fleet", "expected"),
    [
        pytest.param([hung("a", rack="r1", leaf="l1", pod="p"), hung("b", leaf="l1", pod="p")], [], id="all is well"),
        pytest.param([hung("a"), hung("b", "RJ2")], [], id="nothing is known"),
        pytest.param(
            [hung("a", rack="row12")], [("a", "rack", "there is no rack row12; did you mean row-12?")], id="no rack"
        ),
        pytest.param(
            [hung("a", rack="q1")], [("a", "rack", "rack q1 stands at RJ2, and a at SP4")], id="a rack elsewhere"
        ),
        pytest.param(
            [hung("a", leaf="l1", pod="p"), hung("b", leaf="l1", pod="q")],
            [("b", "leaf", "leaf l1 would be under pod q for b and under p for a")],
            id="a leaf under two pods",
        ),
        pytest.param(
            [hung("a", leaf="l1"), hung("b", "RJ2", leaf="l1")],
            [("b", "leaf", "leaf l1 would be under site RJ2 for b and under SP4 for a")],
            id="a leaf at two sites",
        ),
        pytest.param(
            [hung("a", pod="p"), hung("b", "RJ2", pod="p")],
            [("b", "pod", "pod p would be under site RJ2 for b and under SP4 for a")],
            id="a pod at two sites",
        ),
        pytest.param(
            [hung("c", leaf="l1", pod="p"), hung("b", leaf="l1")],
            [("b", "leaf", "leaf l1 would be under pod unknown for b and under p for c")],
            id="who stays as it is is in the right, whatever its name",
        ),
    ],
)  # fmt: skip
def test_misfits(fleet: list[Hung], expected: list[tuple[str, str, str]]) -> None:
    changed = [one.name for one in fleet if one.name in "ab" and one.name != "a"] or ["a"]
    assert [(one.node, one.part, one.message) for one in misfits(fleet, RACKS, changed)] == expected


def test_what_was_wrong_before_is_not_blamed_on_others() -> None:
    fleet = [hung("a", leaf="l1", pod="p"), hung("b", leaf="l1", pod="q"), hung("c", leaf="l2", pod="p")]
    assert misfits(fleet, RACKS, ["c"]) == ()
