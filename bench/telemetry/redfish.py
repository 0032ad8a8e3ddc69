"""What one poll of a management controller costs: requests, seconds and bytes for all values of a GB300 tray.

    PYTHONPATH=src:. python bench/telemetry/redfish.py [--rounds 3] [--answer-ms 100]

The controller is the tests' own, on loopback, over the saved tree in ../shared (BASEAI_SHARED names it): its readings
move, and each answer takes as long as a quick controller's does. The peer is the same collector on the same tree where
neither reports nor expansions are offered, so that each resource is fetched by itself. Both listen to events.
"""

import argparse
import asyncio
import os
import time
from datetime import UTC, datetime
from pathlib import Path

from baseai.telemetry.redfish.collector import RedfishCollector
from baseai.telemetry.redfish.session import BoardSettings
from bench.report import Figure, show
from tests.telemetry.redfish_server import PASSWORD, USER, Ill, RedfishServer, serving, tree_of

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("BASEAI_SHARED") or ROOT.parent / "shared") / "fixtures" / "redfish"
TREE = SHARED / "supermicro-gb300"
WANTED = 12
POLLS = 3  # of each side in a round


async def watched(server: RedfishServer) -> RedfishCollector:
    """A collector that has looked around and listens."""
    settings = BoardSettings(url=server.url, user=USER, password=PASSWORD, every_s=120.0)
    collector = RedfishCollector(settings, chance=lambda: 0.0)
    began_s = time.perf_counter()
    first = await collector.collect(datetime.now(UTC))
    values = sum(
        reading.value is not None
        for rows in first.rows.values()
        for row in rows
        for reading in row.fields.values()
    )
    print(
        f"looked around with {len(server.asked)} requests in {time.perf_counter() - began_s:.1f} s;"
        f" {values} values a poll",
        flush=True,
    )
    while server.streams == 0:  # noqa: ASYNC110 - the stream opens in another thread
        await asyncio.sleep(0.05)
    return collector


async def poll_costs(server: RedfishServer, collector: RedfishCollector) -> tuple[list[float], list[float]]:
    """Requests and seconds of some polls."""
    requests, seconds = [], []
    for _ in range(POLLS):
        before, began_s = collector.session.requests, time.perf_counter()
        await collector.collect(datetime.now(UTC))
        seconds.append(time.perf_counter() - began_s)
        requests.append(float(collector.session.requests - before))
    assert server.most_at_once <= 2, "more requests at once than a controller bears"
    return requests, seconds


async def measure(ours: RedfishServer, peer: RedfishServer, rounds: int) -> None:
    mine, theirs = await watched(ours), await watched(peer)
    requests: tuple[list[float], list[float]] = ([], [])
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for side in (0, 1, 1, 0):
            asked, took = await poll_costs((ours, peer)[side], (mine, theirs)[side])
            requests[side].extend(asked)
            seconds[side].extend(took)
    await mine.close()
    await theirs.close()
    name = "each resource by itself"
    show(
        Figure(
            name="Redfish, a poll of a GB300 tray",
            unit="requests",
            ours=tuple(requests[0]),
            peer=tuple(requests[1]),
            peer_name=name,
            target=f"≤ {WANTED}",
            reached=max(requests[0]) <= WANTED,
            note=f"sessions {ours.most_sessions}, at once {ours.most_at_once}",
        )
    )
    show(
        Figure(
            name="the same, time",
            unit="s",
            ours=tuple(seconds[0]),
            peer=tuple(seconds[1]),
            peer_name=name,
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--answer-ms", type=float, default=100.0, help="how long the controller thinks")
    asked = parser.parse_args()
    if not TREE.is_dir():
        figure = Figure(
            name="Redfish, a poll of a GB300 tray", unit="requests", ours=(), target=f"≤ {WANTED}"
        )
        print(f"{TREE} is not here: nothing is measured", flush=True)
        show(figure)
        return
    slow = Ill(slow_s=asked.answer_ms / 1000)
    plain = tree_of(TREE)
    plain["/redfish/v1"].pop("TelemetryService")
    plain["/redfish/v1"].pop("ProtocolFeaturesSupported")
    ours = RedfishServer(tree=tree_of(TREE), is_moving=True, ill=slow)
    peer = RedfishServer(tree=plain, is_moving=True, ill=Ill(slow_s=slow.slow_s))
    with serving(ours), serving(peer):
        asyncio.run(measure(ours, peer, asked.rounds))


if __name__ == "__main__":
    main()
