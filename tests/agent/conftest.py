"""A peer for agents, and agents as processes on folders of their own."""

import contextlib
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from baseai.api.schemas import Launch
from tests.agent.peer import AgentProcess, Peer, task


@pytest.fixture
def peer() -> Iterator[Peer]:
    peer = Peer()
    peer.open()
    yield peer
    if peer.is_open():
        peer.close()


@pytest.fixture
def launch(tmp_path: Path) -> Callable[..., Launch]:
    def make(lease: str = "lease_1", *commands: str, **said: Any) -> Launch:
        shared = tmp_path / "shared" / lease
        folders = {"shared": str(shared), "output_folder": str(shared / "output")}
        return task(lease, *commands, **{**folders, **said})

    return make


@pytest.fixture
def join(tmp_path: Path, peer: Peer) -> Iterator[Callable[..., AgentProcess]]:
    """Start an agent; at the end of the test all that were started end, and with them their runs."""
    agents: list[AgentProcess] = []

    def start(folder: str = "node", **settings: object) -> AgentProcess:
        agents.append(AgentProcess(tmp_path / folder, peer.url, **settings))
        return agents[-1]

    yield start
    for agent in agents:
        agent.end()
    for agent in agents:
        for record in agent.folder.glob("runs/*/*/process.json"):
            with contextlib.suppress(OSError):
                os.kill(json.loads(record.read_text())["shim_pid"], signal.SIGUSR1)
