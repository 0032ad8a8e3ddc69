"""`baseai up` → the API answers, on an empty folder and on one that was used before.

    PYTHONPATH=src:. python bench/platform/start.py [--rounds 5]

The peer is what nobody can go below with these parts: the same embedded PostgreSQL alone, and a FastAPI application
of one route that asks it `SELECT 1`, started side by side.
"""

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from bench.report import Figure, show
from tests.scenarios.platform import ENVIRONMENT

READY_WITHIN_S = 5.0
GIVE_UP_S = 90.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ready_s(command: Sequence[str], url: str, log: Path) -> float:
    """Start it, wait until the address answers 200, end it; the seconds until the answer."""
    with log.open("ab") as file:
        began_s = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, *command], env=ENVIRONMENT, stdout=file, stderr=file, start_new_session=True
        )
    try:
        while True:
            try:
                with urllib.request.urlopen(url, timeout=5) as answer:
                    if answer.status == 200:
                        return time.monotonic() - began_s
            except OSError:
                pass
            if process.poll() is not None or time.monotonic() > began_s + GIVE_UP_S:
                raise SystemExit(f"{command} did not answer: {log.read_text()[-2000:]}")
            time.sleep(0.005)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def ours_s(folder: Path) -> float:
    port = free_port()
    return ready_s(
        ["-m", "baseai", "up", "--data", str(folder / "data"), "--port", str(port)],
        f"http://127.0.0.1:{port}/api/v1/health",
        folder / "log",
    )


def peer_s(folder: Path) -> float:
    port = free_port()
    return ready_s(
        [str(Path(__file__).with_name("plain_api.py")), str(folder / "data"), str(port)],
        f"http://127.0.0.1:{port}/health",
        folder / "log",
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="each of two pairs, A-B-B-A")
    asked = parser.parse_args()
    found: dict[str, list[float]] = {
        f"{side} {start}": [] for side in ("ours", "peer") for start in ("first", "second")
    }
    for _ in range(asked.rounds):
        for side in ("peer", "ours", "ours", "peer"):
            folder = Path(tempfile.mkdtemp(prefix="baseai-st-", dir="/tmp"))
            os.chmod(folder, 0o755)
            try:
                for start in ("first", "second"):
                    found[f"{side} {start}"].append((ours_s if side == "ours" else peer_s)(folder))
            finally:
                shutil.rmtree(folder, ignore_errors=True)
    for start in ("first", "second"):
        ours = found[f"ours {start}"]
        show(
            Figure(
                name=f"`up` → API ready, {start} start",
                unit="s",
                ours=tuple(ours),
                peer=tuple(found[f"peer {start}"]),
                peer_name="bare PostgreSQL + FastAPI",
                target=f"≤ {READY_WITHIN_S:g} s" if start == "second" else "",
                reached=max(ours) <= READY_WITHIN_S if start == "second" else None,
                note=f"longest {max(ours):.2f} s",
            )
        )


if __name__ == "__main__":
    main()
