"""What was agreed, over REST: who may, what is refused and how it is said."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.api.platform import Platform

pytestmark = pytest.mark.anyio

ALPHA = {"tenant": "alpha", "legal_name": "Alfa S.A.", "tax_id": "12.ABC.345/01DE-35"}
RESERVED = {
    "name": "alfa-2026",
    "tenant": "alpha",
    "term": "reserved",
    "currency": "USD",
    "from_at": "2026-12-01T00:00:00-03:00",
    "months": 12,
    "commitments": [{"model": "H100-SXM", "count": 16, "site": "sp4"}],
    "promise": [{"below": "0.999", "credit": "0.05"}],
}
SHEET = """model,site,term,currency,rate,tiers,peaks,valid_from,valid_until
H100-SXM,,on_demand,USD,,0:3.85 5000:3.20,America/Sao_Paulo 1-5 09:00-18:00 x1.25,2026-12-01,
H100-SXM,sp4,reserved,USD,2.24,,,2026-12-01,2027-12-01
"""


async def test_a_customer_is_added_once_with_a_tax_id_that_is_right(platform: Platform) -> None:
    wrong = await platform.ask("POST", "/customers", json=ALPHA | {"tax_id": "12.ABC.345/01DE-36"})
    assert (wrong.status_code, wrong.json()["detail"]) == (
        422,
        "customer Alfa S.A.: CNPJ 12.ABC.345/01DE-36 ends in 36, its check digits are 35",
    )
    made = await platform.ask("POST", "/customers", json=ALPHA)
    assert (made.status_code, made.json()["tax_id"], made.json()["currency"]) == (
        201,
        "12ABC34501DE35",
        "BRL",
    )
    assert (await platform.ask("POST", "/customers", json=ALPHA)).status_code == 409
    assert (await platform.ask("POST", "/customers", json=ALPHA | {"tenant": "nobody"})).status_code == 404


async def test_the_same_idempotency_key_with_another_body_is_refused(platform: Platform) -> None:
    headers = {"Idempotency-Key": "k1"}
    first = await platform.ask("POST", "/customers", json=ALPHA, headers=headers)
    again = await platform.ask("POST", "/customers", json=ALPHA, headers=headers)
    assert (first.status_code, again.json()) == (201, first.json())
    other = await platform.ask("POST", "/customers", json=ALPHA | {"tenant": "beta"}, headers=headers)
    assert other.status_code == 422


async def test_a_contract_that_overlaps_another_is_refused_by_both_names(platform: Platform) -> None:
    early = await platform.ask("POST", "/contracts", json=RESERVED)
    assert (early.status_code, "has no customer yet" in early.json()["detail"]) == (422, True)
    await platform.ask("POST", "/customers", json=ALPHA)
    made = await platform.ask("POST", "/contracts", json=RESERVED)
    assert (made.status_code, made.json()["until_at"]) == (201, "2027-12-01T03:00:00Z")
    other = await platform.ask("POST", "/contracts", json=RESERVED | {"name": "beta-2027", "months": 6})
    assert other.status_code == 409
    assert "alfa-2026 and beta-2027 overlap" in other.json()["detail"]
    short = await platform.ask("POST", "/contracts", json=RESERVED | {"name": "short", "months": 5})
    assert (short.status_code, "lasts 6 to 36 whole months" in short.json()["detail"]) == (422, True)


async def test_a_contract_is_ended_once_and_another_may_follow(platform: Platform) -> None:
    await platform.ask("POST", "/customers", json=ALPHA)
    await platform.ask("POST", "/contracts", json=RESERVED)
    end = {"at": "2027-03-01T00:00:00-03:00", "reason": "by mutual consent"}
    assert (await platform.ask("POST", "/contracts/alfa-2026/end", json=end)).status_code == 200
    assert (await platform.ask("POST", "/contracts/alfa-2026/end", json=end)).status_code == 409
    next_one = RESERVED | {"name": "alfa-2027", "from_at": end["at"]}
    assert (await platform.ask("POST", "/contracts", json=next_one)).status_code == 201


async def test_a_tenant_sees_its_own_contracts_and_nobody_elses(platform: Platform) -> None:
    await platform.ask("POST", "/customers", json=ALPHA)
    await platform.ask("POST", "/contracts", json=RESERVED)
    own, other = [
        (await platform.ask("GET", "/contracts", key=key)).json()["items"] for key in ("alpha", "beta")
    ]
    assert ([one["name"] for one in own], other) == (["alfa-2026"], [])


async def test_a_sheet_is_taken_in_whole_and_once(platform: Platform) -> None:
    body = {"csv": SHEET, "file": "december.csv"}
    assert (await platform.ask("POST", "/prices", json=body)).json() == {"new": 2}
    assert (await platform.ask("POST", "/prices", json=body)).json() == {"new": 0}
    items = (await platform.ask("GET", "/prices?list=list")).json()["items"]
    assert [(one["term"], one["site"], len(one["tiers"])) for one in items] == [
        ("reserved", "sp4", 1),
        ("on_demand", None, 2),
    ]
    assert items[1]["peaks"] == ["America/Sao_Paulo 1-5 09:00-18:00 x1.25"]
    everything = (await platform.ask("GET", "/prices")).json()["items"]
    assert {"list", "catalogue"} == {one["list"] for one in everything}


async def test_a_new_price_closes_the_open_one_and_a_gap_is_refused(platform: Platform) -> None:
    head = "model,term,currency,rate,valid_from,valid_until\n"
    await platform.ask("POST", "/prices", json={"csv": head + "H100-SXM,on_demand,USD,3.85,2026-12-01,\n"})
    later = head + "H100-SXM,on_demand,USD,3.50,2027-01-01,2027-02-01\n"
    assert (await platform.ask("POST", "/prices", json={"csv": later})).json() == {"new": 1}
    first, second = (await platform.ask("GET", "/prices?list=list")).json()["items"]
    assert first["valid_until"] == second["valid_from"] == "2027-01-01T03:00:00Z"
    gap = await platform.ask("POST", "/prices", json={"csv": head + "H100-SXM,on_demand,USD,3,2027-03-01,\n"})
    assert gap.status_code == 409
    assert f"a gap between {second['price_id']} and pri_" in gap.json()["detail"]


async def test_every_mistake_of_a_sheet_is_told_with_its_place(platform: Platform) -> None:
    sheet = "model,term,currency,rate,valid_from\nH100-SXM,ondemand,USD,3,2026-12-01\nH100-SXM,spot,USD,3.x,soon\n"
    answer = await platform.ask("POST", "/prices", json={"csv": sheet, "file": "december.csv"})
    assert answer.status_code == 422
    places = [(e["line"], e["column"], e["key"]) for e in answer.json()["errors"]]
    assert places == [(2, 2, "term"), (3, 4, "rate"), (3, 5, "valid_from")]
    assert (await platform.ask("GET", "/prices?list=list")).json()["items"] == []


async def test_usage_that_contradicts_what_is_known_is_a_conflict(platform: Platform) -> None:
    (row,) = await platform.rows(
        "SELECT p.project_id, p.tenant_id FROM projects p JOIN tenants t USING (tenant_id) WHERE t.name = 'alpha'"
    )
    now = datetime.now(UTC).isoformat()
    event: dict[str, Any] = {
        **row, "source": "gateway", "event_id": "e1", "meter": "tokens_out", "quantity": 10, "unit": "tokens",
        "from_at": now, "until_at": now, "model": "llama",
    }  # fmt: skip
    taken = await platform.ask("POST", "/usage-events", json={"events": [event]})
    assert (taken.status_code, taken.json()) == (200, {"new": 1, "repeated": 0})
    again = await platform.ask("POST", "/usage-events", json={"events": [event]})
    assert (again.status_code, again.json()) == (200, {"new": 0, "repeated": 1})
    other = [event | {"event_id": "e2"}, event | {"quantity": 11}]
    assert (await platform.ask("POST", "/usage-events", json={"events": other})).status_code == 409
    old = event | {"event_id": "e3", "from_at": (datetime.now(UTC) - timedelta(days=9)).isoformat()}
    assert (await platform.ask("POST", "/usage-events", json={"events": [old]})).status_code == 422
    assert len(await platform.rows("SELECT FROM usage_events")) == 1


async def test_a_rate_that_nobody_asked_for_is_not_made_up(platform: Platform) -> None:
    answer = await platform.ask("GET", "/fx/2026-11-25")
    assert answer.status_code == 409
    assert "the bulletin of 2026-11-24 is not known" in answer.json()["detail"]
