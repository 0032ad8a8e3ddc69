"""What a gateway adds to a stream: the wait for the first token, and the pace at which the others come.

    PYTHONPATH=src:. python bench/serving/streams.py [--peers nginx litellm] [--rounds 2] [--seconds 3] [--streams 10]

The mock replica sends 50 chunks, one each 10 ms. Streams begin at even intervals, so that about `--streams` are under
way at once. A gap longer than the pace is a chunk that somebody held back; chunks that were put together count as gaps
of nothing. The replica asked directly stands beside each, by the same load.
"""

import argparse
from collections import defaultdict
from statistics import median

from bench.report import Figure, show
from bench.serving.front import Absent, Stage, chat, stage
from bench.serving.open_loop import Load
from bench.serving.turn import OWN, order, take, take_direct

PEERS = ("nginx", "haproxy", "litellm", "ray", "ray-haproxy")
STREAM_S = 0.5
FIRST_MS, GAP_MS = 2.0, 15.0


def measured(here: Stage, called: str, direct_port: int, load: Load) -> dict[str, float]:
    through = take(here, here.fronts[called], load)
    direct = take_direct(here, direct_port, load)
    return {
        "first p50": through.first_ms(0.5) - direct.first_ms(0.5),
        "first p99": through.first_ms(0.99) - direct.first_ms(0.99),
        "gap p99": through.gap_ms(0.99),
        "gap direct": direct.gap_ms(0.99),
        "cpu": through.cpu_ms,
        "bad": float(through.not_served),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=PEERS)
    parser.add_argument("--rounds", type=int, default=2, help="each of two pairs, A-B-B-A")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each load")
    parser.add_argument("--streams", type=int, default=10, help="under way at once")
    asked = parser.parse_args()
    load = Load(
        port=0,
        seconds=asked.seconds,
        bodies=(chat(stream=True),),
        rate=asked.streams / STREAM_S,
        arrivals="even",
    )
    with stage() as here:
        port = here.replica()
        here.front(OWN, [port])
        for peer in asked.peers:
            try:
                front = here.front(peer, [port])
            except Absent as absent:
                print(f"absent: {absent}", flush=True)
                continue
            for called in (OWN, peer):
                take(
                    here,
                    here.fronts[called],
                    Load(port=0, seconds=0.5, bodies=load.bodies, connections=asked.streams),
                )
            found: dict[str, dict[str, list[float]]] = {side: defaultdict(list) for side in (OWN, peer)}
            for called in order(asked.rounds, peer):
                for key, value in measured(here, called, port, load).items():
                    found[called][key].append(value)
            ours, theirs = found[OWN], found[peer]
            bad = f"not served whole {sum(ours['bad']):g} / {sum(theirs['bad']):g}"
            alone = f"the replica alone {median(ours['gap direct'] + theirs['gap direct']):.1f} ms"
            for key, name, target, most, note in (
                ("first p50", "first token added, p50", f"≤ {FIRST_MS:g} ms", FIRST_MS, bad),
                ("first p99", "first token added, p99", "", None, ""),
                ("gap p99", "gap between chunks of 10 ms pace, p99", f"≤ {GAP_MS:g} ms", GAP_MS, alone),
                ("cpu", "CPU of a stream of 50 chunks", "", None, ""),
            ):
                show(
                    Figure(
                        name=name,
                        unit="ms",
                        ours=tuple(ours[key]),
                        peer=tuple(theirs[key]),
                        peer_name=front.name,
                        target=target,
                        reached=median(ours[key]) <= most if most is not None else None,
                        note=note,
                    )
                )
            here.close(peer)


if __name__ == "__main__":
    main()
