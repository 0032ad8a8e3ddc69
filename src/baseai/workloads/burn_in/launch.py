"""The launcher of a burn-in: one worker on each accelerator, and their figures together as the run's result.

`python -m baseai.workloads.burn_in.launch burn_in.json`

Invariant: when it ends, its workers have ended; told to stop, it kills them at once, for somebody waits for the
accelerators and a test keeps nothing. Exit codes: 0 measured, 64 it cannot be done here, 143 stopped as asked,
anything else failed; the last line on standard error says why.
"""

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from baseai.ground.fault import Refused
from baseai.workloads import progress
from baseai.workloads.burn_in.order import Order, read
from baseai.workloads.burn_in.worker import SOFTWARE_FILE, figures_file

MEASURED, FAILED, CANNOT, STOPPED = 0, 1, 64, 143
WORKER = "baseai.workloads.burn_in.worker"
LOOK_S = 0.05


class Workers:
    """The workers of one launcher."""

    def __init__(self) -> None:
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, order_path: Path, order: Order) -> None:
        environment = os.environ | {"GLOO_SOCKET_IFNAME": os.environ.get("GLOO_SOCKET_IFNAME", _loopback())}
        for rank in range(len(order.accelerator_ids)):
            command = [sys.executable, "-m", WORKER, str(order_path), str(rank)]
            self.processes.append(subprocess.Popen(command, env=environment))

    def wait(self) -> int:
        """Until all have ended well, or the first has not: then the others are ended too. Its exit code."""
        while True:
            codes = [process.poll() for process in self.processes]
            failed = [code for code in codes if code not in (None, 0)]
            if failed:
                self.kill()
                return failed[0] or FAILED
            if all(code == 0 for code in codes):
                return 0
            time.sleep(LOOK_S)

    def kill(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
        for process in self.processes:
            process.wait()


def main(arguments: list[str]) -> int:
    """Launch what the file named in the arguments asks for; the exit code."""
    if len(arguments) != 1:
        print("usage: python -m baseai.workloads.burn_in.launch <burn_in.json>", file=sys.stderr)
        return CANNOT
    path = Path(arguments[0]).absolute()
    try:
        order = read(path)
        if importlib.util.find_spec("torch") is None:
            raise Refused("this node has no torch to test with: install baseai[train] on it")
    except Refused as refused:
        print(refused, file=sys.stderr)
        return CANNOT
    return _launched(path, order)


def _launched(path: Path, order: Order) -> int:
    (order.attempt_folder / "rendezvous").unlink(missing_ok=True)
    progress.tell(order.attempt_folder, "started", profile=order.profile, stage="starting")
    workers = Workers()

    def stop(signum: int, frame: FrameType | None) -> None:
        workers.kill()
        print("stopped: a test keeps nothing and begins again", file=sys.stderr, flush=True)
        os._exit(STOPPED)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    workers.start(path, order)  # after the handlers: no stop may miss one of them
    code = workers.wait()
    if code != 0:
        how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
        if code < 0:
            print(f"a worker of the test was {how}", file=sys.stderr)
        return FAILED
    progress.tell(
        order.attempt_folder,
        "result",
        model=order.model,
        profile=order.profile,
        software=json.loads((order.attempt_folder / SOFTWARE_FILE).read_text(encoding="utf-8")),
        figures=list(_figures(order)),
    )
    return MEASURED


def _figures(order: Order) -> Iterator[dict[str, Any]]:
    for rank in range(len(order.accelerator_ids)):
        text = (order.attempt_folder / figures_file(rank)).read_text(encoding="utf-8")
        yield from (json.loads(line) for line in text.splitlines())


def _loopback() -> str:
    """The interface over which the workers of one node meet."""
    return next((name for _, name in socket.if_nameindex() if name in ("lo", "lo0")), "lo")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
