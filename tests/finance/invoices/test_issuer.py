"""What an operator says of the issuer, and how a mistake in it is named."""

from decimal import Decimal

import pytest

from baseai.finance.invoices.issuer import Issuer, issuer_of
from baseai.ground.fault import Refused

WHOLE = """
name = "Base A.I Infraestrutura S.A."
cnpj = "11.222.333/0001-81"
municipal_registration = "12345678"
city_code = "3550308"
address = ["Av. Paulista 1000", "São Paulo SP"]
days_to_pay = 15
iss_ratio = 0.029
"""


def test_an_issuer_is_read_from_its_file() -> None:
    issuer = issuer_of(WHOLE, "issuer.toml")
    assert (issuer.cnpj, issuer.days_to_pay, issuer.iss_ratio) == ("11222333000181", 15, Decimal("0.029"))
    assert issuer.address == ("Av. Paulista 1000", "São Paulo SP")
    assert issuer_of("", "issuer.toml") == Issuer()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        pytest.param('nome = "x"', "nome is not known; there are address, brand", id="an unknown key"),
        pytest.param('cnpj = "11.222.333/0001-82"', "its check digits are 81", id="check digits"),
        pytest.param("name = 3", "name = 3 is not of the kind", id="another kind"),
        pytest.param('series = "a-b"', "series: 'a-b' is not 1 to 5 capital letters", id="a series"),
        pytest.param('credit_series = "A"', "series of their own", id="one series for both"),
        pytest.param("iss_ratio = 0.29", "iss_ratio: 0.29 is not 0.02 to 0.05", id="a rate that no law has"),
        pytest.param("name = ", "issuer.toml: ", id="no TOML"),
    ],
)
def test_a_mistake_is_named_by_file_and_key(text: str, why: str) -> None:
    with pytest.raises(Refused, match=r"issuer\.toml") as refused:
        issuer_of(text, "issuer.toml")
    assert why in str(refused.value)
