"""A DPS draft fits the layout, says that it is a draft, and is refused with every reason where it cannot be."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import pytest

from baseai.finance.invoices.dps import (
    DRAFT,
    NAMESPACE,
    document_of_dps,
    dps_of,
    load_layout,
    wrong_parts,
    xml_of,
)
from baseai.finance.invoices.invoice import Invoice
from baseai.finance.invoices.issuer import Issuer
from baseai.ground.fault import Refused
from tests.finance.paper import billed, customer, full_month, issue

VERSION = "0.4"


def invoice(**said: Any) -> Invoice:
    (draft, _) = issue(billed(full_month(), originals={"rl_old": "A-000000"}), number=42)
    payer = replace(customer(), tax_id="11444777000161")
    return replace(draft.invoice, **{"customer": payer, **said})


def test_a_draft_says_what_the_invoice_says() -> None:
    tree = dps_of(invoice(), version=VERSION)
    assert tree["@Id"] == "DPS3550308211222333000181" + "00001" + "000000000000042"
    assert len(str(tree["@Id"])) == 45
    assert (tree["nDPS"], tree["dCompet"], tree["tpAmb"]) == ("42", "2026-11-01", "2")
    assert tree["dhEmi"] == "2026-12-01T09:00:00-03:00"
    assert tree["valores"]["vServPrest"] == {"vServ": "3044.49"}  # type: ignore[index]
    assert wrong_parts(tree) == ()
    assert document_of_dps(tree)["draft"] is True


def test_the_xml_is_the_same_tree_in_order_and_bears_its_label() -> None:
    tree = dps_of(invoice(), version=VERSION)
    text = xml_of(tree)
    assert DRAFT in text.splitlines()[2]
    root = ElementTree.fromstring(text)
    assert root.tag == f"{{{NAMESPACE}}}DPS"
    paths: list[str] = []

    def walk(element: ElementTree.Element, above: str) -> None:
        for child in element:
            path = above + child.tag.removeprefix(f"{{{NAMESPACE}}}")
            paths.append(path)
            walk(child, path + "/")

    walk(root[0], "")
    layout = [part.path for part in load_layout()]
    assert paths == [path for path in layout if path in paths]
    assert root[0].get("Id") == tree["@Id"]
    assert "Signature" not in text


@pytest.mark.parametrize(
    ("change", "why"),
    [
        pytest.param({"currency": "USD"}, "is in USD, and a DPS is in reais", id="not in reais"),
        pytest.param({"series": None, "number": None}, "issue it first", id="not issued"),
        pytest.param(
            {"customer": customer()}, "CNPJs of digits only, and Alfa S.A. has 12ABC34501DE35", id="letters"
        ),
        pytest.param(
            {"customer": customer(country="US", tax_id="12-3456789")}, "Alfa S.A. is in US", id="an export"
        ),
        pytest.param({"issuer": Issuer()}, "cnpj of the issuer is not known; write it into", id="nobody's"),
        pytest.param({"lines": ()}, "asks for nothing", id="nothing asked"),
    ],
)
def test_what_has_no_dps_says_why(change: dict[str, Any], why: str) -> None:
    with pytest.raises(Refused, match="no DPS of") as refused:
        dps_of(invoice(**change), version=VERSION)
    assert why in str(refused.value)


def test_every_reason_is_given_at_once() -> None:
    with pytest.raises(Refused) as refused:
        dps_of(invoice(issuer=Issuer(), currency="USD"), version=VERSION)
    assert str(refused.value).count(";") >= 3


def broken(change: Callable[[dict[str, Any]], object]) -> tuple[str, ...]:
    tree: dict[str, Any] = dict(dps_of(invoice(), version=VERSION))
    change(tree)
    return wrong_parts(tree)


@pytest.mark.parametrize(
    ("change", "path"),
    [
        pytest.param(lambda t: t.pop("cLocEmi"), "cLocEmi is missing", id="missing"),
        pytest.param(lambda t: t.update(tpAmb="3"), "tpAmb is '3'", id="another value"),
        pytest.param(lambda t: t.update(note="x"), "note is not in the layout", id="not of the layout"),
        pytest.param(lambda t: t.update(tpAmb=t.pop("tpAmb")), "tpAmb stands too late", id="order"),
        pytest.param(
            lambda t: t.update(valores={**t["valores"], "vServPrest": {"vServ": "1,00"}}),
            "valores/vServPrest/vServ is '1,00'",
            id="a comma",
        ),
        pytest.param(
            lambda t: t.update(prest={"CNPJ": "11222333000181"}), "prest/regTrib is missing", id="in a group"
        ),
    ],
)
def test_what_does_not_fit_the_layout_is_named_by_its_path(
    change: Callable[[Any], object], path: str
) -> None:
    found = broken(change)
    assert any(path in sentence for sentence in found), found
