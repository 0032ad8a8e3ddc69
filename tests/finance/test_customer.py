"""Customers, and the tax ids by which they are known."""

import pytest

from baseai.finance.customer import Customer, cnpj_wrong, plain_cnpj, shown_cnpj


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        pytest.param("00.000.000/0001-91", None, id="digits alone"),
        pytest.param("33.000.167/0001-01", None, id="a check digit of 0"),
        pytest.param("12.ABC.345/01DE-35", None, id="letters, since July 2026"),
        pytest.param("12abc34501de35", None, id="letters may be typed small"),
        pytest.param("12.ABC.345/01DE-36", "its check digits are 35", id="a wrong check digit"),
        pytest.param("12.ABC.345/01DF-35", "its check digits are", id="a wrong letter"),
        pytest.param("00.000.000/0001-19", "its check digits are 91", id="check digits exchanged"),
        pytest.param("00.000.000/0000-00", "all zeros", id="nothing but zeros"),
        pytest.param("12.ABC.345/01DE-3A", "has not 12 letters or digits", id="letters as check digits"),
        pytest.param("33.000.167/0001", "has not 12 letters or digits", id="too short"),
        pytest.param("33.000.167/0001-0١", "has not 12 letters or digits", id="a digit of another script"),
    ],
)
def test_cnpj(text: str, wrong: str | None) -> None:
    found = cnpj_wrong(plain_cnpj(text))
    assert (found is None) if wrong is None else (found is not None and wrong in found)


def test_a_cnpj_is_shown_with_its_punctuation() -> None:
    assert shown_cnpj("12ABC34501DE35") == "12.ABC.345/01DE-35"


def customer(**said: str) -> Customer:
    facts = {
        "customer_id": "cus_1",
        "tenant_id": "ten_1",
        "legal_name": "Alfa S.A.",
        "country": "BR",
        "tax_id": "12ABC34501DE35",
        "currency": "BRL",
    }
    return Customer(**facts | said)


def test_a_customer_abroad_has_the_tax_id_of_its_country() -> None:
    assert customer(country="US", tax_id="12-3456789", currency="USD").tax_id == "12-3456789"


@pytest.mark.parametrize(
    ("said", "why"),
    [
        pytest.param({"tax_id": "12ABC34501DE36"}, "check digits are 35", id="a wrong CNPJ"),
        pytest.param({"currency": "EUR"}, "billed in BRL or USD", id="another currency"),
        pytest.param({"country": "Brazil"}, "two capital letters", id="a country by its name"),
        pytest.param({"legal_name": " "}, "legal name", id="no name"),
        pytest.param({"country": "US", "tax_id": "?"}, "tax id", id="no tax id"),
    ],
)
def test_a_customer_that_contradicts_itself_is_refused(said: dict[str, str], why: str) -> None:
    with pytest.raises(ValueError, match=f"cus_1: .*{why}"):
        customer(**said)
