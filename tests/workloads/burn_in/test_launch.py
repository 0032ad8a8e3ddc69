"""The launcher on real processes: figures as one result, a stop at once, and a sentence for every failure."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="the extra `train` is not installed")
LAUNCH = [sys.executable, "-m", "baseai.workloads.burn_in.launch"]


def order(folder: Path, **other: Any) -> Path:
    usual = {
        "run_id": "run", "attempt_no": 1, "model": "cpu-slot", "profile": "quick", "device": "cpu",
        "accelerator_ids": ["a"], "cores": [], "attempt_folder": str(folder),
    }  # fmt: skip
    path = folder / "burn_in.json"
    path.write_text(json.dumps(usual | other))
    return path


def told(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "progress.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_one_slot_is_measured_and_says_what_it_cannot_be(tmp_path: Path) -> None:
    began_s = time.monotonic()
    done = subprocess.run([*LAUNCH, str(order(tmp_path))], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - began_s < 30, "quick is below 20 s on two free cores"
    result = told(tmp_path)[-1]
    assert (result["kind"], result["profile"]) == ("result", "quick")
    figures = {(one["test"], one["variant"]): one for one in result["figures"]}
    assert figures["gemm", "fp32"]["value"] > 0
    assert figures["bus", "all_reduce"]["value"] is None
    assert figures["bus", "all_reduce"]["sentence"] == "one accelerator has nobody to exchange with"
    assert result["software"]["torch"]


def test_a_stop_ends_its_workers_at_once(tmp_path: Path) -> None:
    path = order(tmp_path, profile="soak", accelerator_ids=["a", "b"])
    launcher = subprocess.Popen(
        [*LAUNCH, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert launcher.stdout is not None
    assert launcher.stdout.readline().startswith("products")  # they are at work
    began_s = time.monotonic()
    launcher.send_signal(signal.SIGTERM)
    # The pipe closes only when the last worker is gone.
    _, said = launcher.communicate(timeout=10)
    assert time.monotonic() - began_s < 2
    assert (launcher.returncode, said.splitlines()[-1]) == (
        143, "stopped: a test keeps nothing and begins again",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        pytest.param({"profile": "gentle"}, "there is no profile gentle", id="an unknown profile"),
        pytest.param({"accelerator_ids": []}, "there is no accelerator to test", id="nothing to test"),
        pytest.param({"cores": [[0], [1]]}, "2 cores for 1 slots", id="cores that do not fit"),
        pytest.param({"attempt_no": "first"}, "burn_in.json", id="a number that is none"),
    ],
)
def test_a_wrong_order_is_refused_in_a_sentence(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    done = subprocess.run(
        [*LAUNCH, str(order(tmp_path, **changed))], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 64
    assert said in done.stderr.splitlines()[-1]


def test_a_worker_that_dies_fails_the_test(tmp_path: Path) -> None:
    # On a machine without such devices the worker cannot even begin.
    done = subprocess.run(
        [*LAUNCH, str(order(tmp_path, device="cuda"))], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("accelerator a: ")
