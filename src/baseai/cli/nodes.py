"""The commands around nodes and what they offer: node, offers.

Invariant: a move of a node is asked for by its verb with a reason; the platform decides whether it may happen.
"""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from baseai.cli.call import Call, command, listed, segment
from baseai.cli.column import Column, age, figure, instant_text, money_column, plain
from baseai.cli.health import add_health
from baseai.cli.racks import add_racks
from baseai.cli.runs import Cursor, Limit
from baseai.ground.clock import instant, now_utc
from baseai.ground.quantity import shown_mib

if TYPE_CHECKING:
    from baseai.api.schemas import NodeFigures

MOVES: Mapping[str, str] = {
    "cordon": "Take no new leases on a node; what runs there goes on.",
    "uncordon": "Let a node take leases again.",
    "drain": "Cordon a node and move what runs there elsewhere.",
    "retire": "Take a node out of the fleet for good.",
}

UNSAID = "asked for by an operator"

Reason = Annotated[str, typer.Option("--reason", help="Why, for the record.")]
NodeName = Annotated[str, typer.Argument(metavar="NODE", help="Name or id of the node.", show_default=False)]


def add_nodes(app: typer.Typer, environ: Mapping[str, str]) -> None:
    """Register the commands."""
    node = typer.Typer(help="The machines of the fleet.", no_args_is_help=True, rich_markup_mode=None)
    app.add_typer(node, name="node")

    @command(node, "list", example="baseai node list", environ=environ)
    def list_nodes(call: Call, limit: Limit = 100, cursor: Cursor = None) -> None:
        """List nodes: state, health, accelerators free and in all, what runs there."""
        from baseai.api.schemas import NodeView

        nodes = listed(call, "/nodes", NodeView, limit=limit, cursor=cursor)
        if nodes is None:
            return
        now = now_utc()
        hung = any(one.rack or one.leaf or one.pod for one in nodes)
        call.screen.table(
            [
                Column(head="NAME"),
                Column(head="SITE"),
                *(Column(head=head) for head in ("RACK", "LEAF", "POD") if hung),
                Column(head="STATE"),
                Column(head="HEALTH"),
                Column(head="FREE"),
                Column(head="MEMORY", right=True),
                Column(head="SEEN", right=True),
                Column(head="ADDRESS"),
                Column(head="RUNS"),
            ],
            [
                (
                    one.name,
                    one.site,
                    *((one.rack or "", one.leaf or "", one.pod or "") if hung else ()),
                    one.state,
                    one.health if one.reachable else "unreachable",
                    _free_text(one.models, one.free),
                    shown_mib(one.memory_mib),
                    age(one.seen_at, now) if one.seen_at else "never",
                    one.address,
                    ",".join(one.runs),
                )
                for one in nodes
            ],
        )
        if not nodes:
            call.screen.note("no nodes; `baseai node token` says how to join one")

    @command(node, "show", example="baseai node show gpu-07", environ=environ)
    def show_node(call: Call, node: NodeName) -> None:
        """Show one node."""
        _show(call, "GET", f"/nodes/{segment(node)}", None)

    for verb, meaning in MOVES.items():
        _add_move(node, verb, meaning, environ)

    @command(node, "test", example="baseai node test gpu-07 --profile standard", environ=environ)
    def test_node(
        call: Call,
        node: NodeName,
        profile: Annotated[
            str, typer.Option("--profile", help="How long and how hard: quick, standard or soak.")
        ] = "quick",
    ) -> None:
        """Test a node's accelerators: products, memory, collectives, heat.

        It starts when nobody wants them, is stopped for whoever does, is not billed, and begins again by itself.
        """
        answer = call.platform.post(f"/nodes/{segment(node)}/test", {"profile": profile})
        if call.screen.as_json:
            call.screen.document(answer.text)
            return
        for one in json.loads(answer.text)["items"]:
            call.screen.say(f"{plain(one['run_id'])} tests {plain(one['model'])} of {plain(one['node'])}")
        call.screen.note(f"`baseai node figures {plain(node)}` shows what it measures")

    @command(node, "figures", example="baseai node figures gpu-07", environ=environ)
    def figures(call: Call, node: NodeName) -> None:
        """Show what tests of a node measured, against data sheet, fleet and its own past."""
        from baseai.api.schemas import NodeFigures

        answer = call.platform.send("GET", f"/nodes/{segment(node)}/figures", document=None)
        if call.screen.as_json:
            call.screen.document(answer.text)
            return
        _show_figures(call, answer.read(NodeFigures))

    add_health(node, environ)
    add_racks(app, node, environ)

    @command(
        node, "declare-dead", example="baseai node declare-dead gpu-07 --reason 'burnt'", environ=environ
    )
    def declare_dead(call: Call, node: NodeName, reason: Reason = UNSAID) -> None:
        """Vouch that a silent node's processes are gone.

        Its leases end now, and what ran there may start elsewhere. If a process lives on after all, it runs twice.
        """
        answer = call.platform.post(f"/nodes/{segment(node)}/declare-dead", {"reason": reason})
        if call.screen.as_json:
            call.screen.document(answer.text)
        else:
            released = json.loads(answer.text or "{}").get("released", 0)
            call.screen.say(f"{plain(node)} counts as dead; leases ended: {released}")

    @command(node, "token", example="baseai node token", environ=environ)
    def token(call: Call) -> None:
        """Make a token that joins one node, once, and print the command to run there."""
        answer = call.platform.post("/join-tokens")
        if call.screen.as_json:
            call.screen.document(answer.text)
            return
        made = json.loads(answer.text)
        call.screen.note(f"run this on the other node before {_until(made)}; the token works once")
        call.screen.say(plain(made["join_command"]))

    @command(app, "offers", example="baseai offers", environ=environ)
    def offers(call: Call) -> None:
        """List what can be leased, what is free, and prices."""
        from baseai.api.schemas import Offer

        found = listed(call, "/offers", Offer)
        if found is None:
            return
        prices = money_column([one.price_per_hour for one in found])
        call.screen.table(
            [
                Column(head="MODEL"),
                Column(head="SITE"),
                Column(head="FREE", right=True),
                Column(head="TOTAL", right=True),
                Column(head="MOST ON ONE NODE", right=True),
                Column(head="MEMORY GIB", right=True),
                Column(head="PRICE AN HOUR", right=True),
                Column(head="CURRENCY"),
            ],
            [
                (
                    one.model,
                    one.site,
                    str(one.free),
                    str(one.total),
                    str(one.largest_single_node or ""),
                    figure(one.memory_gib),
                    price,
                    one.currency,
                )
                for one, price in zip(found, prices, strict=True)
            ],
        )


def _add_move(app: typer.Typer, verb: str, meaning: str, environ: Mapping[str, str]) -> None:
    def move(
        call: Call,
        node: NodeName,
        reason: Annotated[
            str, typer.Option("--reason", help="Why, for the record.")
        ] = "asked for by an operator",
    ) -> None:
        _show(call, "POST", f"/nodes/{segment(node)}/{verb}", {"reason": reason})

    move.__doc__ = meaning
    command(app, verb, example=f"baseai node {verb} gpu-07 --reason 'fan replaced'", environ=environ)(move)


def _until(made: Mapping[str, str]) -> str:
    return instant_text(instant(made["expires_at"]))


def _show(call: Call, method: str, path: str, document: object) -> None:
    from baseai.api.schemas import NodeView

    answer = call.platform.send(method, path, document=document)
    if call.screen.as_json:
        call.screen.document(answer.text)
        return
    if not answer.body:
        call.screen.note("done")
        return
    node = answer.read(NodeView)
    call.screen.facts(
        [
            ("node", f"{node.name} ({node.node_id})"),
            ("site", node.site),
            ("rack", node.rack or "not known"),
            ("leaf", node.leaf or "not known"),
            ("pod", node.pod or "not known"),
            ("state", node.state),
            ("health", node.health if node.reachable else f"{node.health}, unreachable"),
            ("address", node.address),
            ("isolation", node.isolation),
            ("accelerators", _free_text(node.models, node.free)),
            ("memory", shown_mib(node.memory_mib)),
            ("disk", shown_mib(node.disk_mib)),
            ("seen", instant_text(node.seen_at) or "never"),
            ("runs", ", ".join(node.runs)),
        ]
    )
    devices = json.loads(answer.text).get("accelerators")
    if isinstance(devices, list) and devices:
        heads = {
            "device_index": "INDEX",
            "model": "MODEL",
            "serial": "SERIAL",
            "state": "STATE",
            "run_id": "RUN",
        }
        call.screen.say("")
        call.screen.table(
            [Column(head=head, right=head == "INDEX") for head in heads.values()],
            [["" if one.get(key) is None else str(one[key]) for key in heads] for one in devices],
        )


def _show_figures(call: Call, found: "NodeFigures") -> None:
    now = now_utc()
    call.screen.table(
        [
            Column(head=head)
            for head in ("TEST", "MODEL", "WHY", "PROFILE", "STATE", "VERDICT", "ASKED", "WHAT")
        ],
        [
            (
                one.run_id,
                one.model,
                one.occasion,
                one.profile,
                one.state or "",
                one.verdict or "",
                age(one.asked_at, now),
                one.sentence or "",
            )
            for one in found.burn_ins
        ],
    )
    if not found.burn_ins:
        call.screen.note(f"never tested; `baseai node test {plain(found.node)}` does it")
    if not found.figures:
        return
    call.screen.say("")
    call.screen.table(
        [
            Column(head="OF"),
            Column(head="TEST"),
            Column(head="VALUE", right=True),
            Column(head="UNIT"),
            Column(head="OF PEAK", right=True),
            Column(head="OF FLEET", right=True),
            Column(head="OF OWN", right=True),
            Column(head="NOTE"),
        ],
        [
            (
                "all" if one.device_index is None else f"{one.model} {one.device_index}",
                f"{one.test} {one.variant}",
                figure(one.value),
                one.unit,
                _share_text(one.ratio) or ("" if one.value is None else _no_peak_text(one.test)),
                _share_text(one.fleet_ratio),
                _share_text(one.own_ratio),
                one.alert or one.sentence or "",
            )
            for one in found.figures
        ],
    )


def _share_text(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.0%}"


def _no_peak_text(test: str) -> str:
    return "no peak known" if test in ("gemm", "memory", "bus") else ""


def _free_text(models: Mapping[str, int], free: Mapping[str, int]) -> str:
    """`6/8 H100-SXM, 12/16 cpu-slot`: free of all."""
    return ", ".join(f"{free.get(model, 0)}/{total} {model}" for model, total in sorted(models.items()))
