"""kill -9 at random instants of whatever carries a training run; afterwards nothing is lost, doubled or torn.

    PYTHONPATH=src:. python bench/platform/kills.py [--kills 10] [--seed 1]

Each kill takes one of: the launcher, the shim, the agent, the server, the controller, PostgreSQL, or the node (agent,
shim, launcher, workers and their writer at once). The next comes after a random pause, whether or not the run has
recovered. After each kill the newest committed checkpoint must load, hold its digest and be no older than the one
before; at the end the run must succeed, no accelerator be in two leases at once, every observed second stand in
exactly one usage line, and the trial balance be zero. The seed replays the choices, not the instants to the
microsecond. There is no peer: torchrun has no leases and no books.
"""

import argparse
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from baseai.workloads.training.checkpoint import Checkpoint, newest
from bench.platform.watched import TINY, Watched, command_line
from bench.report import Figure, show
from tests.scenarios.platform import Platform, platform

VICTIMS = ("launcher", "shim", "agent", "server", "controller", "postgres", "node")
EVERY_STEPS = 25
ENDED = ("succeeded", "failed", "cancelled")


def strike(home: Platform, run: Watched, victim: str) -> bool:
    """kill -9 of the victim; False where there is none just now."""
    pids: list[int] = []
    try:
        if victim in ("agent", "server", "controller", "postgres", "node"):
            pids.append(home.pid("agent" if victim == "node" else victim))
        if victim in ("launcher", "shim", "node"):
            attempt = max(int(name) for name in os.listdir(run.runs_folder / run.run_id) if name.isdigit())
            born = run.born(attempt)
            pids += (
                run.processes(attempt)
                if victim == "node"
                else [born["pid" if victim == "launcher" else "shim_pid"]]
            )
            if run.run_id.encode() not in command_line(born["shim_pid"]):
                return False  # it has ended, and its pids may be somebody else's by now
    except (FileNotFoundError, ValueError):
        return False
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return True


def loads(checkpoint: Checkpoint) -> bool:
    """Every tensor of it, finite."""
    import torch
    from safetensors.torch import load_file

    return all(
        bool(torch.isfinite(each).all())
        for each in load_file(checkpoint.state).values()
        if each.is_floating_point()
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--steps", type=int, default=0, help="of the run; chosen by the number of kills otherwise"
    )
    asked = parser.parse_args()
    chance = random.Random(asked.seed)
    steps = asked.steps or 400 * asked.kills + 1000
    struck: Counter[str] = Counter()
    wrong: list[str] = []
    states: Counter[str] = Counter()
    run_ids: list[str] = []
    last: Checkpoint | None = None
    began_s = time.monotonic()
    with platform("--cpu-slots", "2") as home:
        while struck.total() < asked.kills:
            run = Watched(home, TINY | {"steps": steps}, checkpoint_every={"steps": EVERY_STEPS})
            run_ids.append(run.run_id)
            folder, last = home.data / "files" / "checkpoints" / run.run_id, None
            run.wait_for()
            while newest(folder) is None:  # from here on there is something to lose
                time.sleep(0.05)
            while struck.total() < asked.kills and state_of(home, run)["state"] not in ENDED:
                time.sleep(chance.uniform(0.2, 4.0))
                victim = chance.choice(VICTIMS)
                if not strike(home, run, victim):
                    continue
                struck[victim] += 1
                found = newest(folder)
                if found is None and last is not None:
                    wrong.append(f"after {victim}: no checkpoint is left of {last.path.name}")
                elif found is not None and not loads(found):
                    wrong.append(f"after {victim}: {found.path.name} does not load")
                elif found is not None and last is not None and found.step < last.step:
                    wrong.append(f"after {victim}: {found.path.name} is older than {last.path.name}")
                last = found or last
                print(
                    f"kill {struck.total()}: {victim}, newest checkpoint {found.path.name if found else 'none yet'}",
                    flush=True,
                )
            home.ask("GET", "/health", patience_s=60)
            detail = home.wait_ended(run.run_id, 300)
            states[detail["run"]["state"]] += 1
            if detail["run"]["state"] != "succeeded":
                wrong.append(
                    f"the run {detail['run']['state']}: {detail['run'].get('reason')} {detail['run'].get('sentence')}"
                )
            print(f"the run {detail['run']['state']} in attempt {detail['run']['attempt_no']}", flush=True)
        for run_id in run_ids:
            wrong += refuted("metered is not observed", partial(home.check_metered, run_id))
        wrong += refuted("the books", home.check_books)
    for sentence in wrong:
        print(f"WRONG: {sentence}", flush=True)
    show(
        Figure(
            name=f"{struck.total()} kills of the whole run: what broke",
            unit="wrongs",
            ours=(float(len(wrong)),),
            target="0: checkpoint loads, leases apart, metered = observed, balance 0",
            reached=not wrong,
            note=f"{', '.join(f'{victim} {count}' for victim, count in struck.items())}; runs"
            f" {', '.join(f'{state} {count}' for state, count in states.items())}; seed {asked.seed},"
            f" {time.monotonic() - began_s:.0f} s",
        )
    )
    if wrong:
        raise SystemExit(1)


def state_of(home: Platform, run: Watched) -> dict[str, Any]:
    return home.ask("GET", f"/runs/{run.run_id}", patience_s=60)["run"]  # type: ignore[no-any-return]


def refuted(what: str, check: Callable[[], None]) -> list[str]:
    try:
        check()
    except AssertionError as wrong:
        return [f"{what}: {wrong}"]
    return []


if __name__ == "__main__":
    main()
