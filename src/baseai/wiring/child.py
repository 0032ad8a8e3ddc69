"""A child is one of the platform's processes, started by the supervisor: server, controller, agent, metrics, gateways.

Invariant: what a child must know comes in one environment variable, taken out of the environment before anything
else runs, so that no run ever inherits it. A child ends with its supervisor.
"""

import asyncio
import json
import logging
import os
import signal
import socket
import sys
import traceback
from collections.abc import Coroutine
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from baseai.ground.fault import Fault
from baseai.settings import PlatformSettings
from baseai.wiring.household import Household

VARIABLE = "BASEAI_CHILD"


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """What one child is started for."""

    role: str  # server, controller, agent, metrics, or gateway-1 and so on
    settings: PlatformSettings
    dsn: str
    metrics: Path  # the socket of the metric store
    listening_fd: int | None = (
        None  # of the server or the gateways: bound by the supervisor, so that it outlives a restart
    )
    url: str = ""
    token: str | None = None

    def to_text(self) -> str:
        return json.dumps(asdict(self), default=str)

    @staticmethod
    def from_text(text: str) -> "Errand":
        fields = json.loads(text)
        given = fields["settings"]
        for name in ("data", "tls_cert", "tls_key", "redfish_credentials", "redfish_ca_file"):
            given[name] = Path(given[name]) if given[name] else None
        fields["metrics"] = Path(fields["metrics"])
        given["scrape"], given["redfish"] = tuple(given["scrape"]), tuple(given["redfish"])
        return Errand(**{**fields, "settings": PlatformSettings(**given)})


def main() -> int:
    """Run the errand of this process."""
    errand = Errand.from_text(os.environ.pop(VARIABLE))
    for name in [name for name in os.environ if name.startswith("BASEAI_")]:
        del os.environ[name]
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)
    household = Household(data=errand.settings.data)
    try:
        if errand.role == "agent":
            return _agent(errand, household)
        if errand.role == "controller":
            from baseai.wiring.controller import control

            return _run(control(errand.dsn, household, errand.metrics))
        if errand.role == "metrics":
            from baseai.wiring.metrics import keep_metrics

            return _run(keep_metrics(household, errand.metrics))
        assert errand.listening_fd is not None
        listening = socket.socket(fileno=errand.listening_fd)
        if errand.role.startswith("gateway"):
            from baseai.wiring.gateway import keep_gate

            return _run(keep_gate(errand.settings, errand.dsn, household, listening))
        from baseai.wiring.server import serve

        return _run(serve(errand.settings, errand.dsn, household, errand.metrics, listening))
    except Fault as fault:
        print(f"baseai {errand.role}: {fault}", file=sys.stderr, flush=True)
        return 1
    except Exception as bug:  # noqa: BLE001 - the outermost door: the log keeps where, its last line says what
        traceback.print_exc()
        print(f"baseai {errand.role}: {type(bug).__name__}: {bug}", file=sys.stderr, flush=True)
        return 1


def _run(work: Coroutine[Any, Any, None]) -> int:
    try:
        import uvloop

        uvloop.run(_until_told(work))
    except ImportError:
        asyncio.run(_until_told(work))
    return 0


async def _until_told(work: Coroutine[Any, Any, None]) -> None:
    task = asyncio.ensure_future(work)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        return


def _agent(errand: Errand, household: Household) -> int:
    from baseai.agent.main import AgentSettings
    from baseai.wiring.eyes import board_account, watch_and_tend

    settings = errand.settings
    return watch_and_tend(
        AgentSettings(
            folder=household.node,
            url=errand.url,
            token=errand.token,
            name=settings.node_name,
            address=settings.node_address,
            cpu_slots=settings.cpu_slots,
            rack=settings.rack,
            leaf=settings.leaf,
            pod=settings.pod,
            run_user=settings.run_user,
            allow_repairs=settings.allow_repairs,
            ca_file=settings.tls_cert,
            sample_every_s=settings.sample_every_s,
            scrape=settings.scrape,
            redfish=settings.redfish,
            redfish_account=board_account(settings.redfish_credentials, {}),
            redfish_ca_file=settings.redfish_ca_file,
            redfish_insecure=settings.redfish_insecure,
        )
    )


if __name__ == "__main__":
    sys.exit(main())
