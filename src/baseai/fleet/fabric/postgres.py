"""Racks and mounts in PostgreSQL: what operators set, what nodes say of themselves, and where every node hangs."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from baseai.fleet.fabric.mount import Hung, Mount, misfits
from baseai.fleet.fabric.rack import Rack, checked
from baseai.fleet.fabric.rehang import NAME, BadFile, Rehang
from baseai.ground.fault import Conflict, NotFound, Refused
from baseai.ground.identity import NodeId, SiteId
from baseai.truth.history import record
from baseai.truth.session import Scope, Session, Truth, fetch_all, fetch_one

log = logging.getLogger(__name__)

LOCK = 0x6861_6E67  # "hang": what hangs where is changed by one at a time, so that it is looked at as a whole
Row = dict[str, Any]


class Cabling:
    """What hangs where. Every change is checked against the whole fleet, and none is half done."""

    def __init__(self, truth: Truth) -> None:
        self._truth = truth

    async def racks(
        self,
    ) -> tuple[Sequence[Rack], Mapping[str, Sequence[Row]], Sequence[tuple[NodeId, str, int]]]:
        """Racks by name; the nodes of each (node_id, name); what is leased in them (node, model, accelerators)."""
        async with self._truth.transaction() as session:
            racks = await fetch_all(session, "SELECT * FROM racks ORDER BY rack_id")
            nodes = await fetch_all(
                session,
                "SELECT node_id, name, rack FROM nodes WHERE rack IS NOT NULL AND state <> 'retired' ORDER BY name",
            )
            leases = await fetch_all(
                session,
                "SELECT l.node_id, l.model, count(*) AS held FROM leases l JOIN lease_accelerators USING (lease_id)"
                " JOIN nodes n USING (node_id) WHERE l.state <> 'released' AND n.rack IS NOT NULL GROUP BY 1, 2",
            )
        by_rack: dict[str, list[Row]] = {row["rack_id"]: [] for row in racks}
        for node in nodes:
            by_rack[node["rack"]].append(node)
        held = [(NodeId(row["node_id"]), str(row["model"]), int(row["held"])) for row in leases]
        return [_rack(row) for row in racks], by_rack, held

    async def set_rack(self, rack: Rack, *, actor: str) -> None:
        """Make a rack, or change what is said of one. Raises Refused; Conflict where it would leave its nodes' site."""
        if not NAME.fullmatch(rack.rack_id):
            raise Refused(
                f"{rack.rack_id[:80]!r} is no name of a rack: use 1 to 100 of A-Z, a-z, 0-9, . _ and -"
            )
        checked(rack)
        async with self._truth.transaction(Scope(tenant_id=None, actor=actor)) as session:
            await _alone(session)
            if await fetch_one(session, "SELECT FROM sites WHERE site_id = %s", (rack.site,)) is None:
                sites = await fetch_all(session, "SELECT site_id FROM sites ORDER BY 1")
                known = (
                    ", ".join(row["site_id"] for row in sites) or "none; a site begins with its first node"
                )
                raise Refused(f"rack {rack.rack_id}: no site {rack.site} is known here ({known})")
            await _forget_retired(session, rack.rack_id)
            away = await fetch_one(
                session,
                "SELECT string_agg(name, ', ' ORDER BY name) AS names FROM nodes WHERE rack = %s AND site_id <> %s",
                (rack.rack_id, rack.site),
            )
            if away is not None and away["names"]:
                raise Conflict(
                    f"nodes of another site hang in rack {rack.rack_id}: {away['names']}; take them off first"
                )
            await session.execute(
                "INSERT INTO racks (rack_id, site_id, breaker_watts, derating, base_watts) VALUES (%s, %s, %s, %s, %s)"
                " ON CONFLICT (rack_id) DO UPDATE SET (site_id, breaker_watts, derating, base_watts)"
                " = (excluded.site_id, excluded.breaker_watts, excluded.derating, excluded.base_watts)",
                (rack.rack_id, rack.site, rack.breaker_watts, rack.derating, rack.base_watts),
            )
            await record(
                session, "rack", rack.rack_id, "set", actor=actor,
                sentence=f"{rack.breaker_watts} W at {rack.site}, of which runs may draw {rack.load_watts} W",
            )  # fmt: skip

    async def remove_rack(self, rack_id: str, *, actor: str) -> None:
        """Raises NotFound; Conflict while nodes hang in it."""
        async with self._truth.transaction(Scope(tenant_id=None, actor=actor)) as session:
            await _alone(session)
            await _forget_retired(session, rack_id)
            held = await fetch_one(
                session,
                "SELECT string_agg(name, ', ' ORDER BY name) AS names FROM nodes WHERE rack = %s",
                (rack_id,),
            )
            if held is not None and held["names"]:
                raise Conflict(f"nodes hang in rack {rack_id}: {held['names']}; take them off first")
            gone = await session.execute("DELETE FROM racks WHERE rack_id = %s", (rack_id,))
            if gone.rowcount == 0:
                raise NotFound("rack", rack_id)
            await record(session, "rack", rack_id, "removed", actor=actor)

    async def rehang(self, changes: Sequence[Rehang], *, file: str | None = None, actor: str) -> int:
        """Hang these nodes so, all of them or none; how many of them hang otherwise than before.

        file: that says so; then everything that cannot be is told by its lines (BadFile), else in a sentence (NotFound,
        Refused).
        """
        async with self._truth.transaction(Scope(tenant_id=None, actor=actor)) as session:
            await _alone(session)
            fleet = await _fleet(session)
            named = {name: row["name"] for row in fleet for name in (row["node_id"], row["name"])}
            asked = {named[change.node]: change for change in changes if change.node in named}
            after = {row["name"]: _hung(row, asked.get(row["name"])) for row in fleet}
            unknown = [change for change in changes if change.node not in named]
            wrong = misfits(after.values(), await _sites_of_racks(session), asked)
            if file is None and unknown:
                raise NotFound("node", unknown[0].node)
            if file is None and wrong:
                raise Refused(f"{wrong[0].message}; {wrong[0].fix}")
            if unknown or wrong:
                strangers = [
                    one.wrong("node", f"there is no node {one.node}", "`baseai node list` names them")
                    for one in unknown
                ]
                raise BadFile(file or "", (*strangers, *(asked[one.node].misfit(one) for one in wrong)))
            moved = [row for row in fleet if after[row["name"]].mount != _mount(row)]
            for row in moved:
                await _write(session, row, after[row["name"]].mount, actor)
            return len(moved)

    async def heed(self, session: Session, node_id: NodeId, said: Mount, *, joining: bool) -> None:
        """Take over what a node says of where it hangs, for what nobody has said, in the caller's transaction.

        joining: what cannot be is refused. A node that is here already is not kept out for it: its word is passed over
        and logged.
        """
        if said == Mount():
            return
        await _alone(session)
        fleet = await _fleet(session)
        row = next(row for row in fleet if row["node_id"] == node_id)
        known = _mount(row)
        mount = Mount(rack=known.rack or said.rack, leaf=known.leaf or said.leaf, pod=known.pod or said.pod)
        if mount == known:
            return
        change = Rehang(node=row["name"], parts={"rack": mount.rack, "leaf": mount.leaf, "pod": mount.pod})
        after = [_hung(one, change if one is row else None) for one in fleet]
        wrong = misfits(after, await _sites_of_racks(session), (row["name"],))
        if wrong and joining:
            raise Refused(f"{row['name']} cannot hang there: {wrong[0].message}; {wrong[0].fix}")
        if wrong:
            log.warning("%s says where it hangs, and it cannot: %s", row["name"], wrong[0].message)
            return
        await _write(session, row, mount, f"node {row['name']}")


async def load_mounts(session: Session) -> Mapping[NodeId, Mount]:
    """Where every node hangs that hangs anywhere known, in the caller's transaction."""
    racks = {row["rack_id"]: _rack(row).load_watts for row in await fetch_all(session, "SELECT * FROM racks")}
    return {
        NodeId(row["node_id"]): Mount(
            rack=row["rack"], leaf=row["leaf"], pod=row["pod"], watts=racks.get(row["rack"])
        )
        for row in await fetch_all(
            session,
            "SELECT node_id, rack, leaf, pod FROM nodes WHERE rack IS NOT NULL OR leaf IS NOT NULL OR pod IS NOT NULL",
        )
    }


async def _alone(session: Session) -> None:
    await session.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))


async def _forget_retired(session: Session, rack_id: str) -> None:
    """A node that is gone for good hangs nowhere once its rack changes."""
    await session.execute("UPDATE nodes SET rack = NULL WHERE rack = %s AND state = 'retired'", (rack_id,))


async def _fleet(session: Session) -> Sequence[Row]:
    return await fetch_all(
        session,
        "SELECT node_id, name, site_id, rack, leaf, pod FROM nodes WHERE state <> 'retired' ORDER BY name",
    )


async def _sites_of_racks(session: Session) -> Mapping[str, str]:
    return {
        row["rack_id"]: row["site_id"]
        for row in await fetch_all(session, "SELECT rack_id, site_id FROM racks")
    }


async def _write(session: Session, row: Row, mount: Mount, actor: str) -> None:
    await session.execute(
        "UPDATE nodes SET rack = %s, leaf = %s, pod = %s WHERE node_id = %s",
        (mount.rack, mount.leaf, mount.pod, row["node_id"]),
    )
    where = ", ".join(
        f"{part} {name or 'unknown'}"
        for part, name in (("rack", mount.rack), ("leaf", mount.leaf), ("pod", mount.pod))
    )
    await record(session, "node", row["node_id"], "hung", actor=actor, sentence=where)


def _hung(row: Row, change: Rehang | None) -> Hung:
    mount = _mount(row)
    return Hung(name=row["name"], site=row["site_id"], mount=mount if change is None else change.of(mount))


def _mount(row: Row) -> Mount:
    return Mount(rack=row["rack"], leaf=row["leaf"], pod=row["pod"])


def _rack(row: Row) -> Rack:
    return Rack(
        rack_id=row["rack_id"],
        site=SiteId(row["site_id"]),
        breaker_watts=row["breaker_watts"],
        derating=row["derating"],
        base_watts=row["base_watts"],
    )
