"""The commands around tenants, keys and secrets.

Invariant: a key's secret is shown once, by the command that made it; the value of a secret is never shown.
"""

import sys
from collections.abc import Mapping
from typing import Annotated

import typer

from baseai.cli.call import Call, command, listed, segment
from baseai.cli.column import Column, instant_text, plain
from baseai.cli.runs import Cursor, Limit
from baseai.ground.fault import Refused
from baseai.ground.quantity import duration_s

ROLES = ("operator", "customer", "finance", "investor", "viewer")
SECRET_BYTES_MAX = 64 * 1024

Project = Annotated[str | None, typer.Option("--project", help="Of this project.")]


def add_tenancy(app: typer.Typer, environ: Mapping[str, str]) -> None:
    """Register the commands."""
    _add_tenants(app, environ)
    _add_keys(app, environ)
    _add_secrets(app, environ)


def _add_tenants(app: typer.Typer, environ: Mapping[str, str]) -> None:
    tenant = typer.Typer(help="Who runs here.", no_args_is_help=True, rich_markup_mode=None)
    app.add_typer(tenant, name="tenant")

    @command(tenant, "list", example="baseai tenant list", environ=environ)
    def list_tenants(call: Call, limit: Limit = 100, cursor: Cursor = None) -> None:
        """List tenants and their projects."""
        from baseai.api.schemas import TenantView

        tenants = listed(call, "/tenants", TenantView, limit=limit, cursor=cursor)
        if tenants is not None:
            call.screen.table(
                [Column(head="NAME"), Column(head="PROJECTS"), Column(head="ID")],
                [(one.name, ",".join(one.projects), one.tenant_id) for one in tenants],
            )

    @command(tenant, "add", example="baseai tenant add ufmg", environ=environ)
    def add_tenant(call: Call, name: Annotated[str, typer.Argument(metavar="NAME")]) -> None:
        """Add a tenant."""
        from baseai.api.schemas import TenantView

        answer = call.platform.post("/tenants", {"name": name})
        if call.screen.as_json:
            call.screen.document(answer.text)
            return
        made = answer.read(TenantView)
        call.screen.say(
            f"{plain(made.name)} was added ({made.tenant_id}); projects: {', '.join(made.projects)}"
        )

    @command(tenant, "add-project", example="baseai tenant add-project ufmg vision", environ=environ)
    def add_project(
        call: Call,
        tenant: Annotated[str, typer.Argument(metavar="TENANT")],
        name: Annotated[str, typer.Argument(metavar="NAME")],
    ) -> None:
        """Add a project to a tenant."""
        answer = call.platform.post(f"/tenants/{segment(tenant)}/projects", {"name": name})
        if call.screen.as_json:
            call.screen.document(answer.text)
        else:
            call.screen.say(f"{plain(name)} was added to {plain(tenant)}")


def _add_keys(app: typer.Typer, environ: Mapping[str, str]) -> None:
    key = typer.Typer(help="Who may ask, and for what.", no_args_is_help=True, rich_markup_mode=None)
    app.add_typer(key, name="key")

    @command(key, "list", example="baseai key list", environ=environ)
    def list_keys(call: Call, limit: Limit = 100, cursor: Cursor = None) -> None:
        """List keys, without their secrets."""
        from baseai.api.schemas import KeyView

        keys = listed(call, "/keys", KeyView, limit=limit, cursor=cursor)
        if keys is not None:
            call.screen.table(
                [
                    Column(head=head)
                    for head in (
                        "ID",
                        "NAME",
                        "ROLE",
                        "TENANT",
                        "ONLY FOR",
                        "CREATED",
                        "LAST USED",
                        "EXPIRES",
                        "REVOKED",
                    )
                ],
                [
                    (
                        one.key_id,
                        one.name,
                        one.role,
                        one.tenant or "",
                        ",".join(one.scopes or ()),
                        instant_text(one.created_at),
                        instant_text(one.last_used_at),
                        instant_text(one.expires_at),
                        instant_text(one.revoked_at),
                    )
                    for one in keys
                ],
            )

    @command(key, "add", example="baseai key add ana --role customer --tenant ufmg", environ=environ)
    def add_key(
        call: Call,
        name: Annotated[str, typer.Argument(metavar="NAME", help="Whose key it is.")],
        role: Annotated[str, typer.Option("--role", help=", ".join(ROLES))],
        tenant: Annotated[str | None, typer.Option("--tenant", help="The tenant it is for.")] = None,
        project: Annotated[
            str | None,
            typer.Option("--project", help="The project whose services alone it calls; with --scope."),
        ] = None,
        expires: Annotated[
            str | None,
            typer.Option("--expires", help="How long it opens anything, as 30d; for ever without it."),
        ] = None,
        scope: Annotated[
            list[str] | None,
            typer.Option(
                "--scope", help="call: only to call models; service:NAME: only that one. Repeatable."
            ),
        ] = None,
        requests_per_minute: Annotated[
            int | None, typer.Option("--requests-per-minute", min=1, help="Calls of models, at most.")
        ] = None,
        tokens_per_minute: Annotated[
            int | None,
            typer.Option("--tokens-per-minute", min=1, help="Tokens in and out together, at most."),
        ] = None,
    ) -> None:
        """Make a key. Its secret is shown here and never again."""
        from baseai.api.schemas import KeyView

        if role not in ROLES:
            raise Refused(f"{role!r} is not a role; it is one of {', '.join(ROLES)}")
        document: dict[str, object] = {
            "name": name,
            "role": role,
            "tenant": tenant,
            "project": project,
            "scopes": scope,
        }
        document |= {"requests_per_minute": requests_per_minute, "tokens_per_minute": tokens_per_minute}
        document |= {"expires_in_s": None if expires is None else _lasting_s(expires)}
        answer = call.platform.post(
            "/keys", {name: value for name, value in document.items() if value is not None}
        )
        if call.screen.as_json:
            call.screen.document(answer.text)
            return
        made = answer.read(KeyView)
        call.screen.note(f"{made.key_id} ({made.role}) was made; keep this secret, it is not shown again:")
        if made.expires_at is not None:
            call.screen.note(f"it opens nothing after {instant_text(made.expires_at)}")
        call.screen.say(plain(made.secret or ""))

    @command(key, "revoke", example="baseai key revoke key_0d1f9k3m2n4p5q6r7s8t", environ=environ)
    def revoke_key(call: Call, key_id: Annotated[str, typer.Argument(metavar="ID")]) -> None:
        """Revoke a key. It stops working at once."""
        answer = call.platform.send("DELETE", f"/keys/{segment(key_id)}")
        if call.screen.as_json:
            call.screen.document(answer.text)
        else:
            call.screen.say(f"{plain(key_id)} is revoked")


def _add_secrets(app: typer.Typer, environ: Mapping[str, str]) -> None:
    secret = typer.Typer(
        help="What runs may know and nobody may read.", no_args_is_help=True, rich_markup_mode=None
    )
    app.add_typer(secret, name="secret")

    @command(secret, "list", example="baseai secret list", environ=environ)
    def list_secrets(call: Call, project: Project = None, limit: Limit = 100, cursor: Cursor = None) -> None:
        """List the names of secrets."""
        from baseai.api.schemas import SecretView

        secrets = listed(call, "/secrets", SecretView, project=project, limit=limit, cursor=cursor)
        if secrets is not None:
            call.screen.table(
                [Column(head="NAME"), Column(head="PROJECT"), Column(head="UPDATED")],
                [(one.name, one.project, instant_text(one.updated_at)) for one in secrets],
            )

    @command(secret, "set", example="baseai secret set HF_TOKEN < token.txt", environ=environ)
    def set_secret(
        call: Call,
        name: Annotated[str, typer.Argument(metavar="NAME")],
        value: Annotated[
            str | None,
            typer.Option("--value", help="The value; standard input without it.", show_default=False),
        ] = None,
        project: Project = None,
    ) -> None:
        """Set a secret. Its value is read from standard input, without the last line break."""
        if value is not None:
            call.screen.note("baseai: --value stands in the shell's history now; standard input does not")
        else:
            value = _from_standard_input(name)
        if not value:
            raise Refused("the value is empty; a secret says something")
        if len(value.encode()) > SECRET_BYTES_MAX:
            raise Refused(
                f"the value is longer than {SECRET_BYTES_MAX:,} bytes; put it into a file of the run"
            )
        document = {"value": value} | ({"project": project} if project else {})
        answer = call.platform.send("PUT", f"/secrets/{segment(name)}", document=document)
        if call.screen.as_json:
            call.screen.document(answer.text)
        else:
            call.screen.say(f"{plain(name)} is set")

    @command(secret, "rm", example="baseai secret rm HF_TOKEN", environ=environ)
    def remove_secret(
        call: Call, name: Annotated[str, typer.Argument(metavar="NAME")], project: Project = None
    ) -> None:
        """Remove a secret."""
        answer = call.platform.send("DELETE", f"/secrets/{segment(name)}", query={"project": project})
        if call.screen.as_json:
            call.screen.document(answer.text)
        else:
            call.screen.say(f"{plain(name)} is removed")


def _lasting_s(said: str) -> int:
    try:
        seconds = duration_s(said)
    except ValueError as wrong:
        raise Refused(f"--expires {said}: {wrong}") from wrong
    if seconds < 1:
        raise Refused(f"--expires {said}: a key lasts a second at least")
    return seconds


def _from_standard_input(name: str) -> str:
    """The value without echo on a terminal, else all that comes, less one line break at the end."""
    if sys.stdin.isatty():
        from getpass import getpass

        return getpass(f"value of {name}: ")
    try:
        text = sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as wrong:
        raise Refused("the value is not UTF-8 text; encode it, as base64 for example") from wrong
    return text.removesuffix("\n").removesuffix("\r")
