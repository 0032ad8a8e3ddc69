"""An agent against the contract's peer: real processes, real signals, real outages."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from baseai.api.schemas import Launch

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="sessions, descriptors and /proc are Linux's")

Join = Callable[..., Any]
Make = Callable[..., Launch]


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except FileNotFoundError:
        return False


def test_a_task_starts_ends_and_is_tidied(peer: Any, join: Join, launch: Make) -> None:
    agent = join()
    peer.until(lambda: peer.reports, "the first report")
    wanted_at = time.time()
    peer.want(launch("lease_1", "echo hello", "echo $BASEAI_NODE_RANK of $BASEAI_NODES_NUM"))
    started = peer.started("lease_1")
    assert started.at.timestamp() - wanted_at < 1.0
    exited = peer.exited("lease_1")
    assert (exited.exit_code, exited.reason) == (0, "finished")
    assert peer.seen_at[exited.event_id] - exited.at.timestamp() < 1.0
    peer.until(lambda: peer.log_of("lease_1") == "hello\n0 of 1\n", "the log")
    peer.until(lambda: peer.reports[-1].gone == ["lease_1"], "the lease to be told gone")
    peer.release("lease_1")
    peer.until(lambda: not list(agent.folder.glob("runs/*")), "the folder to be tidied")
    assert agent.send(signal.SIGTERM) == 0
