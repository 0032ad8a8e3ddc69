"""The commands around the catalogue: what is known of accelerators, and where published figures differ.

Invariant: no platform is needed, and a value whose source was not read again is never shown without its mark [C].
"""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from baseai.cli.call import Call, command
from baseai.cli.column import Column, fact_lines, money_column
from baseai.ground.clock import now_utc

if TYPE_CHECKING:
    from baseai.catalog.accelerator import Accelerator
    from baseai.catalog.catalog import Catalog
    from baseai.catalog.source import Source

UNITS: Mapping[str, str] = {
    "memory_gib": "GiB",
    "memory_bandwidth_gb_per_s": "GB/s",
    "fp32_tflops": "TFLOPS dense",
    "bf16_tflops": "TFLOPS dense",
    "fp8_tflops": "TFLOPS dense",
    "int8_tops": "TOPS dense",
    "interconnect_gb_per_s": "GB/s",
    "board_power_watts": "W",
    "purchase_usd": "US$",
    "purchase_low_usd": "US$",
    "purchase_high_usd": "US$",
}


def add_catalogue(app: typer.Typer, environ: Mapping[str, str], catalog: "Callable[[], Catalog]") -> None:
    """Register the commands. `catalog` loads the catalogue when a command needs it."""
    room = typer.Typer(help="What is known of accelerators.", no_args_is_help=True, rich_markup_mode=None)
    app.add_typer(room, name="catalog")

    @command(room, "list", example="baseai catalog list", environ=environ)
    def list_models(call: Call) -> None:
        """List accelerator models with memory, peak, power and price. [C]: source not read again."""
        known = catalog()
        now = now_utc()
        prices = {one.model: known.price(one.model, now) for one in known.accelerators}
        if call.screen.as_json:
            items = [
                as_document(one)
                | {"price_per_hour": str(prices[one.model].per_hour), "currency": prices[one.model].currency}
                for one in known.accelerators
            ]
            call.screen.document(json.dumps({"items": items, "next": None}, ensure_ascii=False))
            return
        held = [prices[one.model] for one in known.accelerators]
        amounts = _marked_column(
            money_column([price.per_hour for price in held]), [price.source for price in held]
        )
        call.screen.table(
            [
                Column(head="MODEL"),
                Column(head="VENDOR"),
                Column(head="MEMORY GIB", right=True),
                Column(head="GB/S", right=True),
                Column(head="BF16 TFLOPS", right=True),
                Column(head="INT8 TOPS", right=True),
                Column(head="WATTS", right=True),
                Column(head="PLACEMENT"),
                Column(head="PRICE AN HOUR", right=True),
                Column(head="CURRENCY"),
            ],
            [
                (
                    one.model,
                    one.vendor,
                    _fact(one, "memory_gib") if one.memory_gib else "",
                    _fact(one, "memory_bandwidth_gb_per_s"),
                    _fact(one, "bf16_tflops"),
                    _fact(one, "int8_tops"),
                    _fact(one, "board_power_watts"),
                    one.placement.value.replace("_", " "),
                    amount,
                    prices[one.model].currency,
                )
                for one, amount in zip(known.accelerators, amounts, strict=True)
            ],
        )

    @command(room, "show", example="baseai catalog show H100-SXM", environ=environ)
    def show_model(
        call: Call,
        model: Annotated[
            str, typer.Argument(metavar="MODEL", help="A model, or a name that a spec may use.")
        ],
    ) -> None:
        """Show a model: each figure with its source, the published one beside it."""
        known = catalog()
        found = {one.model.casefold(): one for one in known.accelerators}.get(model.casefold())
        if found is None:
            matching = known.models_matching(model)
            found = known.accelerator(matching[0] if matching else model)
            for other in matching[1:]:
                call.screen.note(f"{model} is {other} as well")
        if call.screen.as_json:
            call.screen.document(json.dumps(as_document(found), ensure_ascii=False))
            return
        call.screen.say(*model_lines(found))

    @command(room, "diff", example="baseai catalog diff", environ=environ)
    def diff(call: Call) -> None:
        """Print where our published figures differ from those of maker or partner, and why."""
        known = catalog()
        rows = known.differences()
        alone = known.unconfirmed()
        if call.screen.as_json:
            both = {
                "items": [as_document(one) for one in rows],
                "unconfirmed": [as_document(one) for one in alone],
                "next": None,
            }
            call.screen.document(json.dumps(both, ensure_ascii=False))
            return
        for one in rows:
            unit = f" {one.unit}" if one.unit else ""
            call.screen.say(f"{one.kind} {one.subject}: {one.figure.replace('_', ' ')}")
            call.screen.say(
                *(
                    "  " + line
                    for line in fact_lines(
                        [
                            (
                                "ours",
                                f"{_marked(_text(one.ours) + unit, one.our_source)} — {one.our_source.title}",
                            ),
                            (
                                "theirs",
                                f"{_marked(_text(one.theirs) + unit, one.their_source)} — {one.their_source.title}",
                            ),
                            ("why", one.why),
                        ]
                    )
                )
            )
        call.screen.say(
            f"{len(rows)} differences; {len(alone)} published figures have no other source beside them"
        )


def as_document(value: object) -> Any:
    """A value of the catalogue as JSON can hold it: decimals as text, pairs of evidence as a mapping."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return {
            name: {fact: as_document(source) for fact, source in inner}
            if name in ("evidence", "why") and not isinstance(inner, str)
            else as_document(inner)
            for name, inner in fields.items()
        }
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    if isinstance(value, (tuple, list)):
        return [as_document(inner) for inner in value]
    return value


def model_lines(model: "Accelerator") -> list[str]:
    """Every sourced figure with mark and source; what was published stands under it."""
    from baseai.catalog.bounds import Bounds

    lines = [f"{model.model} ({', '.join(model.aliases)})" if model.aliases else model.model]
    facts: list[tuple[str, str]] = [("placement", model.placement.value.replace("_", " "))]
    sourced = dict(model.evidence)
    for field in dataclasses.fields(model):
        value = getattr(model, field.name)
        if field.name not in sourced or value is None or value == ():
            continue
        shown = (
            f"{value.low:,f} to {value.high:,f}, {value.default:,f} assumed"
            if isinstance(value, Bounds)
            else _text(value)
        )
        unit = f" {UNITS[field.name]}" if field.name in UNITS else ""
        facts.append(
            (
                _words(field.name),
                f"{_marked(shown + unit, sourced[field.name])} — {sourced[field.name].title}",
            )
        )
    lines += [f"  {line}" for line in fact_lines(facts)]
    if model.published is not None:
        lines.append("published by Base A.I")
        published = []
        for field in dataclasses.fields(model.published):
            value = getattr(model.published, field.name)
            if field.name == "evidence" or value is None or value == ():
                continue
            unit = f" {UNITS[field.name].removesuffix(' dense')}" if field.name in UNITS else ""
            source = model.published.source_of(field.name)
            published.append((_words(field.name), _marked(_text(value) + unit, source)))
        lines += [f"  {line}" for line in fact_lines(published)]
    return lines


def _words(name: str) -> str:
    for suffix in ("_gb_per_s", "_gib", "_tflops", "_tops", "_usd", "_watts"):
        name = name.removesuffix(suffix)
    return name.replace("_", " ")


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(str(inner) for inner in value)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return f"{value:,.10g}"
    return str(value)


def _fact(model: "Accelerator", name: str) -> str:
    value = getattr(model, name)
    return "" if value is None else _marked(_text(value), model.source_of(name))


def _marked_column(texts: Sequence[str], sources: "Sequence[Source]") -> list[str]:
    """Figures with their marks; where one has a mark the others leave its room free, so that the points line up."""
    marked = [_marked(text, source) for text, source in zip(texts, sources, strict=True)]
    if all(text == bare for text, bare in zip(marked, texts, strict=True)):
        return marked
    return [text if text != bare else f"{text}    " for text, bare in zip(marked, texts, strict=True)]


def _marked(text: str, source: "Source") -> str:
    return f"{text} [C]" if source.mark.value == "C" else text
