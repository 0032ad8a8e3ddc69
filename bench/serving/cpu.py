"""What a system costs is the CPU of its whole process tree, and where it may run is a set of cores.

Invariant: a tree is found by parentage alone, from the one process that a bench started; nothing is found, paused or
ended by its name. On a machine of two cores the system that is measured has the first to itself, and whoever asks
and answers it shares the second; with more, load and replicas have one each.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

TICK_MS = 1000 / os.sysconf("SC_CLK_TCK")

_ALLOWED = sorted(os.sched_getaffinity(0))
FRONT_CORES = frozenset(_ALLOWED[: max(1, len(_ALLOWED) - 2)] if len(_ALLOWED) > 2 else _ALLOWED[:1])
LOAD_CORES = frozenset(_ALLOWED[-1:])
REPLICA_CORES = frozenset(_ALLOWED[-2:-1] if len(_ALLOWED) > 2 else _ALLOWED[-1:])


def _stat(pid: int) -> list[str] | None:
    """The fields after the name, from the state on; None when the process is gone or only waits to be reaped."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields


def tree(root: int) -> dict[int, int]:
    """pid → when it started, in ticks since boot, of the process and all that lives below it."""
    stats = {int(name): _stat(int(name)) for name in os.listdir("/proc") if name.isdigit()}
    living = {pid: fields for pid, fields in stats.items() if fields is not None}
    found = {root} & living.keys()
    while more := {pid for pid, fields in living.items() if int(fields[1]) in found} - found:
        found |= more
    return {pid: int(living[pid][19]) for pid in found}


def cpu_ms(root: int) -> float:
    """CPU time of the tree so far, of its ended and reaped members too; in steps of a tick, mostly 10 ms."""
    taken = 0
    for pid in tree(root):
        if (fields := _stat(pid)) is not None:
            taken += sum(map(int, fields[11:15]))
    return taken * TICK_MS


def signal_all(pids: dict[int, int], number: signal.Signals) -> None:
    """Each of them that is still the process it was."""
    for pid, started in pids.items():
        fields = _stat(pid)
        if fields is not None and int(fields[19]) == started:
            with suppress(ProcessLookupError):
                os.kill(pid, number)


def end(root: int, *, within_s: float = 10.0) -> None:
    """Ask the tree's root to end, and end what is left of the tree when the time is over."""
    pids = tree(root)
    with suppress(ProcessLookupError):
        os.kill(root, signal.SIGTERM)
    deadline_s = time.monotonic() + within_s
    while time.monotonic() < deadline_s:
        pids |= tree(root)
        if not any((fields := _stat(pid)) and int(fields[19]) == started for pid, started in pids.items()):
            return
        time.sleep(0.05)
    signal_all(pids, signal.SIGKILL)


@contextmanager
def still(roots: list[int]) -> Iterator[None]:
    """Whoever is not being measured stands still, so that his housekeeping costs the other nothing."""
    pids: dict[int, int] = {}
    for root in roots:
        pids |= tree(root)
    signal_all(pids, signal.SIGSTOP)
    try:
        yield
    finally:
        signal_all(pids, signal.SIGCONT)
