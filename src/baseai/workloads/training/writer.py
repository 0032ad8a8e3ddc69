"""The writer is a small process beside rank 0: it turns staged memory into committed checkpoints.

Invariant: it answers every order with one line, touches a staged buffer only between order and answer, and ends
when its orders end, finishing what it was asked for. It imports no torch: starting it costs some 50 ms.
Orders and answers are JSON lines on standard input and output; the buffers are an inherited memory file.
"""

import errno
import hashlib
import json
import mmap
import os
import resource
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

from baseai.workloads.training import checkpoint

BLOCK_BYTES = 1 << 22


def save(memory: mmap.mmap, order: dict[str, Any]) -> dict[str, Any]:
    """Write, sync and commit one staged state; the answer says what it cost or why it was refused."""
    began_s = time.monotonic()
    cpu_s = _cpu_s()
    folder = Path(order["folder"])
    name = checkpoint.name_of(attempt_no=order["attempt_no"], restart=order["restart"], step=order["step"])
    staged = folder / f".staged-{name}-{os.getpid()}"
    answer: dict[str, Any] = {
        "buffer": order["buffer"],
        "step": order["step"],
        "size_bytes": order["size_bytes"],
    }
    try:
        digest = _write(memory, staged, order)
        path = checkpoint.commit(
            staged, folder, name=name, attempt_no=order["attempt_no"], keep=order["keep"]
        )
        answer |= {"path": str(path), "digest": digest}
    except checkpoint.Fenced as fenced:
        answer |= {"fenced": fenced.newer_attempt_no}
    except OSError as wrong:
        answer |= {"error": _sentence(wrong, folder, order)}
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return answer | {"save_s": time.monotonic() - began_s, "cpu_s": _cpu_s() - cpu_s}


def main() -> None:
    """Serve orders until standard input ends. Arguments: the memory file's descriptor and its size in bytes."""
    # The run is stopped by its launcher; this process ends when rank 0 does, and finishes its order first.
    for ignored in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGXFSZ):
        signal.signal(ignored, signal.SIG_IGN)
    memory = mmap.mmap(int(sys.argv[1]), int(sys.argv[2]), access=mmap.ACCESS_READ)
    for line in sys.stdin.buffer:
        answer = json.dumps(save(memory, json.loads(line))) + "\n"
        try:
            os.write(1, answer.encode())
        except BrokenPipeError:
            return


def _write(memory: mmap.mmap, staged: Path, order: dict[str, Any]) -> str:
    staged.mkdir(parents=True)
    begin, size = int(order["begin"]), int(order["size_bytes"])
    digest = hashlib.sha256()
    handle = os.open(staged / checkpoint.STATE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(handle, 0, size)  # a full disk is found before the first byte is written
        view = memoryview(memory)
        for at in range(begin, begin + size, BLOCK_BYTES):
            block = view[at : min(at + BLOCK_BYTES, begin + size)]
            digest.update(block)
            while block:
                block = block[os.write(handle, block) :]
        os.fsync(handle)
    finally:
        os.close(handle)
    told = {key: order[key] for key in ("run_id", "attempt_no", "restart", "step", "size_bytes", "facts")}
    text = json.dumps(told | {"form": 1, "digest": digest.hexdigest()}, indent=1)
    with (staged / checkpoint.MANIFEST).open("x") as manifest:
        manifest.write(text)
        manifest.flush()
        os.fsync(manifest.fileno())
    checkpoint.sync_folder(staged)
    return digest.hexdigest()


def _sentence(wrong: OSError, folder: Path, order: dict[str, Any]) -> str:
    if wrong.errno in (errno.ENOSPC, errno.EDQUOT):
        need_mb = order["size_bytes"] / 1e6
        return (
            f"the checkpoint of step {order['step']} was not saved: no space left under {folder} for {need_mb:.0f} MB; "
            "training goes on and the last committed checkpoint stays"
        )
    return f"the checkpoint of step {order['step']} was not saved under {folder}: {wrong.strerror or wrong}"


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
