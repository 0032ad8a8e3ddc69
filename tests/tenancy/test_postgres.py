"""Tenancy on a real PostgreSQL: what is stored opens nothing by itself."""

from datetime import timedelta

import pytest

from baseai.ground.fault import Conflict, NotFound, Refused
from baseai.tenancy import postgres as shell
from baseai.tenancy.key import NotAdmitted
from baseai.tenancy.postgres import Tenancy
from baseai.tenancy.role import Role
from baseai.tenancy.secret import SecretUnreadable
from baseai.truth.session import Scope, Truth, fetch_all

pytestmark = pytest.mark.anyio

ALL = Scope(tenant_id=None, actor="test")


@pytest.fixture
def tenancy(truth: Truth) -> Tenancy:
    return Tenancy(truth, pepper=b"p" * 32, master=b"m" * 32)


async def table(truth: Truth, name: str) -> list[dict[str, object]]:
    async with truth.transaction(ALL) as session:
        return await fetch_all(session, f"SELECT * FROM {name}")


async def test_a_stolen_table_of_keys_opens_nothing(tenancy: Tenancy, truth: Truth) -> None:
    made = await tenancy.make_key("op", Role.OPERATOR, actor="test")
    [row] = await table(truth, "api_keys")
    assert made["secret"].encode() not in bytes(row["hash"])
    with pytest.raises(NotAdmitted):
        await tenancy.holder(bytes(row["hash"]).hex())
    with pytest.raises(NotAdmitted):
        await Tenancy(truth, pepper=b"q" * 32, master=b"m" * 32).holder(made["secret"])
    assert (await tenancy.holder(made["secret"])).role is Role.OPERATOR


async def test_revoking_a_key_ends_its_sessions_and_links(tenancy: Tenancy) -> None:
    made = await tenancy.make_key("op", Role.OPERATOR, actor="test")
    session = await tenancy.use_link(await tenancy.make_link(made["key_id"]))
    link = await tenancy.make_link(made["key_id"])
    await tenancy.revoke_key(made["key_id"], actor="test")
    with pytest.raises(NotAdmitted):
        await tenancy.session_holder(session)
    with pytest.raises(NotAdmitted):
        await tenancy.use_link(link)


async def test_an_expired_key_opens_nothing_any_more(tenancy: Tenancy, truth: Truth) -> None:
    made = await tenancy.make_key("op", Role.OPERATOR, actor="test", expires_in=timedelta(hours=1))
    assert (await tenancy.holder(made["secret"])).expires_at == made["expires_at"]
    session = await tenancy.use_link(await tenancy.make_link(made["key_id"]))
    link = await tenancy.make_link(made["key_id"])
    async with truth.transaction(ALL) as open_session:
        await open_session.execute("UPDATE api_keys SET expires_at = now()")
    for asked in (
        tenancy.holder(made["secret"]),
        tenancy.session_holder(session),
        tenancy.use_link(link),
    ):
        with pytest.raises(NotAdmitted):
            await asked


async def test_a_key_is_made_for_less_and_says_so(tenancy: Tenancy) -> None:
    await tenancy.make_tenant("a", actor="test")
    made = await tenancy.make_key(
        "ci",
        Role.CUSTOMER,
        actor="test",
        tenant="a",
        scopes=("service:chat", "call", "call"),
        requests_per_minute=600,
        tokens_per_minute=100_000,
    )
    holder = await tenancy.holder(made["secret"])
    assert (holder.scopes, holder.requests_per_minute, holder.tokens_per_minute) == (
        ("call", "service:chat"),
        600,
        100_000,
    )
    assert holder.project_id is None
    [listed] = [row for row in await tenancy.keys(ALL) if row["key_id"] == made["key_id"]]
    assert (listed["scopes"], listed["expires_at"]) == (["call", "service:chat"], None)
    with pytest.raises(Refused, match="'all' is not a scope"):
        await tenancy.make_key("x", Role.OPERATOR, actor="test", scopes=("all",))


async def test_a_key_for_one_project_calls_its_services_and_does_nothing_else(tenancy: Tenancy) -> None:
    await tenancy.make_tenant("a", actor="test")
    _, project_id = await tenancy.project(ALL, "a", "main")
    made = await tenancy.make_key(
        "x", Role.CUSTOMER, actor="test", tenant="a", project="main", scopes=["call"]
    )
    assert (await tenancy.holder(made["secret"])).project_id == project_id
    assert [row["project"] for row in await tenancy.keys(ALL)] == ["main"]
    with pytest.raises(Refused, match="add --tenant and --scope call"):
        await tenancy.make_key("x", Role.CUSTOMER, actor="test", tenant="a", project="main")
    with pytest.raises(NotFound, match="no project none"):
        await tenancy.make_key("x", Role.CUSTOMER, actor="test", tenant="a", project="none", scopes=["call"])


async def test_a_link_and_a_session_end_in_time(tenancy: Tenancy, monkeypatch: pytest.MonkeyPatch) -> None:
    made = await tenancy.make_key("op", Role.OPERATOR, actor="test")
    session = await tenancy.use_link(await tenancy.make_link(made["key_id"]))
    assert (await tenancy.session_holder(session)).name == "op"
    with pytest.raises(NotAdmitted):
        await tenancy.use_link(session)  # a session is no link
    monkeypatch.setattr(shell, "LINK_LIVES", timedelta(seconds=-1))
    with pytest.raises(NotAdmitted):
        await tenancy.use_link(await tenancy.make_link(made["key_id"]))
    await tenancy.sign_out(session)
    with pytest.raises(NotAdmitted):
        await tenancy.session_holder(session)


async def test_a_secret_at_rest_is_sealed_and_bound_to_its_row(tenancy: Tenancy, truth: Truth) -> None:
    for tenant in ("a", "b"):
        await tenancy.make_tenant(tenant, actor="test")
        project = await tenancy.project(ALL, tenant, None)
        await tenancy.set_secret(ALL, project, "TOKEN", f"value of {tenant}")
    assert "value of" not in str(await table(truth, "events"))
    rows = await table(truth, "secrets")
    assert all(b"value of" not in bytes(row["ciphertext"]) for row in rows)
    assert sorted(tenancy.open_secrets([row])["TOKEN"] for row in rows) == ["value of a", "value of b"]
    first, second = rows
    with pytest.raises(SecretUnreadable):
        tenancy.open_secrets([first | {"ciphertext": second["ciphertext"]}])


async def test_equal_values_are_sealed_unequally(tenancy: Tenancy, truth: Truth) -> None:
    await tenancy.make_tenant("a", actor="test")
    project = await tenancy.project(ALL, "a", None)
    for name in ("ONE", "TWO", "ONE"):
        await tenancy.set_secret(ALL, project, name, "same")
    nonces = {bytes(row["ciphertext"])[:12] for row in await table(truth, "secrets")}
    assert len(nonces) == 2


async def test_a_tenant_sees_its_own_secrets_keys_and_projects(tenancy: Tenancy) -> None:
    for tenant in ("a", "b"):
        made = await tenancy.make_tenant(tenant, actor="test")
        await tenancy.make_key(f"key of {tenant}", Role.CUSTOMER, actor="test", tenant=tenant)
        await tenancy.set_secret(ALL, await tenancy.project(ALL, tenant, None), f"OF_{tenant}", "x")
        scope = Scope(tenant_id=made["tenant_id"], actor="key")
        assert [row["name"] for row in await tenancy.tenants(scope)] == [tenant]
        assert [row["name"] for row in await tenancy.secret_names(scope)] == [f"OF_{tenant}"]
        assert [row["name"] for row in await tenancy.keys(scope)] == [f"key of {tenant}"]
    with pytest.raises(NotFound):
        await tenancy.project(scope, "a", None)


async def test_names_are_taken_once(tenancy: Tenancy) -> None:
    await tenancy.make_tenant("a", actor="test")
    with pytest.raises(Conflict, match="there is a tenant a already"):
        await tenancy.make_tenant("a", actor="test")
    with pytest.raises(Conflict, match="there is a project main already"):
        await tenancy.make_project("a", "main", actor="test")
    with pytest.raises(NotFound):
        await tenancy.make_project("none", "main", actor="test")
