"""The commands around services: what serves, how it answers, what it costs; steering one, and the models there are.

Invariant: what is shown of a service is what the platform says of it; steering says what is typed and nothing else.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from baseai.cli.call import Call, command, listed, segment
from baseai.cli.calling import add_calling
from baseai.cli.column import (
    Column,
    age,
    bytes_text,
    fact_lines,
    figure,
    instant_text,
    money_column,
    plain,
    table_lines,
)
from baseai.cli.http import Answer
from baseai.cli.serving import bounds_text, replica_text
from baseai.ground.clock import now_utc
from baseai.ground.fault import Refused

if TYPE_CHECKING:
    from datetime import datetime

    from baseai.api.schemas import (
        ModelView,
        ReplicaView,
        ScalingView,
        ServiceCost,
        ServiceCostView,
        ServiceDetail,
        ServiceVersionView,
        ServiceView,
        TrafficPoint,
        TrafficSum,
        TrafficView,
    )

SHORT = 12  # of a digest that people compare by eye
ROWS_SHOWN = 30  # of traffic, the newest
SCALINGS_SHOWN = 8
Table = tuple[Sequence[Column], Sequence[Sequence[str]]]

ServiceName = Annotated[
    str, typer.Argument(metavar="SERVICE", help="Name or id of the service.", show_default=False)
]
Limit = Annotated[int, typer.Option("--limit", min=1, max=500, help="How many at most.")]
Cursor = Annotated[
    str | None, typer.Option("--cursor", help="Where the page before ended.", show_default=False)
]


def add_services(app: typer.Typer, environ: Mapping[str, str]) -> None:
    """Register the commands."""
    service = typer.Typer(
        help="Services: models and programs that answer requests.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    app.add_typer(service, name="service")

    @command(service, "ls", example="baseai service ls", environ=environ)
    def list_services(
        call: Call,
        everything: Annotated[bool, typer.Option("-a", "--all", help="Stopped ones too.")] = False,
        limit: Limit = 100,
        cursor: Cursor = None,
    ) -> None:
        """List services with state, replicas and what they were asked in the last minute."""
        from baseai.api.schemas import ServiceView

        found = listed(
            call, "/services", ServiceView, all=True if everything else None, limit=limit, cursor=cursor
        )
        if found:
            call.screen.table(_SERVICE_COLUMNS, [_service_cells(one) for one in found])
        elif found is not None:
            call.screen.note(
                "no services" if everything else "no services; --all shows those that were stopped"
            )

    @command(service, "show", example="baseai service show magika", environ=environ)
    def show_service(call: Call, name: ServiceName) -> None:
        """Show one service: versions, replicas, why it has as many as it has, and how to call it."""
        _show(call, call.platform.get(f"/services/{segment(name)}"))

    @command(service, "traffic", example="baseai service traffic magika --window 1h", environ=environ)
    def traffic(
        call: Call,
        name: ServiceName,
        window: Annotated[str, typer.Option("--window", help="15m, 1h, 6h, 24h or 7d.")] = "15m",
    ) -> None:
        """Show what a service was asked and how it answered, step by step, the newest last.

        WANTED, READY and UNDER WAY are replicas and requests; percentiles are latencies in ms until the last byte.
        """
        from baseai.api.schemas import TrafficView

        answer = call.platform.get(f"/services/{segment(name)}/traffic", window=window)
        if call.screen.as_json:
            call.screen.document(answer.text)
            return
        call.screen.say(*traffic_lines(answer.read(TrafficView)))

    @command(service, "cost", example="baseai service cost magika --window 7d", environ=environ)
    def cost(
        call: Call,
        name: ServiceName,
        window: Annotated[str, typer.Option("--window", help="15m, 1h, 6h, 24h or 7d.")] = "24h",
    ) -> None:
        """Show what the replicas of a service came to, by 1,000 requests and by million tokens.

        ~ marks what is not posted yet, or is a part, by time, of a replica that was there outside the window as well.
        """
        from baseai.api.schemas import ServiceCostView

        answer = call.platform.get(f"/services/{segment(name)}/cost", window=window)
        if call.screen.as_json:
            call.screen.document(answer.text)
            return
        told = answer.read(ServiceCostView)
        for item in told.items:
            call.screen.facts(_cost_facts(told, item))
        if not told.items:
            call.screen.note("no replica ran in this time")

    @command(service, "scale", example="baseai service scale magika --min 1 --max 8", environ=environ)
    def scale(
        call: Call,
        name: ServiceName,
        least: Annotated[
            int | None, typer.Option("--min", min=0, help="Replicas there are at least.", show_default=False)
        ] = None,
        most: Annotated[
            int | None, typer.Option("--max", min=1, help="Replicas there are at most.", show_default=False)
        ] = None,
    ) -> None:
        """Give a service other bounds, at once and without a rollout. What is left out stays."""
        if least is None and most is None:
            raise Refused("say --min, --max or both")
        document = {key: value for key, value in (("least", least), ("most", most)) if value is not None}
        _show(call, call.platform.post(f"/services/{segment(name)}/scale", document))

    @command(service, "promote", example="baseai service promote magika", environ=environ)
    def promote(call: Call, name: ServiceName) -> None:
        """Give the version that is taking over all requests at once."""
        _show(call, call.platform.post(f"/services/{segment(name)}/promote"))

    @command(service, "rollback", example="baseai service rollback magika", environ=environ)
    def roll_back(call: Call, name: ServiceName) -> None:
        """Take the version that is taking over back; the one before gets all requests again."""
        _show(call, call.platform.post(f"/services/{segment(name)}/rollback"))

    @command(service, "stop", example="baseai service stop magika", environ=environ)
    def stop(call: Call, name: ServiceName) -> None:
        """End a service. What is under way is answered first; applying its spec again makes a new one."""
        from baseai.api.schemas import ServiceDetail

        answer = call.platform.post(f"/services/{segment(name)}/stop")
        if call.screen.as_json:
            call.screen.document(answer.text)
            return
        stopped = answer.read(ServiceDetail).service
        call.screen.say(f"{plain(stopped.name)} is {stopped.state}")

    add_calling(service, environ)

    @command(app, "models", example="baseai models", environ=environ)
    def models(call: Call, limit: Limit = 100, cursor: Cursor = None) -> None:
        """List the models that were served here: digest, where each came from, who serves it now."""
        from baseai.api.schemas import ModelView

        found = listed(call, "/models", ModelView, limit=limit, cursor=cursor)
        if found:
            call.screen.table(_MODEL_COLUMNS, [_model_cells(one) for one in found])
        elif found is not None:
            call.screen.note("no model was served here yet")


# ---- lists ----------------------------------------------------------------------------------------------------

_SERVICE_COLUMNS = (
    Column(head="NAME"),
    Column(head="STATE"),
    Column(head="VERSION"),
    Column(head="READY", right=True),
    Column(head="BOUNDS", right=True),
    Column(head="REQUESTS/S", right=True),
    Column(head="ERRORS", right=True),
    Column(head="ENGINE"),
    Column(head="AGE", right=True),
    Column(head="URL"),
)
_MODEL_COLUMNS = (
    Column(head="MODEL"),
    Column(head="DIGEST"),
    Column(head="ENGINE"),
    Column(head="SIZE", right=True),
    Column(head="LICENSE"),
    Column(head="FROM"),
    Column(head="EVALUATION"),
    Column(head="SERVED BY"),
    Column(head="SINCE"),
)


def _service_cells(one: "ServiceView") -> Sequence[str]:
    return (
        one.name,
        one.state,
        version_text(one),
        f"{one.ready}/{one.wanted}",
        bounds_text(one),
        figure(one.requests_per_s, digits=3),
        share_text(one.error_ratio),
        one.engine,
        age(one.made_at, one.stopped_at or now_utc()),
        one.url or "",
    )


def _model_cells(one: "ModelView") -> Sequence[str]:
    found = [f"{name} {figure(value)}" for name, value in one.evaluation.items() if figure(value)]
    return (
        one.name,
        one.digest[:SHORT],
        one.engine,
        bytes_text(one.bytes),
        one.license or "",
        f"run {one.origin_run}" if one.origin_run else one.source,
        ", ".join(found[:2]),
        ", ".join(one.served_by),
        instant_text(one.made_at),
    )


def version_text(one: "ServiceView") -> str:
    """The current version, and the one that is taking over with its share of the requests."""
    if one.candidate_no is None:
        return f"{one.version_no}"
    return f"{one.version_no}→{one.candidate_no} {one.candidate_share:.0%}"


def share_text(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2%}"


# ---- one service ----------------------------------------------------------------------------------------------


def _show(call: Call, answer: Answer) -> None:
    from baseai.api.schemas import ServiceDetail

    if call.screen.as_json:
        call.screen.document(answer.text)
        return
    detail = answer.read(ServiceDetail)
    page = f"{call.platform.connection.url}/services/{detail.service.service_id}"
    call.screen.say(*detail_lines(detail, now_utc(), page_url=page))


def detail_lines(detail: "ServiceDetail", now: "datetime", *, page_url: str) -> list[str]:
    """All that is known of a service, most wanted first."""
    one = detail.service
    lines = fact_lines(
        [
            ("service", f"{one.name} ({one.service_id})"),
            ("state", one.state + (f" ({one.sentence})" if one.sentence else "")),
            ("project", f"{one.tenant}/{one.project}"),
            ("model", f"{one.model or 'its own'}, called {one.model_name}"),
            ("engine", f"{one.engine}, {one.protocol}"),
            ("replicas", f"{one.ready} of {one.wanted} ready; between {one.least} and {one.most}"),
            ("why", one.wanted_why or ""),
            ("asked", f"{figure(one.requests_per_s, digits=3)} requests/s over the last minute"),
            ("errors", share_text(one.error_ratio)),
            ("slo", _slo_text(detail)),
            ("made", f"{instant_text(one.made_at)} by {one.made_by}, {age(one.made_at, now)} ago"),
            ("stopped", instant_text(one.stopped_at)),
            ("address", one.url or ""),
            ("page", page_url),
        ]
    )
    lines += ["", *table_lines(*_version_table(detail.versions))]
    if detail.replicas:
        lines += ["", *table_lines(*_replica_table(detail.replicas))]
    if detail.scalings:
        lines += ["", *table_lines(*_scaling_table(detail.scalings[:SCALINGS_SHOWN]))]
    if detail.examples and one.state != "stopped":
        lines += [
            "",
            "call it with a key in BASEAI_KEY:",
            *(f"  {plain(each.curl)}" for each in detail.examples),
        ]
    return lines


def _slo_text(detail: "ServiceDetail") -> str:
    slo = detail.slo
    if slo is None:
        return ""
    seen = "" if slo.seen_p99_ms is None else f", p99 {figure(slo.seen_p99_ms, digits=3)} ms"
    burn = "" if slo.burn is None else f", {slo.burn:.1f} times the slow ones that are allowed"
    return f"p99 below {slo.p99_ms:g} ms: {slo.state} over the last hour{seen}{burn}"


def _version_table(versions: "Sequence[ServiceVersionView]") -> Table:
    heads = ("VERSION", "STATE", "SHARE", "DIGEST", "MODEL", "MADE", "BY", "WHY")
    rows = [
        (
            str(one.version_no), one.state, f"{one.share:.0%}", one.digest[:SHORT], one.model or "",
            instant_text(one.made_at), one.made_by, one.sentence or "",
        )
        for one in versions
    ]  # fmt: skip
    return [Column(head=head, right=head in ("VERSION", "SHARE")) for head in heads], rows


def _replica_table(replicas: "Sequence[ReplicaView]") -> Table:
    heads = ("REPLICA", "RUN", "VERSION", "STATE", "NODE", "ADDRESS", "WARM-UP S", "AGE S")
    rows = [
        (
            one.run, one.run_id, str(one.version_no), replica_text(one), one.node or "",
            f"{one.address}:{one.port}" if one.port else "", figure(one.warm_up_s, digits=3), f"{one.age_s:,.0f}",
        )
        for one in replicas
    ]  # fmt: skip
    return [Column(head=head, right=head in ("VERSION", "WARM-UP S", "AGE S")) for head in heads], rows


def _scaling_table(scalings: "Sequence[ScalingView]") -> Table:
    heads = ("DECIDED AT", "HAD", "WANTED", "DEMAND", "WHY")
    rows = [
        (
            instant_text(one.at), str(one.had), f"{one.wanted}{' (panic)' if one.panic else ''}",
            figure(one.demand, digits=3), one.why,
        )
        for one in scalings
    ]  # fmt: skip
    return [Column(head=head, right=head in ("HAD", "DEMAND")) for head in heads], rows


# ---- traffic and cost -----------------------------------------------------------------------------------------

_TRAFFIC_HEADS = (
    "FROM",
    "REQUESTS/S",
    "P50",
    "P95",
    "P99",
    "ERRORS",
    "CACHED",
    "TOKENS/S",
    "UNDER WAY",
    "WANTED",
    "READY",
)


def traffic_lines(told: "TrafficView") -> list[str]:
    """Steps in which something was asked or changed, the newest last, and the sum below."""
    points = [one for one in told.points if one.requests or one.concurrency > 0.005]
    rows: list[Sequence[str]] = [
        (
            f"{one.at:%H:%M:%S}Z", *_asked_cells(one), figure(one.concurrency, digits=3),
            "" if one.wanted is None else str(one.wanted), str(one.ready),
        )
        for one in points[-ROWS_SHOWN:]
    ]  # fmt: skip
    columns = [Column(head=head, right=head != "FROM") for head in _TRAFFIC_HEADS]
    lines = table_lines(columns, [*rows, (f"all of {told.window}", *_asked_cells(told.total), "", "", "")])
    total = told.total
    return [
        *lines,
        "",
        *fact_lines(
            [
                ("requests", f"{total.requests:,}"),
                ("wrong", f"{total.errors:,} failed, {total.lost:,} of them lost; {total.refused:,} refused"),
                ("slow", f"{total.slow:,} beyond the SLO" if total.slow else ""),
                (
                    "cached",
                    f"{total.cache_hits:,} hits, {total.collapsed:,} shared" if total.cache_hits else "",
                ),
                ("retried", f"{total.retried:,}" if total.retried else ""),
                ("first byte", _first_byte(total)),
                ("tokens", f"{total.tokens_in:,} in, {total.tokens_out:,} out" if total.tokens_out else ""),
                ("bytes", f"{bytes_text(total.bytes_in)} in, {bytes_text(total.bytes_out)} out"),
            ]
        ),
    ]


def _asked_cells(one: "TrafficSum | TrafficPoint") -> Iterator[str]:
    yield figure(one.requests_per_s, digits=3)
    for ms in (one.p50_ms, one.p95_ms, one.p99_ms):
        yield figure(ms, digits=3)
    yield share_text(one.error_ratio)
    yield share_text(one.cache_hit_ratio)
    yield figure(one.tokens_per_s, digits=3) if one.tokens_per_s else ""


def _first_byte(total: "TrafficSum") -> str:
    if total.first_byte_p50_ms is None:
        return ""
    return f"p50 {figure(total.first_byte_p50_ms, digits=3)} ms, p99 {figure(total.first_byte_p99_ms, digits=3)} ms"


def _cost_facts(told: "ServiceCostView", item: "ServiceCost") -> list[tuple[str, str]]:
    open_ = "~" if item.accruing or item.estimated else ""

    def amounts(name: str, ours: Any, theirs: Any) -> Iterator[tuple[str, str]]:
        shown = money_column([theirs, ours], item.currency)
        for kind, text in (("revenue", shown[0]), ("cost", shown[1])):
            if text:
                yield f"{kind}{name}", f"{item.currency} {open_}{text}"

    return [
        ("window", f"{told.window}, from {instant_text(told.from_at)}"),
        ("replicas", f"{item.replicas} with {item.accelerator_hours:f} accelerator-hours"),
        ("answered", f"{item.requests:,} requests, {item.tokens:,} tokens"),
        *amounts("", item.cost, item.revenue),
        *amounts(" per 1,000 requests", item.cost_per_1000_requests, item.revenue_per_1000_requests),
        *amounts(" per million tokens", item.cost_per_million_tokens, item.revenue_per_million_tokens),
    ]
