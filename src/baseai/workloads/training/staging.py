"""Staging is how rank 0 hands a state to the writer: one copy into memory that was allocated beforehand.

Invariant: a buffer belongs to the loop or to the writer, never to both; where both buffers are with the writer, a
checkpoint that falls due waits for the next step, and the loop never waits for the disk. A buffer holds the exact
bytes of a safetensors file, so that the writer only hashes and writes. A writer that dies is replaced.
"""

import contextlib
import json
import mmap
import os
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import baseai
from baseai.workloads.training import writer

SOURCE = str(Path(baseai.__file__).parents[1])
CLOSE_TIMEOUT_S = 10
BUFFERS = 2
DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """The writer's word that a checkpoint is safe."""

    step: int
    path: str
    digest: str
    size_bytes: int
    stall_s: float
    save_s: float
    stolen_cpu_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NotSaved:
    """A checkpoint that did not come to be, and why; the last committed one stays."""

    step: int
    sentence: str
    newer_attempt_no: int | None = None  # set where the run has been taken over


class Staging:
    """Two buffers and one writer. Made for the tensors' names, shapes and types, which stay as they are."""

    def __init__(self, folder: Path, *, run_id: str, attempt_no: int, restart: int, keep: int) -> None:
        self._order = {
            "folder": str(folder),
            "run_id": run_id,
            "attempt_no": attempt_no,
            "restart": restart,
            "keep": keep,
        }
        self._header = b""
        self._stride = 0
        self._memory: mmap.mmap | None = None
        self._handle = -1
        self._views: list[dict[str, torch.Tensor]] = []
        self._writer: subprocess.Popen[bytes] | None = None
        self._with_writer: dict[int, tuple[int, float]] = {}  # buffer -> (step, stall_s)
        self._unread = b""

    @property
    def free(self) -> bool:
        """True when a buffer is the loop's."""
        return len(self._with_writer) < BUFFERS

    def allocate(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Reserve both buffers and start the writer, so that the first stall is no longer than the others."""
        if self._memory is not None:
            return
        self._header, spans = _header(tensors)
        size = len(self._header) + max((end for _, end in spans.values()), default=0)
        self._stride = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        self._handle = _memory_file(self._stride * BUFFERS)
        flags = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)
        self._memory = mmap.mmap(self._handle, self._stride * BUFFERS, flags=flags)
        for buffer in range(BUFFERS):
            begin = buffer * self._stride
            self._memory[begin : begin + len(self._header)] = self._header
            views = {}
            for name, (first, _) in spans.items():
                tensor = tensors[name]
                at = begin + len(self._header) + first
                flat = torch.frombuffer(self._memory, dtype=tensor.dtype, count=tensor.numel(), offset=at)
                views[name] = flat.view(tensor.shape)
            self._views.append(views)
        self._size_bytes = size
        self._start_writer()

    def stage(self, tensors: Mapping[str, torch.Tensor], *, step: int, facts: Mapping[str, Any]) -> float:
        """Copy the state and order its commit; the seconds the loop stood still. Needs `free`."""
        began_s = time.perf_counter()
        self.allocate(tensors)
        buffer = next(each for each in range(BUFFERS) if each not in self._with_writer)
        views = self._views[buffer]
        torch._foreach_copy_([views[name] for name in views], [tensors[name] for name in views])
        stall_s = time.perf_counter() - began_s
        order = self._order | {
            "step": step,
            "buffer": buffer,
            "begin": buffer * self._stride,
            "size_bytes": self._size_bytes,
            "facts": dict(facts),
        }
        self._with_writer[buffer] = (step, stall_s)
        try:
            assert self._writer is not None
            assert self._writer.stdin is not None
            self._writer.stdin.write(json.dumps(order).encode() + b"\n")
        except BrokenPipeError:
            pass  # told, and mended, by the next `news`
        return time.perf_counter() - began_s

    def news(self) -> list[Committed | NotSaved]:
        """What the writer has answered since the last call; never waits. Costs one system call when it is quiet."""
        if self._writer is None or not self._with_writer:
            return []
        assert self._writer.stdout is not None
        told: list[Committed | NotSaved] = []
        while True:
            try:
                read = os.read(self._writer.stdout.fileno(), 65536)
            except BlockingIOError:
                break
            if not read:
                told += self._mend()
                break
            self._unread += read
        *lines, self._unread = self._unread.split(b"\n")
        return [self._answered(json.loads(line)) for line in lines] + told

    def finish(self, timeout_s: float) -> list[Committed | NotSaved]:
        """Wait for the outstanding answers."""
        told: list[Committed | NotSaved] = []
        deadline_s = time.monotonic() + timeout_s
        while self._with_writer and time.monotonic() < deadline_s:
            told += self.news()
            if self._with_writer:
                time.sleep(0.005)
        return told

    @property
    def writer_pid(self) -> int | None:
        """The writer's process, once it is started."""
        return None if self._writer is None else self._writer.pid

    def close(self) -> None:
        """Let the writer end; what it was asked for is still committed. A writer that is stuck is left behind."""
        if self._writer is None or self._writer.stdin is None or self._writer.stdout is None:
            return
        self._writer.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._writer.wait(CLOSE_TIMEOUT_S)
        self._writer.stdout.close()
        self._writer = None
        os.close(self._handle)

    def _start_writer(self) -> None:
        start = f"import sys; sys.path.insert(0, {SOURCE!r}); from {writer.__name__} import main; main()"
        self._writer = subprocess.Popen(
            [sys.executable, "-c", start, str(self._handle), str(self._stride * BUFFERS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            pass_fds=[self._handle],
        )
        assert self._writer.stdout is not None
        os.set_blocking(self._writer.stdout.fileno(), False)
        self._unread = b""

    def _mend(self) -> list[Committed | NotSaved]:
        """The writer is gone: give its buffers back to the loop and start another."""
        assert self._writer is not None
        code = self._writer.wait()
        for pipe in (self._writer.stdin, self._writer.stdout):
            assert pipe is not None
            pipe.close()
        lost = [step for step, _ in self._with_writer.values()]
        self._with_writer.clear()
        self._start_writer()
        return [
            NotSaved(
                step=step, sentence=f"the checkpoint of step {step} was not saved: its writer ended ({code})"
            )
            for step in lost
        ]

    def _answered(self, answer: dict[str, Any]) -> Committed | NotSaved:
        step, stall_s = self._with_writer.pop(answer["buffer"])
        if "path" in answer:
            return Committed(
                step=step,
                path=answer["path"],
                digest=answer["digest"],
                size_bytes=answer["size_bytes"],
                stall_s=stall_s,
                save_s=answer["save_s"],
                stolen_cpu_s=answer["cpu_s"],
            )
        newer = answer.get("fenced")
        sentence = answer.get("error") or f"the run has been taken over by attempt {newer}"
        return NotSaved(step=step, sentence=sentence, newer_attempt_no=newer)


def _header(tensors: Mapping[str, torch.Tensor]) -> tuple[bytes, dict[str, tuple[int, int]]]:
    """The head of a safetensors file and each tensor's span behind it; wide types first, so that all are aligned."""
    spans: dict[str, tuple[int, int]] = {}
    described: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name in sorted(tensors, key=lambda name: (-tensors[name].element_size(), name)):
        tensor = tensors[name]
        spans[name] = (at, at + tensor.numel() * tensor.element_size())
        described[name] = {
            "dtype": DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": list(spans[name]),
        }
        at = spans[name][1]
    text = json.dumps(described, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text, spans


def _memory_file(size_bytes: int) -> int:
    """A descriptor of memory without a name: nothing is left behind, whoever is killed."""
    if hasattr(os, "memfd_create"):
        handle = os.memfd_create("baseai-staging")
    else:
        with tempfile.TemporaryFile() as file:
            handle = os.dup(file.fileno())
    os.ftruncate(handle, size_bytes)
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(handle, 0, size_bytes)
    return handle
