"""A route is one service as a gateway sees it: who may call it, which replicas answer, and on what terms.

Invariant: a gateway decides from routes alone and never asks a replica what it is; it goes on with the routes it has
while the database is away. Read by `postgres`; replaced as a whole, never edited.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from baseai.workloads.service import Service

ServiceState = Literal["idle", "starting", "serving", "failing", "stopped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """One replica that can be sent requests, or is just being spared them."""

    run_id: str  # of the replica: what a usage and a log line name
    version_no: int
    address: str
    port: int
    draining: bool  # what it has it finishes; it gets nothing new
    # What it is shown, so that it answers; None: it is one that asks for nothing.
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutedVersion:
    """One version that takes part of the requests."""

    version_no: int
    share: float  # of requests, 0 to 1; the shares of a route's versions sum to 1
    digest: str  # of the model and the spec: equal answers may be expected of equal digests
    terms: Service


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One service."""

    service_id: str
    tenant_id: str
    project_id: str
    name: str
    state: ServiceState
    versions: tuple[RoutedVersion, ...]  # the current one first; never empty
    backends: tuple[Backend, ...]

    @property
    def terms(self) -> Service:
        """Of the current version."""
        return self.versions[0].terms


@dataclass(frozen=True, slots=True, kw_only=True)
class Routes:
    """All that a gateway knows of services at one moment."""

    by_id: Mapping[str, Route]
    by_model: Mapping[
        tuple[str, str], str
    ]  # (tenant_id, model name clients say, or service name) -> service_id

    def named(self, tenant_id: str | None, model: str) -> Route | None:
        """The tenant's service of that model name; for the platform's own keys (None) the only one of that name."""
        if tenant_id is not None:
            service_id = self.by_model.get((tenant_id, model))
        else:
            found = {one for (_, name), one in self.by_model.items() if name == model}
            service_id = found.pop() if len(found) == 1 else None
        return None if service_id is None else self.by_id.get(service_id)


def routes_of(routes: list[Route]) -> Routes:
    """Indexed; where two services of a tenant answer to one name, the one called so wins, then the older id."""
    by_model: dict[tuple[str, str], str] = {}
    for route in sorted(routes, key=lambda route: route.service_id):
        by_model.setdefault((route.tenant_id, route.terms.model_name), route.service_id)
    for route in sorted(routes, key=lambda route: route.service_id, reverse=True):
        by_model[route.tenant_id, route.name] = route.service_id
    return Routes(by_id={route.service_id: route for route in routes}, by_model=by_model)
