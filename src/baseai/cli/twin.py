"""The commands of the twin: recorded or imagined demand, replayed on a virtual clock.

Invariant: no platform is needed. Standard output holds figures, standard error progress; a file that is asked for is
written whole at the end or not at all. The same files, policy and seed give the same decisions, named by their hash.
"""

import gzip
import hashlib
import importlib.util
import json
import os
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from baseai.cli.call import Call, command
from baseai.cli.packed import text_of
from baseai.cli.screen import Screen
from baseai.cli.twin_serve import add_serve
from baseai.ground.fault import Fault, Refused

if TYPE_CHECKING:
    from baseai.scheduling.hall import Hall
    from baseai.scheduling.policy.seam import Packing, Timing
    from baseai.twin.neutral import Outage, Segment, Submission
    from baseai.twin.outcome import Outcome, PackingOutcome

TOLD_EVERY_S = 5.0
MODES = ("time", "packing")


class PolicyBroke(Fault):
    """A policy from a file raised what it should have handled."""

    def __init__(self, policy: str, where: str, what: str) -> None:
        super().__init__(policy, where, what)
        self.policy = policy
        self.where = where
        self.what = what

    def __str__(self) -> str:
        return f"the policy {self.policy} broke at {self.where}: {self.what}"


def add_twin(app: typer.Typer, environ: Mapping[str, str]) -> None:
    """Register the commands."""
    room = typer.Typer(help="What would be, on a virtual clock.", no_args_is_help=True, rich_markup_mode=None)
    app.add_typer(room, name="twin")

    @room.callback()
    def twin() -> None:
        """What would be, on a virtual clock."""

    add_serve(room, environ)

    example = (
        "baseai twin replay --cluster c.csv --workload w.csv.gz --policy easy --out d.csv --report r.html"
    )

    @command(room, "replay", example=example, environ=environ)
    def replay(
        call: Call,
        cluster: Annotated[
            Path, typer.Option("--cluster", help="Nodes as CSV, also .gz; or a captured hall, .npz.")
        ],
        workload: Annotated[Path, typer.Option("--workload", help="Gangs as CSV, also .gz.")],
        out: Annotated[Path, typer.Option("--out", help="Where the decisions go, CSV, .gz to pack them.")],
        policy: Annotated[
            str, typer.Option("--policy", help="Name of a policy, or FILE.py:Class for one of your own.")
        ] = "easy",
        mode: Annotated[
            str,
            typer.Option(
                "--mode", help="time: gangs come, run and end. packing: they come one by one and stay."
            ),
        ] = "time",
        packing: Annotated[
            str, typer.Option("--packing", help="In time, the packing policy that finds the nodes.")
        ] = "best_fit",
        seed: Annotated[int, typer.Option("--seed", min=0, help="Of all chance there is.")] = 42,
        restart_s: Annotated[
            float,
            typer.Option("--restart-s", min=0.0, help="Seconds that every start after the first costs."),
        ] = 0.0,
        checkpoint_s: Annotated[
            float,
            typer.Option(
                "--checkpoint-s", min=1e-6, help="Seconds of work between checkpoints: a failure's loss."
            ),
        ] = 600.0,
        failures: Annotated[
            Path | None, typer.Option("--failures", help="Nodes that fail: node_id,down_s,up_s.")
        ] = None,
        durations_unknown: Annotated[
            bool, typer.Option("--durations-unknown", help="Tell the policy nothing of how long runs take.")
        ] = False,
        report: Annotated[
            Path | None, typer.Option("--report", help="Where a page about it goes, HTML.")
        ] = None,
    ) -> None:
        """Replay a workload on a cluster through a policy, and say what came of it.

        Policies and formats stand in docs/policies.md; with --json the figures are one document.
        """
        import numpy as np

        from baseai.twin.neutral import bays_of, outages_of, submissions_of
        from baseai.twin.replay import Costs, Replay, pack

        if mode not in MODES:
            raise Refused(f"--mode {mode}: one of {', '.join(MODES)}")
        _check_places(out, report, inputs=(cluster, workload, failures))
        if cluster.suffix == ".npz":
            hall = _captured(cluster)
        else:
            from baseai.scheduling.hall import Hall

            with text_of(cluster) as lines:
                hall = Hall(bays_of(lines, str(cluster)))
        with text_of(workload) as lines:
            submissions = submissions_of(lines, str(workload), hall, with_durations=mode == "time")
        outages: tuple[Outage, ...] = ()
        if failures is not None:
            if mode == "packing":
                raise Refused("--failures: in packing nothing ends, so nothing can fail; take --mode time")
            with text_of(failures) as lines:
                outages = outages_of(lines, str(failures), hall)
        rng = np.random.default_rng(seed)
        told = _Progress(call.screen)
        began_s = time.process_time()
        with _blamed(policy, packing):
            if mode == "packing":
                chosen = _packing(policy, "--policy")(hall, rng)
                segments = pack(submissions, hall, chosen, told)
                events, preemptions, lost_s = len(submissions), 0, 0.0
            else:
                timing = _timing(policy)
                if durations_unknown and getattr(timing, "needs_durations", False):
                    raise Refused(
                        f"--durations-unknown: the policy {policy} decides by durations; take another one"
                    )
                one = Replay(
                    submissions,
                    hall,
                    timing(hall, rng, _packing(packing, "--packing")(hall, rng)),
                    costs=Costs(restart_s=restart_s, checkpoint_s=checkpoint_s),
                    outages=outages,
                    durations_known=not durations_unknown,
                    tell=told,
                )
                segments = one.run()
                events, preemptions, lost_s = one.events, one.preemptions, one.work_lost_s
        spent_s = time.process_time() - began_s
        in_time = {
            "durations": "not known to the policy" if durations_unknown else "known to the policy",
            "a restart costs": f"{restart_s:g} s",
            "checkpoints": f"{checkpoint_s:g} s of work apart",
        }
        _finish(
            call,
            hall,
            submissions,
            segments,
            out=out,
            report=report,
            about={
                "mode": mode,
                "policy": policy if mode == "packing" else f"{policy}, nodes by {packing}",
                "cluster": f"{cluster.name}: {hall.size_text}",
                "workload": f"{workload.name}: {len(submissions):,} gangs",
                "seed": str(seed),
                **({} if mode == "packing" else in_time),
            },
            spent={
                "events": events,
                "preemptions": preemptions,
                "work_lost_s": lost_s,
                "events_per_cpu_min": round(60 * events / spent_s) if spent_s else 0,
            },
        )


def _finish(
    call: Call,
    hall: "Hall",
    submissions: "tuple[Submission, ...]",
    segments: "list[Segment]",
    *,
    out: Path,
    report: Path | None,
    about: dict[str, str],
    spent: Mapping[str, float],
) -> None:
    """Write the files and say the figures."""
    from baseai.twin.neutral import decision_lines
    from baseai.twin.outcome import outcome_of, packing_outcome_of
    from baseai.twin.report import report_of

    decisions = "".join(decision_lines(segments, hall)).encode()
    digest = hashlib.sha256(decisions).hexdigest()
    outcome: Outcome | PackingOutcome
    if about["mode"] == "packing":
        outcome = packing_outcome_of(submissions, segments, hall)
    else:
        outcome = outcome_of(submissions, segments, hall)
    files = {out: gzip.compress(decisions, mtime=0) if out.suffix == ".gz" else decisions}
    if report is not None:
        files[report] = report_of(outcome, {**about, "decisions, SHA-256": digest}).encode()
    _write(files)
    if call.screen.as_json:
        call.screen.document(
            json.dumps({**about, **_figures(outcome), **spent, "sha256": digest}, allow_nan=False)
        )
        return
    call.screen.facts([*about.items(), *_told(outcome), ("events", f"{spent['events']:,}"),
                       ("events a CPU-minute", f"{spent['events_per_cpu_min']:,}"), ("sha256", digest)])  # fmt: skip


def _figures(outcome: "Outcome | PackingOutcome") -> dict[str, Any]:
    """Everything but the curves."""
    return {name: value for name, value in asdict(outcome).items() if not isinstance(value, dict)}


def _told(outcome: "Outcome | PackingOutcome") -> Iterator[tuple[str, str]]:
    from baseai.twin.outcome import PackingOutcome
    from baseai.twin.report import span_text

    if isinstance(outcome, PackingOutcome):
        yield (
            "allocated",
            f"{100 * outcome.allocated_ratio:.2f} % of {100 * outcome.asked_ratio:.2f} % asked for",
        )
        for mark, ratio in outcome.allocated_at_ratio:
            if mark >= 100:
                yield f"allocated at {mark} %", f"{100 * ratio:.2f} %"
        yield "turned away", f"{outcome.refused:,}"
        return
    yield (
        "wait",
        (
            f"mean {span_text(outcome.wait_mean_s)}, median {span_text(outcome.wait_median_s)},"
            f" p99 {span_text(outcome.wait_p99_s)}"
        ),
    )
    yield "submission to end", f"mean {span_text(outcome.jct_mean_s)}, bound {span_text(outcome.jct_bound_s)}"
    yield "makespan", f"{span_text(outcome.makespan_s)}, bound {span_text(outcome.makespan_bound_s)}"
    yield "in use", f"{100 * outcome.utilisation_ratio:.1f} %"
    yield "preemptions", f"{outcome.preemptions:,}"


class _Progress:
    """Says now and then how far the replay is."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._told_s = time.monotonic()

    def __call__(self, done: int, of: int, at_s: float | None) -> None:
        if time.monotonic() - self._told_s >= TOLD_EVERY_S:
            from baseai.twin.report import span_text

            self._told_s = time.monotonic()
            where = "" if at_s is None else f", at {span_text(at_s)}"
            self._screen.note(f"{100 * done // max(1, of)} %: {done:,} of {of:,} gangs{where}")


# ------------------------------------------------------------------------------------------------------- policies


def _packing(name: str, option: str) -> "type[Packing]":
    from baseai.scheduling.policy.registry import packing_named

    if ":" in name:
        return cast("type[Packing]", _own(name, option, "place"))
    return packing_named(name)


def _timing(name: str) -> "type[Timing]":
    from baseai.scheduling.policy.registry import timing_named

    if ":" in name:
        return cast("type[Timing]", _own(name, "--policy", "turn"))
    return timing_named(name)


def _own(written: str, option: str, must_have: str) -> object:
    """The class of a policy in a file of the customer's, which is run as it stands."""
    file, _, name = written.rpartition(":")
    path = Path(file)
    if not path.is_file():
        raise Refused(f"{option} {written}: there is no file {file}")
    spec = importlib.util.spec_from_file_location(f"policy_of_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise Refused(f"{option} {written}: {file} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = getattr(module, name, None)
    if not isinstance(found, type) or not callable(getattr(found, must_have, None)):
        raise Refused(f"{option} {written}: {file} has no class {name} with a method {must_have}")
    return found


@contextmanager
def _blamed(*policies: str) -> Iterator[None]:
    """What a policy from a file raises is its own, and is told with its place in that file."""
    files = {str(Path(each.rpartition(":")[0]).absolute()): each for each in policies if ":" in each}
    try:
        yield
    except Fault:
        raise
    except Exception as wrong:
        frames = traceback.extract_tb(wrong.__traceback__)
        for frame in reversed(frames):
            if frame.filename in files:
                where = f"{frame.filename}, line {frame.lineno}"
                raise PolicyBroke(files[frame.filename], where, f"{type(wrong).__name__}: {wrong}") from wrong
        if isinstance(wrong, SyntaxError) and wrong.filename in files:
            where = f"{wrong.filename}, line {wrong.lineno}"
            raise PolicyBroke(files[wrong.filename], where, f"SyntaxError: {wrong.msg}") from wrong
        raise


# ---------------------------------------------------------------------------------------------------------- files


def _captured(file: Path) -> "Hall":
    from baseai.scheduling.capture import NoCapture, hall_from

    try:
        return hall_from(file.read_bytes())
    except OSError as wrong:
        raise Refused(f"{file}: {wrong.strerror or wrong}") from wrong
    except NoCapture as wrong:
        raise Refused(f"{file}: {wrong}") from wrong


def _check_places(out: Path, report: Path | None, *, inputs: Iterable[Path | None]) -> None:
    """Say before the work that its fruit would have no place, or would take another file's."""
    taken = {file.resolve() for file in inputs if file is not None}
    for file in (out, report):
        if file is None:
            continue
        if file.is_dir() or not file.absolute().parent.is_dir():
            why = "it is a folder" if file.is_dir() else "its folder is not there"
            raise Refused(f"{file} cannot be written: {why}")
        if file.resolve() in taken:
            raise Refused(f"{file} cannot be written: it is read, or written already")
        taken.add(file.resolve())


def _write(files: Mapping[Path, bytes]) -> None:
    """All of them, each whole; where one cannot be written none is changed."""
    parts: dict[Path, Path] = {}
    try:
        for file, content in files.items():
            parts[file] = file.absolute().with_name(f".{file.name}.{os.getpid()}.part")
            with parts[file].open("wb") as part:
                part.write(content)
                part.flush()
                os.fsync(part.fileno())
        for file, part_of_it in parts.items():
            part_of_it.replace(file)
    except OSError as wrong:
        raise Refused(f"{wrong.filename or next(iter(files))}: {wrong.strerror or wrong}") from wrong
    finally:
        for part_of_it in parts.values():
            part_of_it.unlink(missing_ok=True)
