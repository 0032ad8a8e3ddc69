"""Suggested prices on a real platform's rooms: reckoned from how a month sells, applied by a person, once."""

from datetime import timedelta
from decimal import Decimal

import pytest

from baseai.catalog.catalog import load_catalog
from baseai.finance.hours.postgres import TimeLedger
from baseai.finance.period import period_of
from baseai.finance.price_list import Term
from baseai.ground.clock import hour_of, now_utc
from baseai.ground.fault import Conflict, NotFound, Refused
from baseai.truth.session import Scope, Truth
from baseai.wiring.agreements import Desk
from baseai.wiring.costing import Costing, price_held
from tests.finance.costs.assume import keeper
from tests.finance.stood import one, site

pytestmark = pytest.mark.anyio

ANA = Scope(tenant_id=None, actor="ana")


async def costing(truth: Truth) -> Costing:
    await site(truth)
    await TimeLedger(truth).close()
    return Costing(truth, await keeper(truth), Desk(truth, load_catalog()))


async def test_idle_slots_get_a_spot_price_that_somebody_applies_once(truth: Truth) -> None:
    desk = Desk(truth, load_catalog())
    ours = await costing(truth)
    told = await ours.suggest(ANA)
    (spot,) = [one for one in told["items"] if one["term"] == "spot"]
    assert (spot["rule"], spot["now_rate"]) == ("empty", None)
    assert spot["rate"] >= spot["floor_rate"]
    again = await ours.suggest(ANA)
    assert [one["suggestion_id"] for one in again["items"]] == [one["suggestion_id"] for one in told["items"]]
    assert (
        price_held(await desk.price_book(), "cpu-slot", "local", Term.SPOT, now_utc()) is None
    )  # nothing by itself
    applied = await ours.apply(spot["suggestion_id"], "list", ANA)
    assert (applied["state"], applied["settled_by"]) == ("applied", "ana")
    soon = hour_of(now_utc()) + timedelta(hours=1)
    price = price_held(await desk.price_book(), "cpu-slot", "local", Term.SPOT, soon)
    assert price is not None
    assert (price.price_id, price.valid_from, price.tiers[0].rate) == (
        applied["price_id"],
        soon,
        spot["rate"],
    )
    with pytest.raises(Conflict, match="applied already"):
        await ours.apply(spot["suggestion_id"], "list", ANA)
    with pytest.raises(NotFound):
        await ours.apply("sug_none", "list", ANA)


async def test_a_price_that_has_moved_since_is_not_overwritten(truth: Truth) -> None:
    ours = await costing(truth)
    desk = Desk(truth, load_catalog())
    (spot,) = [one for one in (await ours.suggest(ANA))["items"] if one["term"] == "spot"]
    sheet = "model,term,currency,rate,valid_from\ncpu-slot,spot,USD,0.02,2026-01-01T00:00:00Z\n"
    await desk.add_prices("list", sheet, "mine.csv", actor="bia")
    with pytest.raises(Conflict, match="reckons it anew"):
        await ours.apply(spot["suggestion_id"], "list", ANA)
    declined = await ours.decline(spot["suggestion_id"], ANA)
    assert declined["state"] == "declined"
    with pytest.raises(Conflict, match="settled already"):
        await ours.decline(spot["suggestion_id"], ANA)


async def test_a_newer_suggestion_takes_the_place_of_the_older_one(truth: Truth) -> None:
    ours = await costing(truth)
    (first,) = [one for one in (await ours.suggest(ANA))["items"] if one["term"] == "spot"]
    said = {
        "subject": "site:local", "name": "pue_ratio", "low": Decimal("1.1"), "default": Decimal("2.9"),
        "high": Decimal(3), "currency": None, "source": "meter", "source_on": None, "mark": "A", "valid_from": None,
    }  # fmt: skip
    await ours.record(said, ANA)
    (second,) = [one for one in (await ours.suggest(ANA))["items"] if one["term"] == "spot"]
    assert second["floor_rate"] > first["floor_rate"]
    states = {one["suggestion_id"]: one["state"] for one in await ours.suggestions(None)}
    assert states[first["suggestion_id"]] == "superseded"
    assert states[second["suggestion_id"]] == "proposed"
    with pytest.raises(Refused, match="pue_ratio"):
        await ours.record(said | {"default": Decimal(9), "high": Decimal(9)}, ANA)


async def test_economics_are_asked_by_name_and_wrong_names_are_told_with_the_right_ones(truth: Truth) -> None:
    ours = await costing(truth)
    month = str(period_of(await one(truth, "SELECT min(hour) FROM time_buckets")))
    asked = {"by": "model", "case": "default", "currency": "USD", "simulated": False, "taxes": None}
    told = await ours.economics(month, **asked)
    (row,) = [one for one in told["rows"] if one["part"] == "subject"]
    assert row["subject"] == "cpu-slot"
    assert row["depreciation"] > 0
    taxed = await ours.economics(month, **(asked | {"taxes": "redata_icms"}))
    assert taxed["total"]["capital_recovery"] < told["total"]["capital_recovery"]
    before = now_utc()
    unnamed = await ours.economics(None, **asked)  # is of this month
    assert unnamed["period"] in {str(period_of(before)), str(period_of(now_utc()))}
    for wrong in ({"by": "colour"}, {"case": "best"}, {"currency": "EUR"}):
        with pytest.raises(Refused, match="it is one of"):
            await ours.economics(None, **(asked | wrong))
    with pytest.raises(NotFound):
        await ours.economics(None, **(asked | {"taxes": "none"}))
    hours, more = await ours.behind(
        month, "available", by="model", subject="cpu-slot", simulated=False, limit=3, cursor=None
    )
    assert len(hours) == 3
    assert more is not None
    assert all(one["serial"] for one in hours)
