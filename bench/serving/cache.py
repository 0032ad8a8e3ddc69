"""What a kept answer costs, and how often a replica is asked when a hundred clients ask the same at once.

    PYTHONPATH=src:. python bench/serving/cache.py [--peers nginx litellm] [--rounds 3] [--seconds 3]

Answers of 1 KB and of 64 KB; hits at an even rate well below anybody's greatest, then as fast as 16 clients can ask.
That they were hits is seen at the mock replica, which must not be asked. Together: 100 clients ask what nobody has
asked before, of a replica that takes 200 ms; once is enough.
"""

import argparse
from collections import defaultdict
from dataclasses import replace
from statistics import median

from bench.report import Figure, show
from bench.serving.front import Absent, Stage, chat, stage
from bench.serving.open_loop import Load
from bench.serving.turn import OWN, counted, order, since, take

PEERS = ("nginx", "litellm")
RATE = 200.0
SLOW_RATE = 20.0  # of a peer that does not reach RATE
HIT_MS = 1.0
TOGETHER, TOGETHER_MS = 100, 200.0


def hit_load(seconds: float, rate: float) -> Load:
    return Load(
        port=0,
        seconds=seconds,
        bodies=(chat(unique=False),),
        rate=rate,
        arrivals="even",
        connections=256,
    )


def measured(here: Stage, called: str, port: int, seconds: float) -> dict[str, float]:
    """One turn of hits, of an answer that is kept already."""
    front = here.fronts[called]
    before = counted([port])
    closed = take(here, front, replace(hit_load(seconds, 1.0), rate=None, connections=16))
    rate = RATE if closed.result.rate > 2 * RATE else SLOW_RATE
    paced = take(here, front, hit_load(max(seconds, 100 / rate), rate))
    [asked] = since(before, counted([port]), "calls")
    return {
        "rate": closed.result.rate,
        "p50": paced.latency_ms(0.5),
        "p99": paced.latency_ms(0.99),
        "cpu": closed.cpu_ms,
        "asked": float(asked),
        "bad": float(paced.not_served + closed.not_served),
    }


def hits(here: Stage, peer: str, port: int, size: str, asked: argparse.Namespace) -> None:
    try:
        front = here.front(peer, [port], cached=True)
    except Absent as absent:
        print(f"absent: {absent}", flush=True)
        return
    found: dict[str, dict[str, list[float]]] = {side: defaultdict(list) for side in (OWN, peer)}
    for called in (OWN, peer):
        take(here, here.fronts[called], replace(hit_load(1.0, 10.0), connections=1))  # now it is kept
    for called in order(asked.rounds, peer):
        for key, value in measured(here, called, port, asked.seconds).items():
            found[called][key].append(value)
    ours, theirs = found[OWN], found[peer]
    misses = f"replica asked {sum(ours['asked']):g} / {sum(theirs['asked']):g} times"
    bad = f"not served {sum(ours['bad']):g} / {sum(theirs['bad']):g}"
    for key, name, unit, target, most, note in (
        ("p50", "hit, p50", "ms", f"≤ {HIT_MS:g} ms", HIT_MS, misses),
        ("p99", "hit, p99", "ms", "", None, ""),
        ("cpu", "CPU of a hit", "ms", "", None, ""),
        ("rate", "hits, greatest rate", "/s", "", None, bad),
    ):
        show(
            Figure(
                name=f"{name}, {size}",
                unit=unit,
                ours=tuple(ours[key]),
                peer=tuple(theirs[key]),
                peer_name=front.name,
                target=target,
                reached=median(ours[key]) <= most if most is not None else None,
                note=note,
            )
        )
    here.close(peer)


def together(peers: list[str], rounds: int) -> None:
    """A hundred equal questions at once, each time of something new."""
    with stage() as here:
        port = here.replica(wait_ms=TOGETHER_MS)
        here.front(OWN, [port], cached=True)
        for peer in peers:
            try:
                front = here.front(peer, [port], cached=True)
            except Absent as absent:
                print(f"absent: {absent}", flush=True)
                continue
            found: dict[str, list[float]] = {OWN: [], peer: []}
            bad = 0
            for number, called in enumerate(order(rounds, peer)):
                load = Load(
                    port=0,
                    seconds=0.1,  # less than an answer takes, so that each client asks once
                    bodies=(chat(unique=False, text=f"{peer}, question {number}: "),),
                    connections=TOGETHER,
                )
                before = counted([port])
                turn = take(here, here.fronts[called], load)
                [calls] = since(before, counted([port]), "calls")
                found[called].append(float(calls))
                bad += turn.not_served
            show(
                Figure(
                    name=f"replica asked, {TOGETHER} equal questions at once",
                    unit="times",
                    ours=tuple(found[OWN]),
                    peer=tuple(found[peer]),
                    peer_name=front.name,
                    target="1",
                    reached=max(found[OWN]) == 1,
                    note=f"not served {bad}",
                )
            )
            here.close(peer)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=PEERS)
    parser.add_argument("--rounds", type=int, default=3, help="each of two pairs, A-B-B-A")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each load")
    asked = parser.parse_args()
    for size, answer_bytes in (("1 KB", 1024), ("64 KB", 65536)):
        with stage() as here:
            port = here.replica(body=answer_bytes)
            here.front(OWN, [port], cached=True)
            for peer in asked.peers:
                hits(here, peer, port, size, asked)
    together(list(asked.peers), asked.rounds)


if __name__ == "__main__":
    main()
