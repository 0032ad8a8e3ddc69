"""The agent's process: settings in, exit code out.

Invariant: every fault that ends the agent is one sentence on stderr and exit code 1; being told to leave is 0.
SIGTERM means that the node goes down (runs are stopped and reported); SIGHUP, and a SIGKILL, leave runs alive.
"""

import asyncio
import logging
import os
import pwd
import random
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from baseai.agent.agent import Agent
from baseai.agent.facts import allowed_cores, observe_facts
from baseai.agent.folder import NodeFolder
from baseai.agent.link import Link
from baseai.agent.mend import steps_here
from baseai.agent.process import SEGMENT_BYTES, SEGMENTS, RunUser, ShimLauncher, compiled_shim
from baseai.agent.sample_spool import LIMIT_BYTES, SampleSpool
from baseai.ground.fault import Fault, Refused
from baseai.telemetry.collector import Collector

log = logging.getLogger(__name__)

REACH_WAIT_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """How one node's agent works."""

    folder: Path  # the node folder: identity, key, runs, cache; one agent each
    url: str  # of the server; http:// only to this machine
    token: str | None = None  # a join token, used once; None when the node has joined before
    name: str | None = None  # unique over the fleet; by default the host's name
    address: str | None = None  # where other nodes reach this one; by default the one that reaches the server
    site: str = "local"  # the site the node stands in; runs of several nodes stay within one
    cpu_slots: int | None = None  # how many CPU slots the node offers; by default all cores
    rack: str | None = None  # the rack the node stands in, unless an operator has said another
    leaf: str | None = None  # the leaf switch it hangs on, likewise
    pod: str | None = None  # the pod of the network that leaf is in, likewise
    run_user: str | None = None  # the user runs are started as; needs an agent run by root
    ca_file: Path | None = None  # certificate that signs the server's, when no public one does
    segment_bytes: int = SEGMENT_BYTES  # a run's log on this node is kept in pieces of this size,
    segments: int = SEGMENTS  # at most so many of them
    sample_every_s: float = 10.0  # how often accelerators and node are measured
    scrape: tuple[
        str, ...
    ] = ()  # addresses of exporters on or near this node (DCGM, AMD, node), http://…/metrics
    redfish: tuple[str, ...] = ()  # management controllers of this node, https://10.0.0.7
    # User and password of an account there that may read; None: they answer anybody.
    redfish_account: tuple[str, str] | None = field(default=None, repr=False)
    redfish_ca_file: Path | None = None  # certificate that signs the controllers'
    redfish_insecure: bool = False  # do not verify it: whoever stands between can read the password
    redfish_every_s: float = 30.0  # how often a controller is asked; they are slow
    # Reset accelerators, restart the fabric manager, reboot, when ordered; needs root.
    allow_repairs: bool = False
    sample_spool_bytes: int = LIMIT_BYTES  # what was measured and not delivered takes so much disk at most


def run_agent(settings: AgentSettings, collectors: Sequence[Collector] = ()) -> int:
    """Tend the node until a signal says otherwise. The exit code is 0 after a signal, 1 after a fault."""
    logging.getLogger("httpx").setLevel(logging.WARNING)
    if not logging.getLogger().handlers:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s agent %(message)s", stream=sys.stderr)
    folder = NodeFolder(settings.folder.absolute())
    try:
        folder.hold()
        asyncio.run(_tend(settings, folder, collectors))
    except Fault as fault:
        print(f"baseai agent: {fault}", file=sys.stderr, flush=True)
        return 1
    except OSError as error:
        print(f"baseai agent: {error}", file=sys.stderr, flush=True)
        return 1
    finally:
        folder.let_go()
    return 0


async def _tend(settings: AgentSettings, folder: NodeFolder, collectors: Sequence[Collector]) -> None:
    run_user = reachable_user(settings.run_user, folder.path) if settings.run_user else None
    if settings.cpu_slots is not None and settings.cpu_slots < 0:
        raise Refused(f"{settings.cpu_slots} CPU slots cannot be offered")
    if settings.allow_repairs and os.geteuid() != 0:
        raise Refused("--allow-repairs needs an agent run by root")
    agent = Agent(
        folder=folder,
        link=Link(settings.url, ca_file=settings.ca_file),
        launcher=ShimLauncher(
            run_user=run_user,
            environment=dict(os.environ),
            cores=allowed_cores(),
            segment_bytes=settings.segment_bytes,
            segments=settings.segments,
            shim=compiled_shim(folder.path),
        ),
        observe_facts=lambda: observe_facts(
            folder=folder.path,
            url=settings.url,
            name=settings.name,
            address=settings.address,
            site=settings.site,
            slots=settings.cpu_slots,
            isolation="user" if run_user else "none",
        ).model_copy(
            update={
                "repair_steps": list(steps_here()) if settings.allow_repairs else [],
                "rack": settings.rack,
                "leaf": settings.leaf,
                "pod": settings.pod,
            }
        ),
        token=settings.token,
        chance=random.Random(),
        collectors=collectors,
        samples=SampleSpool(folder.samples, limit_bytes=settings.sample_spool_bytes) if collectors else None,
        mends=settings.allow_repairs,
    )
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, agent.shut_down)
    loop.add_signal_handler(signal.SIGINT, agent.shut_down)
    loop.add_signal_handler(signal.SIGHUP, agent.leave)
    await agent.run()


def reachable_user(name: str, folder: Path) -> RunUser | None:
    """The user to run as; None, said in the log, when this agent may not choose.

    Raises Refused when the user is unknown or cannot reach the interpreter or the folder: to start runs as
    root instead would give them more than was meant.
    """
    if os.geteuid() != 0:
        log.warning(
            "runs cannot be started as %s, because the agent is not run by root; they run as the agent", name
        )
        return None
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        raise Refused(f"there is no user {name} on this machine to run as") from None
    attempt = [sys.executable, "-c", "import os, sys; os.chdir(sys.argv[1])", str(folder / "runs")]
    try:
        subprocess.run(
            attempt,
            user=found.pw_uid,
            group=found.pw_gid,
            extra_groups=[],
            cwd="/",
            capture_output=True,
            timeout=REACH_WAIT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        what = f"the user {name} cannot reach {sys.executable} or {folder}"
        raise Refused(f"{what}; make both readable to it, or choose another") from None
    return RunUser(name=name, uid=found.pw_uid, gid=found.pw_gid, home=found.pw_dir)
