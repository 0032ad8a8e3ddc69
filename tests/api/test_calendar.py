"""The calendar's routes: who may book what, and what a refusal teaches."""

from datetime import timedelta
from typing import Any

import pytest

from baseai.ground.clock import now_utc
from tests.api.platform import Platform

pytestmark = pytest.mark.anyio


def asked(name: str = "exam", in_h: float = 48, for_h: float = 2, **more: Any) -> dict[str, Any]:
    at = now_utc() + timedelta(hours=in_h)
    return {
        "name": name, "gpu": "cpu-slot:2", "nodes": 1, "site": "local", "from_at": at.isoformat(),
        "until_at": (at + timedelta(hours=for_h)).isoformat(),
    } | more  # fmt: skip


def planned(in_h: float = 48, for_h: float = 2, **more: Any) -> dict[str, Any]:
    at = now_utc() + timedelta(hours=in_h)
    return {
        "nodes": ["one"], "why": "fans", "from_at": at.isoformat(),
        "until_at": (at + timedelta(hours=for_h)).isoformat(),
    } | more  # fmt: skip


async def test_a_tenant_reserves_looks_and_gives_back(platform: Platform) -> None:
    made = await platform.ask("POST", "/reservations", key="alpha", json=asked(take_or_pay=True))
    assert made.status_code == 201, made.text
    shown = made.json()
    assert (shown["tenant"], shown["state"], shown["kind"]) == ("alpha", "held", "take_or_pay")
    assert (shown["model"], shown["nodes"], shown["accelerators"], shown["in_use"]) == ("cpu-slot", 1, 2, 0)
    assert shown["forfeit_at"] is None
    listed = (await platform.ask("GET", "/reservations", key="alpha")).json()["items"]
    assert [one["name"] for one in listed] == ["exam"]
    assert (await platform.ask("GET", "/reservations", key="beta")).json()["items"] == []
    assert (await platform.ask("GET", "/reservations/exam", key="beta")).status_code == 404
    gone = await platform.ask("POST", "/reservations/exam/cancel", key="alpha")
    assert gone.json()["state"] == "cancelled"
    assert (await platform.ask("POST", "/reservations/exam/cancel", key="alpha")).status_code == 409
    everything = await platform.ask("GET", "/reservations", key="alpha", params={"all": True})
    assert [one["state"] for one in everything.json()["items"]] == ["cancelled"]


async def test_an_operator_reserves_for_a_tenant(platform: Platform) -> None:
    made = await platform.ask("POST", "/reservations", json=asked(tenant="beta"))
    assert made.json()["tenant"] == "beta"
    assert made.json()["forfeit_at"] is not None
    unknown = await platform.ask("POST", "/reservations", json=asked(tenant="nobody"))
    assert unknown.status_code == 404


async def test_a_repeated_request_books_once(platform: Platform) -> None:
    body, once = asked(), {"Idempotency-Key": "k1"}
    first = await platform.ask("POST", "/reservations", key="alpha", json=body, headers=once)
    again = await platform.ask("POST", "/reservations", key="alpha", json=body, headers=once)
    assert first.json()["reservation_id"] == again.json()["reservation_id"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        pytest.param(asked(nodes=2), "ask for 1 node", id="too much"),
        pytest.param(asked(gpu="H100:8"), "which has cpu-slot", id="another model"),
        pytest.param(asked(name="No Name"), "is not a name", id="no name"),
        pytest.param(asked(nodes=0), "from 1 to", id="no nodes"),
        pytest.param(asked(in_h=-2), "choose a later start", id="in the past"),
        pytest.param(asked(for_h=-1), "ends before it begins", id="the wrong way round"),
        pytest.param(asked(for_h=9000), "longer than a year", id="too long"),
        pytest.param(asked(forfeit_after="soon"), "write it like 30m", id="no duration"),
        pytest.param(
            asked(take_or_pay=True, forfeit_after="30m"), "never forfeited", id="paid for and forfeited"
        ),
        pytest.param(asked(from_at="2030-01-01T00:00"), "timezone", id="an instant without its zone"),
    ],
)
async def test_a_refused_reservation_says_what_to_change(
    platform: Platform, body: dict[str, Any], says: str
) -> None:
    refused = await platform.ask("POST", "/reservations", key="alpha", json=body)
    assert refused.status_code == 422
    assert says in refused.json()["detail"]
    assert (await platform.ask("GET", "/reservations", key="alpha")).json()["items"] == []


async def test_a_spec_that_names_no_reservation_of_its_tenant_is_refused(platform: Platform) -> None:
    await platform.ask("POST", "/reservations", key="alpha", json=asked())
    spec = "type: task\nname: job\ncommands: [x]\nreservation: {}\n"
    for key, name, status, says in (
        ("alpha", "exan", 422, "did you mean exam?"),
        ("beta", "exam", 422, "there is no reservation exam"),
        ("alpha", "exam", 201, ""),
    ):
        answer = await platform.ask(
            "POST", "/runs", key=key, json={"spec": spec.format(name), "file": "job.yaml"}
        )
        assert answer.status_code == status, answer.text
        assert says in answer.text


async def test_maintenance_is_an_operators(platform: Platform) -> None:
    assert (await platform.ask("POST", "/maintenances", key="alpha", json=planned())).status_code == 403
    assert (await platform.ask("GET", "/maintenances", key="alpha")).status_code == 403
    made = await platform.ask("POST", "/maintenances", json=planned(notice="2h"))
    assert made.status_code == 201, made.text
    shown = made.json()
    assert (shown["state"], shown["why"], shown["notice_s"], shown["site"]) == (
        "scheduled",
        "fans",
        7200,
        None,
    )
    assert [(node["node"], node["state"]) for node in shown["nodes"]] == [("one", "ready")]
    listed = (await platform.ask("GET", "/maintenances", key="viewer")).json()["items"]
    assert [one["maintenance_id"] for one in listed] == [shown["maintenance_id"]]
    later = await platform.ask("POST", "/maintenances", json=planned(in_h=60))
    page = (await platform.ask("GET", "/maintenances", params={"limit": 1})).json()
    following = (await platform.ask("GET", "/maintenances", params={"cursor": page["next"]})).json()
    assert [one["maintenance_id"] for one in following["items"]] == [later.json()["maintenance_id"]]
    assert following["next"] is None
    clash = await platform.ask("POST", "/maintenances", json=planned(in_h=49))
    assert clash.status_code == 422
    assert shown["maintenance_id"] in clash.json()["detail"]
    path = f"/maintenances/{shown['maintenance_id']}"
    assert (await platform.ask("POST", f"{path}/end")).status_code == 409
    assert (await platform.ask("POST", f"{path}/cancel")).json()["state"] == "cancelled"
    assert (await platform.ask("GET", path)).json()["ended_at"] is not None
    assert (await platform.ask("GET", "/maintenances/mnt_none")).status_code == 404


async def test_what_is_reserved_is_not_taken_down(platform: Platform) -> None:
    await platform.ask("POST", "/reservations", key="alpha", json=asked(gpu="cpu-slot:4"))
    refused = await platform.ask("POST", "/maintenances", json=planned(in_h=49))
    assert refused.status_code == 422
    assert "the reservation exam" in refused.json()["detail"]


async def test_a_run_is_extended_through_the_door(platform: Platform) -> None:
    spec = "type: task\nname: job\ncommands: [x]\nmax_duration: 2h\n"
    submitted = await platform.ask("POST", "/runs", key="alpha", json={"spec": spec, "file": "job.yaml"})
    waiting = await platform.ask("POST", "/runs/job/extend", key="alpha", json={"by": "1h"})
    assert waiting.status_code == 409, submitted.text
    assert (await platform.ask("POST", "/runs/job/extend", key="beta", json={"by": "1h"})).status_code == 404
    assert (
        await platform.ask("POST", "/runs/job/extend", key="alpha", json={"by": "long"})
    ).status_code == 422
    await platform.granted(submitted.json()["run_id"])
    longer = await platform.ask("POST", "/runs/job/extend", key="alpha", json={"by": "1h30m"})
    assert longer.status_code == 200, longer.text
    detail = (await platform.ask("GET", "/runs/job", key="alpha")).json()
    [lease] = detail["leases"]
    assert lease["ends_at"] == longer.json()["ends_at"]
