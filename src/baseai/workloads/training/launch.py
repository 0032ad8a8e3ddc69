"""The launcher of one node's workers, on PyTorch's elastic agent.

`python -m baseai.workloads.training.launch train.json`

Invariant: when it ends, its workers have ended. Exit codes: 0 finished, 64 the config is wrong, 143 stopped as
asked, anything else failed; the last line on standard error says why. Workers are forked from a process that
imported torch while the launcher itself was starting, so that a restart after a kill costs no import.
"""

import contextlib
import fcntl
import logging
import multiprocessing
import os
import signal
import socket
import struct
import sys
from collections.abc import Mapping
from multiprocessing import forkserver
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from baseai.ground.clock import now_utc
from baseai.ground.fault import Fault, Refused
from baseai.workloads import progress
from baseai.workloads.training.assignment import Assignment, read
from baseai.workloads.training.board import Board
from baseai.workloads.training.data import prepared
from baseai.workloads.training.recipe import RecipeRefused, configured, recipe_named

if TYPE_CHECKING:
    from torch.distributed.elastic.agent.server.api import RunResult

FINISHED, FAILED, CONFIG_WRONG, STOPPED = 0, 1, 64, 143
MONITOR_INTERVAL_S = 0.1
JOIN_TIMEOUT_S = 300


class Stop:
    """The wish to stop: the first SIGTERM asks the workers, the end of the grace kills them."""

    def __init__(self, board: Board, grace_s: float) -> None:
        self._board = board
        self._grace_s = grace_s
        self.asked = False
        self.workers_started = False

    def install(self) -> None:
        signal.signal(signal.SIGTERM, self._ask)
        signal.signal(signal.SIGINT, self._ask)
        signal.signal(signal.SIGALRM, self._kill)

    def _ask(self, signum: int, frame: FrameType | None) -> None:
        if not self.workers_started:
            raise SystemExit(STOPPED)
        if not self.asked:
            self.asked = True
            self._board.ask_stop()
            signal.setitimer(signal.ITIMER_REAL, self._grace_s)

    def _kill(self, signum: int, frame: FrameType | None) -> None:
        from torch.distributed.elastic.multiprocessing.api import SignalException

        raise SignalException("the grace is over", signal.SIGKILL)


def main(arguments: list[str]) -> int:
    """Launch what the file named in the arguments asks for; the exit code."""
    if len(arguments) != 1:
        print("usage: python -m baseai.workloads.training.launch <train.json>", file=sys.stderr)
        return CONFIG_WRONG
    path = Path(arguments[0]).absolute()
    try:
        assignment = read(path)
        return _launched(path, assignment)
    except (Refused, RecipeRefused) as refused:
        print(refused, file=sys.stderr)
        return CONFIG_WRONG
    except Fault as fault:
        print(fault, file=sys.stderr)
        return FAILED


def _launched(path: Path, assignment: Assignment) -> int:
    for folder in (assignment.attempt_folder / "logs", assignment.checkpoint_folder):
        folder.mkdir(parents=True, exist_ok=True)
    launched_at = now_utc().isoformat()
    board = Board(assignment.attempt_folder, assignment.workers)
    board.open()
    stop = Stop(board, assignment.grace_s)
    stop.install()
    _settle_network(assignment)
    recipe = recipe_named(assignment.recipe)
    # The nursery imports torch on one core while this process imports the agent and prepares the data on another.
    multiprocessing.set_forkserver_preload(
        [
            f"{__package__ or 'baseai.workloads.training'}.nursery",
            "baseai.workloads.training.worker",
            "baseai.workloads.training.loop",
            "torch.nn.parallel.distributed",
            *recipe.PRELOAD,
        ]
    )
    forkserver.ensure_running()
    configured(assignment.recipe, assignment.config)
    prepared(assignment)
    return _supervised(path, assignment, board, stop, launched_at)


def _supervised(path: Path, assignment: Assignment, board: Board, stop: Stop, launched_at: str) -> int:
    from torch.distributed.elastic.agent.server.api import Worker, WorkerGroup, WorkerSpec, WorkerState
    from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.rendezvous import RendezvousParameters
    from torch.distributed.elastic.rendezvous import registry as rendezvous

    from baseai.workloads.training.worker import work

    class Agent(LocalElasticAgent):
        """Torch's agent, which also numbers ranks by node, agrees on the restart's number, and tells of restarts."""

        def _assign_worker_ranks(
            self, store: Any, group_rank: int, group_world_size: int, spec: Any
        ) -> list[Worker]:
            # The rendezvous orders nodes by address; the assignment says which one is the first.
            key = "baseai/round"
            if assignment.node_rank == 0:
                store.set(key, str(self._next_round()))
            board.reset(int(store.get(key)))
            first = assignment.node_rank * assignment.workers
            return [
                Worker(
                    local_rank=local_rank,
                    global_rank=first + local_rank,
                    role_rank=first + local_rank,
                    world_size=assignment.world,
                    role_world_size=assignment.world,
                )
                for local_rank in range(assignment.workers)
            ]

        def _next_round(self) -> int:
            self._round = getattr(self, "_round", -1) + 1
            return self._round

        def _monitor_workers(self, worker_group: WorkerGroup) -> "RunResult":
            result = super()._monitor_workers(worker_group)
            if result.state in (WorkerState.FAILED, WorkerState.UNHEALTHY):
                self.reason = _reason(self._pcontext, assignment)
                if stop.asked:  # nobody restarts what was asked to stop
                    self._remaining_restarts = 0
            return result

        def _restart_workers(self, worker_group: WorkerGroup) -> None:
            reason = getattr(self, "reason", "another node's workers restarted")
            restart = board.round_no + 1
            progress.tell(assignment.attempt_folder, "restart", restart=restart, reason=reason)
            print(f"restart {restart}: {reason}", file=sys.stderr, flush=True)
            super()._restart_workers(worker_group)

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    os.environ["TORCHELASTIC_SIGNALS_TO_HANDLE"] = "SIGHUP,SIGQUIT"
    os.environ["TORCH_MP_PARALLEL_START"] = "0"
    os.environ.pop(
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE", None
    )  # the workers meet in the store of the rendezvous
    single = assignment.nodes == 1
    address = "127.0.0.1" if single else _address_towards(assignment)
    parameters = RendezvousParameters(
        backend="c10d",
        endpoint="127.0.0.1:0" if single else f"{assignment.master_addr}:{assignment.master_port}",
        run_id=f"{assignment.run_id}-{assignment.attempt_no}",
        min_nodes=assignment.nodes,
        max_nodes=assignment.nodes,
        local_addr=address,
        is_host=assignment.node_rank == 0,
        join_timeout=JOIN_TIMEOUT_S,
        read_timeout=JOIN_TIMEOUT_S,
    )
    spec = WorkerSpec(
        role="worker",
        local_world_size=assignment.workers,
        entrypoint=work,
        args=(str(path), os.getpid(), launched_at),
        rdzv_handler=rendezvous.get_rendezvous_handler(parameters),
        max_restarts=assignment.max_restarts,
        monitor_interval=MONITOR_INTERVAL_S,
        local_addr=address,
    )
    agent = Agent(
        spec=spec,
        logs_specs=DefaultLogsSpecs(log_dir=str(assignment.attempt_folder / "logs")),
        start_method="forkserver",
        exit_barrier_timeout=60,
        shutdown_timeout=5,
    )
    stop.workers_started = True
    try:
        result = agent.run()
    except SignalException:
        print("stopped before a last checkpoint: the grace was over", file=sys.stderr)
        return STOPPED
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        with contextlib.suppress(Exception):
            spec.rdzv_handler.shutdown()
    if result.is_failed():
        reason = getattr(agent, "reason", "the workers failed")
        print(f"failed after {board.round_no} restarts: {reason}", file=sys.stderr)
        return STOPPED if stop.asked else FAILED
    return _exit_code(list(result.return_values.values()))


def _exit_code(endings: list[Mapping[str, str]]) -> int:
    """The exit code for how the workers ended, with the sentence on standard error where one is due."""
    codes = {"finished": FINISHED, "stopped": STOPPED, "refused": CONFIG_WRONG, "fenced": FAILED}
    for ending in sorted(endings, key=lambda ending: list(codes).index(ending["outcome"]), reverse=True):
        if ending["sentence"]:
            print(ending["sentence"], file=sys.stderr)
        return codes[ending["outcome"]]
    return FAILED


def _reason(context: Any, assignment: Assignment) -> str:
    """Which worker ended first, and how. One killed from outside counts before those that lost it."""
    from baseai.workloads.training.worker import LAST_ERROR, TAKEN_DOWN

    first = assignment.node_rank * assignment.workers
    ended = [(first + local, each.pid, each.exitcode) for local, each in enumerate(context._pc.processes)]
    for rank, pid, code in ended:
        if code is not None and code < 0:
            return f"worker {rank} (pid {pid}) was ended by {signal.Signals(-code).name}"
    for rank, pid, code in ended:
        if code not in (None, 0, TAKEN_DOWN):
            told = assignment.attempt_folder / LAST_ERROR
            why = told.read_text() if told.exists() else "no reason given"
            return f"worker {rank} (pid {pid}) ended with code {code}: {why}"
    return "the workers ended without a reason"


def _settle_network(assignment: Assignment) -> None:
    """Tell gloo its interface, so that it needs no name service: loopback where the master is, else the way to it."""
    if "GLOO_SOCKET_IFNAME" in os.environ:
        return
    loopback = (
        assignment.nodes == 1 or assignment.master_addr.startswith("127.") or assignment.master_addr == "::1"
    )
    if loopback:
        name = next((name for _, name in socket.if_nameindex() if name in ("lo", "lo0")), None)
    else:
        name = _interface_of(_address_towards(assignment))
    if name is not None:
        os.environ["GLOO_SOCKET_IFNAME"] = name


def _address_towards(assignment: Assignment) -> str:
    """This node's own address as the others reach it."""
    if assignment.node_rank == 0:
        return assignment.master_addr
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((assignment.master_addr, assignment.master_port))  # chooses a route, sends nothing
        return str(probe.getsockname()[0])


def _interface_of(address: str) -> str | None:
    """The interface that carries an IPv4 address; None where the system does not say (then gloo guesses)."""
    siocgifaddr = 0x8915  # Linux
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):
                answer = fcntl.ioctl(probe.fileno(), siocgifaddr, struct.pack("256s", name.encode()[:15]))
                if socket.inet_ntoa(answer[20:24]) == socket.gethostbyname(address):
                    return name
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
