"""The application of a replica: one loaded engine behind HTTP, as a raw ASGI callable.

Invariant: a route exists only where the engine has what it needs; nothing but the engine's own answer is said of it.
`host.py` makes one per replica and lets uvicorn serve it.
"""

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from baseai.workloads.inference.engine import Engine

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a replica's server is told by its service."""

    model_name: str
    version: str = "1"  # of the service, as clients of the Open Inference Protocol see it
    aliases: tuple[str, ...] = ()  # further names that are answered, for example the service's own
    concurrency: int = 16  # requests computed at once; beyond twice that many under way, 503
    most_body_bytes: int = 8 << 20
    created_at_s: int = 0  # seconds since 1970; what `/v1/models` says
    owned_by: str = "baseai"


class App:
    """The ASGI callable. `under_way` and `draining` are for the host, which ends the process when nothing is left."""

    under_way: int  # requests to the model that are not answered yet
    served: int  # requests to the model that were answered, well or badly
    draining: (
        bool  # set by the host: `/baseai/ready` and `/v2/health/ready` say 503, requests are still taken
    )

    def __init__(self, engine: Engine, terms: Terms) -> None:
        self.engine = engine
        self.terms = terms
        self.under_way = 0
        self.served = 0
        self.draining = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        raise NotImplementedError


def asgi_app(engine: Engine, terms: Terms, *, facts: Mapping[str, Any] | None = None) -> App:
    """The application over a loaded engine. `facts` is what `GET /baseai/ready` says beside model and state."""
    return App(engine, terms)
