"""An issuer is the company in whose name documents are written.

Invariant: what an issuer says of itself comes from one file of the operator's, or is the default, which has a name and
no tax id: invoices can be written then, a draft for the tax office cannot. Every mistake is named by its key.
"""

import re
import tomllib
from dataclasses import dataclass, fields
from decimal import Decimal

from baseai.finance.customer import cnpj_wrong, plain_cnpj
from baseai.ground.fault import Refused

FILE = "issuer.toml"
SERIES = re.compile(r"[A-Z0-9]{1,5}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """Who asks for money."""

    name: str = "Base A.I"
    brand: str = "Base A.I"  # what the service is called
    cnpj: str | None = None  # plain
    municipal_registration: str | None = None
    city_code: str | None = None  # of the municipality, 7 digits of the IBGE
    address: tuple[str, ...] = ()  # lines
    series: str = "A"  # of invoices and supplements
    credit_series: str = "C"  # of credit notes
    days_to_pay: int = 30
    service_code: str = "010301"  # national taxation code: item 1.03 of the list of services
    dps_series: int = 1
    simples: int = 1  # opSimpNac: 1 not in it, 2 MEI, 3 ME or EPP
    iss_ratio: Decimal | None = None  # only where the law wants it said

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise ValueError("name: an issuer has a name")
        if self.cnpj is not None and (wrong := cnpj_wrong(self.cnpj)) is not None:
            raise ValueError(f"cnpj: {wrong}")
        if self.city_code is not None and not re.fullmatch(r"\d{7}", self.city_code):
            raise ValueError(f"city_code: {self.city_code!r} is not the 7 digits of the IBGE")
        if not re.fullmatch(r"\d{6}", self.service_code):
            raise ValueError(f"service_code: {self.service_code!r} has not 6 digits")
        for key in ("series", "credit_series"):
            if not SERIES.fullmatch(getattr(self, key)):
                raise ValueError(f"{key}: {getattr(self, key)!r} is not 1 to 5 capital letters or digits")
        if self.series == self.credit_series:
            raise ValueError("credit_series: credit notes have a series of their own")
        if not 0 <= self.days_to_pay <= 365:
            raise ValueError(f"days_to_pay: {self.days_to_pay} is not 0 to 365")
        if not 1 <= self.dps_series <= 49_999:
            raise ValueError(f"dps_series: {self.dps_series} is not 1 to 49999")
        if self.simples not in (1, 2, 3):
            raise ValueError(f"simples: {self.simples} is not 1, 2 or 3")
        if self.iss_ratio is not None and not Decimal("0.02") <= self.iss_ratio <= Decimal("0.05"):
            raise ValueError(f"iss_ratio: {self.iss_ratio} is not 0.02 to 0.05")


def issuer_of(text: str, file: str) -> Issuer:
    """The issuer that a TOML file describes. Raises Refused, which names file and key."""
    try:
        said = tomllib.loads(text, parse_float=Decimal)
    except tomllib.TOMLDecodeError as wrong:
        raise Refused(f"{file}: {wrong}") from wrong
    known = {field.name for field in fields(Issuer)}
    if unknown := sorted(said.keys() - known):
        raise Refused(f"{file}: {unknown[0]} is not known; there are {', '.join(sorted(known))}")
    for key, value in said.items():
        wanted: tuple[type, ...] = (str,)
        if key in ("days_to_pay", "dps_series", "simples"):
            wanted = (int,)
        elif key == "iss_ratio":
            wanted = (Decimal, int)
        elif key == "address":
            wanted = (list,)
        if not isinstance(value, wanted) or isinstance(value, bool):
            raise Refused(f"{file}: {key} = {value!r} is not of the kind that belongs there")
    if "cnpj" in said:
        said["cnpj"] = plain_cnpj(said["cnpj"])
    if "address" in said:
        said["address"] = tuple(str(line) for line in said["address"])
    if "iss_ratio" in said:
        said["iss_ratio"] = Decimal(said["iss_ratio"])
    try:
        return Issuer(**said)
    except ValueError as wrong:
        raise Refused(f"{file}: {wrong}") from wrong
