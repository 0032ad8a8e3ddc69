"""The REST door under /api/v1: its routes behind one gate, its problems in one form.

No decision is made here and no SQL is known here.
"""

from collections import Counter

from fastapi import FastAPI

import baseai
from baseai.api import (
    about,
    agents,
    agreements,
    books,
    calendar,
    costs,
    documents,
    files,
    health,
    hours,
    money,
    nodes,
    prometheus,
    queues,
    racks,
    runs,
    services,
    telemetry,
    tenants,
)
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
    fleet = (about, runs, services, queues, calendar, files, racks, nodes, health, tenants, telemetry)
    for room in (*fleet, money, books, agreements, costs, documents, hours):
        app.include_router(room.routes(doors, gate), prefix="/api/v1")
    app.include_router(agents.routes(doors, gate), prefix="/api/v1/agent")
    written: Counter[str] = Counter()  # what came by remote write since this process began
    app.include_router(prometheus.write_routes(doors, gate, written), prefix="/api/v1")
    app.include_router(prometheus.metrics_routes(doors, gate, written))
    return app
