"""Services over REST: seen by whose they are, with what they were asked and what that cost."""

import pytest

from tests.api.platform import Platform
from tests.views.services import add_service

pytestmark = pytest.mark.anyio


async def owners(platform: Platform) -> dict[str, tuple[str, str]]:
    rows = await platform.rows(
        "SELECT t.name, tenant_id, project_id FROM tenants t JOIN projects p USING (tenant_id)"
    )
    return {row["name"]: (row["tenant_id"], row["project_id"]) for row in rows}


async def test_each_lists_the_services_of_its_tenant(platform: Platform) -> None:
    of = await owners(platform)
    async with platform.truth.transaction() as session:
        await add_service(session, *of["alpha"], "magika")
        await add_service(session, *of["beta"], "magika")
        await add_service(session, *of["beta"], "old", state="stopped", stopped_at="now")
    seen = {
        key: [
            (one["tenant"], one["name"])
            for one in (await platform.ask("GET", "/services", key=key)).json()["items"]
        ]
        for key in ("alpha", "beta", "operator")
    }
    assert seen == {
        "alpha": [("alpha", "magika")],
        "beta": [("beta", "magika")],
        "operator": [("beta", "magika"), ("alpha", "magika")],
    }
    everything = (await platform.ask("GET", "/services?all=true", key="beta")).json()["items"]
    assert {one["name"] for one in everything} == {"magika", "old"}
    assert (await platform.ask("GET", "/services", key="viewer")).status_code == 403
