"""Who is made and who is drained."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseai.serving.crew import Changes, Member, changes_of, wanted_of
from baseai.serving.state import ReplicaState

READY, STARTING, DRAINING = ReplicaState.READY, ReplicaState.STARTING, ReplicaState.DRAINING


def member(name: str, version_no: int = 1, state: ReplicaState = READY, *, leaving: bool = False) -> Member:
    return Member(
        run_id=name, version_no=version_no, state=state, made_s=float(ord(name[-1])), leaving=leaving
    )


def changes(make: dict[int, int] | None = None, drain: tuple[str, ...] = ()) -> Changes:
    return Changes(make=make or {}, drain=drain)


@pytest.mark.parametrize(
    ("members", "wanted", "expected"),
    [
        pytest.param([], {1: 2}, changes({1: 2}), id="what is missing is made"),
        pytest.param([member("a", state=STARTING)], {1: 2}, changes({1: 1}), id="who is on its way counts"),
        pytest.param([member("a", state=DRAINING)], {1: 1}, changes({1: 1}), id="who goes does not count"),
        pytest.param([member("a"), member("b")], {1: 1}, changes(drain=("b",)), id="the youngest goes first"),
        pytest.param(
            [member("a", state=STARTING), member("b")], {1: 1}, changes(drain=("a",)),
            id="who does not answer yet goes before who does",
        ),
        pytest.param([member("a")], {1: 0}, changes(drain=("a",)), id="to rest"),
        pytest.param(
            [member("a", 1), member("b", 2, STARTING)], {2: 1}, changes(),
            id="an old version stays until the new one answers",
        ),
        pytest.param(
            [member("a", 1), member("b", 2)], {2: 1}, changes(drain=("a",)), id="and goes once it does"
        ),
        pytest.param(
            [member("a", 1, STARTING), member("b", 2, STARTING)], {2: 1}, changes(drain=("a",)),
            id="an old one that never answered need not stay",
        ),
        pytest.param([member("a", 1)], {}, changes(drain=("a",)), id="a service that stopped keeps nobody"),
        pytest.param(
            [member("a", leaving=True)], {1: 1}, changes({1: 1}),
            id="whose lease ends stays until another answers",
        ),
        pytest.param(
            [member("a", leaving=True), member("b")], {1: 1}, changes(drain=("a",)), id="and goes then"
        ),
    ],
)  # fmt: skip
def test_changes_of(members: list[Member], wanted: dict[int, int], expected: Changes) -> None:
    assert changes_of(members, wanted) == expected


@pytest.mark.parametrize(
    ("wanted", "candidate", "share", "next_share", "expected"),
    [
        pytest.param(3, None, 0.0, 0.0, {1: 3}, id="one version has them all"),
        pytest.param(4, 2, 0.0, 0.1, {1: 4, 2: 1}, id="a candidate begins beside all of them"),
        pytest.param(4, 2, 0.1, 0.5, {1: 4, 2: 2}, id="it is made ready for its next share"),
        pytest.param(4, 2, 0.5, 1.0, {1: 2, 2: 4}, id="the old version has what it still needs"),
        pytest.param(4, 2, 1.0, 1.0, {1: 1, 2: 4}, id="one stands by while the last step bakes"),
        pytest.param(
            0, 2, 0.0, 0.1, {1: 0, 2: 1}, id="of a service at rest only the candidate has to answer"
        ),
    ],
)
def test_wanted_of(
    wanted: int, candidate: int | None, share: float, next_share: float, expected: dict[int, int]
) -> None:
    assert wanted_of(wanted, current=1, candidate=candidate, share=share, next_share=next_share) == expected


MEMBERS = st.lists(
    st.builds(
        Member,
        run_id=st.uuids().map(str),
        version_no=st.integers(1, 3),
        state=st.sampled_from(ReplicaState),
        made_s=st.floats(0, 100),
        leaving=st.booleans(),
    ),
    unique_by=lambda member: member.run_id,
    max_size=12,
)


@given(MEMBERS, st.dictionaries(st.integers(1, 3), st.integers(0, 5)))
def test_what_was_carried_out_leaves_as_many_as_are_wanted(
    members: list[Member], wanted: dict[int, int]
) -> None:
    done = changes_of(members, wanted)
    left = [one for one in members if one.run_id not in done.drain and one.state in (READY, STARTING)]
    for version_no, count in wanted.items():
        staying = [one for one in left if one.version_no == version_no and not one.leaving]
        assert len(staying) + done.make.get(version_no, 0) == count
        answered = sum(one.state is READY for one in members if one.version_no == version_no)
        answers = sum(one.state is READY for one in left if one.version_no == version_no)
        assert answers >= min(answered, count)
    stays = [
        one for one in members if one.version_no not in wanted and one.state is READY and not one.leaving
    ]
    if any(done.make.get(version_no) for version_no in wanted):
        assert set(stays) <= set(left), "others are to answer first"
