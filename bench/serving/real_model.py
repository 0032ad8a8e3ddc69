"""A real model from the client's socket to its answer: our replica behind our gateway, and uvicorn with onnxruntime.

    PYTHONPATH=src:. python bench/serving/real_model.py [--rounds 3] [--seconds 3]

The model is magika's (2,048 bytes of a file, 214 kinds of content), from its package, one thread. Both sides have one
core for everything: ours shares it between the replica and the gateway with its key, limits and journal. The rate that
counts is the greatest at which p99 stays below 100 ms: shares of what a closed loop of eight clients reaches are tried
from above.
"""

import argparse
import json
import urllib.request
from collections import defaultdict
from statistics import median

from bench.report import Figure, show
from bench.serving.front import Front, Stage, stage
from bench.serving.open_loop import Load
from bench.serving.turn import OWN, order, take

PEER = "plain-onnx"
P99_MS = 100.0
TRIED = (1.0, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5)
LEAST_RATIO = 0.9
EQUAL = 1e-6  # of a probability


def body() -> str:
    """The beginning of a Python file, as magika wants it: a number for each byte."""
    text = (b"import asyncio\n\n\nasync def main() -> None:\n    await asyncio.sleep(1)\n" * 40)[:2048]
    tensor = {"name": "bytes", "datatype": "INT32", "shape": [1, 2048], "data": list(text)}
    return json.dumps({"inputs": [tensor]})


def answer(front: Front) -> list[float]:
    """What it says of the file."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{front.port}{front.path}",
        data=body().encode(),
        headers={"content-type": "application/json", **dict(front.headers)},
    )
    with urllib.request.urlopen(request, timeout=30) as told:
        found: list[float] = json.load(told)["outputs"][0]["data"]
    return found


def measured(here: Stage, front: Front, seconds: float) -> dict[str, float]:
    bodies = (body(),)
    closed = take(here, front, Load(port=0, seconds=seconds, bodies=bodies, connections=8))
    most = closed.result.rate
    found = {"most": most, "cpu": closed.cpu_ms, "rate": 0.0, "bad": float(closed.not_served)}
    for share in TRIED:
        turn = take(
            here,
            front,
            Load(port=0, seconds=seconds, bodies=bodies, rate=most * share, connections=1024),
        )
        if turn.not_served == 0 and turn.latency_ms(0.99) < P99_MS:
            found["rate"] = most * share
            break
    half = take(here, front, Load(port=0, seconds=seconds, bodies=bodies, rate=most * 0.5, connections=1024))
    return found | {"p50": half.latency_ms(0.5), "p99": half.latency_ms(0.99)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=2, help="each of two pairs, A-B-B-A")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each load")
    asked = parser.parse_args()
    found: dict[str, dict[str, list[float]]] = {side: defaultdict(list) for side in (OWN, PEER)}
    with stage() as here:
        fronts = {
            OWN: here.front("ours-magika", (), called=OWN),
            PEER: here.front(PEER, ()),
        }
        own, other = (answer(front) for front in fronts.values())
        if max(abs(a - b) for a, b in zip(own, other, strict=True)) > EQUAL:
            raise SystemExit("the two sides do not give the same answer")
        for front in fronts.values():
            take(here, front, Load(port=0, seconds=0.5, bodies=(body(),), connections=2))
        for called in order(asked.rounds, PEER):
            for key, value in measured(here, fronts[called], asked.seconds).items():
                found[called][key].append(value)
        name = fronts[PEER].name
    ours, theirs = found[OWN], found[PEER]
    ratio = median(a / b for a, b in zip(ours["rate"], theirs["rate"], strict=True))
    bad = f"not served {sum(ours['bad']):g} / {sum(theirs['bad']):g}"
    for key, what, unit, target, reached, note in (
        ("rate", "magika: rate with p99 < 100 ms", "/s", f"≥ {LEAST_RATIO:g} ×", ratio >= LEAST_RATIO, bad),
        ("most", "magika: greatest rate", "/s", "", None, ""),
        ("p50", "magika: p50 at half of it", "ms", "", None, ""),
        ("p99", "magika: p99 at half of it", "ms", "", None, ""),
        ("cpu", "magika: CPU of an answer", "ms", "", None, "gateway and replica"),
    ):
        show(
            Figure(
                name=what,
                unit=unit,
                ours=tuple(ours[key]),
                peer=tuple(theirs[key]),
                peer_name=name,
                target=target,
                reached=reached,
                note=note,
            )
        )


if __name__ == "__main__":
    main()
