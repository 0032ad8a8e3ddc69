"""What gateways are told: every service that takes requests, with its versions and the replicas that answer."""

from collections import defaultdict
from typing import Any

from baseai.serving.route import Backend, Route, RoutedVersion, Routes, routes_of
from baseai.tenancy.replica_token import replica_token
from baseai.truth.session import Session, Truth, fetch_all
from baseai.workloads.service import Service
from baseai.workloads.spec import RunSpec

SERVICES = "SELECT * FROM services WHERE state <> 'stopped'"
VERSIONS = """
SELECT v.* FROM service_versions v JOIN services s USING (service_id)
WHERE s.state <> 'stopped' AND v.version_no IN (s.version_no, s.candidate_no)
"""
REPLICAS = """
SELECT * FROM replicas WHERE port IS NOT NULL AND state IN ('ready', 'draining') ORDER BY service_id, run_id
"""


async def load_routes(truth: Truth, replica_key: bytes) -> Routes:
    """All routes, as of one moment. A version that cannot be read is left out, and its service with it.

    replica_key: the engine's own, of what replicas are shown.
    """
    async with truth.transaction(snapshot=True) as session:
        return await routes_in(session, replica_key)


async def routes_in(session: Session, replica_key: bytes) -> Routes:
    """The same, in the caller's transaction."""
    services = await fetch_all(session, SERVICES)
    if not services:
        return routes_of([])
    versions: dict[str, dict[int, Any]] = defaultdict(dict)
    for row in await fetch_all(session, VERSIONS):
        versions[row["service_id"]][row["version_no"]] = row
    backends: dict[str, list[Backend]] = defaultdict(list)
    for row in await fetch_all(session, REPLICAS):
        backends[row["service_id"]].append(
            Backend(
                run_id=row["run_id"],
                version_no=row["version_no"],
                address=row["address"],
                port=row["port"],
                draining=row["state"] == "draining",
                token=replica_token(replica_key, row["run_id"]),
            )
        )
    return routes_of(
        [_route(row, versions[row["service_id"]], tuple(backends[row["service_id"]])) for row in services]
    )


def _route(row: Any, versions: dict[int, Any], backends: tuple[Backend, ...]) -> Route:
    share = row["candidate_share"] if row["candidate_no"] is not None else 0.0
    routed = [_version(versions[row["version_no"]], 1.0 - share)]
    if row["candidate_no"] is not None:
        routed.append(_version(versions[row["candidate_no"]], share))
    return Route(
        service_id=row["service_id"],
        tenant_id=row["tenant_id"],
        project_id=row["project_id"],
        name=row["name"],
        state=row["state"],
        versions=tuple(routed),
        backends=backends,
    )


def _version(row: Any, share: float) -> RoutedVersion:
    work = RunSpec.from_json(row["spec"]).work
    assert isinstance(work, Service)
    return RoutedVersion(version_no=row["version_no"], share=share, digest=row["digest"], terms=work)
