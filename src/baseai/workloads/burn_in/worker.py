"""A worker loads one accelerator of a burn-in and writes down what it measured, a line for each figure.

`python -m baseai.workloads.burn_in.worker burn_in.json RANK`

Invariant: all workers do the same in the same order, so that every accelerator is measured while its siblings are
loaded as well, which is how it will be used. What a device does not offer is said, never filled in. Exit codes: 0
measured, anything else failed; the last line on standard error says why.
"""

import json
import os
import sys
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from baseai.workloads import progress
from baseai.workloads.burn_in.bus import FACTORS
from baseai.workloads.burn_in.exchange import NotExchanged, exchanges
from baseai.workloads.burn_in.figure import Figure, Test
from baseai.workloads.burn_in.order import Order, read
from baseai.workloads.burn_in.product import NotOffered, Product
from baseai.workloads.burn_in.profile import PROFILES
from baseai.workloads.burn_in.stream import ARRAYS, stream

SOFTWARE_FILE = "software.json"
EXCHANGE_TIMEOUT = timedelta(seconds=120)  # a hung link ends the test, never hangs it for ever


class Bench:
    """One worker's accelerator, and the file its figures go to."""

    def __init__(self, order: Order, rank: int) -> None:
        self.order = order
        self.rank = rank
        self.profile = PROFILES[order.profile]
        self.load = self.profile.loads[order.device]
        self.device = "cpu" if order.device == "cpu" else f"cuda:{rank}"
        self._file = (order.attempt_folder / figures_file(rank)).open("w", encoding="utf-8")

    def keep(
        self,
        test: Test,
        variant: str,
        value: float | None,
        *,
        sentence: str | None = None,
        size_bytes: int | None = None,
        together: bool = False,
    ) -> None:
        """Write a figure down, of this accelerator or of all together."""
        figure = Figure(
            test=test,
            variant=variant,
            accelerator_id=None if together else self.order.accelerator_ids[self.rank],
            value=value,
            size_bytes=size_bytes,
            sentence=sentence,
        )
        self._file.write(json.dumps(figure.to_json(), allow_nan=False) + "\n")
        self._file.flush()

    def say(self, stage: str) -> None:
        """Tell what is done now; the first worker speaks for all."""
        if self.rank == 0:
            progress.tell(self.order.attempt_folder, "stage", stage=stage)
            print(stage, flush=True)

    def wait(self) -> None:
        if self.device != "cpu":
            import torch

            torch.cuda.synchronize()


def figures_file(rank: int) -> str:
    """Where a worker's figures lie in the attempt's folder."""
    return f"figures-{rank}.jsonl"


def software_of(device: str) -> dict[str, str]:
    """The versions that a figure was measured with."""
    import platform

    import torch

    import baseai

    found = {"baseai": baseai.__version__, "python": platform.python_version(), "torch": torch.__version__}
    if device != "cpu":
        for name in ("cuda", "hip"):
            version = getattr(torch.version, name, None)
            if version:
                found[name] = str(version)
        if torch.version.cuda:
            found["nccl"] = ".".join(str(part) for part in torch.cuda.nccl.version())
    return found


def measure(bench: Bench) -> None:
    """Everything, in order."""
    _meet(bench)
    if bench.rank == 0:
        told = json.dumps(software_of(bench.order.device))
        (bench.order.attempt_folder / SOFTWARE_FILE).write_text(told, encoding="utf-8")
    for number_format in bench.load.gemm_formats:
        bench.say(f"products of {number_format}")
        _measure_product(bench, number_format)
    for way in ARRAYS:
        bench.say(f"memory: {way}")
        _together(bench)
        moved = stream(
            way,
            memory_mib=bench.load.memory_mib,
            device=bench.device,
            seconds=bench.profile.memory_s,
            wait=bench.wait,
        )
        bench.keep(Test.MEMORY, way, moved.gb_per_s)
        bench.keep(Test.MEMORY_WRONG, way, moved.wrong_elements)
    for collective in FACTORS:
        _measure_bus(bench, collective)
    bench.say("soak")
    _together(bench)
    number_format = "fp32" if bench.device == "cpu" else "bf16"
    rates = Product(number_format, bench.load.gemm_rows, bench.device, seed=bench.rank).run(
        bench.profile.soak_s
    )
    bench.keep(Test.SOAK, "rate_kept", rates.kept_ratio)
    bench.keep(Test.GEMM_WRONG, "soak", rates.wrong_rows)
    _part(bench)


def _measure_product(bench: Bench, number_format: str) -> None:
    try:
        product: Product | None = Product(number_format, bench.load.gemm_rows, bench.device, seed=bench.rank)
    except NotOffered as none:
        product = None
        bench.keep(Test.GEMM, number_format, None, sentence=str(none))
    _together(bench)
    if product is not None:
        rates = product.run(bench.profile.gemm_s)
        bench.keep(Test.GEMM, number_format, rates.median)
        bench.keep(Test.GEMM_WRONG, number_format, rates.wrong_rows)


def _measure_bus(bench: Bench, collective: str) -> None:
    if len(bench.order.accelerator_ids) < 2:
        bench.keep(
            Test.BUS, collective, None, sentence="one accelerator has nobody to exchange with", together=True
        )
        return
    bench.say(f"bus: {collective}")
    wrong = 0
    try:
        for done in exchanges(
            collective,
            least_bytes=bench.load.bus_least_bytes,
            most_bytes=bench.load.bus_most_bytes,
            device=bench.device,
            seconds=bench.profile.bus_s,
            wait=bench.wait,
        ):
            wrong += done.wrong_elements
            if bench.rank == 0:
                bench.keep(Test.BUS, collective, done.bus_gb_per_s, size_bytes=done.size_bytes, together=True)
    except NotExchanged as none:
        if bench.rank == 0:
            bench.keep(Test.BUS, collective, None, sentence=str(none), together=True)
        return
    if bench.rank == 0:
        bench.keep(Test.BUS_WRONG, collective, wrong, together=True)


def _meet(bench: Bench) -> None:
    """Join the other workers, by a file in the attempt's folder; gloo on cores, NCCL or RCCL on devices."""
    import torch
    import torch.distributed as dist

    torch.backends.cuda.matmul.allow_tf32 = False  # fp32 means fp32
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    if bench.device != "cpu":
        seen = torch.cuda.device_count()
        if seen <= bench.rank:
            build = torch.version.cuda or torch.version.hip
            has = (
                f"PyTorch {torch.__version__} sees {seen} devices"
                if build
                else "PyTorch is built for the CPU alone"
            )
            raise RuntimeError(f"this node cannot test device {bench.rank}: its {has}")
        torch.cuda.set_device(bench.rank)
    else:
        torch.set_num_threads(1)
    ranks = len(bench.order.accelerator_ids)
    if ranks > 1:
        dist.init_process_group(
            "gloo" if bench.device == "cpu" else "nccl",  # torch's name for RCCL is nccl as well
            init_method=f"file://{bench.order.attempt_folder / 'rendezvous'}",
            rank=bench.rank,
            world_size=ranks,
            timeout=EXCHANGE_TIMEOUT,
        )


def _part(bench: Bench) -> None:
    if len(bench.order.accelerator_ids) > 1:
        import torch.distributed as dist

        dist.destroy_process_group()


def _together(bench: Bench) -> None:
    """Wait for the others, so that all are under load at the same time."""
    if len(bench.order.accelerator_ids) > 1:
        import torch.distributed as dist

        dist.barrier()


def _bind(order: Order, rank: int) -> None:
    if order.cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, order.cores[rank])


def main(arguments: list[str], *, work: Callable[[Bench], None] = measure) -> int:
    """Measure what the order in the arguments asks of one rank; the exit code."""
    order, rank = read(Path(arguments[0])), int(arguments[1])
    _bind(order, rank)
    try:
        work(Bench(order, rank))
    except Exception as wrong:  # noqa: BLE001 (the process ends here, whatever it was)
        traceback.print_exc()
        print(f"accelerator {order.accelerator_ids[rank]}: {type(wrong).__name__}: {wrong}".splitlines()[0],
              file=sys.stderr, flush=True)  # fmt: skip
        os._exit(1)  # without the orderly end of a group whose other half may be dead
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
