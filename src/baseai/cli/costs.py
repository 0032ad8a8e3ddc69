"""The commands around costs: what things and months cost, assumptions in versions, suggested prices.

Invariant: the terminal reckons nothing; `baseai cost` alone, with a run or with options shows costs, whatever the run
is called but for the names of the other commands, which go by its id.
"""

from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from baseai.cli.call import Call, command, listed, segment
from baseai.cli.column import Column, figure, instant_text, money_column, money_text, plain
from baseai.ground.clock import instant
from baseai.ground.fault import Refused

if TYPE_CHECKING:
    from baseai.api.schemas import AssumptionView, EconomicsRowView, SuggestionView

THINGS = ("run", "node", "accelerator", "tenant")
MONTHLY = ("all", "model", "site", "place", "customer", "round")
DEFAULT = "show"


class ShowsByDefault(TyperGroup):
    """A group whose first word need not name a command: then it is `show`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] != "--help"):
            args = [DEFAULT, *args]
        return super().parse_args(ctx, args)


def add_costs(app: typer.Typer, environ: Mapping[str, str]) -> None:
    """Register the commands."""
    costs = typer.Typer(help="What things cost, and what remains.", cls=ShowsByDefault, rich_markup_mode=None)
    app.add_typer(costs, name="cost")

    @command(costs, DEFAULT, example="baseai cost --by model --period 2026-11", environ=environ)
    def show(
        call: Call,
        run: Annotated[str | None, typer.Argument(metavar="RUN", help="One run, by name or id.")] = None,
        by: Annotated[str | None, typer.Option("--by", help=", ".join((*THINGS, *MONTHLY)))] = None,
        subject: Annotated[
            str | None, typer.Option("--subject", help="One node, accelerator or tenant.")
        ] = None,
        period: Annotated[
            str | None, typer.Option("--period", help="A month, like 2026-11; otherwise this one.")
        ] = None,
        case: Annotated[
            str | None, typer.Option("--case", help="Which end of every assumption: low, default, high.")
        ] = None,
        currency: Annotated[str | None, typer.Option("--currency", help="USD or BRL, at PTAX.")] = None,
        taxes: Annotated[
            str | None,
            typer.Option("--taxes", help="A scenario of import taxes: base, redata, ex_tarifario …"),
        ] = None,
        simulated: Annotated[
            bool, typer.Option("--simulated", help="Simulated accelerators, in the place of real ones.")
        ] = False,
    ) -> None:
        """Print hours, revenue, cost and contribution of runs, nodes, accelerators and tenants; or a month's economics.

        ~ marks an estimate: it is not posted yet. `show` may be left out.
        """
        months = any(one is not None for one in (period, case, currency, taxes)) or simulated
        if by in MONTHLY or (by is None and months):
            if run or subject:
                raise Refused(
                    "a month is told by model, site, customer or round; leave the run and --subject away"
                )
            asked = {
                "period": period,
                "by": by or "all",
                "case": case or "default",
                "currency": currency or "USD",
                "taxes": taxes,
                "simulated": "true" if simulated else None,
            }
            _month(call, asked)
            return
        by = by or "run"
        if by not in THINGS:
            raise Refused(f"--by {by} is not known; it is one of {', '.join((*THINGS, *MONTHLY))}")
        if months:
            raise Refused(
                f"--period, --case, --currency and --taxes tell a month by {', '.join(MONTHLY)}, not by {by}"
            )
        if run and (by != "run" or subject):
            raise Refused(f"a run's money is shown by run; leave --by {by} and --subject away, or the run")
        _things(call, by, call.run_id(run) if run else subject)

    @command(costs, "assumptions", example="baseai cost assumptions --stale", environ=environ)
    def assumptions(
        call: Call,
        stale: Annotated[
            bool, typer.Option("--stale", help="Those that nobody looked at for 180 days.")
        ] = False,
        every: Annotated[bool, typer.Option("--every", help="Every version there ever was.")] = False,
    ) -> None:
        """List what costs are reckoned from, with source and day. ! marks one that nobody looked at for 180 days."""
        from baseai.api.schemas import AssumptionView

        asked = {"stale": "true" if stale else None, "every": "true" if every else None}
        found = listed(call, "/cost/assumptions", AssumptionView, **asked)
        if found is not None:
            _assumptions(call, found)

    @command(
        costs,
        "record",
        example="baseai cost record pue_ratio site:SP4 1.30 1.35 1.42 --mark A --source 'meter of the hall'",
        environ=environ,
    )
    def record(
        call: Call,
        name: Annotated[str, typer.Argument(metavar="NAME", help="As `cost assumptions` lists it.")],
        subject: Annotated[
            str,
            typer.Argument(metavar="SUBJECT", help="all, country:BR, site:SP4, model:H100-SXM, round:R1."),
        ],
        low: Annotated[str, typer.Argument(metavar="LOW")],
        default: Annotated[str, typer.Argument(metavar="DEFAULT")],
        high: Annotated[str, typer.Argument(metavar="HIGH")],
        source: Annotated[str, typer.Option("--source", help="The quote, invoice, meter or document.")],
        mark: Annotated[
            str,
            typer.Option("--mark", help="A document read, B an account of it, C not read, measured."),
        ],
        source_on: Annotated[
            str | None, typer.Option("--source-on", help="Its day, like 2026-11-20; otherwise today.")
        ] = None,
        valid_from: Annotated[
            str | None, typer.Option("--from", help="From when on, with its zone; otherwise from now on.")
        ] = None,
        currency: Annotated[
            str | None, typer.Option("--currency", help="USD or BRL, where it is money.")
        ] = None,
    ) -> None:
        """Record a version of an assumption. What came before it stays as it was reckoned."""
        from baseai.api.schemas import AssumptionView

        said = {
            "name": name,
            "subject": subject,
            "low": _amount(low),
            "default": _amount(default),
            "high": _amount(high),
            "source": source,
            "mark": mark,
            "source_on": _day(source_on),
            "valid_from": _instant(valid_from),
            "currency": currency,
        }
        answer = call.platform.post("/cost/assumptions", said)
        if call.screen.as_json:
            call.screen.document(answer.text)
            return
        one = answer.read(AssumptionView)
        call.screen.say(
            f"{one.name} of {plain(one.subject)} is {one.default} {one.unit} from {instant_text(one.valid_from)} on"
        )


def add_suggestions(price: typer.Typer, environ: Mapping[str, str]) -> None:
    """Register `price suggest`, `price apply`, `price decline`."""

    @command(price, "suggest", example="baseai price suggest", environ=environ)
    def suggest(
        call: Call,
        kept: Annotated[bool, typer.Option("--kept", help="Say also why the others stay.")] = False,
        state: Annotated[
            str | None,
            typer.Option(
                "--state", help="Do not reckon anew; list proposed, applied, declined or superseded ones."
            ),
        ] = None,
    ) -> None:
        """Reckon what the rules of yield would make of each price, from how this month sells.

        Nothing changes by it.
        """
        from baseai.api.schemas import SuggestionsView, SuggestionView

        if state is not None:
            found = listed(call, "/prices/suggestions", SuggestionView, state=state)
            if found is not None:
                _suggestions(call, found)
            return
        answer = call.platform.post("/prices/suggestions", {})
        if call.screen.as_json:
            call.screen.document(answer.text)
            return
        told = answer.read(SuggestionsView)
        _suggestions(call, told.items)
        for sentence in told.kept if kept else ():
            call.screen.note(f"kept: {sentence}")
        if told.kept and not kept:
            call.screen.note(f"{len(told.kept)} prices stay; --kept says why")

    @command(price, "apply", example="baseai price apply sug_000000000000000000", environ=environ)
    def apply(
        call: Call,
        suggestion: Annotated[str, typer.Argument(metavar="SUGGESTION", help="Its id.")],
        price_list: Annotated[str, typer.Option("--list", help="In which price list.")] = "list",
    ) -> None:
        """Let a suggested price hold from the next full hour on, as a new version of a price list."""
        _settled(call, f"/prices/suggestions/{segment(suggestion)}/apply", {"list": price_list})

    @command(price, "decline", example="baseai price decline sug_000000000000000000", environ=environ)
    def decline(
        call: Call, suggestion: Annotated[str, typer.Argument(metavar="SUGGESTION", help="Its id.")]
    ) -> None:
        """Turn a suggested price down."""
        _settled(call, f"/prices/suggestions/{segment(suggestion)}/decline", {})


def _settled(call: Call, path: str, said: Mapping[str, Any]) -> None:
    from baseai.api.schemas import SuggestionView

    answer = call.platform.post(path, said)
    if call.screen.as_json:
        call.screen.document(answer.text)
        return
    one = answer.read(SuggestionView)
    where = f"{one.model} at {one.site or 'any site'}"
    call.screen.say(f"{one.suggestion_id} is {one.state}: {where}, {one.term} {one.rate} {one.currency}")


def _things(call: Call, by: str, subject: str | None) -> None:
    from baseai.api.schemas import CostView

    found = listed(call, "/cost", CostView, by=by, subject=subject)
    if found is None:
        return
    columns = [
        money_column([getattr(one, name) for one in found]) for name in ("revenue", "cost", "contribution")
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


def _month(call: Call, asked: Mapping[str, str | None]) -> None:
    from baseai.api.schemas import EconomicsView

    answer = call.platform.get("/economics", **asked)
    if call.screen.as_json:
        call.screen.document(answer.text)
        return
    found = answer.read(EconomicsView)
    rows = list(found.rows)
    if found.by != "all":
        rows.append(found.total.model_copy(update={"part": "total", "label": "total"}))
    names = ("revenue", "cost", "contribution", "depreciation", "capital_recovery", "after_capital")
    columns = [money_column([_cents(getattr(one, name)) for one in rows]) for name in names]
    call.screen.table(
        [
            Column(head=found.by.upper()),
            *(
                Column(head=head, right=True)
                for head in (
                    "AVAILABLE H", "SOLD", "REVENUE", "PER AVAIL. H", "PER SOLD H", "COST", "CONTRIBUTION", "MARGIN",
                    "DEPRECIATION", "CAPITAL", "AFTER CAPITAL",
                )
            ),
        ],
        [_line(one, [column[place] for column in columns]) for place, one in enumerate(rows)],
    )  # fmt: skip
    total = found.total
    call.screen.say(
        f"{found.period} to {instant_text(found.until_at)}, case {found.case}, {found.currency}; all costs from"
        f" {money_text(_cents(total.cost_low))} to {money_text(_cents(total.cost_high))}, of which"
        f" {money_text(_cents(total.accruing))} not posted yet"
    )
    for part in found.energy:
        call.screen.note(
            f"energy {part.origin}: {part.kwh} kWh over {figure(part.accelerator_hours, digits=5)} hours"
        )
    for sentence in (*found.basis, *found.exchange):
        call.screen.note(sentence)
    for name, amount in found.apart.items():
        call.screen.note(f"left out for want of a rate: {name} {money_text(amount)}")
    for sentence in found.stale:
        call.screen.note(f"stale: {sentence}")
    for sentence in found.withheld:
        call.screen.note(f"not to be published: {sentence}")


def _line(one: "EconomicsRowView", amounts: Sequence[str]) -> Sequence[str]:
    revenue, spent, contribution, depreciation, capital, after = amounts
    return (
        one.label or (one.part if one.subject is None and one.part != "subject" else one.subject or "all"),
        figure(one.available_hours, digits=5) if one.available_hours else "",
        _percent(one.utilisation_ratio),
        revenue,
        "" if one.revenue_per_available_hour is None else f"{one.revenue_per_available_hour:.4f}",
        "" if one.revenue_per_sold_hour is None else f"{one.revenue_per_sold_hour:.4f}",
        f"{'~' * bool(one.accruing)}{spent}",
        contribution,
        _percent(one.contribution_ratio),
        depreciation,
        capital,
        after,
    )


def _assumptions(call: Call, found: "Sequence[AssumptionView]") -> None:
    call.screen.table(
        [
            Column(head="SUBJECT"),
            Column(head="NAME"),
            *(Column(head=head, right=True) for head in ("LOW", "DEFAULT", "HIGH")),
            *(Column(head=head) for head in ("UNIT", "MARK", "OF", "FROM", "BY", "SOURCE")),
        ],
        [
            (
                one.subject,
                one.name,
                _short(one.low),
                _short(one.default),
                _short(one.high),
                f"{one.currency} {one.unit}" if one.currency else one.unit,
                one.mark,
                f"{'!' * one.stale}{one.source_on}",
                instant_text(one.valid_from),
                one.recorded_by,
                one.source,
            )
            for one in found
        ],
    )
    if stale := sum(one.stale for one in found):
        call.screen.note(
            f"{stale} are older than 180 days: look at their sources and record what they say now"
        )


def _suggestions(call: Call, found: "Sequence[SuggestionView]") -> None:
    call.screen.table(
        [
            *(Column(head=head) for head in ("SUGGESTION", "MODEL", "SITE", "TERM")),
            *(Column(head=head, right=True) for head in ("NOW", "SUGGESTED", "LEAST")),
            *(Column(head=head) for head in ("CURRENCY", "RULE", "STATE", "WHY")),
        ],
        [
            (
                one.suggestion_id,
                one.model,
                one.site or "any",
                one.term,
                "" if one.now_rate is None else f"{one.now_rate.normalize():f}",
                f"{one.rate.normalize():f}",
                f"{one.floor_rate:.4f}",
                one.currency,
                one.rule,
                one.state,
                one.sentence,
            )
            for one in found
        ],
    )


def _short(amount: Decimal) -> str:
    """An assumption to four digits after the point, and no zeros behind."""
    return f"{amount.quantize(Decimal('0.0001')).normalize():f}"


def _cents(amount: Decimal) -> Decimal:
    return amount.quantize(Decimal("0.0001" if abs(amount) < 1 else "0.01"))


def _percent(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio * 100:.1f} %"


def _amount(text: str) -> str:
    try:
        return str(Decimal(text))
    except ArithmeticError as wrong:
        raise Refused(f"{text!r} is no amount; write it with a point, like 1.35") from wrong


def _day(text: str | None) -> str | None:
    if text is None:
        return None
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError as wrong:
        raise Refused(f"--source-on {text!r} is no day; write it like 2026-11-20") from wrong


def _instant(text: str | None) -> str | None:
    if text is None:
        return None
    try:
        return instant(text).isoformat()
    except ValueError as wrong:
        raise Refused(f"--from {text!r} is no instant; write it like 2026-12-01T00:00:00-03:00") from wrong
