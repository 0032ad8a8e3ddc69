import os
import signal
from pathlib import Path

import pytest

from baseai.workloads.training.checkpoint import claim, committed

torch = pytest.importorskip("torch")

from baseai.workloads.training.staging import BUFFERS, Staging  # noqa: E402 (after the skip)


def test_the_loop_never_waits_for_a_stuck_disk(tmp_path: Path) -> None:
    claim(tmp_path, 1)
    staging = Staging(tmp_path, run_id="run_1", attempt_no=1, restart=0, keep=3)
    state = {"model.weight": torch.zeros(1000)}
    staging.allocate(state)
    assert staging.writer_pid is not None
    os.kill(staging.writer_pid, signal.SIGSTOP)  # a writer that makes no progress
    for step in range(1, BUFFERS + 1):
        assert staging.free
        state["model.weight"].fill_(step)
        staging.stage(state, step=step, facts={})
    assert not staging.free
    assert staging.news() == []
    state["model.weight"].fill_(99)  # training goes on; what was staged is not touched
    os.kill(staging.writer_pid, signal.SIGCONT)
    assert [answer.step for answer in staging.finish(20)] == [1, 2]
    staging.close()
    from safetensors.torch import load_file

    assert [float(load_file(each.state)["model.weight"][0]) for each in committed(tmp_path)] == [2, 1]
