"""Racks and mounts on a real PostgreSQL: all of a change or nothing, and no rack that its nodes do not stand at."""

from decimal import Decimal

import pytest

from baseai.fleet.fabric.mount import Mount
from baseai.fleet.fabric.postgres import Cabling, load_mounts
from baseai.fleet.fabric.rack import Rack
from baseai.fleet.fabric.rehang import BadFile, Rehang, rehangs_in
from baseai.fleet.machine import DeviceFacts, MachineFacts
from baseai.fleet.node import NodeEvent
from baseai.fleet.postgres import Fleet
from baseai.ground.fault import Conflict, NotFound, Refused
from baseai.ground.identity import NodeId, SiteId
from baseai.tenancy.postgres import Tenancy
from baseai.truth.session import Truth, fetch_all

pytestmark = pytest.mark.anyio


class Room:
    """A fleet of nodes that say where they hang, and its cabling."""

    def __init__(self, truth: Truth) -> None:
        self.truth = truth
        self.tenancy = Tenancy(truth, pepper=b"p" * 32, master=b"m" * 32)
        self.cabling = Cabling(truth)
        self.fleet = Fleet(truth, self.tenancy, lambda model: None, self.cabling)

    def facts(self, name: str, mount: Mount | None = None) -> MachineFacts:
        return MachineFacts(
            name=name, address="127.0.0.1", isolation="user", container_runtime=None, cores=8, memory_mib=1024,
            disk_mib=1024, boot_id="boot", version="1", protocol=1, mount=mount or Mount(),
            devices=(DeviceFacts(serial=f"{name}/0", model="cpu-slot", index=0, memory_mib=0),),
        )  # fmt: skip

    async def join(self, name: str, site: str = "SP4", mount: Mount | None = None) -> NodeId:
        token, _ = await self.tenancy.make_join_token(site, actor="test")
        return (await self.fleet.join(token, self.facts(name, mount)))[0]

    async def rack(self, rack_id: str, site: str = "SP4", breaker_watts: int = 10_000) -> None:
        rack = Rack(rack_id=rack_id, site=SiteId(site), breaker_watts=breaker_watts, derating=Decimal("0.8"))
        await self.cabling.set_rack(rack, actor="op")

    async def place(self, node: str, **parts: str | None) -> int:
        return await self.cabling.rehang((Rehang(node=node, parts=parts),), actor="op")  # type: ignore[arg-type]

    async def mounts(self) -> dict[str, Mount]:
        async with self.truth.transaction() as session:
            names = {
                row["node_id"]: row["name"]
                for row in await fetch_all(session, "SELECT node_id, name FROM nodes")
            }
            return {names[node_id]: mount for node_id, mount in (await load_mounts(session)).items()}

    async def history(self) -> list[tuple[str, str]]:
        async with self.truth.transaction() as session:
            rows = await fetch_all(
                session, "SELECT actor, sentence FROM events WHERE event = 'hung' ORDER BY event_no"
            )
        return [(row["actor"], row["sentence"]) for row in rows]


@pytest.fixture
async def room(truth: Truth) -> Room:
    """Two nodes at SP4 and one at RJ2, and a rack at SP4."""
    one = Room(truth)
    for name, site in (("a", "SP4"), ("b", "SP4"), ("c", "RJ2")):
        await one.join(name, site)
    await one.rack("r1")
    return one


async def test_a_node_is_hung_part_by_part_and_taken_off(room: Room) -> None:
    assert await room.place("a", rack="r1", leaf="l1") == 1
    assert await room.place("a", pod="p1") == 1
    assert await room.place("a", pod="p1") == 0
    assert await room.mounts() == {"a": Mount(rack="r1", leaf="l1", pod="p1", watts=8000)}
    await room.place("a", rack=None, leaf=None, pod=None)
    assert await room.mounts() == {}
    assert (await room.history())[:2] == [
        ("op", "rack r1, leaf l1, pod unknown"),
        ("op", "rack r1, leaf l1, pod p1"),
    ]


async def test_a_file_is_taken_whole_or_not_at_all(room: Room) -> None:
    text = "pod,node,rack\np1,a,r1\np1,zz,r1\np1,c,r1\np1,b,r9\n"
    with pytest.raises(BadFile) as refused:
        await room.cabling.rehang(rehangs_in(text, "n.csv"), file="n.csv", actor="op")
    told = [(one.line, one.column, one.message) for one in refused.value.errors]
    assert [place[:2] for place in told] == [(3, 2), (4, 1), (4, 3), (5, 3)]
    assert told[0][2] == "there is no node zz"
    assert told[2][2] == "rack r1 stands at SP4, and c at RJ2"
    assert await room.mounts() == {}
    changed = await room.cabling.rehang(
        rehangs_in("node,leaf\na,l1\nb,l1\n", "n.csv"), file="n.csv", actor="op"
    )
    assert (changed, set(await room.mounts())) == (2, {"a", "b"})


async def test_one_node_that_cannot_hang_there_is_told_in_a_sentence(room: Room) -> None:
    with pytest.raises(NotFound):
        await room.place("zz", leaf="l1")
    with pytest.raises(Refused, match="there is no rack r7; `baseai rack set r7 --site SP4"):
        await room.place("a", rack="r7")
    await room.place("a", leaf="l1", pod="p1")
    with pytest.raises(Refused, match="leaf l1 would be under pod p2 for b and under p1 for a"):
        await room.place("b", leaf="l1", pod="p2")


async def test_a_rack_is_set_again_and_removed_once_it_is_empty(room: Room) -> None:
    await room.place("a", rack="r1")
    await room.rack("r1", breaker_watts=20_000)
    assert (await room.mounts())["a"].watts == 16_000
    with pytest.raises(Conflict, match="another site hang in rack r1: a"):
        await room.rack("r1", "RJ2")
    with pytest.raises(Conflict, match="nodes hang in rack r1: a"):
        await room.cabling.remove_rack("r1", actor="op")
    await room.place("a", rack=None)
    await room.cabling.remove_rack("r1", actor="op")
    with pytest.raises(NotFound):
        await room.cabling.remove_rack("r1", actor="op")
    with pytest.raises(Refused, match="no site XX is known here"):
        await room.rack("r2", "XX")
    with pytest.raises(Refused, match="is no name of a rack"):
        await room.rack("r 2")


async def test_a_node_that_was_retired_holds_no_rack_back(room: Room) -> None:
    await room.place("a", rack="r1")
    await room.fleet.steer("a", NodeEvent.RETIRE, actor="op", reason=None)
    await room.cabling.remove_rack("r1", actor="op")


async def test_a_node_says_where_it_hangs_as_it_joins(room: Room) -> None:
    await room.join("d", mount=Mount(rack="r1", leaf="l4", pod="p1"))
    assert (await room.mounts())["d"] == Mount(rack="r1", leaf="l4", pod="p1", watts=8000)
    with pytest.raises(Refused, match="e cannot hang there: there is no rack r8"):
        await room.join("e", mount=Mount(rack="r8"))
    assert "e" not in await room.mounts()


async def test_an_operators_word_goes_before_the_nodes_own(room: Room) -> None:
    node_id = await room.join("d", mount=Mount(leaf="l4"))
    await room.place("d", leaf="l5")
    await room.fleet.learn(node_id, room.facts("d", Mount(leaf="l4", pod="p1")))
    assert (await room.mounts())["d"] == Mount(leaf="l5", pod="p1")


async def test_a_node_that_is_here_is_not_kept_out_for_what_it_says(
    room: Room, caplog: pytest.LogCaptureFixture
) -> None:
    node_id = await room.join("d")
    await room.fleet.learn(node_id, room.facts("d", Mount(rack="r8")))
    assert "d" not in await room.mounts()
    assert "there is no rack r8" in caplog.text


async def test_racks_come_with_their_nodes_and_leases(room: Room) -> None:
    await room.place("a", rack="r1")
    racks, nodes, leases = await room.cabling.racks()
    assert [(rack.rack_id, rack.load_watts) for rack in racks] == [("r1", 8000)]
    assert [node["name"] for node in nodes["r1"]] == ["a"]
    assert leases == []
