"""Our gateway as a front: one process or several on one listening socket, as `baseai up` starts them."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench.serving.front import MODEL, Front, NotReady, Setup, ended, start, wait_ready
from bench.serving.open_loop import ROOT
from bench.serving.our_gateway import KEY
from tests.workloads.inference.hosted import order_of

PATHS = {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
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
        environment=PATHS,
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


def magika(setup: Setup) -> Front:
    """A replica that serves the model of the package magika, and the gateway in front of it, on the same core."""
    text = f"model: pkg:magika:models/standard_v3_3/model.onnx\nmodel_name: {MODEL}\n"
    order = setup.folder / "service.json"
    order.write_text(json.dumps(order_of(setup.folder, text)))
    log = setup.folder / "replica.log"
    replica = start(
        [sys.executable, "-m", "baseai.workloads.inference.host", str(order)], log=log, environment=PATHS
    )
    told = setup.folder / "train" / "progress.jsonl"
    deadline_s = time.monotonic() + 60
    while not (ready := [line for line in _lines(told) if line["kind"] == "ready"]):
        if replica.poll() is not None or time.monotonic() > deadline_s:
            ended(replica)
            raise NotReady(f"the replica did not become ready: {log.read_text()[-2000:]}")
        time.sleep(0.05)
    standing = Setup(ports=(ready[0]["port"],), folder=setup.folder)
    with listen() as listening:
        port = int(listening.getsockname()[1])
        process = gateway(standing, listening, setup.folder / "log", protocol="oip")
    wait_ready(f"http://127.0.0.1:{port}/health", process, setup.folder / "log")
    return Front(
        name="ours",
        port=port,
        process=process,
        path=f"/v2/models/{MODEL}/infer",
        headers=HEADERS,
        beside=(replica,),
    )


def _lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
