"""The command that says whether the platform is well, and who is asking."""

import json
from collections.abc import Mapping

import typer

from baseai.cli.call import OTHERWISE, Call, command
from baseai.cli.http import Declined, KeyRefused

WELL = frozenset({"ok", "healthy", "ready", "up", "pass"})


def add_status(app: typer.Typer, environ: Mapping[str, str]) -> None:
    """Register the command."""

    @command(app, "status", example="baseai status", environ=environ)
    def status(call: Call) -> int:
        """Say how the platform is and whose key this is. Ends with status 1 when something ails."""
        answer = call.platform.send("GET", "/health", allow=frozenset({503}))
        try:
            health = json.loads(answer.text)
        except ValueError as wrong:
            raise Declined(
                answer.status, "the answer is not a health report; is this a baseai server?"
            ) from wrong
        well = answer.status == 200 and str(health.get("status", "ok")).casefold() in WELL
        if call.screen.as_json:
            call.screen.document(answer.text)
            return 0 if well else OTHERWISE
        facts = [("platform", call.platform.connection.url)]
        facts += [(str(name), _text(value)) for name, value in health.items()]
        try:
            me = json.loads(call.platform.get("/me").text)
            tenant = f", tenant {me['tenant']}" if me.get("tenant") else ""
            facts.append(("you", f"{me.get('name')} ({me.get('role')}{tenant})"))
        except KeyRefused as refused:
            call.screen.facts(facts)
            raise refused
        call.screen.facts(facts)
        return 0 if well else OTHERWISE


def _text(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(inner)}" for name, inner in value.items())
    if isinstance(value, list):
        return ", ".join(_text(inner) for inner in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else str(value)
