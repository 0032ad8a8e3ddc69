"""A worker: one process of a training run, forked on a node where everything heavy is imported already.

Invariant: it does not outlive its launcher, and it ends at once, wherever it is stuck, when the launcher takes the
group down for a restart. Anybody else's SIGTERM is left to the launcher, which alone decides to stop the run.
"""

import contextlib
import ctypes
import gc
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from baseai.ground.clock import instant
from baseai.workloads.training import assignment as assignments
from baseai.workloads.training.board import Board
from baseai.workloads.training.checkpoint import Fenced
from baseai.workloads.training.data import prepared
from baseai.workloads.training.recipe import RecipeRefused, configured, recipe_named

PR_SET_PDEATHSIG = 1
TAKEN_DOWN = 75  # exit code of a worker that the launcher took down for a restart
LAST_ERROR = "last_error.txt"


def work(train_json: str, launcher_pid: int, launched_at: str) -> Mapping[str, str]:
    """The worker's whole life: what the launcher gets back is how it ended, and why, in one sentence."""
    _bind_to(launcher_pid)
    gc.freeze()  # what was imported before the fork is never garbage
    assignment = assignments.read(Path(train_json))
    try:
        return _trained(assignment, launched_at)
    except RecipeRefused as refused:
        return {"outcome": "refused", "sentence": str(refused)}
    except Fenced as fenced:
        return {"outcome": "fenced", "sentence": str(fenced)}
    except Exception as wrong:  # noqa: BLE001 (the process ends here, whatever it was)
        traceback.print_exc()
        sentence = f"{type(wrong).__name__}: {wrong}".splitlines()[0]
        with contextlib.suppress(OSError):
            (assignment.attempt_folder / LAST_ERROR).write_text(sentence)
        sys.stderr.flush()
        os._exit(1)  # without the orderly end of a group whose other half may be dead


def end_with_parent() -> bool:
    """Ask the kernel to kill this process when its parent ends; False where the kernel cannot be asked."""
    if sys.platform != "linux":
        return False
    return int(ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)) == 0


def _trained(assignment: assignments.Assignment, launched_at: str) -> Mapping[str, str]:
    import torch
    import torch.distributed as dist

    from baseai.workloads.training.loop import FENCED, Loop

    rank, local_rank = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
    board = Board(assignment.attempt_folder, assignment.workers)
    restart = board.round_no
    if assignment.device == "cuda":
        torch.cuda.set_device(local_rank)
    elif "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // assignment.workers))
    store = None
    if assignment.world > 1:
        timeout = timedelta(seconds=assignment.collective_timeout_s)
        shared = dist.TCPStore(
            os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False, timeout=timeout
        )
        # The agent's store outlives a start. Without names of its own a fresh worker may find the address of a
        # dead one there, when it is quicker than its sibling: forked workers are.
        store = dist.PrefixStore(f"start-{restart}", shared)
        dist.init_process_group(
            "nccl" if assignment.device == "cuda" else "gloo",
            store=store,
            rank=rank,
            world_size=assignment.world,
            timeout=timeout,
        )
    config = configured(assignment.recipe, assignment.config)
    task = recipe_named(assignment.recipe).opened(config, prepared(assignment))
    loop = Loop(
        assignment,
        config,
        task,
        board,
        rank=rank,
        local_rank=local_rank,
        store=store if assignment.nodes > 1 else None,
        restart=restart,
        launched_at=instant(launched_at),
    )
    outcome = loop.run()
    if assignment.world > 1:
        dist.destroy_process_group()
    sentence = "a newer attempt has taken the run over" if outcome == FENCED else ""
    return {"outcome": outcome, "sentence": sentence}


def _bind_to(launcher_pid: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Blocked in this thread and in all that it starts, torch's included: only the listener takes it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_listen, args=(launcher_pid,), daemon=True, name="sigterm").start()
    if not end_with_parent():
        threading.Thread(target=_watch, args=(launcher_pid,), daemon=True, name="launcher").start()
    if not _alive(launcher_pid):
        os._exit(TAKEN_DOWN)


def _listen(launcher_pid: int) -> None:
    """Take SIGTERM even while the main thread is deep inside a collective. Only the launcher's own ends us."""
    while True:
        if hasattr(signal, "sigwaitinfo"):
            sender = signal.sigwaitinfo({signal.SIGTERM}).si_pid
        else:
            signal.sigwait({signal.SIGTERM})
            sender = launcher_pid
        if sender == launcher_pid:
            os._exit(TAKEN_DOWN)


def _watch(launcher_pid: int) -> None:
    while _alive(launcher_pid):
        time.sleep(0.5)
    os._exit(TAKEN_DOWN)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
