"""A step of load, from one client to twenty at once: how soon it is answered by more replicas, and when they are gone.

    PYTHONPATH=src:. python bench/serving/step.py [--hold 40] [--peers ray-tuned ray-default] [--gone-within 150]

Ours is the whole platform, `baseai up --cpu-slots 8`: more slots than this machine has cores, which mock replicas that
wait 200 ms do not mind. Each takes five requests at once, so four are right for twenty clients, and up to eight may be.
Windows and delays of ours are those of a spec that says nothing of them. Ray Serve stands beside as it comes (it waits
30 s before it adds, 600 s before it takes away) and tuned to look back 3 s and to wait 1 s and 10 s.

Exit code 1 when a request was lost or wrongly answered by ours.
"""

import argparse
import json
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bench.report import Figure, show
from bench.serving.front import MODEL, Absent, chat, stage
from bench.serving.open_loop import ROOT, Load, LoadResult, quantile, run
from tests.scenarios.platform import ENVIRONMENT, Platform, platform

ANSWER_MS, LANES, CLIENTS, MOST = 200, 5, 20, 8
RIGHT = CLIENTS // LANES
LEAD_S = 8.0
DECIDED_S, OVERSHOOT = 3.0, 1
LOOK_S = 0.1
SPEC = """
type: service
name: {model}
engine: command
commands:
  - exec {python} {replica} $PORT --wait-ms {wait_ms} --lanes {lanes}
env: {{PYTHONPATH: {root}}}
replicas: 0..{most}
protocol: openai
concurrency: {lanes}
scaling: {{target: {lanes}}}
resources: {{cpu: 1}}
"""
RAY: Mapping[str, Mapping[str, float]] = {
    "ray-tuned": {
        "upscale_delay_s": 1.0,
        "downscale_delay_s": 10.0,
        "look_back_period_s": 3.0,
        "metrics_interval_s": 1.0,
    },
    "ray-default": {},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """How many replicas there were at one moment."""

    at_s: float  # on the monotonic clock
    alive: int  # starting or ready: what was decided for
    ready: int


@dataclass(kw_only=True)
class Course:
    """How one side went through the step."""

    looks: Sequence[Look]
    stepped_s: float
    ended_s: float
    result: LoadResult
    more_s: float | None = field(init=False)  # until there was one more replica, asked for or starting
    ready_s: float | None = field(init=False)  # until as many answered as are right
    most: int = field(init=False)
    gone_s: float | None = field(init=False)  # from the load's end until there was none

    def __post_init__(self) -> None:
        during = [look for look in self.looks if self.stepped_s <= look.at_s <= self.ended_s]
        after = [look for look in self.looks if look.at_s > self.ended_s]
        before = [look.alive for look in self.looks if look.at_s < self.stepped_s]
        had = before[-1] if before else 1
        self.more_s = next((look.at_s - self.stepped_s for look in during if look.alive > had), None)
        self.ready_s = next((look.at_s - self.stepped_s for look in during if look.ready >= RIGHT), None)
        self.most = max((look.alive for look in during), default=0)
        self.gone_s = next((look.at_s - self.ended_s for look in after if look.alive == 0), None)


def loads(
    port: int, path: str, headers: tuple[tuple[str, str], ...], hold_s: float
) -> tuple[LoadResult, float]:
    """One client, then twenty; how the twenty were served, and when the step was."""
    one = Load(
        port=port, path=path, headers=headers, seconds=LEAD_S, bodies=(chat(),), connections=1, give_up_s=60
    )
    run(one)
    many = Load(
        port=port,
        path=path,
        headers=headers,
        seconds=hold_s,
        bodies=(chat(),),
        connections=CLIENTS,
        give_up_s=60,
    )
    result = run(many)
    return result, result.began_s


@contextmanager
def looking(home: Platform, looks: list[Look]) -> Iterator[None]:
    """Look into the database meanwhile, by one connection."""
    import psycopg

    from baseai.settings import runtime_folder

    over = threading.Event()
    query = (
        "SELECT (SELECT greatest(s.wanted, count(*) FILTER (WHERE r.state IN ('starting', 'ready'))) FROM replicas r"
        " WHERE r.service_id = s.service_id), (SELECT count(*) FROM replicas r WHERE r.service_id = s.service_id"
        f" AND r.state = 'ready') FROM services s WHERE s.name = '{MODEL}'"
    )

    def look() -> None:
        sockets = runtime_folder(home.data, ENVIRONMENT)
        with psycopg.connect(f"host={sockets} user=postgres dbname=baseai", autocommit=True) as connection:
            while not over.wait(LOOK_S):
                found = connection.execute(query).fetchone()
                if found is not None:
                    looks.append(Look(at_s=time.monotonic(), alive=int(found[0]), ready=int(found[1])))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def ours(hold_s: float, gone_within_s: float) -> Course:
    spec = SPEC.format(
        model=MODEL,
        python=sys.executable,
        replica=ROOT / "bench/serving/replica.py",
        wait_ms=ANSWER_MS,
        lanes=LANES,
        most=MOST,
        root=ROOT,
    )
    looks: list[Look] = []
    with platform("--cpu-slots", str(MOST), "--gateways", "1") as home:
        key = home.ask("POST", "/keys", {"name": "bench", "role": "customer", "tenant": "base"})["secret"]
        home.ask("POST", "/services", {"spec": spec, "file": "step.yaml"})
        gateway = urlsplit(json.loads((home.data / "platform.json").read_text())["gateway_url"])
        headers = (("authorization", f"Bearer {key}"),)
        with looking(home, looks):
            result, stepped_s = loads(gateway.port or 0, "/v1/chat/completions", headers, hold_s)
            ended_s = result.began_s + result.seconds
            wait_gone(looks, ended_s, gone_within_s)
        if not result.served:
            print(home.logs())
    return Course(looks=looks, stepped_s=stepped_s, ended_s=ended_s, result=result)


def ray(called: str, hold_s: float, gone_within_s: float) -> tuple[str, Course]:
    scaling = {
        "min_replicas": 0,
        "initial_replicas": 1,
        "max_replicas": MOST,
        "target_ongoing_requests": LANES,
        **RAY[called],
    }
    with stage() as here:
        front = here.front("ray", (), called=called, wait_ms=ANSWER_MS, autoscale=scaling)
        os.sched_setaffinity(front.process.pid, os.sched_getaffinity(0))
        assert front.folder is not None
        course = front.folder / "course.jsonl"
        result, stepped_s = loads(front.port, front.path, (), hold_s)
        ended_s = result.began_s + result.seconds
        deadline_s = time.monotonic() + (gone_within_s if RAY[called] else 0.0)
        while time.monotonic() < deadline_s and looks_in(course)[-1].alive:
            time.sleep(LOOK_S)
        looks = looks_in(course)
        return f"{front.name}, {called.removeprefix('ray-')}", Course(
            looks=looks, stepped_s=stepped_s, ended_s=ended_s, result=result
        )


def looks_in(file: Path) -> list[Look]:
    told: list[dict[str, Any]] = [json.loads(line) for line in file.read_text().splitlines()]
    return [Look(at_s=line["at_s"], alive=int(line["alive"]), ready=int(line["ready"])) for line in told]


def wait_gone(looks: Sequence[Look], ended_s: float, within_s: float) -> None:
    deadline_s = ended_s + within_s
    while time.monotonic() < deadline_s and (not looks or looks[-1].alive or looks[-1].at_s < ended_s):
        time.sleep(LOOK_S)


def of(value: float | None) -> tuple[float, ...]:
    """What never happened has no number."""
    return () if value is None else (value,)


def tell(own: Course, peer: Course | None, peer_name: str) -> None:
    lost = own.result.asked - own.result.served
    peer_lost = (float(peer.result.asked - peer.result.served),) if peer else ()
    for name, unit, value, theirs, target, reached in (
        ("step to twenty: decided for more", "s", of(own.more_s), of(peer.more_s) if peer else (),
         f"≤ {DECIDED_S:g} s", own.more_s is not None and own.more_s <= DECIDED_S),
        (f"step to twenty: {RIGHT} replicas answer", "s", of(own.ready_s), of(peer.ready_s) if peer else (), "", None),
        ("step to twenty: lost or wrong", "requests", (float(lost),), peer_lost, "0", lost == 0),
        (f"step to twenty: most replicas, {RIGHT} are right", "replicas", (float(own.most),),
         (float(peer.most),) if peer else (), f"≤ {RIGHT + OVERSHOOT}", RIGHT <= own.most <= RIGHT + OVERSHOOT),
        (f"step to twenty: p95, a replica takes {ANSWER_MS} ms", "ms", (quantile(own.result.latency_ms, 0.95),),
         (quantile(peer.result.latency_ms, 0.95),) if peer else (), "", None),
        ("step to nothing: the last replica gone", "s", of(own.gone_s), of(peer.gone_s) if peer else (), "", None),
    ):  # fmt: skip
        show(
            Figure(
                name=name,
                unit=unit,
                ours=value,
                peer=theirs,
                peer_name=peer_name,
                target=target,
                reached=reached,
                note=f"{MOST} CPU slots on {os.cpu_count()} cores; {own.result.served:,} answers",
            )
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", nargs="*", choices=tuple(RAY), default=tuple(RAY))
    parser.add_argument("--hold", type=float, default=45.0, help="seconds of twenty clients")
    parser.add_argument("--gone-within", type=float, default=150.0, help="seconds to wait for the last to go")
    asked = parser.parse_args()
    own = ours(asked.hold, asked.gone_within)
    if not asked.peers:
        tell(own, None, "")
    for called in asked.peers:
        try:
            name, course = ray(called, asked.hold, asked.gone_within)
        except Absent as absent:
            print(f"absent: {absent}", flush=True)
            tell(own, None, "")
        else:
            tell(own, course, name)
    if own.result.asked != own.result.served:
        sys.exit(1)


if __name__ == "__main__":
    main()
