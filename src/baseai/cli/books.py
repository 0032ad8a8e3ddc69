"""The commands around the ledger: books.

Invariant: the terminal adds nothing up: every figure is the platform's own.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from baseai.cli.agreements import add_sla
from baseai.cli.call import OTHERWISE, Call, command, listed, segment
from baseai.cli.column import Column, figure, instant_text, money_column, money_text
from baseai.cli.documents import add_documents, check_focus
from baseai.cli.runs import Cursor, Limit
from baseai.ground.fault import Refused

TIME_BY = ("bucket", "site", "model", "node", "accelerator")
if TYPE_CHECKING:
    from baseai.api.schemas import Balance, FindingView

CHECK_WAIT_S = 600.0  # reading every transfer takes a while
At = Annotated[
    str | None,
    typer.Option("--at", help="As of this instant, like 2026-10-31T23:59:59-03:00; otherwise now."),
]


def add_books(app: typer.Typer, environ: Mapping[str, str]) -> None:
    """Register the commands."""
    books = typer.Typer(help="The ledger.", no_args_is_help=True, rich_markup_mode=None)
    app.add_typer(books, name="books")
    add_sla(books, environ)
    add_documents(books, environ)

    @command(books, "trial-balance", example="baseai books trial-balance", environ=environ)
    def trial_balance(call: Call, at: At = None) -> int:
        """Print every account's balance and the hash of them all. Ends with status 1 when debits and credits differ."""
        from baseai.api.schemas import TrialBalance

        answer = call.platform.get("/books/trial-balance", at=at)
        found = answer.read(TrialBalance)
        if call.screen.as_json:
            call.screen.document(answer.text)
            return OTHERWISE if found.difference else 0
        _balances(call, found.balances)
        call.screen.say(f"difference {money_text(found.difference)} at {instant_text(found.at)}")
        if found.digest:
            call.screen.say(f"sha256 {found.digest}")
        if found.difference:
            call.screen.note("baseai: the books do not balance")
            return OTHERWISE
        return 0

    @command(books, "balance", example="baseai books balance revenue:on_demand", environ=environ)
    def balance(
        call: Call,
        account: Annotated[str, typer.Argument(metavar="ACCOUNT", help="As the chart of accounts names it.")],
        at: At = None,
    ) -> None:
        """Print what one account holds, in each of its currencies."""
        from baseai.api.schemas import AccountView

        answer = call.platform.get("/books/balance", account=account, at=at)
        if call.screen.as_json:
            call.screen.document(answer.text)
            return
        _balances(call, answer.read(AccountView).balances)

    @command(books, "periods", example="baseai books periods", environ=environ)
    def periods(call: Call) -> None:
        """List the months that are closed or being closed."""
        from baseai.api.schemas import PeriodView

        found = listed(call, "/books/periods", PeriodView)
        if found is None:
            return
        call.screen.table(
            [
                Column(head="PERIOD"),
                Column(head="STATE"),
                Column(head="CLOSED"),
                Column(head="BY"),
                Column(head="TRANSFERS", right=True),
                Column(head="SHA256"),
            ],
            [
                (
                    one.period,
                    one.state,
                    instant_text(one.closed_at),
                    one.closed_by or one.began_by or "",
                    "" if one.transfers is None else f"{one.transfers:,}",
                    one.digest or "",
                )
                for one in found
            ],
        )

    @command(books, "close", example="baseai books close 2026-10", environ=environ)
    def close(
        call: Call,
        period: Annotated[str, typer.Argument(metavar="PERIOD", help="A month, like 2026-10.")],
    ) -> int:
        """Close a month for ever. Ends with status 1, and says why, when something stands against it."""
        from baseai.api.schemas import CloseView

        answer = call.platform.send(
            "POST", f"/books/periods/{segment(period)}/close", document={}, wait_s=CHECK_WAIT_S
        )
        done = answer.read(CloseView)
        if call.screen.as_json:
            call.screen.document(answer.text)
        elif done.state == "closed":
            call.screen.say(
                f"{done.period} is closed: {done.transfers or 0:,} transfers, sha256 {done.digest}"
            )
        else:
            _findings(call, done.findings)
            call.screen.note(f"baseai: {done.period} is {done.state}, not closed")
        return 0 if done.state == "closed" else OTHERWISE

    @command(books, "check", example="baseai books check", environ=environ)
    def check(
        call: Call,
        focus: Annotated[
            Path | None,
            typer.Option(
                "--focus",
                metavar="DIR",
                help="Check the FOCUS files of a folder instead, alone.",
            ),
        ] = None,
    ) -> int:
        """Add the books up again from the first transfer on. Ends with status 1 when anything differs."""
        if focus is not None:
            return check_focus(call, focus)
        from baseai.api.schemas import AuditView

        answer = call.platform.send("POST", "/books/check", document={}, wait_s=CHECK_WAIT_S)
        found = answer.read(AuditView)
        if call.screen.as_json:
            call.screen.document(answer.text)
        else:
            call.screen.say(f"{found.transfers:,} transfers in {found.took_s:.2f} s, sha256 {found.digest}")
            _findings(call, found.findings)
            if found.findings:
                call.screen.note("baseai: nothing is published from the books until a check finds nothing")
        return OTHERWISE if found.findings else 0

    @command(books, "transfers", example="baseai books transfers --run train-gpt", environ=environ)
    def transfers(
        call: Call,
        run: Annotated[str | None, typer.Option("--run", help="Of this run only, by name or id.")] = None,
        limit: Limit = 100,
        cursor: Cursor = None,
    ) -> None:
        """List transfers: from which account to which, how much, when, for what."""
        from baseai.api.schemas import TransferView

        run_id = call.run_id(run) if run else None
        found = listed(call, "/books/transfers", TransferView, run=run_id, limit=limit, cursor=cursor)
        if found is None:
            return
        amounts = money_column([one.amount for one in found])
        call.screen.table(
            [
                Column(head="EFFECTIVE"),
                Column(head="DEBIT"),
                Column(head="CREDIT"),
                Column(head="AMOUNT", right=True),
                Column(head="CURRENCY"),
                Column(head="RUN"),
                Column(head="ACCELERATOR"),
                Column(head="NOTE"),
            ],
            [
                (
                    instant_text(one.effective_at),
                    one.debit,
                    one.credit,
                    amount,
                    one.currency,
                    one.run_id or "",
                    one.accelerator or "",
                    one.note or "",
                )
                for one, amount in zip(found, amounts, strict=True)
            ],
        )

    @command(books, "time", example="baseai books time --by site", environ=environ)
    def time(
        call: Call,
        since: Annotated[
            str | None, typer.Option("--from", help="A day, or an instant on the hour. This month otherwise.")
        ] = None,
        until: Annotated[
            str | None, typer.Option("--to", help="Likewise; not included. Now otherwise.")
        ] = None,
        by: Annotated[str, typer.Option("--by", help=", ".join(TIME_BY))] = "bucket",
        simulated: Annotated[bool, typer.Option("--simulated", help="Of simulated nodes instead.")] = False,
    ) -> int:
        """Print what the hours of the accelerators were: sold, idle, lost … Ends with status 1 when one is withheld."""
        from baseai.api.schemas import TimeView

        if by not in TIME_BY:
            raise Refused(f"--by {by} is not known; it is one of {', '.join(TIME_BY)}")
        asked = {"from": since, "to": until, "by": by, "simulated": simulated or None}
        answer = call.platform.get("/time", **asked)
        found = answer.read(TimeView)
        if call.screen.as_json:
            call.screen.document(answer.text)
            return OTHERWISE if found.withheld else 0
        subjects = [] if by == "bucket" else [Column(head=by.upper())]
        call.screen.table(
            [
                *subjects,
                Column(head="BUCKET"),
                Column(head="HOURS", right=True),
                Column(head="SHARE", right=True),
            ],
            [
                (
                    *([one.label or one.subject or ""] if subjects else []),
                    one.bucket.replace("_", " "),
                    figure(one.accelerator_hours, digits=5),
                    f"{one.share_ratio:.1%}",
                )
                for one in found.items
            ],
        )
        call.screen.say(
            f"{figure(found.installed_hours, digits=5)} installed hours from {instant_text(found.from_at)}"
            f" to {instant_text(found.until_at)}"
        )
        if found.provisional:
            call.screen.note("baseai: the newest hours are not closed yet and may change")
        if found.open_left_out:
            call.screen.note("baseai: hours that are not closed yet are left out")
        if found.revised:
            call.screen.note(
                f"baseai: {found.revised} hours of accelerators were counted anew for late facts"
            )
        for hour in found.withheld:
            call.screen.note(f"baseai: withheld: {hour.sentence}")
        return OTHERWISE if found.withheld else 0


def _balances(call: Call, rows: "Sequence[Balance]") -> None:
    columns = [
        money_column([getattr(one, name) for one in rows]) for name in ("debits", "credits", "balance")
    ]
    call.screen.table(
        [
            Column(head="ACCOUNT"),
            Column(head="DEBITS", right=True),
            Column(head="CREDITS", right=True),
            Column(head="BALANCE", right=True),
            Column(head="CURRENCY"),
        ],
        [
            (one.account, debited, credited, balance, one.currency)
            for one, debited, credited, balance in zip(rows, *columns, strict=True)
        ],
    )


def _findings(call: Call, findings: "Sequence[FindingView]") -> None:
    for one in findings:
        call.screen.say(f"{one.check}: {one.sentence}")
