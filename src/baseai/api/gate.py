"""The gate is where a request becomes somebody's: whose key it shows, what that role may do, and what was asked before.

Invariant: every route but `/health` and joining stands behind it; a node's key speaks for its node and for nobody else.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Any
from weakref import WeakValueDictionary

from fastapi import Depends, Header, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from baseai.api.doors import Doors
from baseai.ground.fault import Refused
from baseai.ground.identity import NodeId
from baseai.tenancy.key import Holder, NotAdmitted, NotAllowed, OutOfScope
from baseai.tenancy.role import Deed, may
from baseai.truth.session import Scope


class Gate:
    """Who is let in, to do what, once."""

    def __init__(self, doors: Doors) -> None:
        self._doors = doors
        self._answering: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    async def anybody(self, authorization: Annotated[str | None, Header()] = None) -> Holder:
        """The holder of any key, a person's or a node's. Raises NotAdmitted, OutOfScope for a key with scopes."""
        kind, _, text = (authorization or "").partition(" ")
        if kind.lower() != "bearer" or not text:
            raise NotAdmitted
        holder = await self._doors.tenancy.holder(text.strip())
        if holder.scopes is not None:  # every scope there is narrows a key to calling models, at the gateway
            raise OutOfScope(holder.scopes)
        return holder

    async def admitted(self, authorization: Annotated[str | None, Header()] = None) -> Holder:
        """The holder of a person's key. Raises NotAdmitted, NotAllowed for a node's."""
        holder = await self.anybody(authorization)
        if holder.node_id is not None:  # it speaks as its node, and for nobody
            raise NotAllowed(holder.role.value, "do anything but report as its node")
        return holder

    async def node(self, authorization: Annotated[str | None, Header()] = None) -> NodeId:
        """The node that a node's key speaks for."""
        holder = await self.anybody(authorization)
        if holder.node_id is None:
            raise NotAllowed(holder.role.value, Deed.REPORT_AS_NODE.value)
        return holder.node_id

    def allowed(self, deed: Deed) -> Any:
        """A dependency: the holder, whose role covers `deed`."""

        async def check(holder: Annotated[Holder, Depends(self.admitted)]) -> Holder:
            if not may(holder.role, deed):
                raise NotAllowed(holder.role.value, deed.value)
            return holder

        return Depends(check)

    async def once(
        self, request: Request, holder: Holder, status: int, make: Callable[[], Awaitable[BaseModel]]
    ) -> Response:
        """Do it once for one Idempotency-Key; the repeated request gets the first answer, less any secret."""
        key = request.headers.get("idempotency-key")
        if key is None:
            return Response((await make()).model_dump_json(), status, media_type="application/json")
        if not 1 <= len(key) <= 255:
            raise Refused("an Idempotency-Key has 1 to 255 characters")
        body = request.url.path.encode() + b"\n" + await request.body()
        runs = self._doors.runs
        # The repeat may come while the first is still answered.
        async with self._answering.setdefault((holder.key_id, key), asyncio.Lock()):
            earlier = await runs.earlier_answer(holder.key_id, key, body)
            if earlier is not None:
                replayed = {"Idempotent-Replayed": "true"}
                return JSONResponse(earlier["response"], earlier["status"], headers=replayed)
            made = await make()
            kept = made.model_copy(update={"secret": None}) if hasattr(made, "secret") else made
            await runs.keep_answer(holder.key_id, key, body, status, kept.model_dump_json())
        return Response(made.model_dump_json(), status, media_type="application/json")


def scope_of(holder: Holder) -> Scope:
    """A tenant's own scope, or the platform's for a key of the platform."""
    return Scope(tenant_id=holder.tenant_id, actor=holder.name)
