"""What a gateway adds to a request, how many it carries on one core and what each costs, ours beside its peers.

    PYTHONPATH=src:. python bench/serving/gateway.py [--peers nginx litellm] [--rounds 2] [--seconds 3]
        [--upstream-ms 0 20]

Ours checks keys, counts limits, balances, meters and keeps its journal; nginx and HAProxy do none of it, LiteLLM checks
its master key, Ray Serve is its own replica. Each is asked at 25, 50 and 80 % of its own greatest rate (a closed loop
of 32 clients, more where the replica waits), by an open loop; "added" is the same quantile less that of the replica
asked directly at the same rate. Rates beyond what the load and the replica carry on their one core are cut to
`MOST_RATE`.
"""

import argparse
from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import median

from bench.report import Figure, show
from bench.serving.front import Absent, Stage, chat, stage
from bench.serving.open_loop import Load
from bench.serving.turn import LATE_MS, OWN, order, take, take_direct

PEERS = ("nginx", "haproxy", "litellm", "ray", "ray-haproxy")
SHARES = (0.25, 0.5, 0.8)
CLIENTS, CLIENTS_A_MS = 32, 10
MOST_RATE = 6000.0
LEAST_REQUESTS = 150  # of a turn, so that a slow peer has a tail too
LONGEST_S = 12.0

P50_MS, P99_MS = 1.0, 5.0  # added at half load
CPU_MS = 0.5
LEAST_RATE = 1500.0
TIMES_LITELLM = 20.0


def measured(here: Stage, called: str, direct_port: int, seconds: float, wait_ms: float) -> dict[str, float]:
    """One turn: the greatest rate, then the three shares of it, each with the replica alone beside it."""
    front = here.fronts[called]
    body = (chat(),)
    # It stood still until now; what it catches up with is not counted.
    take(here, front, Load(port=0, seconds=min(0.5, seconds), bodies=body, connections=8))
    closed = take(
        here,
        front,
        Load(port=0, seconds=seconds, bodies=body, connections=round(CLIENTS + CLIENTS_A_MS * wait_ms)),
    )
    own_rate = closed.result.rate
    found = {
        "rate": own_rate,
        "cpu": closed.cpu_ms,
        "bad": float(closed.not_served),
        "late": 0.0,
    }
    for share in SHARES:
        rate = max(1.0, min(own_rate * share, MOST_RATE))
        load = Load(
            port=0,
            seconds=min(max(seconds, LEAST_REQUESTS / rate), LONGEST_S),
            bodies=body,
            rate=rate,
            connections=512,
        )
        through = take(here, front, load)
        direct = take_direct(here, direct_port, load)
        for q in (0.5, 0.99):
            found[f"p{q * 100:g} {share:g}"] = through.latency_ms(q) - direct.latency_ms(q)
        found[f"cpu {share:g}"] = through.cpu_ms
        found["bad"] += through.not_served
        found["late"] = max(found["late"], through.late_ms)
    return found


def told(
    ours: Mapping[str, Sequence[float]],
    peer: Mapping[str, Sequence[float]],
    peer_name: str,
    wait_ms: float,
) -> None:
    """The figures of ours beside one peer."""
    at = f"replica {wait_ms:g} ms"
    ratio = median(ours["rate"]) / median(peer["rate"])
    target, reached = f"≥ {LEAST_RATE:,.0f}/s on one core", median(ours["rate"]) >= LEAST_RATE
    if peer_name == "LiteLLM":
        target, reached = f"{target}, ≥ {TIMES_LITELLM:g} × LiteLLM", reached and ratio >= TIMES_LITELLM
    by_cpu = " / ".join(f"{1000 / max(0.001, median(side['cpu'])):,.0f}" for side in (ours, peer))
    bad = f"by CPU alone {by_cpu} /s; not served {sum(ours['bad']):g} / {sum(peer['bad']):g}"
    late = max(*ours["late"], *peer["late"])
    note = f"{bad}; load late p99 {late:.1f} ms" + (", tails mean little" if late > LATE_MS else "")
    show(
        Figure(
            name=f"greatest rate, {at}",
            unit="/s",
            ours=tuple(ours["rate"]),
            peer=tuple(peer["rate"]),
            peer_name=peer_name,
            target=target if wait_ms == 0 else "",
            reached=reached if wait_ms == 0 else None,
            note=note,
        )
    )
    for share in SHARES:
        for q, most_ms in ((50, P50_MS), (99, P99_MS)):
            key = f"p{q} {share:g}"
            show(
                Figure(
                    name=f"added p{q} at {share:.0%} load, {at}",
                    unit="ms",
                    ours=tuple(ours[key]),
                    peer=tuple(peer[key]),
                    peer_name=peer_name,
                    target=f"≤ {most_ms:g} ms" if share == 0.5 else "",
                    reached=median(ours[key]) <= most_ms if share == 0.5 else None,
                )
            )
    show(
        Figure(
            name=f"CPU of a request at 50% load, {at}",
            unit="ms",
            ours=tuple(ours["cpu 0.5"]),
            peer=tuple(peer["cpu 0.5"]),
            peer_name=peer_name,
            target=f"≤ {CPU_MS:g} ms",
            reached=median(ours["cpu 0.5"]) <= CPU_MS,
            note="with its replica's own" if peer_name.startswith("Ray") else "",
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=PEERS)
    parser.add_argument("--rounds", type=int, default=2, help="each of two pairs, A-B-B-A")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each load")
    parser.add_argument("--upstream-ms", type=float, nargs="*", default=[0.0])
    asked = parser.parse_args()
    for wait_ms in asked.upstream_ms:
        with stage() as here:
            port = here.replica(wait_ms=wait_ms)
            here.front(OWN, [port])
            for peer in asked.peers:
                try:
                    front = here.front(peer, [port], wait_ms=wait_ms)
                except Absent as absent:
                    print(f"absent: {absent}", flush=True)
                    continue
                for called in (OWN, peer):
                    take(
                        here, here.fronts[called], Load(port=0, seconds=1.0, bodies=(chat(),), connections=8)
                    )
                found: dict[str, dict[str, list[float]]] = {side: defaultdict(list) for side in (OWN, peer)}
                for called in order(asked.rounds, peer):
                    for key, value in measured(here, called, port, asked.seconds, wait_ms).items():
                        found[called][key].append(value)
                told(found[OWN], found[peer], front.name, wait_ms)
                here.close(peer)


if __name__ == "__main__":
    main()
