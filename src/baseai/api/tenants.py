"""Routes of tenancy: tenants, projects, keys, secrets."""

import re
from datetime import timedelta
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from baseai.api import schemas as wire
from baseai.api.doors import Doors
from baseai.api.gate import Gate, scope_of
from baseai.ground.fault import Refused
from baseai.tenancy.key import Holder
from baseai.tenancy.role import Deed, Role

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


def routes(doors: Doors, gate: Gate) -> APIRouter:
    """The routes, behind `gate`."""
    router = APIRouter()

    @router.get("/tenants")
    async def tenants(holder: Holder = gate.allowed(Deed.MANAGE_TENANTS)) -> wire.Page:
        return wire.Page(
            items=[wire.TenantView(**row) for row in await doors.tenancy.tenants(scope_of(holder))]
        )

    @router.post("/tenants", status_code=201)
    async def make_tenant(
        request: Request, body: dict[str, str], holder: Holder = gate.allowed(Deed.MANAGE_TENANTS)
    ) -> Response:
        async def make() -> BaseModel:
            return wire.TenantView(**await doors.tenancy.make_tenant(_name(body), actor=holder.name))

        return await gate.once(request, holder, 201, make)

    @router.post("/tenants/{tenant}/projects", status_code=201)
    async def make_project(
        tenant: str, body: dict[str, str], holder: Holder = gate.allowed(Deed.MANAGE_TENANTS)
    ) -> dict[str, Any]:
        return dict(await doors.tenancy.make_project(tenant, _name(body), actor=holder.name))

    @router.get("/keys")
    async def keys(holder: Holder = gate.allowed(Deed.MANAGE_TENANTS)) -> wire.Page:
        return wire.Page(items=[wire.KeyView(**row) for row in await doors.tenancy.keys(scope_of(holder))])

    @router.post("/keys", status_code=201)
    async def make_key(
        request: Request, body: wire.NewKey, holder: Holder = gate.allowed(Deed.MANAGE_TENANTS)
    ) -> Response:
        async def make() -> BaseModel:
            return wire.KeyView(
                **await doors.tenancy.make_key(
                    body.name,
                    Role(body.role),
                    actor=holder.name,
                    tenant=body.tenant,
                    project=body.project,
                    expires_in=None if body.expires_in_s is None else timedelta(seconds=body.expires_in_s),
                    scopes=body.scopes,
                    requests_per_minute=body.requests_per_minute,
                    tokens_per_minute=body.tokens_per_minute,
                )
            )

        return await gate.once(request, holder, 201, make)

    @router.delete("/keys/{key_id}", status_code=204)
    async def revoke_key(key_id: str, holder: Holder = gate.allowed(Deed.MANAGE_TENANTS)) -> None:
        await doors.tenancy.revoke_key(key_id, actor=holder.name)

    @router.get("/secrets")
    async def secrets(holder: Holder = gate.allowed(Deed.MANAGE_SECRETS)) -> wire.Page:
        return wire.Page(
            items=[wire.SecretView(**row) for row in await doors.tenancy.secret_names(scope_of(holder))]
        )

    @router.put("/secrets/{name}")
    async def set_secret(
        name: str, body: dict[str, str], holder: Holder = gate.allowed(Deed.MANAGE_SECRETS)
    ) -> wire.SecretView:
        if "value" not in body:
            raise Refused("a secret needs a value")
        scope = scope_of(holder)
        project = await doors.tenancy.project(scope, holder.tenant_id, body.get("project"))
        row = await doors.tenancy.set_secret(scope, project, name, body["value"])
        return wire.SecretView(**{"project": body.get("project") or "main", **row})

    @router.delete("/secrets/{name}", status_code=204)
    async def remove_secret(
        name: str, project: str | None = None, holder: Holder = gate.allowed(Deed.MANAGE_SECRETS)
    ) -> None:
        scope = scope_of(holder)
        await doors.tenancy.remove_secret(
            scope, await doors.tenancy.project(scope, holder.tenant_id, project), name
        )

    return router


def _name(body: dict[str, str]) -> str:
    name = body.get("name", "")
    if not NAME.fullmatch(name):
        raise Refused(f"{name[:80]!r} is not a name: use 1 to 63 of a-z, 0-9 and -, no - at the beginning")
    return name
