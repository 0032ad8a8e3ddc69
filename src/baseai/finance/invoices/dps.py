"""A DPS is what a provider declares of a service so that the tax office makes the NFS-e of it. Ours is a draft.

Invariant: a draft is never sent from here: it is unsigned, says that it is a draft, and names the homologation
environment. What is drafted fits our own table of the layout (`dps.csv`, a subset of the national one, v1.01), or is
refused with every reason. Its amount is the invoice's total.
"""

import csv
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from xml.etree import ElementTree
from zoneinfo import ZoneInfo

from baseai.finance.customer import BRAZIL
from baseai.finance.invoices.invoice import Invoice
from baseai.finance.invoices.language import PT_BR
from baseai.finance.period import ZONE, period_named
from baseai.ground.fault import Refused

NAMESPACE = "http://www.sped.fazenda.gov.br/nfse"
LAYOUT = "1.01"
DRAFT = "RASCUNHO: sem assinatura, não transmitido, sem valor fiscal"

Tree = Mapping[str, "str | Tree"]  # elements in their order; @Id is the attribute


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One element of the layout."""

    path: str
    must: bool
    pattern: str  # of its text; empty for a group
    text: str


def dps_of(invoice: Invoice, *, version: str) -> Tree:
    """The draft of an issued invoice. Raises Refused with every reason why there can be none.

    version: what made it, as the tax office will see it.
    """
    if reasons := tuple(_against(invoice)):
        raise Refused(f"no DPS of {invoice.invoice_id or 'a draft'}: {'; '.join(reasons)}")
    issuer, customer = invoice.issuer, invoice.customer
    assert invoice.issued_at is not None
    assert invoice.number is not None
    assert issuer.city_code is not None
    assert issuer.cnpj is not None
    prest: dict[str, str | Tree] = {"CNPJ": issuer.cnpj}
    if issuer.municipal_registration is not None:
        prest["IM"] = issuer.municipal_registration
    regime = {"opSimpNac": str(issuer.simples)}
    if issuer.simples == 3:
        regime["regApTribSN"] = "1"
    prest["regTrib"] = {**regime, "regEspTrib": "0"}
    municipal = {"tribISSQN": "1", "tpRetISSQN": "1"}
    if issuer.iss_ratio is not None:
        municipal["pAliq"] = f"{issuer.iss_ratio * 100:.2f}"
    month = period_named(invoice.period)
    tree: Tree = {
        "@Id": f"DPS{issuer.city_code}2{issuer.cnpj}{issuer.dps_series:05d}{invoice.number:015d}",
        "tpAmb": "2",
        "dhEmi": invoice.issued_at.astimezone(ZoneInfo(ZONE)).isoformat(timespec="seconds"),
        "verAplic": f"baseai {version}"[:20],
        "serie": str(issuer.dps_series),
        "nDPS": str(invoice.number),
        "dCompet": f"{month}-01",
        "tpEmit": "1",
        "cLocEmi": issuer.city_code,
        "prest": prest,
        "toma": {"CNPJ": customer.tax_id, "xNome": customer.legal_name},
        "serv": {
            "locPrest": {"cLocPrestacao": issuer.city_code},
            "cServ": {
                "cTribNac": issuer.service_code,
                "xDescServ": "Processamento e armazenamento de dados em aceleradores,"
                f" competência {PT_BR.month(invoice.period)}, fatura {invoice.invoice_id}",
            },
        },
        "valores": {
            "vServPrest": {"vServ": f"{invoice.total_cents // 100}.{invoice.total_cents % 100:02d}"},
            "trib": {"tribMun": municipal, "totTrib": {"indTotTrib": "0"}},
        },
    }
    if wrong := wrong_parts(tree):
        raise Refused(f"no DPS of {invoice.invoice_id}: {'; '.join(wrong)}")
    return tree


def wrong_parts(tree: Tree) -> tuple[str, ...]:
    """What does not fit the layout: each part by its path, with what belongs there."""
    layout = load_layout()
    found: dict[str, str | Tree] = dict(_walk(tree))
    places = {part.path: place for place, part in enumerate(layout)}
    wrong = []
    for part in layout:
        group, _, _ = part.path.rpartition("/")
        if part.must and part.path not in found and (not group or group in found):
            wrong.append(f"{part.path} is missing: {part.text}")
    last = -1
    for path, value in found.items():
        place = places.get(path)
        if place is None:
            wrong.append(f"{path} is not in the layout")
            continue
        if place < last:
            wrong.append(f"{path} stands too late")
        last = max(last, place)
        part = layout[place]
        if isinstance(value, str) and not (part.pattern and re.fullmatch(part.pattern, value)):
            wrong.append(f"{path} is {value!r}: {part.text}")
        elif not isinstance(value, str) and part.pattern:
            wrong.append(f"{path} is no text: {part.text}")
    return tuple(wrong)


def document_of_dps(tree: Tree) -> dict[str, object]:
    """The draft as JSON has it."""
    return {"draft": True, "note": DRAFT, "layout": LAYOUT, "infDPS": tree}


def xml_of(tree: Tree) -> str:
    """The draft as XML, with its label as a comment."""
    root = ElementTree.Element("DPS", {"versao": LAYOUT, "xmlns": NAMESPACE})
    root.append(ElementTree.Comment(f" {DRAFT} "))
    inside = ElementTree.SubElement(root, "infDPS", {"Id": str(tree["@Id"])})
    _fill(inside, {name: value for name, value in tree.items() if name != "@Id"})
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


@cache
def load_layout() -> tuple[Part, ...]:
    """The table that is shipped."""
    text = files("baseai.finance.invoices").joinpath("dps.csv").read_text(encoding="utf-8")
    return tuple(
        Part(path=row["path"], must=row["least"] == "1", pattern=row["pattern"], text=row["text"])
        for row in csv.DictReader(io.StringIO(text))
    )


def _against(invoice: Invoice) -> Iterator[str]:
    issuer, customer = invoice.issuer, invoice.customer
    if invoice.invoice_id is None:
        yield "it has no number yet; issue it first"
    if invoice.total_cents <= 0:
        yield "it asks for nothing; what is given back is a substitution or a cancellation at the tax office"
    if invoice.currency != "BRL":
        yield f"it is in {invoice.currency}, and a DPS is in reais"
    if customer.country != BRAZIL:
        yield f"{customer.legal_name} is in {customer.country}, and facts of foreign trade are not kept here"
    elif not customer.tax_id.isdecimal():
        yield f"the layout takes CNPJs of digits only, and {customer.legal_name} has {customer.tax_id}"
    for key, value in (("cnpj", issuer.cnpj), ("city_code", issuer.city_code)):
        if value is None:
            yield f"{key} of the issuer is not known; write it into issuer.toml in the data folder"
    if issuer.cnpj is not None and not issuer.cnpj.isdecimal():
        yield f"the layout takes CNPJs of digits only, and the issuer has {issuer.cnpj}"


def _walk(tree: Tree, above: str = "") -> Iterator[tuple[str, "str | Tree"]]:
    for name, value in tree.items():
        yield above + name, value
        if not isinstance(value, str):
            yield from _walk(value, f"{above}{name}/")


def _fill(element: ElementTree.Element, tree: Tree) -> None:
    for name, value in tree.items():
        child = ElementTree.SubElement(element, name)
        if isinstance(value, str):
            child.text = value
        else:
            _fill(child, value)
