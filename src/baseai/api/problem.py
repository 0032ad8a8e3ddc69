"""A problem is how the door says that something went wrong: RFC 9457, whatever went wrong.

Invariant: no traceback and no secret leaves; what is not a fault of ours by name is a bug, logged and told as one.
"""

import errno
import logging

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from baseai.api import schemas as wire
from baseai.finance.price_sheet import BadPriceSheet
from baseai.finance.ptax import BankAway, RateUnknown
from baseai.fleet.fabric.rehang import BadFile
from baseai.ground.fault import Conflict, Fault, NotFound, Refused
from baseai.telemetry.store import StoreAway
from baseai.tenancy.key import NotAdmitted, NotAllowed, OutOfScope
from baseai.truth.session import TruthUnavailable
from baseai.workloads.demand import UnknownAccelerator
from baseai.workloads.sheet import BadSpec

log = logging.getLogger(__name__)

BODY_BYTES_MAX = 4 * 1024**2  # of a request: room for the largest spec, which reading bounds at 1 MiB
REPORT_BYTES_MAX = 16 * 1024**2  # of an agent's: it may have spooled for hours
STATUSES: tuple[tuple[type[Fault], int, str], ...] = (
    (NotAdmitted, 401, "Not admitted"),
    (NotAllowed, 403, "Not allowed"),
    (OutOfScope, 403, "Not allowed"),
    (NotFound, 404, "Not found"),
    (Conflict, 409, "Conflict"),
    (BadPriceSheet, 422, "The price sheet is wrong"),
    (BadSpec, 422, "The spec is wrong"),
    (BadFile, 422, "The file is wrong"),
    (UnknownAccelerator, 422, "The spec is wrong"),
    (Refused, 422, "Refused"),
    (TruthUnavailable, 503, "For a moment not available"),
    (BankAway, 503, "For a moment not available"),
    (RateUnknown, 409, "No rate of exchange"),
    (StoreAway, 503, "For a moment not available"),
)


def say_problems(app: FastAPI) -> None:
    """Make every fault, refusal and bug of `app` a problem document."""

    async def on_fault(request: Request, fault: Exception) -> Response:
        assert isinstance(fault, Fault)
        status, title = next(
            ((status, title) for kind, status, title in STATUSES if isinstance(fault, kind)), (500, "Fault")
        )
        return problem(request, status, title, str(fault), errors=_spec_problems(fault))

    async def on_http(request: Request, wrong: Exception) -> Response:
        assert isinstance(wrong, HTTPException)
        return problem(request, wrong.status_code, str(wrong.detail), str(wrong.detail))

    async def on_invalid(request: Request, wrong: Exception) -> Response:
        assert isinstance(wrong, RequestValidationError)
        places = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in wrong.errors())
        return problem(request, 422, "The request is wrong", places)

    async def on_os(request: Request, wrong: Exception) -> Response:
        if isinstance(wrong, OSError) and wrong.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return problem(request, 507, "No space", f"the platform cannot keep it: {wrong.strerror}")
        return await on_bug(request, wrong)

    async def on_bug(request: Request, wrong: Exception) -> Response:
        log.error("%s %s failed", request.method, request.url.path, exc_info=wrong)
        return problem(
            request, 500, "Fault of the platform", "the platform failed at this; its log says more"
        )

    async def on_gone(request: Request, _: Exception) -> Response:
        return problem(request, 400, "Cut short", "the request ended before it was whole")

    app.add_exception_handler(Exception, on_bug)
    app.add_exception_handler(OSError, on_os)
    app.add_exception_handler(ClientDisconnect, on_gone)
    app.add_exception_handler(Fault, on_fault)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(RequestValidationError, on_invalid)


def problem(
    request: Request, status: int, title: str, detail: str, errors: list[wire.SpecProblem] | None = None
) -> Response:
    """An `application/problem+json` answer."""
    body = wire.Problem(
        title=title, status=status, detail=detail, instance=request.url.path, errors=errors or []
    )
    headers = {"Retry-After": "1"} if status == 503 else {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(
        body.model_dump(mode="json"), status, media_type="application/problem+json", headers=headers
    )


def _spec_problems(fault: Fault) -> list[wire.SpecProblem]:
    if isinstance(fault, BadFile):
        return [
            wire.SpecProblem(
                file=fault.file, line=e.line, column=e.column, key=e.key, message=e.message, fix=e.fix
            )
            for e in fault.errors
        ]
    if not isinstance(fault, BadSpec):
        return []
    return [
        wire.SpecProblem(file=e.file, line=e.line, column=e.column, key=e.key, message=e.message, fix=e.fix)
        for e in fault.errors
    ]


class Bounded:
    """Ends a request whose body is larger than any that is meant; a file is counted where it is taken in."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or (
            scope["method"] == "PUT" and scope["path"].startswith("/api/v1/files/")
        ):
            await self._app(scope, receive, send)
            return
        most = REPORT_BYTES_MAX if scope["path"].startswith("/api/v1/agent/") else BODY_BYTES_MAX
        taken = 0

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > most:
                raise HTTPException(413, f"a request has at most {most // 1024**2} MiB")
            return message

        await self._app(scope, counted, send)
