"""Routes of where nodes hang: racks and their breakers, and the rack, leaf and pod of each node."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query, Request

from baseai.api import schemas as wire
from baseai.api.doors import Doors
from baseai.api.gate import Gate, scope_of
from baseai.fleet.fabric.mount import PARTS
from baseai.fleet.fabric.rack import Rack
from baseai.fleet.fabric.rehang import Rehang, part_of, rehangs_in
from baseai.ground.fault import NotFound, Refused
from baseai.ground.identity import NodeId, SiteId
from baseai.scheduling.power import Feed, power_of
from baseai.tenancy.key import Holder
from baseai.tenancy.role import Deed


def routes(doors: Doors, gate: Gate) -> APIRouter:
    """The routes, behind `gate`. They stand before those of nodes, whose verbs would take theirs."""
    router = APIRouter()

    @router.get("/racks")
    async def racks(holder: Holder = gate.allowed(Deed.SEE_FLEET)) -> wire.Page:
        return wire.Page(items=list(await _views(doors)))

    @router.put("/racks/{rack}")
    async def set_rack(
        rack: str, body: wire.NewRack, holder: Holder = gate.allowed(Deed.STEER_FLEET)
    ) -> wire.RackView:
        """Make a rack, or change it."""
        await doors.cabling.set_rack(
            Rack(
                rack_id=rack,
                site=SiteId(body.site),
                breaker_watts=body.breaker_watts,
                derating=body.derating,
                base_watts=body.base_watts,
            ),
            actor=holder.name,
        )
        for view in await _views(doors):
            if view.rack == rack:
                return view
        raise NotFound("rack", rack)

    @router.delete("/racks/{rack}", status_code=204)
    async def remove_rack(rack: str, holder: Holder = gate.allowed(Deed.STEER_FLEET)) -> None:
        await doors.cabling.remove_rack(rack, actor=holder.name)

    @router.post("/nodes/{name}/place")
    async def place(
        name: str, body: wire.NewMount, holder: Holder = gate.allowed(Deed.STEER_FLEET)
    ) -> wire.NodeView:
        """Say where a node hangs. What is not named stays as it is."""
        said = body.model_dump(include=body.model_fields_set)
        parts = {part: None if said[part] is None else part_of(said[part]) for part in PARTS if part in said}
        await doors.cabling.rehang((Rehang(node=name, parts=parts),), actor=holder.name)
        for row in await doors.views.nodes(scope_of(holder)):
            if name in (row["name"], row["node_id"]):
                return wire.NodeView(**row)
        raise NotFound("node", name)

    @router.post("/mounts")
    async def mounts(
        request: Request,
        file: Annotated[str, Query(max_length=200)] = "nodes.csv",
        holder: Holder = gate.allowed(Deed.STEER_FLEET),
    ) -> wire.Rehung:
        """A CSV with the columns node and any of rack, leaf, pod: all of it or nothing. `file` names it in errors."""
        try:
            text = (await request.body()).decode("utf-8")
        except UnicodeDecodeError as wrong:
            raise Refused(
                f"{file} is not UTF-8: byte {wrong.start} is {wrong.object[wrong.start]:#04x}"
            ) from wrong
        changes = rehangs_in(text, file)
        changed = await doors.cabling.rehang(changes, file=file, actor=holder.name)
        return wire.Rehung(nodes=len(changes), changed=changed)

    return router


async def _views(doors: Doors) -> Sequence[wire.RackView]:
    racks, nodes_of, leases = await doors.cabling.racks()
    feeds = [
        Feed(node_id=NodeId(node["node_id"]), rack=rack.rack_id, load_watts=rack.load_watts)
        for rack in racks
        for node in nodes_of[rack.rack_id]
    ]
    power = power_of(feeds, leases, doors.rated_watts)
    return [
        wire.RackView(
            rack=rack.rack_id,
            site=rack.site,
            breaker_watts=rack.breaker_watts,
            derating=rack.derating,
            base_watts=rack.base_watts,
            load_watts=rack.load_watts,
            drawn_watts=power[rack.rack_id].drawn_watts if rack.rack_id in power else 0,
            spare_watts=power[rack.rack_id].spare_watts if rack.rack_id in power else rack.load_watts,
            nodes=[node["name"] for node in nodes_of[rack.rack_id]],
        )
        for rack in racks
    ]
