"""Routes of the fleet: nodes, what an operator tells them, tokens to join, what can be leased."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends

from baseai.api import schemas as wire
from baseai.api.doors import Doors
from baseai.api.gate import Gate, scope_of
from baseai.fleet.node import NodeEvent
from baseai.ground.fault import NotFound
from baseai.tenancy.key import Holder
from baseai.tenancy.role import Deed


def routes(doors: Doors, gate: Gate) -> APIRouter:
    """The routes, behind `gate`."""
    router = APIRouter()

    @router.get("/nodes")
    async def nodes(holder: Holder = gate.allowed(Deed.SEE_FLEET)) -> wire.Page:
        return wire.Page(items=[wire.NodeView(**row) for row in await doors.views.nodes(scope_of(holder))])

    @router.get("/nodes/{name}")
    async def node(name: str, holder: Holder = gate.allowed(Deed.SEE_FLEET)) -> dict[str, Any]:
        for row in await doors.views.nodes(scope_of(holder)):
            if name in (row["name"], row["node_id"]):
                devices = await doors.views.accelerators(scope_of(holder), row["node_id"])
                return {
                    **wire.NodeView(**row).model_dump(mode="json"),
                    "accelerators": [
                        {
                            key: one[key]
                            for key in ("accelerator_id", "model", "serial", "device_index", "state", "run_id")
                        }
                        for one in devices
                    ],
                }  # fmt: skip
        raise NotFound("node", name)

    @router.post("/nodes/{name}/declare-dead")
    async def declare_dead(
        name: str, body: wire.Why | None = None, holder: Holder = gate.allowed(Deed.STEER_FLEET)
    ) -> dict[str, Any]:
        """Your word that a silent node's processes are gone: its leases end and its runs may start elsewhere."""
        reason = body.reason if body else None
        return {"released": await doors.engine.declare_dead(name, actor=holder.name, reason=reason)}

    @router.get("/nodes/{name}/figures")
    async def figures(name: str, holder: Holder = gate.allowed(Deed.SEE_FLEET)) -> wire.NodeFigures:
        """What tests of the node measured, against data sheet, fleet and its own past."""
        return wire.NodeFigures.model_validate(await doors.proving.figures_of(scope_of(holder), name))

    @router.post("/nodes/{name}/test", status_code=201)
    async def test(
        name: str, body: wire.NewTest | None = None, holder: Holder = gate.allowed(Deed.STEER_FLEET)
    ) -> wire.Page:
        """Test the node's accelerators. The test yields to customers' runs and is not billed."""
        profile = (body or wire.NewTest()).profile
        asked = await doors.proving.ask(name, profile, actor=holder.name)
        return wire.Page(items=[wire.BurnInView.model_validate(row) for row in asked])

    @router.post("/nodes/{name}/{verb}")
    async def steer(
        name: str, verb: str, body: wire.Why | None = None, holder: Holder = gate.allowed(Deed.STEER_FLEET)
    ) -> wire.NodeView:
        verbs = ("cordon", "uncordon", "drain", "retire", "repair", "verify", "quarantine", "admit")
        if verb not in verbs:
            raise NotFound("verb", f"{verb}: a node is told to {', '.join(verbs)} or declare-dead")
        await doors.fleet.steer(
            name, NodeEvent(verb), actor=holder.name, reason=body.reason if body else None
        )
        for row in await doors.views.nodes(scope_of(holder)):
            if name in (row["name"], row["node_id"]):
                return wire.NodeView(**row)
        raise NotFound("node", name)

    @router.post("/join-tokens", status_code=201)
    async def join_token(
        body: wire.NewToken | None = None, holder: Holder = gate.allowed(Deed.STEER_FLEET)
    ) -> dict[str, Any]:
        site = body.site if body else wire.NewToken().site
        token, expires_at = await doors.tenancy.make_join_token(site, actor=holder.name)
        command = f"baseai agent --join {doors.base_url} --token {token}"
        return {"token": token, "expires_at": expires_at, "join_command": command}

    @router.get("/offers")
    async def offers(holder: Annotated[Holder, Depends(gate.admitted)]) -> dict[str, list[wire.Offer]]:
        return {
            "items": [
                wire.Offer(**row, **doors.money.offer(row["model"])) for row in await doors.views.offers()
            ]
        }

    return router
