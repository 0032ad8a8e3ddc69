"""Routes of files: brought before the run that needs them, each once, by its digest."""

import contextlib
import hashlib
import os
import re
import tempfile
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from baseai.api.doors import Doors
from baseai.api.gate import Gate, scope_of
from baseai.ground.fault import Refused
from baseai.tenancy.key import Holder
from baseai.tenancy.role import Deed

FILE_BYTES_MAX = 2 * 1024**3
DIGEST = re.compile(r"[0-9a-f]{64}")


def routes(doors: Doors, gate: Gate) -> APIRouter:
    """The routes, behind `gate`."""
    router = APIRouter()

    @router.head("/files/{digest}")
    async def has_file(digest: str, holder: Holder = gate.allowed(Deed.SUBMIT_RUNS)) -> Response:
        scope = scope_of(holder)
        tenant_id, _ = await doors.tenancy.project(scope, holder.tenant_id, None)
        there = await doors.runs.has_file(scope, tenant_id, digest) and (doors.uploads / digest).exists()
        return Response(status_code=200 if there else 404)

    @router.put("/files/{digest}", status_code=201)
    async def put_file(
        digest: str, request: Request, holder: Holder = gate.allowed(Deed.SUBMIT_RUNS)
    ) -> dict[str, Any]:
        if not DIGEST.fullmatch(digest):
            raise Refused(f"{digest[:80]!r} is not a SHA-256 digest in small letters")
        scope = scope_of(holder)
        project = await doors.tenancy.project(scope, holder.tenant_id, None)
        size = await _receive(request, doors, digest)
        await doors.runs.note_file(scope, project, digest, size)
        return {"digest": digest, "bytes": size}

    return router


async def _receive(request: Request, doors: Doors, digest: str) -> int:
    """Take a file in, check its digest, and put it in its place whole or not at all; its size in bytes."""
    doors.uploads.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=doors.uploads, prefix="coming-")
    size, sha = 0, hashlib.sha256()
    try:
        with os.fdopen(handle, "wb") as coming:
            async for chunk in request.stream():
                size += len(chunk)
                if size > FILE_BYTES_MAX:
                    raise Refused(f"a file has at most {FILE_BYTES_MAX // 1024**3} GiB")
                sha.update(chunk)
                coming.write(chunk)
            coming.flush()
            await run_in_threadpool(os.fsync, coming.fileno())
        if sha.hexdigest() != digest:
            raise Refused(
                f"the content does not have the digest {digest[:12]}…: it was changed on its way, send it again"
            )
        os.replace(name, doors.uploads / digest)
    finally:
        with contextlib.suppress(FileNotFoundError):  # it is in its place
            os.unlink(name)
    return size
