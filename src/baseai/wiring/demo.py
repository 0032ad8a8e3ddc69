"""The demo: the whole chain on one machine, with a worker killed on the way.

It starts a platform of its own, trains a real model on leased CPU slots, kills one of the two workers, sees it
recover, and shows what was learned, where it lies, and what it cost. Everything shown is measured on this machine,
except the cost rates, which rest on the catalogue's assumptions.
"""

import os
import signal
import sys
import time
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import baseai
from baseai.ground.fault import NotFound, Refused
from baseai.settings import DEFAULT_PORT, PlatformSettings, runtime_folder

if TYPE_CHECKING:
    from rich.console import Console

    from baseai.api.schemas import RunView
    from baseai.wiring.supervisor import Supervisor

LEFT_WITHIN_S = 90.0  # in which what an earlier demo left must be gone
KILL_AFTER_RATIO = 0.4  # of all steps, and only once a checkpoint is there to go on from
SAMPLE_SHOWN = 300
SPEC = Path(baseai.__file__).parents[2] / "examples" / "train-gpt.yaml"


def demo(
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Folder of the demo (~/.baseai-demo; root: /var/lib/baseai-demo)."),
    ] = None,
    spec: Annotated[Path, typer.Option("--spec", help="What to train.")] = SPEC,
    port: Annotated[int, typer.Option(help="Port of the pages; a free one if it is taken.")] = DEFAULT_PORT,
    kill: Annotated[
        bool, typer.Option("--kill/--no-kill", help="Whether to kill a worker on the way.")
    ] = True,
    stay: Annotated[
        bool | None, typer.Option("--stay/--leave", help="Keep serving at the end; on a terminal it does.")
    ] = None,
) -> int:
    """Train a real model on this machine, kill one of its workers on the way, and see what it cost."""
    from rich.console import Console

    if not spec.is_file():
        raise NotFound("spec", f"at {spec}: name one with --spec")
    default = Path("/var/lib/baseai-demo") if os.geteuid() == 0 else Path.home() / ".baseai-demo"
    settings = PlatformSettings(
        data=(data or default).absolute(),
        port=_free(port),
        cpu_slots=max(2, os.cpu_count() or 2),
        demo=True,
        sample_every_s=2.0,  # a demo is short
    )
    console = Console(highlight=False, soft_wrap=True)
    return _run(settings, spec, console, kill=kill, stay=sys.stdout.isatty() if stay is None else stay)


def _run(settings: PlatformSettings, spec: Path, console: "Console", *, kill: bool, stay: bool) -> int:
    from baseai.wiring.household import Household
    from baseai.wiring.supervisor import Supervisor

    household = Household(data=settings.data)
    household.make()
    with household.hold():
        began = time.monotonic()
        console.print("1. Starting the platform: database, server, controller, and this machine as a node …")
        supervisor = Supervisor(settings, household, runtime_folder(settings.data, os.environ), console.print)
        try:
            supervisor.start()
            _wait_for_node(supervisor)
            console.print(f"   up at {supervisor.settings.url} after {time.monotonic() - began:.1f} s")
            console.print(f"   look at it: {supervisor.ask('POST', '/api/v1/sign-in-links')['url']}")
            _end_what_is_left(supervisor, console)
            run = _train(supervisor, spec, console, kill=kill)
            _show(supervisor, run, console, time.monotonic() - began)
            if stay and not supervisor.told_to_end:
                console.print(f"\nStill serving: {supervisor.ask('POST', '/api/v1/sign-in-links')['url']}")
                console.print("Ctrl-C ends it.")
                supervisor.run()
            return 0 if run.state == "succeeded" else 1
        except KeyboardInterrupt:
            console.print("ending")
            return 130
        finally:
            supervisor.end()


def _wait_for_node(supervisor: "Supervisor") -> None:
    deadline = time.monotonic() + 30
    while not any(offer["total"] for offer in supervisor.ask("GET", "/api/v1/offers")["items"]):
        if supervisor.told_to_end:
            raise KeyboardInterrupt
        if time.monotonic() > deadline:
            raise Refused(
                f"this machine did not become a node within 30 s: see {supervisor.household.logs / 'agent.log'}"
            )
        supervisor.tend()
        time.sleep(0.1)


def _end_what_is_left(supervisor: "Supervisor", console: "Console") -> None:
    """Stop the runs of an earlier demo that was interrupted: they would go on, and this one's would wait for them."""
    left = _going(supervisor)
    if left:
        console.print(f"   ending what an earlier demo left: {', '.join(run['name'] for run in left)}")
    for run in left:
        supervisor.ask("POST", f"/api/v1/runs/{run['run_id']}/stop", {"reason": "another demo begins"})
    deadline = time.monotonic() + LEFT_WITHIN_S
    while left and _going(supervisor):
        if supervisor.told_to_end:
            raise KeyboardInterrupt
        if time.monotonic() > deadline:
            raise Refused(f"they did not end within {LEFT_WITHIN_S:g} s: see {supervisor.household.logs}")
        supervisor.tend()
        time.sleep(0.2)


def _going(supervisor: "Supervisor") -> list[dict[str, Any]]:
    """Runs that have not ended; the page also lists those that ended a moment ago."""
    runs: list[dict[str, Any]] = supervisor.ask("GET", "/api/v1/runs")["items"]
    return [run for run in runs if run["ended_at"] is None]


def _train(supervisor: "Supervisor", spec: Path, console: "Console", *, kill: bool) -> "RunView":
    from baseai.cli.connection import Connection
    from baseai.cli.follow import follow_run
    from baseai.cli.http import Platform

    console.print(
        f"2. Applying {spec.name}: two workers on two leased CPU slots, gradients synchronised at every step"
    )
    submitted = supervisor.ask("POST", "/api/v1/runs", {"spec": spec.read_text(), "file": spec.name})
    killed: list[int] = []

    def watch(run: "RunView") -> None:
        supervisor.tend()
        if supervisor.told_to_end:
            raise KeyboardInterrupt
        if kill and not killed and _half_way(supervisor, run):
            pid = _a_worker(supervisor)
            if pid is not None:
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
                step = run.progress.get("step")
                console.print(
                    f"3. Killed a worker (kill -9 {pid}) at step {step}: it goes on from its checkpoint"
                )

    connection = Connection(
        url=supervisor.settings.url, key=supervisor.household.text("operator", "bai"), ca_file=None
    )
    with Platform(connection) as platform:
        return follow_run(platform, submitted["run_id"], console, watch=watch)


def _half_way(supervisor: "Supervisor", run: "RunView") -> bool:
    step, total = run.progress.get("step"), run.progress.get("steps_total")
    if run.state != "running" or not step or not total or step < KILL_AFTER_RATIO * total:
        return False
    detail = supervisor.ask("GET", f"/api/v1/runs/{run.run_id}")
    return bool(detail["checkpoints"])


def _a_worker(supervisor: "Supervisor") -> int | None:
    """A process that the launcher forked to train with: the busiest of those that share their parent's words."""
    import psutil

    agent = supervisor.children["agent"].process
    if agent is None:
        return None
    found = []
    for process in psutil.process_iter(["pid", "cmdline", "ppid"]):
        try:
            words = process.info["cmdline"] or []
            forked = any("forkserver" in word for word in words)
            if not forked or psutil.Process(process.info["ppid"]).cmdline() != words:
                continue
            if str(supervisor.settings.data) in " ".join(_ancestry(process)):
                found.append((process.cpu_times().user, process.info["pid"]))
        except psutil.Error:
            continue
    return int(max(found)[1]) if found else None


def _ancestry(process: Any) -> list[str]:
    return [" ".join(parent.cmdline()) for parent in process.parents()]


def _show(supervisor: "Supervisor", run: "RunView", console: "Console", took_s: float) -> None:
    detail = supervisor.ask("GET", f"/api/v1/runs/{run.run_id}")
    deadline = time.monotonic() + 15
    while (
        detail["money"]["accruing"] and time.monotonic() < deadline
    ):  # the last lines are booked in a moment
        supervisor.tend()
        time.sleep(0.25)
        detail = supervisor.ask("GET", f"/api/v1/runs/{run.run_id}")
    console.rule()
    use = supervisor.ask("GET", f"/api/v1/runs/{run.run_id}/use")
    for line in (*_summary(detail, took_s), *_use(use)):
        console.print(line, markup=False)
    books = supervisor.ask("GET", "/api/v1/books/trial-balance")
    console.print(f"  books            debits less credits: {Decimal(books['difference']):f}")
    console.print(f"  page             {supervisor.settings.url}/runs/{run.run_id}")


def _summary(detail: dict[str, Any], took_s: float) -> list[str]:
    """What was learned, where it lies, what it used and what that comes to."""
    run, result, money = detail["run"], detail["run"]["result"], detail["money"]
    why = f" — {run['sentence']}" if run["sentence"] else ""
    lines = [f"{run['name']} {run['state']}{why} ({took_s:.0f} s in all)"]
    if result:
        bits = result["bits_per_byte"]
        repeated = f"{result.get('repeated_steps', 0)} steps repeated, {run['restarts']} restart(s)"
        lines += [
            f"  held-out text    {bits:.3f} bits per byte, perplexity {result['perplexity']:.1f} per token",
            f"  goodput          {result['goodput_ratio']:.1%}, {repeated}",
            f"  a sample         {' '.join(str(result['sample']).split())[:SAMPLE_SHOWN]}",
            f"  model            {result['model_folder']}",
        ]
    for checkpoint in detail["checkpoints"][:1]:
        size_mb = checkpoint["bytes"] / 1e6
        lines.append(f"  last checkpoint  step {checkpoint['step']}, {size_mb:.0f} MB, {checkpoint['path']}")
    mark = "~" if money["accruing"] else ""
    figures = {
        name: Decimal(money[name]) for name in ("accelerator_hours", "revenue", "cost", "contribution")
    }
    slots = sum(len(lease["accelerators"]) for lease in detail["leases"][:1])
    return [
        *lines,
        f"  used             {mark}{figures['accelerator_hours']:f} accelerator-hours on {slots} CPU slots (measured)",
        f"  revenue          {mark}US$ {figures['revenue']:f} (list price)",
        f"  cost             {mark}US$ {figures['cost']:f} (estimated: {money['basis']})",
        f"  contribution     {mark}US$ {figures['contribution']:f}",
    ]


def _use(use: dict[str, Any]) -> list[str]:
    """What the devices themselves said of it; nothing where no sample speaks of the run."""
    parts = []
    if use["util_pct"] is not None:
        parts.append(f"{use['util_pct']:.0f} % busy (measured)")
    if use["energy_wh"] is not None:
        parts.append(f"{use['energy_wh']:.2f} Wh ({use['energy_origin']})")
    if use["mem_used_max_b"] is not None:
        parts.append(f"at most {use['mem_used_max_b'] / 2**30:.2f} GiB on one slot (measured)")
    return [f"  devices          {', '.join(parts)}"] if parts else []


def _free(port: int) -> int:
    from baseai.wiring.supervisor import PortTaken, listen

    try:
        listen("127.0.0.1", port).close()
    except PortTaken:
        return 0
    return port
