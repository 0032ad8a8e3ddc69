"""The board is a page of memory that the launcher and the workers of one node share through a file.

Invariant: each cell has one writer (launcher, rank 0, or the rank it belongs to) and is eight aligned bytes, so
that a reader sees a whole value. What rank 0 writes before it joins a step's gradient sync, every other worker
sees after that step's sync: this is how all workers stop after the same step without a message of their own.
"""

import mmap
import os
import struct
from pathlib import Path

FILE = "board"
CELLS = struct.Struct("=q")
REALS = struct.Struct("=d")
STOP_ASKED, STOP_AFTER, SAVE_AFTER, ROUND, EXECUTED, LOSSES = range(6)
LOSS_SLOTS = 4  # a worker is at most one step ahead of another
NEVER = 1 << 62


class Board:
    """The mapped page; `workers` is the number on this node."""

    def __init__(self, attempt_folder: Path, workers: int) -> None:
        path = attempt_folder / FILE
        size = 8 * (LOSSES + LOSS_SLOTS * workers)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if os.fstat(handle).st_size < size:
                os.ftruncate(handle, size)
            self._memory = mmap.mmap(handle, size)
        finally:
            os.close(handle)
        self._workers = workers

    def open(self) -> None:
        """The launcher, when it begins: a wish to stop an earlier launcher is not for this one."""
        self._put(STOP_ASKED, 0)
        self._put(STOP_AFTER, NEVER)

    def reset(self, round_no: int) -> None:
        """The launcher, before it starts a group of workers."""
        self._put(STOP_AFTER, NEVER)
        self._put(SAVE_AFTER, -1)
        self._put(ROUND, round_no)

    def ask_stop(self) -> None:
        """The launcher was told to stop."""
        self._put(STOP_ASKED, 1)

    @property
    def stop_asked(self) -> bool:
        return self._get(STOP_ASKED) == 1

    @property
    def round_no(self) -> int:
        """How often the group has been started, agreed by all nodes; 0 is the first start."""
        return self._get(ROUND)

    @property
    def stop_after(self) -> int:
        """The last step to do, written by rank 0."""
        return self._get(STOP_AFTER)

    @stop_after.setter
    def stop_after(self, step: int) -> None:
        self._put(STOP_AFTER, step)

    @property
    def save_after(self) -> int:
        """The step after which a sharded state is gathered, written by rank 0."""
        return self._get(SAVE_AFTER)

    @save_after.setter
    def save_after(self, step: int) -> None:
        self._put(SAVE_AFTER, step)

    @property
    def executed(self) -> int:
        """Steps done in this attempt over all its restarts, repeated ones included; rank 0's."""
        return self._get(EXECUTED)

    @executed.setter
    def executed(self, steps: int) -> None:
        self._put(EXECUTED, steps)

    def put_loss(self, local_rank: int, step: int, loss: float) -> None:
        """A worker's own mean loss of a step."""
        at = 8 * (LOSSES + local_rank * LOSS_SLOTS + step % LOSS_SLOTS)
        REALS.pack_into(self._memory, at, loss)

    def losses(self, step: int) -> list[float]:
        """The workers' losses of a step; whole once the next step's gradients are in."""
        return [
            float(REALS.unpack_from(self._memory, 8 * (LOSSES + rank * LOSS_SLOTS + step % LOSS_SLOTS))[0])
            for rank in range(self._workers)
        ]

    def _put(self, cell: int, value: int) -> None:
        CELLS.pack_into(self._memory, 8 * cell, value)

    def _get(self, cell: int) -> int:
        return int(CELLS.unpack_from(self._memory, 8 * cell)[0])
