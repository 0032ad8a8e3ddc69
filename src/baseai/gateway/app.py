"""The app is the gateway as a server calls it: one ASGI callable that gives each request its passage.

Invariant: it holds no state but the door's, and no request can end it. Its own pages (`/health`, `/metrics`, lists of
models) are answered from what it knows; everything else is a passage.
"""

from baseai.gateway.delivery import AnswerCut
from baseai.gateway.door import Door
from baseai.gateway.inquiry import Message, Receive, Send
from baseai.gateway.own import own_page, show
from baseai.gateway.passage import Passage
from baseai.serving.route import Routes


class GatewayApp:
    """ASGI, without a framework: it stands on the way of every byte."""

    def __init__(self, door: Door) -> None:
        self.door = door

    def hold_routes(self, routes: Routes) -> None:
        """Go on with these routes; called in the app's event loop."""
        self.door.hold_routes(routes)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if scope["method"] != "POST":
            page = await own_page(self.door, scope)
            if page is not None:
                await show(page, send)
                return
        counts = self.door.counts
        counts.under_way += 1
        try:
            await Passage(self.door, scope, receive, send).go()
        except AnswerCut:
            pass  # returning without the last byte makes the server close the connection: the client sees the cut
        finally:
            counts.under_way -= 1
