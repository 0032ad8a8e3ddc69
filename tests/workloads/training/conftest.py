"""A small run: builders of train.json and of launched processes, all real."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import baseai
from tests.workloads.training.launched import TINY, Launched

SOURCE = Path(baseai.__file__).parents[1]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """A small text, the same everywhere."""
    path = tmp_path / "text.txt"
    path.write_text(
        "".join(f"line {n}: {n * n} is the square of {n}, said the clerk.\n" for n in range(4000))
    )
    return path


@pytest.fixture
def told(tmp_path: Path, text: Path) -> Callable[..., dict[str, Any]]:
    """What train.json says, with what a test wants otherwise."""

    def build(name: str = "run", **otherwise: Any) -> dict[str, Any]:
        attempt_no = otherwise.get("attempt_no", 1)
        values: dict[str, Any] = {
            "run_id": f"run_{name}",
            "attempt_no": attempt_no,
            "recipe": "gpt",
            "config": TINY | {"text": str(text)} | otherwise.pop("config", {}),
            "nodes": 1,
            "node_rank": 0,
            "workers": 2,
            "master_addr": "127.0.0.1",
            "master_port": 0,
            "checkpoint_folder": str(tmp_path / name / "checkpoints"),
            "output_folder": str(tmp_path / name / "model"),
            "attempt_folder": str(tmp_path / name / f"attempt-{attempt_no}-{otherwise.get('node_rank', 0)}"),
            "device": "cpu",
            "parallel": "ddp",
            "checkpoint_every": {"steps": 10},
            "max_restarts": 2,
            "seed": 1,
            "run_started_at": None,
        }
        return values | otherwise

    return build


@pytest.fixture
def launch() -> Iterator[Callable[[dict[str, Any]], Launched]]:
    """Start a launcher in a session of its own, as the agent does; none outlives the test."""
    started: list[Launched] = []

    def start(told: dict[str, Any]) -> Launched:
        folder = Path(told["attempt_folder"])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "train.json").write_text(json.dumps(told))
        stderr = folder / "stderr.log"
        with stderr.open("wb") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", "baseai.workloads.training.launch", str(folder / "train.json")],
                env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(SOURCE)},
                stderr=errors,
                start_new_session=True,
            )
        started.append(Launched(process=process, told=told, stderr=stderr))
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            os.killpg(each.process.pid, signal.SIGKILL)
            each.process.wait()
