"""kill -9 of a replica, and of one of two gateway processes, while requests come: what clients notice, and the books.

    PYTHONPATH=src:. python bench/serving/kills.py [--kills 5] [--rate 300]

Each request carries digits that its answer must echo: another's answer would be seen as wrong. Clients do not ask twice
in the first part, so what a front repeats for them is all that helps; in the second they do once, as those in the field
do, since a process that dies takes its clients' connections with it. Recovery is from the kill to the last request that
failed; where none did, the longest answer says how long somebody had to wait. A killed replica is started again after
1.5 s, a gateway process at once, as the platform and nginx's master do. Afterwards the requests in our books are
compared with the answers that clients got.

Exit code 1 when an answer was wrong, a request lost that should not be, or an answer not in the books.
"""

import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from bench.report import Figure, show
from bench.serving.cpu import cpu_ms, tree
from bench.serving.front import Absent, Front, Setup, Stage, chat, ended, stage, wait_ready
from bench.serving.open_loop import Load, LoadResult, run
from bench.serving.our_gateway import SHIPPED
from bench.serving.ours import HEADERS, gateway, listen

SECONDS = 4.0
KILL_AFTER_S = 1.5  # of the load's start, which takes a moment itself
REPLICA_AWAY_S = 1.5
WAIT_MS = 20.0
PEERS = ("haproxy", "nginx")


@dataclass
class Toll:
    """What several kills came to, for one front."""

    wrong: list[float] = field(default_factory=list)
    lost: list[float] = field(default_factory=list)
    repeated: list[float] = field(default_factory=list)
    recovery_s: list[float] = field(default_factory=list)
    longest_ms: list[float] = field(default_factory=list)
    served: int = 0

    def add(self, result: LoadResult, killed_s: float) -> None:
        """killed_s: on the monotonic clock."""
        after = [at_s + result.began_s - killed_s for at_s, _ in result.ends]
        self.wrong.append(float(result.wrong))
        self.lost.append(float(result.asked - result.served - result.wrong))
        self.repeated.append(float(result.repeated))
        self.recovery_s.append(max([0.0, *after]))
        self.longest_ms.append(max(result.latency_ms, default=0.0))
        self.served += result.served


def under_load(load: Load, deed: Callable[[], float]) -> tuple[LoadResult, float]:
    """Carry the load out and do the deed in its midst; it tells when, on the monotonic clock."""
    done_s: list[float] = []

    def do() -> None:
        done_s.append(deed())

    timer = threading.Timer(KILL_AFTER_S, do)
    timer.start()
    try:
        result = run(load)
    finally:
        timer.join()
    return result, done_s[0]


class Replicas:
    """Two mock replicas, of which one can be killed and comes back on its port."""

    def __init__(self, here: Stage) -> None:
        self.here = here
        self.ports = [here.replica(wait_ms=WAIT_MS) for _ in range(2)]

    def kill(self, number: int) -> float:
        process = self.here.replicas[number]
        killed_s = time.monotonic()
        process.kill()
        process.wait()
        time.sleep(REPLICA_AWAY_S)
        self.here.replica_again(number, self.ports[number], wait_ms=WAIT_MS)
        return killed_s


def replica_kills(kills: int, rate: float) -> bool:
    """Whether everything was as it should be."""
    tolls: dict[str, Toll] = {}
    names: dict[str, str] = {}
    with stage() as here:
        replicas = Replicas(here)
        for name in ("ours", *PEERS):
            try:
                front = here.front(name, replicas.ports)
            except Absent as absent:
                print(f"absent: {absent}", flush=True)
                continue
            names[name], tolls[name] = front.name, Toll()
            load = load_of(front, rate)
            run(load)
            for number in range(kills):
                result, killed_s = under_load(load, partial(replicas.kill, number % 2))
                tolls[name].add(result, killed_s)
                time.sleep(1.5)  # whoever left the replica out may take it back
            here.close(name)
    ours = tolls["ours"]
    for peer in PEERS:
        if peer in tolls:
            tell("a replica's kill", ours, tolls[peer], names[peer], lost_target="0")
    return not sum(ours.wrong) and not sum(ours.lost)


class Two:
    """Two of our gateway processes on one socket; one that is killed is started again at once."""

    def __init__(self, here: Stage, ports: list[int]) -> None:
        folder = here.folder / "two"
        folder.mkdir()
        self.folder, self.here = folder, here
        self.setup = Setup(ports=tuple(ports), folder=folder, processes=2)
        self.listening = listen()
        self.port = int(self.listening.getsockname()[1])
        self.log = folder / "log"
        self.processes = [gateway(self.setup, self.listening, self.log) for _ in range(2)]
        here.stack.callback(self.end)
        wait_ready(f"http://127.0.0.1:{self.port}/health", self.processes[0], self.log)
        time.sleep(1.0)

    def kill_one(self) -> float:
        victim = busiest([process.pid for process in self.processes])
        number = next(n for n, process in enumerate(self.processes) if process.pid == victim)
        killed_s = time.monotonic()
        self.processes[number].kill()
        self.processes[number].wait()
        self.processes[number] = gateway(self.setup, self.listening, self.log)
        return killed_s

    def end(self) -> None:
        for process in self.processes:
            ended(process)

    def requests_in_books(self) -> int:
        """After a drain, and after one more process has taken over what killed ones left."""
        self.end()
        last = gateway(self.setup, self.listening, self.log)
        self.processes = [last]
        wait_ready(f"http://127.0.0.1:{self.port}/health", last, self.log)
        time.sleep(2.5)
        self.end()
        file = self.folder / SHIPPED
        return sum(int(line) for line in file.read_text().split()) if file.exists() else 0


def gateway_kills(kills: int, rate: float) -> bool:
    """Whether everything was as it should be."""
    ours, theirs, peer_name = Toll(), Toll(), ""
    with stage() as here:
        ports = [here.replica(wait_ms=WAIT_MS) for _ in range(2)]
        two = Two(here, ports)
        load = Load(
            port=two.port,
            seconds=SECONDS,
            bodies=(chat(),),
            rate=rate,
            headers=HEADERS,
            tries=2,
            connections=256,
        )
        warm = run(load)
        for _ in range(kills):
            result, killed_s = under_load(load, two.kill_one)
            ours.add(result, killed_s)
        books = two.requests_in_books()
        served = warm.served + ours.served
        try:
            front = here.front("nginx", ports, processes=2)
        except Absent as absent:
            print(f"absent: {absent}", flush=True)
        else:
            peer_name, load = front.name, load_of(front, rate, tries=2)
            run(load)
            for _ in range(kills):
                result, killed_s = under_load(load, lambda: kill_a_worker(front))
                theirs.add(result, killed_s)
    tell("a gateway process's kill", ours, theirs, peer_name, lost_target="0, asked once more")
    show(
        Figure(
            name=f"answers that are not in the books, {kills} kills",
            unit="requests",
            ours=(float(served - books),),
            target="≤ 0",
            reached=books >= served,
            note=f"{served:,} answers, {books:,} in the books",
        )
    )
    return not sum(ours.wrong) and not sum(ours.lost) and books >= served


def kill_a_worker(front: Front) -> float:
    """One of nginx's workers; its master starts another."""
    victim = busiest(sorted(tree(front.process.pid).keys() - {front.process.pid}))
    killed_s = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    return killed_s


def busiest(pids: Sequence[int]) -> int:
    """Of processes that share a socket one may have taken all connections: who works most just now."""
    before = {pid: cpu_ms(pid) for pid in pids}
    time.sleep(0.3)
    return max(pids, key=lambda pid: cpu_ms(pid) - before[pid])


def load_of(front: Front, rate: float, tries: int = 1) -> Load:
    return Load(
        port=front.port,
        path=front.path,
        headers=front.headers,
        seconds=SECONDS,
        bodies=(chat(),),
        rate=rate,
        tries=tries,
        connections=256,
    )


def tell(what: str, ours: Toll, peer: Toll, peer_name: str, *, lost_target: str) -> None:
    for name, unit, own, theirs, target, reached in (
        ("wrong answers", "answers", ours.wrong, peer.wrong, "0", not sum(ours.wrong)),
        ("lost requests", "requests", ours.lost, peer.lost, lost_target, not sum(ours.lost)),
        ("asked once more", "requests", ours.repeated, peer.repeated, "", None),
        ("last failure after it", "s", ours.recovery_s, peer.recovery_s, "", None),
        ("longest answer", "ms", ours.longest_ms, peer.longest_ms, "", None),
    ):
        show(
            Figure(
                name=f"{what}: {name}",
                unit=unit,
                ours=tuple(own),
                peer=tuple(theirs),
                peer_name=peer_name,
                target=target,
                reached=reached,
                note=f"{ours.served:,} served over {len(own)} kills",
            )
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=5, help="of each kind, for each front")
    parser.add_argument("--rate", type=float, default=300.0, help="requests a second")
    asked = parser.parse_args()
    good = [replica_kills(asked.kills, asked.rate), gateway_kills(asked.kills, asked.rate)]
    if not all(good):
        sys.exit(1)


if __name__ == "__main__":
    main()
