"""`baseai twin serve`: requests to a service, replayed through autoscalers side by side.

Invariant: no platform is needed and nothing is written. The same trace, options and seed give the same figures.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from baseai.cli.call import Call, command
from baseai.cli.column import Column
from baseai.cli.packed import text_of
from baseai.ground.fault import Refused

if TYPE_CHECKING:
    from baseai.twin.serving.outcome import ServingOutcome
    from baseai.twin.serving.pace import Pace

TOLD_EVERY_S = 5.0


def add_serve(room: typer.Typer, environ: Mapping[str, str]) -> None:
    """Register the command."""
    example = (
        "baseai twin serve --trace requests.csv.gz --service-ms 2000 --policy ours --policy kpa --target 4"
    )

    @command(room, "serve", example=example, environ=environ)
    def serve(
        call: Call,
        trace: Annotated[
            Path,
            typer.Option(
                "--trace",
                help="Requests: at_s,prompt_tokens,answer_tokens; or as Azure, Mooncake or ServeGen publish them.",
            ),
        ],
        policy: Annotated[
            list[str] | None,
            typer.Option(
                "--policy", help="Autoscalers to compare: ours, kpa, hpa, hpa-tuned, ray, ray-tuned."
            ),
        ] = None,
        target: Annotated[
            list[float] | None,
            typer.Option("--target", help="Requests at once for each replica; several draw a curve."),
        ] = None,
        service_ms: Annotated[
            float | None, typer.Option("--service-ms", min=0.001, help="How long each request takes.")
        ] = None,
        measured: Annotated[
            Path | None,
            typer.Option("--measured", help="Instead: a measured language model, as splitwise-sim's table."),
        ] = None,
        model: Annotated[str, typer.Option("--model", help="Of that table.")] = "llama2-70b",
        hardware: Annotated[str, typer.Option("--hardware", help="Of that table.")] = "h100-80gb",
        parallel: Annotated[int, typer.Option("--parallel", min=1, help="Of that table.")] = 8,
        concurrency: Annotated[
            int, typer.Option("--concurrency", min=1, help="Requests that one replica is given at once.")
        ] = 8,
        warm_up_s: Annotated[
            float, typer.Option("--warm-up-s", min=0.0, help="From a replica's order to its first request.")
        ] = 30.0,
        slo_ms: Annotated[
            float, typer.Option("--slo-ms", min=0.0, help="A request held for longer missed.")
        ] = 1000.0,
        least: Annotated[int, typer.Option("--least", min=0, help="Replicas.")] = 1,
        most: Annotated[int, typer.Option("--most", min=1, help="Replicas.")] = 50,
        begin_with: Annotated[int, typer.Option("--begin-with", min=0, help="Replicas that are ready.")] = 1,
        lead_s: Annotated[
            float, typer.Option("--lead-s", min=0.0, help="Seconds at the beginning that no figure counts.")
        ] = 0.0,
        from_s: Annotated[
            float, typer.Option("--from-s", min=0.0, help="Where in the trace to begin.")
        ] = 0.0,
        for_s: Annotated[
            float | None, typer.Option("--for-s", min=1.0, help="How much of the trace to take.")
        ] = None,
        share: Annotated[
            float, typer.Option("--share", min=1e-9, help="Of the rates of a trace that holds rates alone.")
        ] = 1.0,
        gap_variation: Annotated[
            float,
            typer.Option(
                "--gap-variation", min=0.01, help="Of requests drawn from rates: 1 Poisson, 3 in bursts."
            ),
        ] = 1.0,
        seed: Annotated[int, typer.Option("--seed", min=0, help="Of all chance there is.")] = 42,
    ) -> None:
        """Replay requests through autoscalers: who missed the SLO, and how many replica-seconds that cost.

        Ours is the function that the platform decides by; kpa, hpa and ray are the rules of Knative, Kubernetes with
        KEDA and Ray Serve. Points that no other beats are marked.
        """
        import math

        import numpy as np

        from baseai.twin.serving.outcome import Point, front_of, outcome_of
        from baseai.twin.serving.policy.registry import autoscaler_named
        from baseai.twin.serving.replay import Hardware, ServingReplay
        from baseai.twin.serving.trace import Draw, stretch_of, trace_of
        from baseai.workloads.service import Scaling

        chosen = {name: autoscaler_named(name) for name in policy or ["ours"]}
        targets = target or [0.7 * concurrency]
        if min(targets) <= 0:
            raise Refused(f"--target {min(targets):g}: a replica is to carry more than nothing")
        if least > most:
            raise Refused(f"--least {least}: it is more than --most {most}")
        hall = Hardware(
            pace=_pace(service_ms, measured, model, hardware, parallel),
            concurrency=concurrency,
            warm_up_s=warm_up_s,
        )
        with text_of(trace) as lines:
            rng = np.random.default_rng(seed)
            requests = trace_of(lines, str(trace), Draw(rng=rng, share=share, gap_variation=gap_variation))
        if from_s or for_s is not None:
            requests = stretch_of(requests, from_s=from_s, for_s=math.inf if for_s is None else for_s)
        if not requests:
            raise Refused(f"{trace}: there is no request from {from_s:g} s on")
        outcomes: list[tuple[str, float, ServingOutcome]] = []
        told_s = time.monotonic()
        for name, autoscaler in chosen.items():
            for each in targets:
                scaling = Scaling(least=least, most=most, target=each)
                replay = ServingReplay(
                    requests, hall, autoscaler(scaling), np.random.default_rng(seed), begin_with=begin_with
                )
                found = outcome_of(replay.run(), slo_s=slo_ms / 1000, concurrency=concurrency, from_s=lead_s)
                outcomes.append((name, each, found))
                if time.monotonic() - told_s >= TOLD_EVERY_S:
                    told_s = time.monotonic()
                    call.screen.note(f"{len(outcomes)} of {len(chosen) * len(targets)} replays")
        points = [
            Point(name=f"{name} {each:g}", missed_ratio=one.missed_ratio, replica_s=one.replica_s)
            for name, each, one in outcomes
        ]
        best = set(front_of(points))
        if call.screen.as_json:
            rows = [
                {"policy": name, "target": each, **asdict(one), "front": point in best}
                for (name, each, one), point in zip(outcomes, points, strict=True)
            ]
            about = {"trace": trace.name, "seed": seed, "warm_up_s": warm_up_s, "slo_ms": slo_ms}
            call.screen.document(json.dumps({**about, "points": rows}, allow_nan=False))
            return
        call.screen.table(
            COLUMNS,
            [
                _cells(name, each, one, point in best)
                for (name, each, one), point in zip(outcomes, points, strict=True)
            ],
        )


COLUMNS = (
    Column(head="policy"),
    Column(head="target", right=True),
    Column(head="missed", right=True),
    Column(head="replica-seconds", right=True),
    Column(head="replicas", right=True),
    Column(head="wait p99", right=True),
    Column(head="changes", right=True),
    Column(head="front"),
)


def _cells(name: str, target: float, one: "ServingOutcome", best: bool) -> tuple[str, ...]:
    p99 = "never" if one.wait_p99_s is None else f"{one.wait_p99_s:.2f} s"
    replicas = f"{one.replicas_mean:.1f}, most {one.replicas_most}"
    return (name, f"{target:g}", f"{100 * one.missed_ratio:.2f} %", f"{one.replica_s:,.0f}", replicas, p99,
            str(one.decisions), "yes" if best else "")  # fmt: skip


def _pace(
    service_ms: float | None, measured: Path | None, model: str, hardware: str, parallel: int
) -> "Pace":
    from baseai.twin.serving.pace import FixedPace, measured_pace_of

    if (service_ms is None) == (measured is None):
        raise Refused("say how long a request takes: by --service-ms or by --measured, one of them")
    if measured is None:
        assert service_ms is not None
        return FixedPace(each_s=service_ms / 1000)
    with text_of(measured) as lines:
        return measured_pace_of(
            lines, str(measured), model=model, hardware=hardware, tensor_parallel=parallel
        )
