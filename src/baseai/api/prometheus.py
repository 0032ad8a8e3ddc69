"""Routes for a Prometheus: `/metrics`, which it reads, and `/api/v1/write`, which it writes to."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request, Response
from starlette.concurrency import run_in_threadpool

from baseai.api.doors import Doors
from baseai.api.gate import Gate, scope_of
from baseai.ground.clock import now_utc
from baseai.ground.fault import Refused
from baseai.telemetry.expose import OPEN_METRICS, TEXT, Exposed, Gauge, text_of, wants_open_metrics
from baseai.telemetry.field import ACCELERATOR, NODE
from baseai.telemetry.remote_write import WriteReader, unpacked
from baseai.telemetry.store import Latest, StoreAway
from baseai.tenancy.key import Holder, NotAllowed
from baseai.tenancy.role import Deed, may
from baseai.truth.session import Scope

FRESH_MS = 120_000  # older rows are not of now
READ_FIRST = ("snappy", "")


def metrics_routes(doors: Doors, gate: Gate, counted: "Counter[str]") -> APIRouter:
    """`/metrics`. It shows serials and runs, so it takes a key that may see the fleet, as every route does."""
    router = APIRouter()

    @router.get("/metrics", include_in_schema=False)
    async def metrics(
        accept: Annotated[str, Header()] = "", holder: Holder = gate.allowed(Deed.SEE_FLEET)
    ) -> Response:
        exposed = await _exposed(doors, scope_of(holder), counted)
        since_ms = round(now_utc().timestamp() * 1000) - FRESH_MS
        open_metrics = wants_open_metrics(accept)
        text = await run_in_threadpool(text_of, exposed, since_ms=since_ms, open_metrics=open_metrics)
        return Response(text, media_type=OPEN_METRICS if open_metrics else TEXT)

    return router


def write_routes(doors: Doors, gate: Gate, counted: "Counter[str]") -> APIRouter:
    """`/write`. A node's key writes of its node's accelerators, an operator's of all; what is not known is counted."""
    router = APIRouter()
    reader = WriteReader()

    @router.post("/write")
    async def write(
        request: Request,
        holder: Annotated[Holder, Depends(gate.anybody)],
        content_encoding: Annotated[str, Header()] = "",
    ) -> dict[str, Any]:
        if holder.node_id is None and not may(holder.role, Deed.STEER_FLEET):
            raise NotAllowed(holder.role.value, "write samples")
        if content_encoding.lower() not in READ_FIRST:
            raise Refused(
                f"a body in {content_encoding[:40]!r} cannot be read: remote write 1.0 comes as snappy"
            )
        body = await request.body()
        scrape = await run_in_threadpool(lambda: reader.read(unpacked(body)))
        written = await doors.telemetry.receive(
            scrape, body_digest=hashlib.sha256(body).hexdigest(), node_id=holder.node_id
        )
        counted["known"] += written.samples - written.samples_unknown
        counted["unknown metric"] += written.samples_unknown
        counted["unknown device"] += len(written.devices_unknown)
        return {
            "samples": written.samples,
            "rows_kept": written.rows,
            "rows_refused": written.rows_refused,
            "samples_unknown": written.samples_unknown,
            "devices_unknown": list(written.devices_unknown),
        }

    return router


async def _exposed(doors: Doors, scope: Scope, counted: Mapping[str, int]) -> Exposed:
    latest: list[Latest] = []
    try:
        latest = [await doors.metrics.latest(family) for family in (ACCELERATOR, NODE)]
    except StoreAway:
        pass  # told by the gauge below; what the platform itself knows is told all the same
    installed = await doors.views.installed(scope)
    nodes = await doors.views.nodes(scope)
    counts = await doors.views.run_counts(scope)
    collectors = await doors.uses.all_collectors(scope)
    reckoning = await doors.uses.reckoning(scope)
    judged = await doors.fleet_health.nodes_health(scope) if doors.fleet_health is not None else ()
    evidence = [
        {"node": node, "serial": serial, "rule": rule, "severity": severity, "action": action}
        for node, serial, rule, severity, action in sorted(
            {
                (row["node"], each["serial"] or "", each["rule"], each["severity"], each["action"])
                for row in judged
                for each in row["evidence"]
            }
        )
    ]
    devices = {
        row["serial"]: {
            "serial": row["serial"], "model": row["model"], "node": row["node"], "site": row["site"],
            "run": row["run_id"] or "",
        }
        for row in installed
    }  # fmt: skip
    return Exposed(
        latest=latest,
        labels={
            ACCELERATOR.name: devices,
            NODE.name: {row["node_id"]: {"node": row["name"], "site": row["site"]} for row in nodes},
        },
        gauges=[
            Gauge(
                name="baseai_metric_store_up",
                meaning="1 while the process that keeps samples answers",
                values=[({}, float(bool(latest)))],
            ),
            Gauge(
                name="baseai_runs",
                meaning="runs that have not ended, by state; queued is the length of the queue",
                values=[({"state": state}, float(count)) for state, count in sorted(counts.items())],
            ),
            Gauge(
                name="baseai_node_reachable",
                meaning="1 while the node's agent speaks",
                values=[
                    (
                        {"node": row["name"], "site": row["site"], "state": row["state"], "health": row["health"]},
                        float(row["reachable"]),
                    )
                    for row in nodes
                ],
            ),
            Gauge(
                name="baseai_accelerators",
                meaning="accelerators in service, by whether somebody holds them",
                values=[
                    ({"model": model, "site": site, "held": held}, float(count))
                    for (model, site, held), count in sorted(
                        Counter((r["model"], r["site"], str(bool(r["run_id"])).lower()) for r in installed).items()
                    )
                ],
            ),
            Gauge(
                name="baseai_evidence",
                meaning="1 for each rule of health that evidence against a node or accelerator falls under",
                values=[(labels, 1.0) for labels in evidence],
            ),
            Gauge(
                name="baseai_collector_ok",
                meaning="1 while the collector reads its source",
                values=[
                    ({"node": row["node"], "collector": row["name"]}, float(row["state"] == "ok"))
                    for row in collectors
                    if row["state"] != "off"
                ],
            ),
            Gauge(
                name="baseai_use_hours",
                meaning="hours of accelerators closed within 7 days: all, those checked against the store's own sums,"
                " and those that do not add up (astray, apart)",
                values=[
                    ({"which": which}, float(reckoning[which])) for which in ("hours", "checked", "astray", "apart")
                ],
            ),
            Gauge(
                name="baseai_remote_write_samples",
                meaning="samples that came by remote write, by what became of them",
                values=[({"result": result}, float(count)) for result, count in sorted(counted.items())],
                counter=True,
            ),
        ],
    )  # fmt: skip
