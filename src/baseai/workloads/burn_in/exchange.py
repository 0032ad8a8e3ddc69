"""An exchange is a collective between the workers, timed as nccl-tests times it.

Invariant: 5 warm-ups, then a barrier, then 20 exchanges without one; the time is that of the slowest rank, and each
size is first checked on fresh data, every element of it. Doubling ends when `seconds` are spent, on all ranks alike.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from baseai.workloads.burn_in.bus import ITERATIONS, WARM_UPS, bandwidth_of, sizes_of

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchanged:
    """One size of one collective."""

    size_bytes: int
    bus_gb_per_s: float
    wrong_elements: int  # over all ranks


class NotExchanged(Exception):
    """The backend has no such collective; the sentence says what it said."""


def exchanges(
    collective: str,
    *,
    least_bytes: int,
    most_bytes: int,
    device: str,
    seconds: float,
    wait: Callable[[], None],
) -> Iterator[Exchanged]:
    """One collective at doubling sizes. Every rank iterates alike. Raises NotExchanged."""
    import torch
    import torch.distributed as dist

    ranks = dist.get_world_size()
    spent_s = 0.0
    for asked in sizes_of(least_bytes, most_bytes):
        began_s = time.perf_counter()
        each = max(1, asked // 4 // ranks)  # elements of one rank's part
        work, wrong_of = _work(collective, each, device)
        size_bytes = each * ranks * 4
        try:
            work()
        except (RuntimeError, NotImplementedError, ValueError) as wrong:
            raise NotExchanged(str(wrong).splitlines()[0]) from wrong
        wait()
        wrong_here = torch.tensor([float(wrong_of())], device=device)
        dist.all_reduce(wrong_here)
        for _ in range(WARM_UPS):
            work()
        wait()
        dist.barrier()
        timed_s = time.perf_counter()
        for _ in range(ITERATIONS):
            work()
        wait()
        slowest = torch.tensor(
            [(time.perf_counter() - timed_s) / ITERATIONS, time.perf_counter() - began_s],
            dtype=torch.float64 if device == "cpu" else torch.float32,
            device=device,
        )
        dist.all_reduce(slowest, op=dist.ReduceOp.MAX)
        yield Exchanged(
            size_bytes=size_bytes,
            bus_gb_per_s=bandwidth_of(
                collective, size_bytes=size_bytes, ranks=ranks, slowest_s=float(slowest[0])
            ).bus_gb_per_s,
            wrong_elements=int(wrong_here.item()),
        )
        spent_s += float(slowest[1])  # the same on every rank, so that all of them stop here
        if spent_s > seconds:
            return


def _work(collective: str, each: int, device: str) -> "tuple[Callable[[], object], Callable[[], int]]":
    """The exchange, and how many elements of this rank's result are wrong after the first of it."""
    import torch
    import torch.distributed as dist

    rank, ranks = dist.get_rank(), dist.get_world_size()

    def full(value: float, count: int) -> "torch.Tensor":
        return torch.full((count,), value, device=device)

    def own(of_rank: int) -> float:
        return float(of_rank + 1)

    everybody = sum(own(other) for other in range(ranks))
    by_rank = torch.arange(1, ranks + 1, dtype=torch.float32, device=device)
    if collective == "all_reduce":
        whole = full(own(rank), each * ranks)
        return lambda: dist.all_reduce(whole), lambda: int((whole != everybody).sum())
    if collective == "broadcast":
        whole = full(own(rank), each * ranks)
        return lambda: dist.broadcast(whole, src=0), lambda: int((whole != own(0)).sum())
    if collective == "all_gather":
        part, whole = full(own(rank), each), full(0.0, each * ranks)
        expected = by_rank.repeat_interleave(each)
        return lambda: dist.all_gather_single(whole, part), lambda: int((whole != expected).sum())
    if collective == "reduce_scatter":
        whole, part = full(own(rank), each * ranks), full(0.0, each)
        return lambda: dist.reduce_scatter_single(part, whole), lambda: int((part != everybody).sum())
    if collective == "all_to_all":
        whole, into = full(own(rank), each * ranks), full(0.0, each * ranks)
        expected = by_rank.repeat_interleave(each)
        return lambda: dist.all_to_all_single(into, whole), lambda: int((into != expected).sum())
    raise ValueError(f"there is no collective {collective}")
