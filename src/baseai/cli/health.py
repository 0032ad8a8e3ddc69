"""The commands around the health of nodes: what stands against them, what is done about it, and your word on both.

Invariant: evidence is shown with the rule it falls under and who saw it; nothing is approved without its name.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from baseai.cli.call import Call, command, listed, segment
from baseai.cli.column import Column, age, instant_text, plain
from baseai.ground.clock import now_utc

if TYPE_CHECKING:
    from baseai.api.schemas import EvidenceView, NodeHealth, RepairView

UNSAID = "asked for by an operator"
VERBS: Mapping[str, tuple[str, str]] = {
    "approve": ("Let a repair be carried out that waits for a person's word.", "approve"),
    "done": ("Say that a repair was carried out; the node's tests follow.", "done"),
    "failed": ("Say that a repair did not help; the next step follows.", "failed"),
    "dismiss": ("Say that a repair is not needed.", "dismiss"),
}
Reason = Annotated[str, typer.Option("--reason", help="Why, for the record.")]


def add_health(node: typer.Typer, environ: Mapping[str, str]) -> None:
    """Register the commands below `node`."""

    @command(node, "health", example="baseai node health gpu-07", environ=environ)
    def health(
        call: Call,
        name: Annotated[
            str | None, typer.Argument(metavar="[NODE]", help="Name or id of the node.", show_default=False)
        ] = None,
        everything: Annotated[bool, typer.Option("--all", help="Healthy nodes as well.")] = False,
    ) -> None:
        """Show what stands against nodes: verdicts, rules, evidence, open repairs."""
        from baseai.api.schemas import NodeHealth

        if name is not None:
            answer = call.platform.get(f"/nodes/{segment(name)}/health")
            if call.screen.as_json:
                call.screen.document(answer.text)
            else:
                _show(call, answer.read(NodeHealth))
            return
        nodes = listed(call, "/fleet/health", NodeHealth, everything="true" if everything else None)
        if nodes is None:
            return
        if not nodes:
            call.screen.note("nothing stands against any node")
            return
        now = now_utc()
        call.screen.table(
            [Column(head=head) for head in ("NODE", "STATE", "HEALTH", "SINCE", "WHY", "REPAIR")],
            [
                (
                    one.node,
                    one.state,
                    one.health,
                    age(one.since, now) if one.since and one.health != "healthy" else "",
                    one.held or one.sentence or _first_note(one),
                    ", ".join(f"{each.step} {each.state}" for each in one.repairs),
                )
                for one in nodes
            ],
        )
        _say_unjudged(call, nodes)

    @command(node, "repairs", example="baseai node repairs", environ=environ)
    def repairs(
        call: Call,
        everything: Annotated[
            bool, typer.Option("--all", help="Ended ones of the last 30 days as well.")
        ] = False,
    ) -> None:
        """List repairs: what is to be done, by whom, and what waits for a word."""
        from baseai.api.schemas import RepairView

        found = listed(call, "/repairs", RepairView, everything="true" if everything else None)
        if found is None:
            return
        if found:
            _repairs(call, found)
        else:
            call.screen.note("no repair is open")

    for verb, (meaning, path) in VERBS.items():
        _add_verb(node, verb, meaning, path, environ)

    @command(node, "acknowledge", example="baseai node acknowledge evi_01…", environ=environ)
    def acknowledge(
        call: Call, evidence: Annotated[str, typer.Argument(metavar="EVIDENCE", help="Id of the evidence.")]
    ) -> None:
        """Say that you see to a piece of evidence: it asks for nothing by itself any more."""
        answer = call.platform.post(f"/evidence/{segment(evidence)}/acknowledge")
        if call.screen.as_json:
            call.screen.document(answer.text)
        else:
            call.screen.say(f"{plain(evidence)} is yours to see to")

    @command(node, "clear", example="baseai node clear gpu-07 --reason 'cable replaced'", environ=environ)
    def clear(
        call: Call,
        name: Annotated[str, typer.Argument(metavar="NODE", help="Name or id of the node.")],
        evidence: Annotated[
            str | None, typer.Option("--evidence", help="Only this piece of it.", show_default=False)
        ] = None,
        reason: Reason = UNSAID,
    ) -> None:
        """Say that what stands against a node no longer holds."""
        body = {"evidence_id": evidence, "reason": reason}
        answer = call.platform.post(f"/nodes/{segment(name)}/health/clear", body)
        if call.screen.as_json:
            call.screen.document(answer.text)
        else:
            call.screen.say(f"cleared for {plain(name)}: {json.loads(answer.text).get('cleared', 0)}")


def _add_verb(node: typer.Typer, verb: str, meaning: str, path: str, environ: Mapping[str, str]) -> None:
    def say(
        call: Call,
        repair: Annotated[
            str, typer.Argument(metavar="REPAIR", help="Id of the repair.", show_default=False)
        ],
        reason: Reason = UNSAID,
    ) -> None:
        from baseai.api.schemas import RepairView

        answer = call.platform.post(f"/repairs/{segment(repair)}/{path}", {"reason": reason})
        if call.screen.as_json:
            call.screen.document(answer.text)
            return
        one = answer.read(RepairView)
        call.screen.say(f"{plain(one.repair_id)} ({one.step} of {plain(one.node)}) is {one.state}")

    say.__doc__ = meaning
    command(node, verb, example=f"baseai node {verb} rep_01…", environ=environ)(say)


def _show(call: Call, one: "NodeHealth") -> None:
    call.screen.facts(
        [
            ("node", f"{one.node} ({one.node_id})"),
            ("state", one.state),
            ("health", one.health),
            ("since", _instant(one.since) if one.health != "healthy" else ""),
            ("why", one.sentence or ""),
            ("held back", one.held or ""),
            ("judged", _instant(one.judged_at) or "never"),
            ("not judged", one.unjudged or ""),
        ]
    )
    if one.verdicts:
        call.screen.say("")
        call.screen.table(
            [Column(head=head) for head in ("ACCELERATOR", "HEALTH", "ACTION", "RULES")],
            [(each.subject, each.health, each.action or "", ", ".join(each.rules)) for each in one.verdicts],
        )
    if one.evidence:
        call.screen.say("")
        _evidence(call, one.evidence)
    if one.repairs:
        call.screen.say("")
        _repairs(call, one.repairs)
        for repair in one.repairs:
            if repair.ended_at is None:
                call.screen.say("")
                call.screen.say(f"{plain(repair.repair_id)}: {plain(repair.instructions)}")


def _evidence(call: Call, evidence: "list[EvidenceView]") -> None:
    now = now_utc()
    call.screen.table(
        [Column(head=head) for head in ("EVIDENCE", "RULE", "ABOUT", "AGE", "SEEN BY", "STANDS", "SENTENCE")],
        [
            (
                each.evidence_id,
                each.rule,
                each.subject,
                age(each.at, now),
                "+".join(each.witnesses),
                each.ended_by or (f"{each.acknowledged_by} sees to it" if each.acknowledged_by else "yes"),
                each.sentence + _counter(each),
            )
            for each in evidence
        ],
    )


def _counter(each: "EvidenceView") -> str:
    if each.before is None or each.after is None or each.before == each.after:
        return ""
    return f" ({each.before:.10g} → {each.after:.10g})"


def _repairs(call: Call, repairs: "list[RepairView]") -> None:
    now = now_utc()
    call.screen.table(
        [Column(head=head) for head in ("REPAIR", "NODE", "STEP", "STATE", "BY", "AGE", "WHY")],
        [
            (
                each.repair_id,
                each.node,
                each.step,
                f"{each.state}: approve it" if each.state == "proposed" else each.state,
                "agent" if each.by_agent else "a person",
                age(each.opened_at, now),
                each.outcome or each.sentence,
            )
            for each in repairs
        ],
    )


def _say_unjudged(call: Call, nodes: "list[NodeHealth]") -> None:
    if nodes and nodes[0].unjudged:
        call.screen.note(f"samples are not judged at present: {plain(nodes[0].unjudged)}")


def _first_note(one: "NodeHealth") -> str:
    return f"{one.evidence[0].rule}: {one.evidence[0].sentence}" if one.evidence else ""


def _instant(at: datetime | None) -> str:
    return instant_text(at) if at else ""
