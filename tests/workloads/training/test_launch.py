"""Whole runs with real processes: launcher, workers, writer. Each start imports torch, so there are few."""

import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from baseai.workloads.training import checkpoint
from tests.workloads.training.launched import Launched, living

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")

Told = Callable[..., dict[str, Any]]
Launch = Callable[[dict[str, Any]], Launched]


def nobody_left(run: Launched) -> bool:
    """True when the launcher's session is empty within a moment."""
    deadline_s = time.monotonic() + 5
    while any(session == run.process.pid for _, _, session in living()):
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.02)
    return True


def test_a_run_that_lost_a_worker_ends_where_one_undisturbed_worker_does(told: Told, launch: Launch) -> None:
    alone = launch(told("alone", workers=1, checkpoint_every="never"))
    assert alone.ended() == 0, alone.stderr.read_text()

    pair = launch(told("pair"))
    pair.wait_for("checkpoint")
    victim = pair.workers()[-1]
    os.kill(victim, signal.SIGKILL)
    assert pair.ended() == 0, pair.stderr.read_text()

    (restart,) = pair.lines("restart")
    assert f"(pid {victim}) was ended by SIGKILL" in restart["reason"]
    first, second = pair.lines("started")
    assert (first["step"], first["restart"]) == (0, 0)
    assert second["restart"] == 1
    assert second["step"] >= 10
    assert second["resumed_from"]
    steps = [line["step"] for line in pair.lines("step") if line["restart"] == 1]
    assert steps[0] == second["step"] + 1
    assert steps[-1] == 120
    (result,), (reference,) = pair.lines("result"), alone.lines("result")
    assert result["train_loss"] == pytest.approx(reference["train_loss"], abs=1e-5)
    assert result["bits_per_byte"] == pytest.approx(reference["bits_per_byte"], abs=1e-5)
    assert 0 <= result["repeated_steps"] <= 10 + 10  # an interval, and what was not yet committed
    assert 0 < result["goodput_ratio"] <= 1
    assert result["bits_per_byte"] < 4  # it has learned: bytes of this text carry 8 unlearned

    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(result["model_folder"])
    tokenizer = AutoTokenizer.from_pretrained(result["model_folder"])
    assert tokenizer.decode(tokenizer("the clerk")["input_ids"]) == "the clerk"
    assert model.num_parameters() == first["parameters"]


def test_a_stopped_run_goes_on_as_shards_in_its_next_attempt(told: Told, launch: Launch) -> None:
    long = told("stopped", config={"steps": 400}, checkpoint_every="auto")
    first = launch(long)
    first.wait_for("step")
    os.killpg(first.process.pid, signal.SIGTERM)  # the whole group, as a hasty supervisor does
    assert first.ended(30) == 143, first.stderr.read_text()
    last = checkpoint.newest(Path(long["checkpoint_folder"]))
    assert last is not None
    assert last.step >= 1
    assert nobody_left(first)

    again = long | {"attempt_no": 2, "parallel": "fsdp2", "attempt_folder": long["attempt_folder"] + "-again"}
    again["config"] = long["config"] | {"steps": last.step + 10}
    again["checkpoint_every"] = {"steps": 5}
    second = launch(again)
    assert second.ended() == 0, second.stderr.read_text()
    assert second.lines("started")[0]["step"] == last.step
    assert second.lines("result")[0]["step"] == last.step + 10
    assert len(second.lines("checkpoint")) >= 2


def test_an_attempt_that_was_overtaken_ends_by_itself(told: Told, launch: Launch) -> None:
    old = launch(told("overtaken", config={"steps": 100_000}, checkpoint_every={"steps": 20}))
    old.wait_for("checkpoint")
    checkpoint.claim(Path(old.told["checkpoint_folder"]), 5)
    assert old.ended(30) == 1
    assert "a newer attempt has taken the run over" in old.stderr.read_text()
    assert old.lines("restart") == []


@pytest.mark.skipif(sys.platform != "linux", reason="127.0.0.2 is a loopback address on Linux only")
def test_two_nodes_train_one_model(told: Told, launch: Launch) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.2", 0))
        port = probe.getsockname()[1]
    common = {
        "nodes": 2,
        "workers": 1,
        "master_addr": "127.0.0.2",
        "master_port": port,
        "config": {"steps": 30},
    }
    second = launch(told("two", node_rank=1, **common))
    first = launch(told("two", node_rank=0, **common))
    assert first.ended() == 0, first.stderr.read_text()
    assert second.ended() == 0, second.stderr.read_text()
    assert first.lines("result")[0]["step"] == 30
    assert second.lines() == []  # rank 0 lives on node 0 and alone tells


def test_no_worker_outlives_its_launcher(told: Told, launch: Launch) -> None:
    run = launch(told("orphans", config={"steps": 100_000}, checkpoint_every="never"))
    run.wait_for("step")
    assert len(run.workers()) >= 2
    run.process.kill()
    run.process.wait()
    assert nobody_left(run)


@pytest.mark.parametrize(
    ("otherwise", "sentence"),
    [
        pytest.param(
            {"config": {"widht": 64}}, "key widht: unknown key; did you mean width?", id="unknown key"
        ),
        pytest.param({"recipe": "gtp"}, "did you mean gpt?", id="unknown recipe"),
        pytest.param({"config": {"batch": 1}}, "each needs a sample of every step", id="batch below workers"),
        pytest.param(
            {"config": {"context": 20_000}}, "give more text or a shorter context", id="too little text"
        ),
    ],
)
def test_a_wrong_config_is_not_worth_a_retry(
    told: Told, launch: Launch, otherwise: dict[str, Any], sentence: str
) -> None:
    run = launch(told("wrong", **otherwise))
    assert run.ended() == 64
    assert sentence in run.stderr.read_text().strip().splitlines()[-1]
