"""The commands around what was agreed: customer, contract, price, fx; and the availability that a customer can check.

Invariant: a date without a time begins in the books' zone; the terminal reckons nothing but `books sla`, which needs no
platform, because whoever was promised something must be able to check it alone.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from zoneinfo import ZoneInfo

import typer

from baseai.cli.call import Call, command, listed, segment
from baseai.cli.column import Column, instant_text, plain
from baseai.cli.costs import add_suggestions
from baseai.ground.clock import now_utc
from baseai.ground.fault import Refused

if TYPE_CHECKING:
    from baseai.api.schemas import ContractView
    from baseai.finance.sla import HealthEvent

ZONE = "America/Sao_Paulo"
PLAIN = {"no_args_is_help": True, "rich_markup_mode": None}


def add_agreements(app: typer.Typer, environ: Mapping[str, str]) -> None:
    """Register the commands."""
    _add_customers(app, environ)
    _add_contracts(app, environ)
    _add_prices(app, environ)
    _add_rates(app, environ)


def _add_customers(app: typer.Typer, environ: Mapping[str, str]) -> None:
    customer = typer.Typer(help="Who pays for a tenant.", **PLAIN)  # type: ignore[arg-type]
    app.add_typer(customer, name="customer")

    @command(customer, "list", example="baseai customer list", environ=environ)
    def list_customers(call: Call) -> None:
        """List customers."""
        from baseai.api.schemas import CustomerView

        found = listed(call, "/customers", CustomerView)
        if found is not None:
            call.screen.table(
                [Column(head=head) for head in ("NAME", "COUNTRY", "TAX ID", "CURRENCY", "TENANT", "ID")],
                [
                    (
                        one.legal_name,
                        one.country,
                        one.tax_id,
                        one.currency,
                        one.tenant_id,
                        one.customer_id,
                    )
                    for one in found
                ],
            )

    @command(
        customer,
        "add",
        example="baseai customer add alfa 'Alfa S.A.' --tax-id 12.ABC.345/01DE-35",
        environ=environ,
    )
    def add_customer(
        call: Call,
        tenant: Annotated[str, typer.Argument(metavar="TENANT")],
        legal_name: Annotated[str, typer.Argument(metavar="LEGAL_NAME")],
        tax_id: Annotated[str, typer.Option("--tax-id", help="A CNPJ, or what the country calls it abroad.")],
        country: Annotated[str, typer.Option("--country", help="Two letters.")] = "BR",
        currency: Annotated[str, typer.Option("--currency", help="Of its invoices: BRL or USD.")] = "BRL",
    ) -> None:
        """Add the customer of a tenant. It is not edited afterwards."""
        from baseai.api.schemas import CustomerView

        said = {
            "tenant": tenant,
            "legal_name": legal_name,
            "tax_id": tax_id,
            "country": country,
            "currency": currency,
        }
        answer = call.platform.post("/customers", said)
        if call.screen.as_json:
            call.screen.document(answer.text)
            return
        made = answer.read(CustomerView)
        call.screen.say(f"{plain(made.legal_name)} pays for {plain(tenant)} ({made.customer_id})")


def _add_contracts(app: typer.Typer, environ: Mapping[str, str]) -> None:
    contract = typer.Typer(help="What was agreed with customers.", **PLAIN)  # type: ignore[arg-type]
    app.add_typer(contract, name="contract")

    @command(contract, "list", example="baseai contract list", environ=environ)
    def list_contracts(call: Call) -> None:
        """List contracts."""
        from baseai.api.schemas import ContractView

        found = listed(call, "/contracts", ContractView)
        if found is not None:
            heads = ("NAME", "TERM", "FROM", "UNTIL", "COMMITTED", "DISCOUNT", "LEAST SPEND", "CURRENCY")
            call.screen.table([Column(head=head) for head in heads], [_contract_cells(one) for one in found])

    @command(
        contract,
        "add",
        example="baseai contract add alfa-2026 alfa --term reserved --months 12 --commit H100-SXM:16@sp4",
        environ=environ,
    )
    def add_contract(
        call: Call,
        name: Annotated[str, typer.Argument(metavar="NAME")],
        tenant: Annotated[str, typer.Argument(metavar="TENANT")],
        term: Annotated[str, typer.Option("--term", help="on_demand, reserved, spot or research.")],
        from_on: Annotated[
            str | None, typer.Option("--from", help="First day, 2026-12-01; otherwise now.")
        ] = None,
        until_on: Annotated[
            str | None, typer.Option("--until", help="The day on which it no longer holds.")
        ] = None,
        months: Annotated[int | None, typer.Option("--months", help="Its length; reserved: 6 to 36.")] = None,
        project: Annotated[str | None, typer.Option("--project", help="For this project alone.")] = None,
        currency: Annotated[str, typer.Option("--currency", help="Of its prices.")] = "USD",
        price_list: Annotated[str | None, typer.Option("--list", help="Its own price list.")] = None,
        discount: Annotated[str, typer.Option("--discount", help="Off every price: 0.125 or 12.5%.")] = "0",
        minimum: Annotated[
            str | None, typer.Option("--minimum", help="Least spend of a month, trued up at its end.")
        ] = None,
        commit: Annotated[
            list[str] | None,
            typer.Option("--commit", help="MODEL:COUNT[@SITE] held ready and paid; may be repeated."),
        ] = None,
        promise: Annotated[
            list[str] | None,
            typer.Option("--promise", help="99.9%=5%: below that availability, so much comes back; repeats."),
        ] = None,
    ) -> None:
        """Agree on a contract. Where it overlaps another one it is refused by name."""
        from baseai.api.schemas import ContractView

        said = {
            "name": name,
            "tenant": tenant,
            "project": project,
            "term": term,
            "currency": currency,
            "from_at": (_instant(from_on) if from_on else now_utc()).isoformat(),
            "until_at": _instant(until_on).isoformat() if until_on else None,
            "months": months,
            "list": price_list,
            "discount": str(_ratio(discount)),
            "minimum": minimum,
            "commitments": [_commitment(text) for text in commit or ()],
            "promise": [_step(text) for text in promise or ()],
        }
        answer = call.platform.post("/contracts", said)
        if call.screen.as_json:
            call.screen.document(answer.text)
            return
        made = answer.read(ContractView)
        until = instant_text(made.until_at) or "further notice"
        call.screen.say(f"{plain(made.name)} holds from {instant_text(made.from_at)} until {until}")

    @command(
        contract, "end", example="baseai contract end alfa-2026 --reason 'by mutual consent'", environ=environ
    )
    def end_contract(
        call: Call,
        name: Annotated[str, typer.Argument(metavar="NAME")],
        reason: Annotated[str, typer.Option("--reason", help="Why, for the record.")],
        at: Annotated[str | None, typer.Option("--at", help="When; otherwise now.")] = None,
    ) -> None:
        """End a contract early, once."""
        from baseai.api.schemas import ContractView

        said = {"reason": reason, "at": _instant(at).isoformat() if at else None}
        answer = call.platform.post(f"/contracts/{segment(name)}/end", said)
        if call.screen.as_json:
            call.screen.document(answer.text)
            return
        call.screen.say(f"{plain(name)} ends at {instant_text(answer.read(ContractView).ended_at)}")

    @command(contract, "events", example="baseai contract events alfa-2026 > november.jsonl", environ=environ)
    def seat_events(call: Call, name: Annotated[str, typer.Argument(metavar="NAME")]) -> None:
        """Print what befell the accelerators that it holds ready, as `books sla` reads it: a JSON object a line."""
        answer = call.platform.get(f"/contracts/{segment(name)}/health-events")
        if call.screen.as_json:
            call.screen.document(answer.text)
            return
        for row in json.loads(answer.text)["items"]:
            call.screen.say(json.dumps(row))


def _add_prices(app: typer.Typer, environ: Mapping[str, str]) -> None:
    price = typer.Typer(help="What things cost.", **PLAIN)  # type: ignore[arg-type]
    app.add_typer(price, name="price")
    add_suggestions(price, environ)

    @command(price, "list", example="baseai price list", environ=environ)
    def list_prices(
        call: Call,
        price_list: Annotated[str | None, typer.Option("--list", help="This price list alone.")] = None,
    ) -> None:
        """List prices, the catalogue's among them."""
        from baseai.api.schemas import PriceView

        found = listed(call, "/prices", PriceView, list=price_list)
        if found is not None:
            heads = ("LIST", "MODEL", "SITE", "TERM", "PRICE", "CURRENCY", "PER", "PEAKS", "FROM", "UNTIL")
            call.screen.table(
                [Column(head=head) for head in heads],
                [
                    (
                        one.list,
                        one.model or one.meter,
                        one.site or "any",
                        one.term if one.months is None else f"{one.term} {one.months} months",
                        " ".join(
                            f"{tier.rate}" if not tier.from_volume else f"{tier.from_volume}:{tier.rate}"
                            for tier in one.tiers
                        ),
                        one.currency,
                        one.unit.replace("_", " "),
                        "; ".join(one.peaks),
                        instant_text(one.valid_from),
                        instant_text(one.valid_until),
                    )
                    for one in found
                ],
            )

    @command(price, "add", example="baseai price add december.csv", environ=environ)
    def add_prices(
        call: Call,
        file: Annotated[Path, typer.Argument(metavar="FILE", help="A price sheet, CSV.")],
        price_list: Annotated[str, typer.Option("--list", help="To which price list.")] = "list",
    ) -> None:
        """Take in a price sheet, whole or not at all.

        Its head names columns, in any order: meter, model, site, term, months, unit, currency, rate or tiers
        (0:2.99 1000:2.49), peaks (America/Sao_Paulo 1-5 09:00-18:00 x1.25), valid_from, valid_until. A row that follows
        an open one closes it; a gap or an overlap is refused and names both.
        """
        said = {"list": price_list, "csv": _text(file), "file": file.name}
        answer = call.platform.post("/prices", said)
        if call.screen.as_json:
            call.screen.document(answer.text)
            return
        new = json.loads(answer.text)["new"]
        call.screen.say(f"{new} {'price was' if new == 1 else 'prices were'} added to {plain(price_list)}")


def _add_rates(app: typer.Typer, environ: Mapping[str, str]) -> None:
    fx = typer.Typer(help="PTAX: what a dollar sold for, as the central bank published it.", **PLAIN)  # type: ignore[arg-type]
    app.add_typer(fx, name="fx")

    def show(call: Call, text: str) -> None:
        from baseai.api.schemas import BulletinView

        if call.screen.as_json:
            call.screen.document(text)
            return
        rows = [BulletinView(**row) for row in json.loads(text)["items"]]
        call.screen.table(
            [Column(head="DAY"), Column(head="SELL", right=True), Column(head="BULLETIN")],
            [
                (
                    f"{one.day}",
                    "none" if one.sell is None else f"{one.sell}",
                    instant_text(one.bulletin_at),
                )
                for one in rows
            ],
        )

    @command(fx, "list", example="baseai fx list --from 2026-11-01 --until 2026-11-30", environ=environ)
    def list_rates(
        call: Call,
        from_on: Annotated[str, typer.Option("--from", help="First day.")],
        until_on: Annotated[str, typer.Option("--until", help="Last day.")],
    ) -> None:
        """List what is known of each day; a day without a bulletin says none, one nobody asked about is missing."""
        query = {"from_on": _day(from_on).isoformat(), "until_on": _day(until_on).isoformat()}
        show(call, call.platform.get("/fx", **query).text)

    @command(fx, "fetch", example="baseai fx fetch --from 2026-11-01 --until 2026-11-30", environ=environ)
    def fetch_rates(
        call: Call,
        from_on: Annotated[str, typer.Option("--from", help="First day.")],
        until_on: Annotated[str, typer.Option("--until", help="Last day; it must be over.")],
    ) -> None:
        """Ask the central bank and keep what it published."""
        said = {"from_on": _day(from_on).isoformat(), "until_on": _day(until_on).isoformat()}
        show(call, call.platform.post("/fx", said).text)

    @command(fx, "show", example="baseai fx show 2026-11-23", environ=environ)
    def show_rate(call: Call, day: Annotated[str, typer.Argument(metavar="DAY")]) -> None:
        """Show the rate that holds on a day: the closing one of the last business day before."""
        from baseai.api.schemas import ExchangeView

        answer = call.platform.get(f"/fx/{_day(day).isoformat()}")
        if call.screen.as_json:
            call.screen.document(answer.text)
        else:
            call.screen.say(plain(answer.read(ExchangeView).note))


def add_sla(books: typer.Typer, environ: Mapping[str, str]) -> None:
    """Register `books sla`."""

    @command(
        books,
        "sla",
        example="baseai books sla --events november.jsonl --month 2026-11 --promise 99.9%=5%",
        environ=environ,
    )
    def sla(
        call: Call,
        events: Annotated[
            Path, typer.Option("--events", help="Turns of accelerators, a JSON object a line.")
        ],
        month: Annotated[str, typer.Option("--month", help="2026-11, by São Paulo's clock.")],
        promise: Annotated[
            list[str], typer.Option("--promise", help="99.9%=5%: below it, so much comes back; repeats.")
        ],
        subject: Annotated[
            list[str] | None,
            typer.Option("--subject", help="What was promised; otherwise whatever the events name."),
        ] = None,
        charged: Annotated[
            str | None, typer.Option("--charged", help="The month's charge, to say the credit in money.")
        ] = None,
    ) -> None:
        """Reckon availability and credit of a month from events, without a platform.

        A line is {"event_id": "1", "subject": "serial", "turn": "down", "at": "2026-11-03T10:00:00Z"}; turn is down,
        up, or excluded (down and not counted, until up). What the platform credits is this very reckoning.
        """
        from baseai.finance.period import period_named
        from baseai.finance.sla import Promise, Step, availability, credit_micros, credit_ratio

        told = list(_events(events))
        try:
            agreed = Promise(
                steps=tuple(
                    Step(below_ratio=Decimal(step["below"]), credit_ratio=Decimal(step["credit"]))
                    for step in map(_step, promise)
                )
            )
        except ValueError as wrong:
            raise Refused(f"--promise: {wrong}") from wrong
        subjects = subject or sorted({one.subject for one in told})
        kept = availability(told, subjects=subjects, period=period_named(month))
        ratio = credit_ratio(kept, agreed)
        money = (
            None
            if charged is None
            else credit_micros(kept, agreed, charged_micros=int(_number(charged) * 10**6))
        )
        if call.screen.as_json:
            document = {
                "month": month,
                "subjects": subjects,
                "promised_s": kept.promised_us / 1e6,
                "lost_s": kept.lost_us / 1e6,
                "excluded_s": kept.excluded_us / 1e6,
                "availability": str(kept.ratio),
                "credit_ratio": str(ratio),
                "credit": None if money is None else str(Decimal(money).scaleb(-6)),
                "event_ids": list(kept.event_ids),
            }
            call.screen.document(json.dumps(document))
            return
        call.screen.facts(
            [
                ("month", month),
                ("promised", f"{kept.promised_us / 3.6e9:,.4f} h over {len(subjects)}"),
                ("lost", f"{kept.lost_us / 3.6e9:,.4f} h by {', '.join(kept.event_ids) or 'nothing'}"),
                ("excluded", f"{kept.excluded_us / 3.6e9:,.4f} h"),
                ("availability", f"{kept.ratio:%}"),
                ("credit", f"{ratio:%}" if money is None else f"{ratio:%}: {Decimal(money).scaleb(-6)}"),
            ]
        )


def _events(file: Path) -> "Iterator[HealthEvent]":
    from baseai.finance.sla import HealthEvent, Turn
    from baseai.ground.clock import instant

    for number, line in enumerate(_text(file).splitlines(), 1):
        if not line.strip():
            continue
        try:
            row: dict[str, Any] = json.loads(line)
            yield HealthEvent(
                event_id=str(row["event_id"]),
                subject=str(row["subject"]),
                turn=Turn(row["turn"]),
                at=instant(row["at"]),
                reason=str(row.get("reason", "")),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as wrong:
            raise Refused(
                f"{file}:{number}: {wrong!r} is wrong; a line is an object with event_id, subject, turn (down, up,"
                " excluded) and at, an instant with its zone"
            ) from wrong


def _contract_cells(one: "ContractView") -> Sequence[str]:
    return (
        one.name,
        one.term,
        instant_text(one.from_at),
        instant_text(one.ended_at or one.until_at),
        " ".join(f"{c.count} {c.model}@{c.site or 'any'}" for c in one.commitments),
        f"{one.discount:%}" if one.discount else "",
        "" if one.minimum is None else f"{one.minimum:,.2f}",
        one.currency,
    )


def _commitment(text: str) -> dict[str, Any]:
    rest, at, site = text.partition("@")
    model, colon, count = rest.rpartition(":")
    if not colon or not model or not count.isdecimal() or (at and not site):
        raise Refused(f"--commit {text} is not MODEL:COUNT or MODEL:COUNT@SITE")
    return {"model": model, "count": int(count), "site": site or None}


def _step(text: str) -> dict[str, str]:
    below, equals, credit = text.partition("=")
    if not equals:
        raise Refused(f"--promise {text} is not 99.9%=5%")
    return {"below": str(_ratio(below)), "credit": str(_ratio(credit))}


def _ratio(text: str) -> Decimal:
    """`12.5%` or `0.125`."""
    return _number(text.removesuffix("%")) / (100 if text.endswith("%") else 1)


def _number(text: str) -> Decimal:
    try:
        found = Decimal(text)
    except InvalidOperation:
        found = Decimal("nan")
    if not found.is_finite():
        raise Refused(f"{text!r} is not a number")
    return found


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise Refused(f"{text!r} is not a day like 2026-12-01") from None


def _instant(text: str) -> datetime:
    """A day, which begins in the books' zone, or an instant with its zone."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise Refused(f"{text!r} is not a day like 2026-12-01, nor an instant") from None
    return (at if at.tzinfo else at.replace(tzinfo=ZoneInfo(ZONE))).astimezone(UTC)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as wrong:
        raise Refused(f"{file} cannot be read: {wrong}") from wrong
