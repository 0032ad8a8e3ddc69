"""The commands around where nodes hang: racks and their breakers, and the rack, leaf and pod of each node.

Invariant: a part that is not named stays as it is, and `-` takes it off; a file of them is taken whole or not at all.
"""

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated

import typer

from baseai.cli.call import Call, command, listed, segment
from baseai.cli.column import Column, plain
from baseai.ground.fault import Refused

OFF = "-"
RackName = Annotated[str, typer.Argument(metavar="RACK", help="Name of the rack.", show_default=False)]


def add_racks(app: typer.Typer, node: typer.Typer, environ: Mapping[str, str]) -> None:
    """Register the commands of racks, and `place` below `node`."""
    rack = typer.Typer(
        help="Racks, and what their breakers let runs draw.", no_args_is_help=True, rich_markup_mode=None
    )
    app.add_typer(rack, name="rack")

    @command(node, "place", example="baseai node place gpu-07 --rack r12 --leaf l3 --pod p1", environ=environ)
    def place(
        call: Call,
        name: Annotated[
            str | None, typer.Argument(metavar="[NODE]", help="Name or id of the node.", show_default=False)
        ] = None,
        in_rack: Annotated[
            str | None, typer.Option("--rack", help="The rack it stands in; - for none known.")
        ] = None,
        leaf: Annotated[
            str | None, typer.Option("--leaf", help="The leaf switch it hangs on; - for none known.")
        ] = None,
        pod: Annotated[
            str | None,
            typer.Option("--pod", help="The pod of the network above that leaf; - for none known."),
        ] = None,
        file: Annotated[
            Path | None, typer.Option("--file", help="A CSV with the header node,rack,leaf,pod instead.")
        ] = None,
    ) -> None:
        """Say where a node hangs: rack, leaf and pod of the network.

        Runs of several nodes then stay under few leaves, services are kept apart, and no breaker is asked for too much.
        """
        named = {
            part: said for part, said in (("rack", in_rack), ("leaf", leaf), ("pod", pod)) if said is not None
        }
        if (name is None) == (file is None) or (file is not None and named):
            raise Refused("name one node, or a --file of them")
        if file is not None:
            _place_all(call, file)
            return
        if not named:
            raise Refused("say where it hangs: --rack, --leaf or --pod")
        from baseai.api.schemas import NodeView

        document = {part: None if said == OFF else said for part, said in named.items()}
        answer = call.platform.post(f"/nodes/{segment(name or '')}/place", document)
        if call.screen.as_json:
            call.screen.document(answer.text)
            return
        one = answer.read(NodeView)
        hangs = [
            f"{part} {where}"
            for part, where in (("rack", one.rack), ("leaf", one.leaf), ("pod", one.pod))
            if where
        ]
        call.screen.say(
            f"{plain(one.name)} hangs in {plain(', '.join(hangs))}"
            if hangs
            else f"{plain(one.name)} hangs nowhere known"
        )

    @command(rack, "list", example="baseai rack list", environ=environ)
    def list_racks(call: Call) -> None:
        """List racks: what their breakers let through, what runs draw of it, what is left."""
        from baseai.api.schemas import RackView

        racks = listed(call, "/racks", RackView)
        if racks is None:
            return
        call.screen.table(
            [
                Column(head="RACK"),
                Column(head="SITE"),
                Column(head="BREAKER W", right=True),
                Column(head="DERATING", right=True),
                Column(head="BESIDE RUNS W", right=True),
                Column(head="RUNS DRAW W", right=True),
                Column(head="LEFT W", right=True),
                Column(head="NODES"),
            ],
            [
                (
                    one.rack,
                    one.site,
                    str(one.breaker_watts),
                    f"{one.derating:f}",
                    str(one.base_watts),
                    str(one.drawn_watts),
                    str(one.spare_watts),
                    ",".join(one.nodes),
                )
                for one in racks
            ],
        )
        if not racks:
            call.screen.note("no racks; `baseai rack set RACK --site SITE --breaker-watts N` makes one")

    @command(rack, "set", example="baseai rack set r12 --site SP4 --breaker-watts 22000", environ=environ)
    def set_rack(
        call: Call,
        name: RackName,
        site: Annotated[str, typer.Option("--site", help="Where it stands.", show_default=False)],
        breaker_watts: Annotated[
            int, typer.Option("--breaker-watts", help="What its breaker lets through.", show_default=False)
        ],
        derating: Annotated[
            str, typer.Option("--derating", help="The part of that which may be drawn all the time.")
        ] = "0.8",
        base_watts: Annotated[
            int, typer.Option("--base-watts", help="Drawn by hosts and switches while no accelerator works.")
        ] = 0,
    ) -> None:
        """Make a rack, or change it. Runs that stand in it stay; none joins them beyond what it lets through."""
        from baseai.api.schemas import RackView

        answer = call.platform.send(
            "PUT",
            f"/racks/{segment(name)}",
            document={
                "site": site,
                "breaker_watts": breaker_watts,
                "derating": str(_ratio(derating)),
                "base_watts": base_watts,
            },
        )
        if call.screen.as_json:
            call.screen.document(answer.text)
            return
        one = answer.read(RackView)
        call.screen.say(
            f"runs in {plain(one.rack)} may draw {one.load_watts} W, and draw {one.drawn_watts} W"
        )

    @command(rack, "remove", example="baseai rack remove r12", environ=environ)
    def remove_rack(call: Call, name: RackName) -> None:
        """Forget a rack in which no node hangs any more."""
        call.platform.send("DELETE", f"/racks/{segment(name)}")
        call.screen.note(f"{plain(name)} is gone")


def _place_all(call: Call, file: Path) -> None:
    from baseai.api.schemas import Rehung

    try:
        content = file.read_bytes()
    except OSError as wrong:
        raise Refused(f"{file} cannot be read: {wrong.strerror}") from wrong
    answer = call.platform.send("POST", "/mounts", query={"file": file.name}, content=content)
    if call.screen.as_json:
        call.screen.document(answer.text)
        return
    told = answer.read(Rehung)
    call.screen.say(f"{told.nodes} nodes named, {told.changed} hang otherwise than before")


def _ratio(written: str) -> Decimal:
    try:
        return Decimal(written)
    except InvalidOperation:
        raise Refused(
            f"--derating {written} is no number; write one above 0 and at most 1, like 0.8"
        ) from None
