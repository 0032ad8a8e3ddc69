"""Routes that the nodes' agents call: join, facts, desired state, report, logs, files."""

import asyncio
import contextlib
import re
import time
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import FileResponse
from starlette.concurrency import run_in_threadpool

from baseai.api import schemas as wire
from baseai.api.doors import Doors
from baseai.api.gate import Gate
from baseai.api.measured import kept, measured_in
from baseai.engine.order import NodeReport, Sighting
from baseai.fleet.fabric.mount import Mount
from baseai.fleet.machine import DeviceFacts, MachineFacts
from baseai.ground.fault import NotFound, Refused
from baseai.ground.identity import NodeId

WAIT_MAX_S = 30.0
DIGEST = re.compile(r"[0-9a-f]{64}")


def routes(doors: Doors, gate: Gate) -> APIRouter:
    """The routes, behind `gate`."""
    router = APIRouter()

    Node = Annotated[NodeId, Depends(gate.node)]  # noqa: N806

    @router.post("/join", status_code=201)
    async def join(body: wire.Join) -> wire.Joined:
        node_id, key = await doors.fleet.join(body.token, _machine(body.facts))
        return wire.Joined(node_id=node_id, node_key=key)

    @router.post("/facts")
    async def facts(body: wire.NodeFacts, node_id: Node) -> dict[str, str]:
        await doors.fleet.learn(node_id, _machine(body))
        if doors.fleet_health is not None:
            await doors.fleet_health.learn_steps(node_id, body.repair_steps)
        return {"node_id": node_id}

    @router.get("/desired")
    async def desired(node_id: Node, version: int = 0, wait_s: float = 25.0) -> wire.Desired:
        left = min(max(0.0, wait_s), WAIT_MAX_S)
        # Listening begins before the look, so that no change falls between the two.
        with doors.bell.heard(node_id) as told:
            while left > 0 and await doors.engine.desired_version(node_id) == version:
                began = time.monotonic()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(told.wait(), left)
                told.clear()
                left -= time.monotonic() - began
        orders = await doors.engine.orders(node_id)
        return wire.Desired(
            version=orders.version,
            node_id=orders.node_id,
            node_state=orders.node_state,
            launches=[wire.Launch.model_validate(order, from_attributes=True) for order in orders.orders],
            repairs=[
                wire.RepairOrder(**order)
                for order in (await doors.fleet_health.orders(node_id) if doors.fleet_health else ())
            ],
        )

    @router.post("/report")
    async def report(body: wire.Report, node_id: Node) -> wire.Reported:
        if abs(body.protocol - wire.PROTOCOL) > 1:
            raise Refused(
                f"this agent speaks protocol {body.protocol} and the server {wire.PROTOCOL}: bring them closer"
            )
        taken = await doors.engine.take(
            node_id,
            NodeReport(
                boot_id=body.boot_id,
                sent_at=body.sent_at,
                alive=tuple((one.lease_id, one.pid) for one in body.alive),
                gone=tuple(body.gone),
                sightings=tuple(Sighting(**one.model_dump()) for one in body.observations),
            ),
        )
        return wire.Reported(
            accepted=list(taken.accepted), refused=taken.refused, desired_version=taken.desired_version
        )

    @router.post("/telemetry")
    async def telemetry(request: Request, node_id: Node) -> wire.Kept:
        """A `Measured`, as JSON, packed with gzip or not."""
        body, odd = await measured_in(request)
        if abs(body.protocol - wire.PROTOCOL) > 1:
            raise Refused(
                f"this agent speaks protocol {body.protocol} and the server {wire.PROTOCOL}: bring them closer"
            )
        return await kept(doors, node_id, body, odd)

    @router.post("/logs/{lease_id}/{stream}")
    async def take_log(
        lease_id: str,
        stream: str,
        request: Request,
        node_id: Node,
        offset: Annotated[int, Query(ge=0)] = 0,
    ) -> wire.LogOffset:
        run_id, attempt_no, node_rank = await doors.engine.log_place(node_id, lease_id)
        chunk = await request.body()
        if len(chunk) > wire.LOG_CHUNK_BYTES:
            raise Refused(f"a piece of a log has at most {wire.LOG_CHUNK_BYTES} bytes")
        end = await run_in_threadpool(doors.logs.append, run_id, attempt_no, node_rank, offset, chunk)
        return wire.LogOffset(next_offset=end)

    @router.get("/files/{digest}")
    async def file(digest: str, node_id: Node) -> Response:
        path = doors.uploads / digest
        if not DIGEST.fullmatch(digest) or not await doors.runs.file_of_node(node_id, digest):
            raise NotFound("file", digest)
        if not path.is_file():
            raise NotFound("file", digest)
        return FileResponse(path, media_type="application/octet-stream")

    return router


def _machine(facts: wire.NodeFacts) -> MachineFacts:
    return MachineFacts(
        name=facts.name,
        address=facts.address,
        isolation=facts.isolation,
        container_runtime=facts.container_runtime,
        cores=facts.cores,
        memory_mib=facts.memory_mib,
        disk_mib=facts.disk_mib,
        devices=tuple(DeviceFacts(**device.model_dump()) for device in facts.devices),
        boot_id=facts.boot_id,
        version=facts.version,
        protocol=facts.protocol,
        mount=Mount(rack=facts.rack or None, leaf=facts.leaf or None, pod=facts.pod or None),
    )
