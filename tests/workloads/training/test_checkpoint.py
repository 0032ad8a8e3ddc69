"""The folder's rules with real files, and the writer with real kills."""

import json
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from baseai.workloads.training import checkpoint
from baseai.workloads.training.checkpoint import (
    Checkpoint,
    Fenced,
    claim,
    commit,
    name_of,
    names,
    newest,
    sweep,
)

torch = pytest.importorskip("torch")

from baseai.workloads.training.staging import Committed, NotSaved, Staging  # noqa: E402 (after the skip)


def staging(folder: Path, *, attempt_no: int = 1, restart: int = 0, keep: int = 3) -> Staging:
    return Staging(folder, run_id="run_1", attempt_no=attempt_no, restart=restart, keep=keep)


def tensors(step: int, numbers: int = 1000) -> dict[str, "torch.Tensor"]:
    return {
        "model.weight": torch.full((numbers, 2), float(step)),
        "model.flags": torch.ones(3, dtype=torch.bool),
        "model.scalar": torch.tensor(step, dtype=torch.int64),
    }


def saved(folder: Path, step: int, *, attempt_no: int = 1, keep: int = 3) -> Committed | NotSaved:
    writer = staging(folder, attempt_no=attempt_no, keep=keep)
    writer.stage(tensors(step), step=step, facts={})
    (answer,) = writer.finish(20)
    writer.close()
    return answer


def loaded_step(found: Checkpoint) -> int:
    from safetensors.torch import load_file

    state = load_file(found.state)
    assert torch.equal(state["model.weight"], tensors(found.step)["model.weight"])
    return int(state["model.scalar"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    claim(tmp_path / "checkpoints", 1)
    return tmp_path / "checkpoints"


def test_what_was_staged_is_what_is_loaded(folder: Path) -> None:
    answer = saved(folder, 7)
    assert isinstance(answer, Committed)
    found = newest(folder)
    assert found is not None
    assert str(found.path) == answer.path
    assert (found.attempt_no, found.step, found.digest) == (1, 7, answer.digest)
    assert loaded_step(found) == 7
    assert [name for name in os.listdir(folder) if name.startswith(".")] == []


@pytest.mark.parametrize("harm", ["cut", "flip", "no manifest", "half a manifest", "no state"])
def test_a_harmed_checkpoint_is_passed_over(folder: Path, harm: str) -> None:
    saved(folder, 10)
    saved(folder, 20)
    path = folder / names(folder)[0]
    state, manifest = path / checkpoint.STATE, path / checkpoint.MANIFEST
    if harm == "cut":
        os.truncate(state, state.stat().st_size - 1)
    elif harm == "flip":
        with state.open("r+b") as file:
            file.seek(-5, os.SEEK_END)
            file.write(b"\xff")
    elif harm == "no manifest":
        manifest.unlink()
    elif harm == "half a manifest":
        os.truncate(manifest, manifest.stat().st_size // 2)
    else:
        state.unlink()
    found = newest(folder)
    assert found is not None
    assert loaded_step(found) == 10


def test_an_older_attempt_is_refused_and_leaves_nothing(folder: Path) -> None:
    saved(folder, 10)
    claim(folder, 3)
    answer = saved(folder, 99, attempt_no=2)
    assert isinstance(answer, NotSaved)
    assert answer.newer_attempt_no == 3
    assert [found.step for found in checkpoint.committed(folder)] == [10]
    assert [name for name in os.listdir(folder) if name.startswith(".")] == []
    with pytest.raises(Fenced) as fenced:
        claim(folder, 2)
    assert fenced.value.newer_attempt_no == 3
    claim(folder, 3)  # once and again


def test_an_older_attempt_that_was_writing_is_refused_at_commit(folder: Path) -> None:
    staged = folder / ".staged-x"
    staged.mkdir()
    claim(folder, 2)
    with pytest.raises(Fenced):
        commit(staged, folder, name=name_of(attempt_no=1, restart=0, step=5), attempt_no=1, keep=3)
    assert names(folder) == []


def test_the_newest_three_stay(folder: Path) -> None:
    for step in (1, 2, 3, 4, 5):
        saved(folder, step)
    assert [found.step for found in checkpoint.committed(folder)] == [5, 4, 3]


def test_a_later_life_counts_as_newer_whatever_its_step() -> None:
    lives = [name_of(attempt_no=a, restart=r, step=s) for a, r, s in [(1, 0, 90), (1, 1, 20), (2, 0, 5)]]
    assert sorted(lives, reverse=True) == lives[::-1]


def test_what_dead_writers_left_is_swept(folder: Path) -> None:
    ours = folder / f".staged-{name_of(attempt_no=2, restart=1, step=5)}-77"
    dead = folder / f".staged-{name_of(attempt_no=2, restart=0, step=5)}-66"
    gone = folder / f".gone-{name_of(attempt_no=1, restart=4, step=5)}"
    for each in (ours, dead, gone):
        each.mkdir()
    sweep(folder, attempt_no=2, restart=1)
    assert (ours.exists(), dead.exists(), gone.exists()) == (True, False, False)


@pytest.mark.skipif(sys.platform != "linux", reason="limits another process")
def test_a_full_disk_is_one_sentence_and_the_last_one_stays(folder: Path) -> None:
    saved(folder, 10)
    # A file-size limit is the nearest to a full disk that needs no rights; the kernel refuses the writer alone.
    import resource

    from baseai.workloads.training import writer

    staged = staging(folder)
    staged.allocate(tensors(20))
    assert staged.writer_pid is not None
    resource.prlimit(staged.writer_pid, resource.RLIMIT_FSIZE, (4096, 4096))
    staged.stage(tensors(20), step=20, facts={})
    (answer,) = staged.finish(20)
    staged.close()
    assert isinstance(answer, NotSaved)
    assert answer.sentence.startswith("the checkpoint of step 20 was not saved")
    told = writer._sentence(OSError(28, "x"), folder, {"step": 20, "size_bytes": 5_000_000})
    assert "no space left" in told
    assert "5 MB" in told
    assert "the last committed checkpoint stays" in told
    found = newest(folder)
    assert found is not None
    assert found.step == 10


@pytest.fixture
def chance() -> random.Random:
    return random.Random(20261122)


def test_twenty_kills_of_the_writer_never_cost_a_committed_checkpoint(
    folder: Path, chance: random.Random
) -> None:
    writer = staging(folder)
    step, lost, last_committed = 0, 0, 0
    writer.allocate(tensors(0, 200_000))
    for _ in range(20):
        step += 1
        pid = writer.writer_pid
        assert pid is not None
        killer = threading.Timer(chance.uniform(0.0, 0.06), os.kill, (pid, signal.SIGKILL))
        killer.start()
        writer.stage(tensors(step, 200_000), step=step, facts={})
        news = writer.finish(20)
        killer.join()
        for answer in news:
            if isinstance(answer, Committed):
                last_committed = answer.step
            else:
                lost += 1
        deadline_s = time.monotonic() + 10
        while writer.writer_pid == pid and time.monotonic() < deadline_s:
            step += 1  # the dead writer is noticed, and replaced, by the next order
            writer.stage(tensors(step, 200_000), step=step, facts={})
            for answer in writer.finish(20):
                last_committed = answer.step if isinstance(answer, Committed) else last_committed
        found = newest(folder)
        assert found is not None or last_committed == 0
        if found is not None:
            assert found.step >= last_committed
            manifest = json.loads((found.path / checkpoint.MANIFEST).read_bytes())
            assert manifest["step"] == found.step
            from safetensors.torch import load_file

            assert float(load_file(found.state)["model.weight"][0, 0]) == found.step
    assert lost > 0  # some kills did hit a save
    writer.close()
