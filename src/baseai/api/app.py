"""The REST door under /api/v1: its routes behind one gate, its problems in one form.

No decision is made here and no SQL is known here.
"""

from fastapi import FastAPI

import baseai
from baseai.api import about, agents, files, money, nodes, runs, tenants
from baseai.api.doors import Doors
from baseai.api.gate import Gate
from baseai.api.problem import Bounded, say_problems


def create_api(doors: Doors) -> FastAPI:
    """The application with every REST route; pages are mounted beside it by wiring."""
    app = FastAPI(
        title="baseai",
        version=baseai.__version__,
        openapi_url="/api/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    say_problems(app)
    app.add_middleware(Bounded)
    gate = Gate(doors)
    for room in (about, runs, files, nodes, tenants, money):
        app.include_router(room.routes(doors, gate), prefix="/api/v1")
    app.include_router(agents.routes(doors, gate), prefix="/api/v1/agent")
    return app
