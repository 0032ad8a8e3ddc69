"""A guard tells a replica's own gateway from strangers, who may well reach its port, by the token that only it shows.

Invariant: nothing that is refused here has cost the model anything, or tells how near a wrong token came. `app.py`
asks `shows`; a server that is not ours and takes middleware is given `VllmGuard`.
"""

import hmac
import os
from collections.abc import Awaitable, Callable

from baseai.workloads.inference.server.exchange import JSON, Receive, Scope, Send
from baseai.workloads.inference.server.refusal import NotTheGateway, openai_error, refusal_of

VARIABLE = "BASEAI_REPLICA_TOKEN"
OPEN = "/health"  # what vLLM says of itself while it loads, and nothing of its model


def shows(authorization: bytes | None, token: str) -> bool:
    """Whether `authorization: Bearer …` carries the token; the time that takes says nothing of it."""
    scheme, _, shown = (authorization or b"").partition(b" ")
    return scheme.lower() == b"bearer" and hmac.compare_digest(shown.strip(), token.encode())


class VllmGuard:
    """Middleware before all of vLLM's paths. Its own key guards those of OpenAI, and leaves as many others open.

    vLLM makes it, by `--middleware`; the token comes by a variable. The class alone is looked at, hence no options.
    """

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self._app = app
        self._token = os.environ[VARIABLE]  # without it vLLM shall not start

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope["path"] == OPEN or self._admits(scope):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            refusal = refusal_of(NotTheGateway())
            headers = [*JSON, *refusal.headers]
            await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
            await send({"type": "http.response.body", "body": openai_error(refusal)})

    def _admits(self, scope: Scope) -> bool:
        return shows(dict(scope["headers"]).get(b"authorization"), self._token)
