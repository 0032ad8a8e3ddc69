"""The commands around money: books, cost.

Invariant: the terminal adds nothing up: every figure is the platform's own.
"""

from collections.abc import Mapping
from typing import Annotated

import typer

from baseai.cli.call import OTHERWISE, Call, command, listed
from baseai.cli.column import Column, figure, instant_text, money_column, money_text
from baseai.cli.runs import Cursor, Limit
from baseai.ground.fault import Refused

TIME_BY = ("bucket", "site", "model", "node")
DIMENSIONS = ("run", "node", "accelerator", "tenant")


def add_books(app: typer.Typer, environ: Mapping[str, str]) -> None:
    """Register the commands."""
    books = typer.Typer(help="The ledger.", no_args_is_help=True, rich_markup_mode=None)
    app.add_typer(books, name="books")

    @command(books, "trial-balance", example="baseai books trial-balance", environ=environ)
    def trial_balance(call: Call) -> int:
        """Print every account's balance. Ends with status 1 when debits and credits differ."""
        from baseai.api.schemas import TrialBalance

        answer = call.platform.get("/books/trial-balance")
        found = answer.read(TrialBalance)
        if call.screen.as_json:
            call.screen.document(answer.text)
            return OTHERWISE if found.difference else 0
        columns = [
            money_column([getattr(one, name) for one in found.balances])
            for name in ("debits", "credits", "balance")
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
                for one, debited, credited, balance in zip(found.balances, *columns, strict=True)
            ],
        )
        call.screen.say(f"difference {money_text(found.difference)} at {instant_text(found.at)}")
        if found.difference:
            call.screen.note("baseai: the books do not balance")
            return OTHERWISE
        return 0

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

    @command(app, "cost", example="baseai cost --by node", environ=environ)
    def cost(
        call: Call,
        run: Annotated[str | None, typer.Argument(metavar="RUN", help="One run, by name or id.")] = None,
        by: Annotated[str, typer.Option("--by", help=", ".join(DIMENSIONS))] = "run",
        subject: Annotated[
            str | None, typer.Option("--subject", help="One node, accelerator or tenant.")
        ] = None,
    ) -> None:
        """Print hours, revenue, cost and contribution. ~ marks an estimate: it is not posted yet."""
        from baseai.api.schemas import CostView

        if by not in DIMENSIONS:
            raise Refused(f"--by {by} is not known; it is one of {', '.join(DIMENSIONS)}")
        if run and (by != "run" or subject):
            raise Refused(f"a run's money is shown by run; leave --by {by} and --subject away, or the run")
        found = listed(call, "/cost", CostView, by=by, subject=call.run_id(run) if run else subject)
        if found is None:
            return
        columns = [
            money_column([getattr(one, name) for one in found])
            for name in ("revenue", "cost", "contribution")
        ]
        call.screen.table(
            [
                Column(head=by.upper()),
                Column(head="HOURS", right=True),
                Column(head="REVENUE", right=True),
                Column(head="COST", right=True),
                Column(head="CONTRIBUTION", right=True),
                Column(head="CURRENCY"),
            ],
            [
                (
                    one.label,
                    figure(one.accelerator_hours, digits=5),
                    *(
                        f"{'~' * one.accruing}{amount}" if amount else ""
                        for amount in (revenue, spent, contribution)
                    ),
                    one.currency,
                )
                for one, revenue, spent, contribution in zip(found, *columns, strict=True)
            ],
        )
        for basis in sorted({one.basis for one in found if one.basis}):
            call.screen.note(f"cost: {basis}")
