"""How requests are shared among replicas: one of four is five times slower; and prompts that begin alike.

    PYTHONPATH=src:. python bench/serving/balance.py [--rounds 3] [--seconds 5]

The slow one: four mock replicas of 20 ms and four lanes each, one of them slower, asked at half of what the three can
do. Told are p99 and the share that the slow one got; its fair share by speed would be 1/16.

Alike: 32 beginnings in random order, replicas that remember ten each and take 30 ms more for one that they do not.
Round robin finds 10 of 32 remembered; who sends a beginning where it was before finds nearly all. Where every prompt is
unlike all others there is nothing to find, and looking for it must not make the tail longer.
"""

import argparse
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from statistics import median

from bench.report import Figure, show
from bench.serving.front import Absent, Stage, chat, stage
from bench.serving.open_loop import UNIQUE, Load
from bench.serving.turn import OWN, counted, order, since, take

REPLICAS, LANES, WAIT_MS = 4, 4, 20.0
SLOW_TIMES = 5.0
SLOW_RATE = 0.5 * (REPLICAS - 1) * LANES * 1000 / WAIT_MS

PREFIXES, REMEMBERED, COLD_MS, ALIKE_LANES = 32, 10, 30.0, 8
ALIKE_RATE = 200.0
HITS_TIMES = 2.0

Found = dict[str, dict[str, list[float]]]


def slow_one(peers: Sequence[str], rounds: int, seconds: float) -> None:
    load = Load(port=0, seconds=seconds, bodies=(chat(),), rate=SLOW_RATE, connections=1024)
    with stage() as here:
        ports = [here.replica(wait_ms=WAIT_MS, lanes=LANES) for _ in range(REPLICAS - 1)]
        ports.append(here.replica(wait_ms=WAIT_MS, lanes=LANES, slow=SLOW_TIMES))
        here.front(OWN, ports)
        for peer in peers:
            name, found = compared(here, peer, ports, load, rounds)
            if name is None:
                continue
            ours, theirs = found[OWN], found[peer]
            judged = peer == "haproxy"
            ratio = median(a / b for a, b in zip(ours["p99"], theirs["p99"], strict=True))
            show(
                Figure(
                    name="p99, one replica of four five times slower",
                    unit="ms",
                    ours=tuple(ours["p99"]),
                    peer=tuple(theirs["p99"]),
                    peer_name=name,
                    target="≤ leastconn" if judged else "",
                    reached=ratio <= 1 if judged else None,
                    note=f"p50 {median(ours['p50']):.1f} / {median(theirs['p50']):.1f} ms, "
                    f"not served {sum(ours['bad']):g} / {sum(theirs['bad']):g}",
                )
            )
            show(
                Figure(
                    name="share of the slow one",
                    unit="%",
                    ours=tuple(ours["last share"]),
                    peer=tuple(theirs["last share"]),
                    peer_name=name,
                )
            )


def alike(peers: Sequence[str], rounds: int, seconds: float) -> None:
    prompts = tuple(chat(2600, text=f"You are the assistant of department {n:02}. ") for n in range(PREFIXES))
    unlike = (chat(2600, text=f"#{UNIQUE}# "),)
    with stage() as here:
        ports = [
            here.replica(wait_ms=WAIT_MS, lanes=ALIKE_LANES, prefixes=REMEMBERED, cold_ms=COLD_MS)
            for _ in range(REPLICAS)
        ]
        here.front(OWN, ports, balance="prefix")
        for peer in peers:
            for bodies in (prompts, unlike):
                load = Load(
                    port=0,
                    seconds=seconds,
                    bodies=bodies,
                    at_random=True,
                    rate=ALIKE_RATE,
                    connections=1024,
                )
                name, found = compared(here, peer, ports, load, rounds)
                if name is None:
                    break
                ours, theirs = found[OWN], found[peer]
                if bodies is prompts:
                    times = median(ours["hits"]) / max(0.1, median(theirs["hits"]))
                    show(
                        Figure(
                            name=f"beginnings found, of {PREFIXES}",
                            unit="%",
                            ours=tuple(ours["hits"]),
                            peer=tuple(theirs["hits"]),
                            peer_name=name,
                            target=f"≥ {HITS_TIMES:g} × round robin" if peer == "nginx" else "",
                            reached=times >= HITS_TIMES if peer == "nginx" else None,
                        )
                    )
                ratio = median(a / b for a, b in zip(ours["p99"], theirs["p99"], strict=True))
                own = [a / b for a, b in zip(theirs["p99"][::2], theirs["p99"][1::2], strict=True)]
                judged = bodies is unlike and peer == "haproxy"
                show(
                    Figure(
                        name=f"p99, {'prompts that begin alike' if bodies is prompts else 'each prompt its own'}",
                        unit="ms",
                        ours=tuple(ours["p99"]),
                        peer=tuple(theirs["p99"]),
                        peer_name=name,
                        target="no worse than leastconn, inside A/A" if judged else "",
                        reached=ratio <= max(1.0, *own, *(1 / each for each in own)) if judged else None,
                        note=f"p50 {median(ours['p50']):.1f} / {median(theirs['p50']):.1f} ms",
                    )
                )


def compared(
    here: Stage, peer: str, ports: Sequence[int], load: Load, rounds: int
) -> tuple[str | None, Found]:
    """Name of the peer, and what came of the turns of both; no name where the peer is absent."""
    found: Found = {side: defaultdict(list) for side in (OWN, peer)}
    try:
        front = here.front(peer, ports)
    except Absent as absent:
        print(f"absent: {absent}", flush=True)
        return None, found
    for called in (OWN, peer):
        take(here, here.fronts[called], load)
    for called in order(rounds, peer):
        # The other's turn left the replicas remembering what he sent them: half a turn to settle is not counted.
        take(here, here.fronts[called], replace(load, seconds=load.seconds / 2))
        before = counted(ports)
        turn = take(here, here.fronts[called], load)
        after = counted(ports)
        calls, hits = since(before, after, "calls"), since(before, after, "hits")
        found[called]["p50"].append(turn.latency_ms(0.5))
        found[called]["p99"].append(turn.latency_ms(0.99))
        found[called]["last share"].append(100 * calls[-1] / max(1, sum(calls)))
        found[called]["hits"].append(100 * sum(hits) / max(1, sum(calls)))
        found[called]["bad"].append(float(turn.not_served))
    here.close(peer)
    return front.name, found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", nargs="*", choices=("haproxy", "nginx"), default=("haproxy", "nginx"))
    parser.add_argument("--rounds", type=int, default=3, help="each of two pairs, A-B-B-A")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each load")
    asked = parser.parse_args()
    slow_one(asked.peers, asked.rounds, asked.seconds)
    alike(asked.peers, asked.rounds, asked.seconds)


if __name__ == "__main__":
    main()
