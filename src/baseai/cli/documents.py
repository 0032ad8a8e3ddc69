"""The commands around documents: books invoice, books export, and the check of an export.

Invariant: an export lands in a folder whole or not at all, and never over files that are there; a check needs no
platform, because whoever gets such files must be able to check them alone.
"""

import io
import json
import os
import re
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from baseai.cli.call import OTHERWISE, Call, command, segment
from baseai.cli.column import Column, figure, money_text, plain
from baseai.cli.http import Declined
from baseai.ground.fault import Refused

if TYPE_CHECKING:
    from baseai.api.schemas import InvoiceView

EXPORT_WAIT_S = 600.0  # a month of a large fleet


def add_documents(books: typer.Typer, environ: Mapping[str, str]) -> None:
    """Register the commands below `books`."""

    @command(books, "invoice", example="baseai books invoice alfa 2026-11", environ=environ)
    def invoice(
        call: Call,
        customer: Annotated[
            str, typer.Argument(metavar="CUSTOMER", help="By id, tenant, legal name or tax id.")
        ],
        period: Annotated[str, typer.Argument(metavar="PERIOD", help="A month, like 2026-11.")],
        issue: Annotated[bool, typer.Option("--issue", help="Number it, and ask for the money.")] = False,
        pdf: Annotated[Path | None, typer.Option("--pdf", metavar="FILE", help="Write it as PDF.")] = None,
        html: Annotated[
            Path | None, typer.Option("--html", metavar="FILE", help="Write it as a page.")
        ] = None,
        dps: Annotated[
            Path | None,
            typer.Option("--dps", metavar="FILE", help="Write the draft of its DPS; XML for a name in .xml."),
        ] = None,
        number: Annotated[
            str | None, typer.Option("--number", help="Of several documents, this one, like A-000123.")
        ] = None,
        lang: Annotated[str, typer.Option("--lang", help="pt-BR or en.")] = "pt-BR",
    ) -> None:
        """Print what a customer is asked for a month: issued documents, and a draft of what is not billed yet."""
        from baseai.api.schemas import InvoiceView

        if issue:
            call.platform.post("/invoices", {"customer": customer, "period": period})
        asked = {"customer": customer, "period": period}
        issued, _ = call.platform.get("/invoices", **asked).items(InvoiceView)
        try:
            drafts, _ = call.platform.get("/invoices/draft", **asked).items(InvoiceView)
        except Declined as wrong:  # no rate of exchange for what is not billed yet, say
            if not issued:
                raise
            drafts = []
            call.screen.note(f"baseai: no draft of what is not billed yet: {wrong}")
        found = [one for one in (*reversed(issued), *drafts) if number in (None, one.invoice_id)]
        forms = [("pdf", pdf), ("html", html), ("dps.xml" if dps and dps.suffix == ".xml" else "dps", dps)]
        for form, file in forms:
            if file is not None:
                _write(call, found, file, form=form, lang=lang, **asked)
        if call.screen.as_json:
            call.screen.document(json.dumps({"items": [one.model_dump(mode="json") for one in found]}))
            return
        for one in found:
            _say(call, one)
        if not found:
            call.screen.note(
                f"baseai: nothing of {period} is billed to {plain(customer)}, and nothing is to be"
            )

    @command(books, "export", example="baseai books export --focus out --period 2026-11", environ=environ)
    def export(
        call: Call,
        focus: Annotated[
            Path | None, typer.Option("--focus", metavar="DIR", help="A month as FOCUS 1.4.")
        ] = None,
        beancount: Annotated[
            Path | None, typer.Option("--beancount", metavar="DIR", help="The books as beancount text.")
        ] = None,
        sheets: Annotated[
            Path | None, typer.Option("--csv", metavar="DIR", help="Transfers and rated lines as sheets.")
        ] = None,
        period: Annotated[
            str | None,
            typer.Option("--period", help="A month, like 2026-11; books: through it, or up to now."),
        ] = None,
        parquet: Annotated[bool, typer.Option("--parquet", help="FOCUS as Parquet too.")] = False,
    ) -> None:
        """Write the books into new or empty folders, in forms that other tools read."""
        folders = [("focus", focus), ("beancount", beancount), ("csv", sheets)]
        chosen = [(form, folder) for form, folder in folders if folder is not None]
        if not chosen:
            raise Refused("say what to export: --focus DIR, --beancount DIR or --csv DIR")
        if focus is not None and period is None:
            raise Refused("FOCUS is of one month; say which: --period 2026-11")
        if parquet and focus is None:
            raise Refused("--parquet goes with --focus")
        done = {}
        for form, folder in chosen:
            asked: dict[str, object] = {"period": period}
            if form == "focus":
                asked["parquet"] = parquet or None
            done[form] = {"folder": str(folder), "files": _export(call, folder, form, asked)}
        if call.screen.as_json:
            call.screen.document(json.dumps(done))
            return
        for form, one in done.items():
            call.screen.say(f"{', '.join(one['files'])} in {plain(str(one['folder']))}")
            if form == "focus":
                call.screen.note(f"`baseai books check --focus {plain(str(one['folder']))}` checks them")


def check_focus(call: Call, folder: Path) -> int:
    """Hold the FOCUS files of a folder to the rules; print what is wrong. 1 when a rule that must hold does not."""
    from baseai.finance.focus.check import check
    from baseai.finance.focus.rule import Dataset

    if not folder.is_dir():
        raise Refused(f"{folder} is no folder")
    with ExitStack() as open_files:
        there = {
            dataset: open_files.enter_context((folder / dataset.file).open(encoding="utf-8-sig", newline=""))
            for dataset in Dataset
            if (folder / dataset.file).is_file()
        }
        try:
            report = check(there)
        except UnicodeDecodeError as wrong:
            raise Refused(f"a file in {folder} is not UTF-8: {wrong}") from wrong
    if call.screen.as_json:
        shown = [
            {
                "file": one.file,
                "line": one.line,
                "column": one.column,
                "rule": one.rule_id,
                "must": one.must,
                "sentence": one.sentence,
            }
            for one in report.findings
        ]
        call.screen.document(
            json.dumps(
                {
                    "passes": report.passes,
                    "rows": dict(report.rows),
                    "findings": shown,
                    "counts": dict(report.counts),
                }
            )
        )
        return 0 if report.passes else OTHERWISE
    for one in report.findings:
        call.screen.say(plain(f"{one}" if one.must else f"{one} (advised)"))
    rows = ", ".join(f"{name} {count:,}" for name, count in report.rows.items())
    call.screen.say(f"{'passes' if report.passes else 'fails'}: {rows or 'no rows'}")
    return 0 if report.passes else OTHERWISE


def _write(
    call: Call,
    found: "Sequence[InvoiceView]",
    file: Path,
    *,
    form: str,
    lang: str,
    customer: str,
    period: str,
) -> None:
    """Write the one document there is into a file. Raises Refused for none, and for more than one."""
    if len(found) != 1:
        names = ", ".join(one.invoice_id or "a draft" for one in found) or "none"
        raise Refused(
            f"{file.name} takes one document and there are {len(found)} of {period}: {names}; choose by --number"
        )
    invoice_id = found[0].invoice_id
    if invoice_id is None:
        asked = {"customer": customer, "period": period, "as": form, "lang": lang}
        answer = call.platform.get("/invoices/draft", **asked)
    else:
        answer = call.platform.get(f"/invoices/{segment(invoice_id)}", **{"as": form, "lang": lang})
    try:
        file.write_bytes(answer.body)
    except OSError as wrong:
        raise Refused(f"{file} cannot be written: {wrong.strerror or wrong}") from wrong


def _export(call: Call, folder: Path, form: str, asked: Mapping[str, object]) -> list[str]:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Refused(f"{folder} is not an empty folder; nothing in it is overwritten")
    answer = call.platform.send("GET", f"/exports/{form}", query=asked, wait_s=EXPORT_WAIT_S)
    try:
        with zipfile.ZipFile(io.BytesIO(answer.body)) as packed:
            names = packed.namelist()
            if not all(re.fullmatch(r"\w+\.\w+", name) for name in names):
                raise Refused("the archive names files outside of its folder; nothing was written")
            folder.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".export-") as coming:
                packed.extractall(coming)
                folder.mkdir(exist_ok=True)
                for name in names:
                    os.replace(Path(coming) / name, folder / name)
    except zipfile.BadZipFile as wrong:
        raise Refused("the answer is not an archive; is the server of another version?") from wrong
    except OSError as wrong:
        raise Refused(f"{folder} cannot be written: {wrong.strerror or wrong}") from wrong
    return names


def _say(call: Call, one: "InvoiceView") -> None:
    name = one.invoice_id or "draft"
    call.screen.say(
        f"{one.kind.replace('_', ' ')} {name} of {one.period} for {plain(one.customer['legal_name'])}"
        + (f", to {one.corrects}" if one.corrects else "")
    )
    call.screen.table(
        [
            Column(head="LINE", right=True),
            Column(head="WHAT"),
            Column(head="QUANTITY", right=True),
            Column(head="UNIT PRICE", right=True),
            Column(head="AMOUNT", right=True),
            Column(head="CURRENCY"),
        ],
        [
            (
                str(line.line_no),
                f"{line.model or line.meter} {line.category.replace('_', ' ')}",
                "" if line.quantity is None else figure(line.quantity, digits=6),
                "" if line.unit_price is None else f"{line.unit_price} {line.currency}",
                f"{line.amount:.2f}",
                one.currency,
            )
            for line in one.lines
        ],
    )
    due = f", due on {one.due_on}" if one.due_on else ""
    call.screen.say(f"total {money_text(one.total)} {one.currency}{due}")
