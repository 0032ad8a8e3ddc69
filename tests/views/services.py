"""Rows of services as the platform would have written them: what views, the door and pages read in tests."""

from datetime import datetime, timedelta
from typing import Any

from psycopg.types.json import Jsonb

from baseai.serving.latency import BUCKETS, bucket_of
from baseai.truth.session import Session
from baseai.workloads.spec import spec_of

MAGIKA = """
type: service
name: {name}
model: pkg:magika:models/standard_v3_3/model.onnx
license: Apache-2.0
replicas: 0..4
slo: {{p99_ms: 100}}
resources: {{cpu: 1}}
"""
CHAT = """
type: service
name: {name}
model: run:train-gpt
engine: chat
replicas: 1..2
resources: {{cpu: 1}}
"""


def spec_json(text: str, name: str) -> Jsonb:
    return Jsonb(spec_of(text.format(name=name), "service.yaml", lambda *_: ()).to_json())


def counts(*latencies: tuple[float, int]) -> list[int]:
    """So many requests of each latency in ms, as gateways count them."""
    buckets = [0] * BUCKETS
    for ms, many in latencies:
        buckets[bucket_of(ms)] += many
    return buckets


async def insert(session: Session, table: str, **facts: Any) -> None:
    """One row; the names are a test's own."""
    names = ", ".join(facts)
    places = ", ".join("%s" for _ in facts)
    await session.execute(
        f"INSERT INTO {table} ({names}) VALUES ({places})",  # type: ignore[arg-type]
        tuple(facts.values()),
    )


async def add_service(
    session: Session, tenant_id: str, project_id: str, name: str = "magika", *, text: str = MAGIKA,
    service_id: str | None = None, **facts: Any,
) -> str:  # fmt: skip
    """A service with one current version; its id."""
    service_id = service_id or f"svc_{name}_{tenant_id}"
    owned = {"tenant_id": tenant_id, "project_id": project_id}
    await insert(
        session, "services", service_id=service_id, **owned, name=name, model_name=name, made_by="ana",
        **({"state": "serving", "wanted": 1, "wanted_why": "1.2 requests under way, 4 a replica"} | facts),
    )  # fmt: skip
    await add_version(session, service_id, tenant_id, project_id, 1, name=name, text=text)
    return service_id


async def add_version(
    session: Session, service_id: str, tenant_id: str, project_id: str, version_no: int, *, name: str = "magika",
    text: str = MAGIKA, state: str = "current", **facts: Any,
) -> None:  # fmt: skip
    await insert(
        session, "service_versions", service_id=service_id, version_no=version_no, tenant_id=tenant_id,
        project_id=project_id, spec=spec_json(text, name), digest=f"{version_no:064x}", state=state, made_by="ana",
        **facts,
    )  # fmt: skip


async def add_replica(
    session: Session, service_id: str, run_id: str, *, version_no: int = 1, state: str = "ready", **facts: Any
) -> None:
    """A replica with its run."""
    await session.execute(
        "INSERT INTO runs (run_id, tenant_id, project_id, name, kind, spec, priority, state, submitted_by, service_id,"
        " version_no, attempt_no) SELECT %s, s.tenant_id, s.project_id, s.name || '-' || right(%s, 4), 'service',"
        " v.spec, 50, %s, 'platform', s.service_id, v.version_no, 1 FROM services s JOIN service_versions v"
        " USING (service_id) WHERE s.service_id = %s AND v.version_no = %s",
        (run_id, run_id, "running" if state in ("ready", "draining") else "queued", service_id, version_no),
    )
    known = {"address": "127.0.0.1", "port": 9000} if state in ("ready", "draining") else {}
    names = "".join(f", {name}" for name in known | facts)
    await session.execute(
        "INSERT INTO replicas (run_id, service_id, version_no, tenant_id, project_id, state"  # type: ignore[arg-type]
        f"{names}) SELECT %s, service_id, %s, tenant_id, project_id, %s{', %s' * len(known | facts)}"
        " FROM services WHERE service_id = %s",
        (run_id, version_no, state, *(known | facts).values(), service_id),
    )


async def add_traffic(
    session: Session, service_id: str, from_at: datetime, *latencies: tuple[float, int], version_no: int = 1,
    gateway: str = "g1", **facts: Any,
) -> None:  # fmt: skip
    """Ten seconds of one gateway; as many requests as latencies, unless said otherwise."""
    requests = sum(many for _, many in latencies)
    nothing = dict.fromkeys(
        ("errors", "refused", "slow", "cache_hits", "collapsed", "retried", "lost", "tokens_in", "tokens_out",
         "bytes_in", "bytes_out"), 0,
    )  # fmt: skip
    known = {
        "requests": requests, **nothing, "latency": counts(*latencies), "first_byte": counts(*latencies)
    } | facts  # fmt: skip
    names = "".join(f", {name}" for name in known)
    await session.execute(
        "INSERT INTO service_traffic (service_id, tenant_id, project_id, version_no, gateway, from_at"  # type: ignore[arg-type]
        f"{names}) SELECT service_id, tenant_id, project_id, %s, %s, %s{', %s' * len(known)} FROM services"
        " WHERE service_id = %s",
        (version_no, gateway, from_at, *known.values(), service_id),
    )


def whole_tens(at: datetime) -> datetime:
    """The beginning of the ten seconds in which an instant lies."""
    return at - timedelta(seconds=at.second % 10, microseconds=at.microsecond)
