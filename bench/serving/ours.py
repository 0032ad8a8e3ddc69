"""Our gateway as a front: one process or several on one listening socket, as `baseai up` starts them."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from bench.serving.front import Front, Setup, start, wait_ready
from bench.serving.open_loop import ROOT
from bench.serving.our_gateway import KEY

HEADERS = (("authorization", f"Bearer {KEY}"),)


def gateway(
    setup: Setup, listening: socket.socket, log: Path, *, protocol: str = "openai"
) -> subprocess.Popen[bytes]:
    """One process of it."""
    told = {
        "ports": setup.ports,
        "folder": str(setup.folder),
        "balance": setup.balance,
        "cached": setup.cached,
        "processes": setup.processes,
        "protocol": protocol,
    }
    return start(
        [
            sys.executable,
            str(ROOT / "bench/serving/our_gateway.py"),
            str(listening.fileno()),
            json.dumps(told),
        ],
        log=log,
        environment={"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"},
        inherit=(listening.fileno(),),
    )


def listen() -> socket.socket:
    """A socket of the loopback that processes can share."""
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", 0))
    listening.listen(2048)
    listening.set_inheritable(True)
    return listening


def front(setup: Setup) -> Front:
    """One process in front of the replicas; for several see `kills.py`, which has each in its hand."""
    log = setup.folder / "log"
    with listen() as listening:
        port = int(listening.getsockname()[1])
        process = gateway(setup, listening, log)
    wait_ready(f"http://127.0.0.1:{port}/health", process, log)
    return Front(name="ours", port=port, process=process, headers=HEADERS, log=log)
