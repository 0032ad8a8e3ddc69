"""Racks and mounts in PostgreSQL: what operators set, and where every node hangs."""

from collections.abc import Mapping
from typing import Any

from baseai.fleet.fabric.mount import Mount
from baseai.fleet.fabric.rack import Rack
from baseai.ground.identity import NodeId, SiteId
from baseai.truth.session import Session, fetch_all

Row = dict[str, Any]


async def load_mounts(session: Session) -> Mapping[NodeId, Mount]:
    """Where every node hangs that hangs anywhere known, in the caller's transaction."""
    racks = {rack.rack_id: rack for rack in map(rack_of, await fetch_all(session, "SELECT * FROM racks"))}
    return {
        NodeId(row["node_id"]): mount_of(row, racks)
        for row in await fetch_all(
            session,
            "SELECT node_id, rack, leaf, pod FROM nodes WHERE rack IS NOT NULL OR leaf IS NOT NULL OR pod IS NOT NULL",
        )
    }


def rack_of(row: Row) -> Rack:
    return Rack(
        rack_id=row["rack_id"],
        site=SiteId(row["site_id"]),
        breaker_watts=row["breaker_watts"],
        derating=row["derating"],
        base_watts=row["base_watts"],
    )


def mount_of(row: Row, racks: Mapping[str, Rack]) -> Mount:
    rack = racks.get(row["rack"]) if row["rack"] is not None else None
    return Mount(
        rack=row["rack"], leaf=row["leaf"], pod=row["pod"], watts=None if rack is None else rack.load_watts
    )
