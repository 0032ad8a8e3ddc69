"""Routes about the platform itself: is it there, who am I, sign me in."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends

import baseai
from baseai.api.doors import Doors
from baseai.api.gate import Gate
from baseai.tenancy.key import Holder


def routes(doors: Doors, gate: Gate) -> APIRouter:
    """The routes, behind `gate`."""
    router = APIRouter()

    @router.get("/health")
    async def health() -> dict[str, Any]:
        return {"status": "ok", "version": baseai.__version__, **await doors.health()}

    @router.get("/me")
    async def me(holder: Annotated[Holder, Depends(gate.admitted)]) -> dict[str, Any]:
        return {
            "name": holder.name,
            "role": holder.role.value,
            "tenant": holder.tenant_id,
            "key_id": holder.key_id,
        }

    @router.post("/sign-in-links", status_code=201)
    async def make_link(holder: Annotated[Holder, Depends(gate.admitted)]) -> dict[str, str]:
        """A link that signs one browser in as this key's holder, once, within ten minutes."""
        token = await doors.tenancy.make_link(holder.key_id)
        return {"url": f"{doors.base_url}/sign-in/{token}"}

    return router
