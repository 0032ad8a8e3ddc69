"""A crew is the replicas of one service: which are to be made and which to be drained, so that what is wanted stands.

Invariant: a replica that answers is spared new requests only when others answer in its place, or when fewer are wanted.
Pure: asked twice about the same crew it says the same. The keeper carries it out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from baseai.serving.rollout import replicas_for
from baseai.serving.state import LIVE, ReplicaState


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One replica that is not gone."""

    run_id: str
    version_no: int
    state: ReplicaState
    made_s: float
    leaving: bool = False  # its lease is about to end, so another takes its place first


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What to do now."""

    make: Mapping[int, int]  # of which version how many
    drain: tuple[str, ...]  # runs


def wanted_of(
    wanted: int, *, current: int, candidate: int | None, share: float, next_share: float
) -> dict[int, int]:
    """How many replicas each version is to have.

    share: of requests, what the candidate takes now; next_share: what it is to take next, for which it is made ready.
    A candidate has at least one, also of a service at rest: it has to answer once before it may take over.
    """
    if candidate is None:
        return {current: wanted}
    ahead = max(share, next_share)
    remains = wanted if share == 0 or not wanted else replicas_for(1.0 - share, wanted)
    return {current: remains, candidate: replicas_for(ahead, wanted)}


def changes_of(members: Sequence[Member], wanted: Mapping[int, int]) -> Changes:
    """Who is missing and who is too many.

    wanted: by version; a version that is not named is to have none. Of those too many, who does not answer yet goes
    first, then the youngest; and who answers stays until the others that are wanted answer.
    """
    make: dict[int, int] = {}
    drain: list[str] = []
    live = [member for member in members if member.state in LIVE]
    ready = {
        version_no: sum(
            member.state is ReplicaState.READY and not member.leaving
            for member in live
            if member.version_no == version_no
        )
        for version_no in wanted
    }
    all_answer = all(ready[version_no] >= count for version_no, count in wanted.items())
    for version_no in sorted({member.version_no for member in live} | set(wanted)):
        count = wanted.get(version_no, 0)
        own = [member for member in live if member.version_no == version_no]
        staying = [member for member in own if not member.leaving]
        if len(staying) < count:
            make[version_no] = count - len(staying)
        drain += [
            member.run_id
            for member in own
            if member.leaving and (ready.get(version_no, 0) >= count or member.state is ReplicaState.STARTING)
        ]
        spare = sorted(
            staying, key=lambda member: (member.state is ReplicaState.READY, -member.made_s, member.run_id)
        )[: max(0, len(staying) - count)]
        drain += [
            member.run_id
            for member in spare
            if member.state is ReplicaState.STARTING or version_no in wanted or all_answer
        ]
    return Changes(make=make, drain=tuple(drain))
