"""A Ray Serve application as a replica: a Ray cluster of the run's own, and the tenant's application in it.

Invariant: nobody without the run's token talks to the cluster; its ports, its token and its temporary folder are this
run's alone, so that two clusters on one node do not meet; it ends by the ids of the processes that were started here,
never by `ray stop` or another command that goes by name.
"""

import asyncio
import contextlib
import importlib.util
import os
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from baseai.ground.fault import Fault
from baseai.workloads.inference.command import (
    LOOK_S,
    START_MOST_S,
    NeverReady,
    answer_of,
    bound,
    environment_of,
    script_argv,
)
from baseai.workloads.inference.command import until_ready as until_answered
from baseai.workloads.inference.engine import ModelUnusable
from baseai.workloads.inference.order import Order
from baseai.workloads.model import model_source_of

PACKAGE = "ray"
TOKEN_FILE = "ray.token"  # noqa: S105  a name, no secret
OBJECT_STORE_BYTES = (
    256 << 20
)  # shared memory for large values; the rest of the lease's memory is the application's
TEMP = Path("/tmp")  # noqa: S108  short, and everybody's: each cluster's folder in it is of mode 700
PREFIX = "baseai-ray-"
OWNER = "host.pid"
ROUTES = "/-/routes"  # where Serve's proxy tells which applications it knows
PORTS = (
    "port",
    "node-manager-port",
    "object-manager-port",
    "ray-client-server-port",
    "dashboard-port",
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "runtime-env-agent-port",
    "metrics-export-port",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """What is one run's own of its Ray cluster."""

    address: str  # of the node; one node is all of it
    ports: Mapping[str, int]  # by the names in PORTS
    token_file: Path
    temp_folder: Path  # short: Ray puts sockets below it, whose paths may have 107 characters

    @property
    def at(self) -> str:
        return f"{self.address}:{self.ports['port']}"


class ClusterFailed(Fault):
    """A part of the cluster ended before the application could be started."""

    retryable = True

    def __init__(self, command: str, exit_code: int) -> None:
        super().__init__(command, exit_code)
        self.command = command
        self.exit_code = exit_code

    def __str__(self) -> str:
        return f"`{self.command}` of this run's Ray cluster exited with {self.exit_code}; the log says why"


def require() -> None:
    """Raises ModelUnusable where this node has no Ray."""
    if importlib.util.find_spec(PACKAGE) is None:
        fix = f"have the node's operator run `{sys.executable} -m pip install 'baseai[ray]'`"
        raise ModelUnusable("ray", "is not installed on this node", fix)


def made(order: Order, *, address: str) -> Cluster:
    """A cluster's token, ports and folder; nothing is started."""
    token_file = order.attempt_folder / TOKEN_FILE
    token_file.unlink(missing_ok=True)
    handle = os.open(token_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(secrets.token_hex(32))
    with contextlib.ExitStack() as held:  # all at once, so that none is chosen twice
        ports = {name: held.enter_context(bound(address, None)).getsockname()[1] for name in PORTS}
    sweep(TEMP)
    temp_folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=TEMP))  # of mode 700
    (temp_folder / OWNER).write_text(str(os.getpid()))
    return Cluster(address=address, ports=ports, token_file=token_file, temp_folder=temp_folder)


def sweep(temp: Path) -> None:
    """Remove what hosts left there that were killed before they could."""
    for folder in temp.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError, ValueError):
            pid = int((folder / OWNER).read_text())
            if folder.stat().st_uid == os.getuid() and not psutil.pid_exists(pid):
                shutil.rmtree(folder, ignore_errors=True)


def head_argv(order: Order, cluster: Cluster) -> tuple[str, ...]:
    """`ray start` of the head, which stays in the foreground and ends its own processes on SIGTERM."""
    argv = ["ray", "start", "--head", "--block", f"--node-ip-address={cluster.address}"]
    argv += [f"--{name}={port}" for name, port in cluster.ports.items()]
    argv += ["--min-worker-port=0", "--max-worker-port=0", f"--temp-dir={cluster.temp_folder}"]
    argv += [
        "--include-dashboard=false",
        "--disable-usage-stats",
        f"--object-store-memory={OBJECT_STORE_BYTES}",
    ]
    argv += [
        f"--num-cpus={order.threads}",
        f"--num-gpus={order.accelerators if order.device == 'cuda' else 0}",
    ]
    return tuple(argv)


def proxy_argv(cluster: Cluster, *, host: str, port: int) -> tuple[str, ...]:
    """`serve start`: where Serve listens, said before the application is there."""
    argv = ["serve", "start", f"--address={cluster.at}", f"--http-host={host}", f"--http-port={port}"]
    return (*argv, "--proxy-location=HeadOnly")


def application_argv(order: Order, cluster: Cluster) -> tuple[str, ...]:
    """What runs the tenant's application: `serve run` of the one in `model`, or the spec's commands."""
    if order.service.commands:
        return script_argv(order)
    assert order.service.model is not None
    source = model_source_of(order.service.model)
    file = order.work_folder / source.place
    if not file.is_file():
        fix = "bring it with `files`, and write the path that it has there"
        raise ModelUnusable(order.service.model, f"there is no {source.place} in the run's folder", fix)
    target = f"{file.stem}:{source.inside}"
    return ("serve", "run", f"--address={cluster.at}", f"--app-dir={file.parent}", target)


def variables_of(
    order: Order, cluster: Cluster, own: Mapping[str, str], *, host: str, port: int
) -> dict[str, str]:
    """The run's variables with the cluster's. A token in a variable would win over the file, so there is none."""
    environment = environment_of(order, own, host=host, port=port, model=None)
    environment.pop("RAY_AUTH_TOKEN", None)
    return environment | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(cluster.token_file),
        "RAY_ADDRESS": cluster.at,
        "RAY_TMPDIR": str(cluster.temp_folder),
        "RAY_USAGE_STATS_ENABLED": "0",
        # The application is ended first; after that the head has nothing to wait for.
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
    }


async def until_ready(address: str, port: int, path: str) -> None:
    """Until an application is known to the proxy, and then answers: a proxy alone says 404. Raises NeverReady."""
    deadline_s = time.monotonic() + START_MOST_S
    while time.monotonic() < deadline_s:
        answer = await answer_of(address, port, ROUTES)
        if answer is not None and answer[0] == 200 and b"/" in answer[1]:
            await until_answered(address, port, path)
            return
        await asyncio.sleep(LOOK_S)
    raise NeverReady(f"{address}:{port}", ROUTES, START_MOST_S)
