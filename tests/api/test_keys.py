"""Who is let in, and to what: keys without a hint, and a table of every route against every role."""

import pytest

from baseai.tenancy.key import NotAdmitted
from tests.api.platform import HELLO, Platform

pytestmark = pytest.mark.anyio

EVERYBODY = frozenset({"operator", "alpha", "finance", "investor", "viewer"})
WATCHERS = frozenset({"operator", "finance", "investor", "viewer"})
OPERATOR = frozenset({"operator"})
TENANT = frozenset({"operator", "alpha"})
RUNS = frozenset({"operator", "alpha", "finance"})
BOOKS = frozenset({"operator", "finance", "investor"})
LEDGER = frozenset({"operator", "finance"})
NODE = frozenset({"node"})

# Route, its asking with what leaves everything as it is, the status for those who may, and who may.
ROUTES: list[tuple[str, str, dict[str, object], int, frozenset[str]]] = [
    ("GET /me", "/me", {}, 200, EVERYBODY),
    ("POST /sign-in-links", "/sign-in-links", {}, 201, EVERYBODY),
    ("GET /offers", "/offers", {}, 200, EVERYBODY),
    ("POST /runs", "/runs?dry_run=true", {"json": {"spec": HELLO.format(name="x")}}, 200, TENANT),
    ("GET /runs", "/runs", {}, 200, RUNS),
    ("GET /runs/{name}", "/runs/none", {}, 404, RUNS),
    ("POST /runs/{name}/stop", "/runs/none/stop", {}, 404, TENANT),
    ("GET /runs/{name}/points", "/runs/none/points", {}, 404, RUNS),
    ("GET /runs/{name}/logs", "/runs/none/logs", {}, 404, RUNS),
    ("GET /runs/{name}/use", "/runs/none/use", {}, 404, RUNS),
    ("GET /runs/{name}/telemetry", "/runs/none/telemetry", {}, 404, RUNS),
    ("GET /telemetry/use", "/telemetry/use", {}, 200, RUNS),
    ("GET /telemetry/fields", "/telemetry/fields", {}, 200, WATCHERS),
    ("GET /telemetry/collectors", "/telemetry/collectors", {}, 200, WATCHERS),
    ("GET /telemetry/latest", "/telemetry/latest", {}, 503, WATCHERS),  # nobody keeps samples here
    ("GET /telemetry/range", "/telemetry/range?key=x", {}, 503, WATCHERS),
    ("GET /telemetry/aggregate", "/telemetry/aggregate?field=temp_c", {}, 503, WATCHERS),
    ("GET /telemetry/sources", "/telemetry/sources?key=x", {}, 503, WATCHERS),
    ("POST /write", "/write", {"content": b"x"}, 422, OPERATOR | NODE),
    ("POST /services", "/services?dry_run=true", {"json": {"spec": HELLO.format(name="x")}}, 422, TENANT),
    ("GET /services", "/services", {}, 200, RUNS),
    ("GET /services/{name}", "/services/none", {}, 404, RUNS),
    ("GET /services/{name}/traffic", "/services/none/traffic", {}, 404, RUNS),
    ("GET /services/{name}/cost", "/services/none/cost", {}, 404, RUNS),
    ("POST /services/{name}/scale", "/services/none/scale", {"json": {"least": 1}}, 404, TENANT),
    ("POST /services/{name}/promote", "/services/none/promote", {}, 404, TENANT),
    ("POST /services/{name}/rollback", "/services/none/rollback", {}, 404, TENANT),
    ("POST /services/{name}/stop", "/services/none/stop", {}, 404, TENANT),
    ("GET /models", "/models", {}, 200, RUNS),
    ("GET /events", "/events", {}, 200, RUNS),
    ("HEAD /files/{digest}", "/files/" + "0" * 64, {}, 404, TENANT),
    ("PUT /files/{digest}", "/files/" + "0" * 64, {"content": b"x"}, 422, TENANT),
    ("GET /nodes", "/nodes", {}, 200, WATCHERS),
    ("GET /nodes/{name}", "/nodes/none", {}, 404, WATCHERS),
    ("GET /nodes/{name}/figures", "/nodes/none/figures", {}, 404, WATCHERS),
    ("POST /nodes/{name}/test", "/nodes/none/test", {"json": {}}, 404, OPERATOR),
    ("POST /nodes/{name}/declare-dead", "/nodes/none/declare-dead", {}, 404, OPERATOR),
    ("POST /nodes/{name}/{verb}", "/nodes/none/cordon", {}, 404, OPERATOR),
    ("GET /fleet/health", "/fleet/health", {}, 200, WATCHERS),
    ("GET /nodes/{name}/health", "/nodes/none/health", {}, 404, WATCHERS),
    ("POST /nodes/{name}/health/clear", "/nodes/none/health/clear", {}, 404, OPERATOR),
    ("POST /evidence/{evidence_id}/acknowledge", "/evidence/none/acknowledge", {}, 404, OPERATOR),
    ("GET /repairs", "/repairs", {}, 200, WATCHERS),
    ("POST /repairs/{repair_id}/{verb}", "/repairs/none/approve", {}, 404, OPERATOR),
    ("POST /join-tokens", "/join-tokens", {"json": {}}, 201, OPERATOR),
    ("GET /queues", "/queues", {}, 200, EVERYBODY),
    ("GET /queues/{name}", "/queues/none", {}, 404, EVERYBODY),
    ("PUT /queues/{name}", "/queues/none", {"json": {"weight": 0}}, 422, OPERATOR),
    ("DELETE /queues/{name}", "/queues/none", {}, 404, OPERATOR),
    ("GET /queue", "/queue", {}, 200, RUNS),
    ("GET /reservations", "/reservations", {}, 200, RUNS),
    ("POST /reservations", "/reservations", {"json": {}}, 422, TENANT),
    ("GET /reservations/{name}", "/reservations/none", {}, 404, RUNS),
    ("POST /reservations/{name}/cancel", "/reservations/none/cancel", {}, 404, TENANT),
    ("GET /maintenances", "/maintenances", {}, 200, WATCHERS),
    ("POST /maintenances", "/maintenances", {"json": {}}, 422, OPERATOR),
    ("GET /maintenances/{maintenance_id}", "/maintenances/none", {}, 404, WATCHERS),
    ("POST /maintenances/{maintenance_id}/cancel", "/maintenances/none/cancel", {}, 404, OPERATOR),
    ("POST /maintenances/{maintenance_id}/end", "/maintenances/none/end", {}, 404, OPERATOR),
    ("POST /runs/{name}/extend", "/runs/none/extend", {"json": {}}, 422, TENANT),
    ("GET /racks", "/racks", {}, 200, WATCHERS),
    ("PUT /racks/{rack}", "/racks/none", {"json": {}}, 422, OPERATOR),
    ("DELETE /racks/{rack}", "/racks/none", {}, 404, OPERATOR),
    ("POST /nodes/{name}/place", "/nodes/none/place", {"json": {"rack": "r"}}, 404, OPERATOR),
    ("POST /mounts", "/mounts?file=nodes.csv", {"content": b"x"}, 422, OPERATOR),
    ("GET /time", "/time", {}, 200, BOOKS),
    ("GET /tenants", "/tenants", {}, 200, OPERATOR),
    ("POST /tenants", "/tenants", {"json": {"name": "-"}}, 422, OPERATOR),
    ("POST /tenants/{tenant}/projects", "/tenants/none/projects", {"json": {"name": "p"}}, 404, OPERATOR),
    ("GET /keys", "/keys", {}, 200, OPERATOR),
    ("POST /keys", "/keys", {"json": {"name": "x", "role": "customer"}}, 422, OPERATOR),
    ("DELETE /keys/{key_id}", "/keys/none", {}, 404, OPERATOR),
    ("GET /secrets", "/secrets", {}, 200, TENANT),
    ("PUT /secrets/{name}", "/secrets/X", {"json": {}}, 422, TENANT),
    ("DELETE /secrets/{name}", "/secrets/X", {}, 404, TENANT),
    ("GET /cost", "/cost", {}, 200, RUNS),
    ("GET /books/trial-balance", "/books/trial-balance", {}, 200, BOOKS),
    ("GET /books/balance", "/books/balance?account=asset:none", {}, 404, BOOKS),
    ("GET /books/periods", "/books/periods", {}, 200, BOOKS),
    ("POST /books/periods/{period}/close", "/books/periods/none/close", {}, 422, LEDGER),
    ("GET /books/check", "/books/check", {}, 404, BOOKS),
    ("POST /books/check", "/books/check", {}, 200, LEDGER),
    ("GET /books/transfers", "/books/transfers", {}, 200, BOOKS),
    ("GET /customers", "/customers", {}, 200, RUNS),
    ("POST /customers", "/customers", {"json": {}}, 422, LEDGER),
    ("GET /contracts", "/contracts", {}, 200, RUNS),
    ("POST /contracts", "/contracts", {"json": {}}, 422, LEDGER),
    ("POST /contracts/{name}/end", "/contracts/none/end", {"json": {"reason": "x"}}, 404, LEDGER),
    ("POST /contracts/{name}/months/{period}", "/contracts/none/months/2026-11", {}, 404, LEDGER),
    ("GET /contracts/{name}/health-events", "/contracts/none/health-events", {}, 404, RUNS),
    ("GET /prices", "/prices", {}, 200, BOOKS),
    ("POST /prices", "/prices", {"json": {"csv": "x"}}, 422, LEDGER),
    ("GET /economics", "/economics", {}, 200, BOOKS),
    ("GET /economics/behind", "/economics/behind?figure=none", {}, 422, LEDGER),
    ("GET /cost/assumptions", "/cost/assumptions", {}, 200, BOOKS),
    ("POST /cost/assumptions", "/cost/assumptions", {"json": {}}, 422, LEDGER),
    ("GET /prices/suggestions", "/prices/suggestions", {}, 200, BOOKS),
    ("POST /prices/suggestions", "/prices/suggestions", {}, 200, LEDGER),
    (
        "POST /prices/suggestions/{suggestion_id}/apply",
        "/prices/suggestions/none/apply",
        {"json": {}},
        404,
        LEDGER,
    ),
    ("POST /prices/suggestions/{suggestion_id}/decline", "/prices/suggestions/none/decline", {}, 404, LEDGER),
    ("GET /fx", "/fx?from_on=2026-11-01&until_on=2026-11-02", {}, 200, BOOKS),
    ("POST /fx", "/fx", {"json": {"from_on": "2999-01-01", "until_on": "2999-01-02"}}, 422, LEDGER),
    ("GET /fx/{on}", "/fx/2026-11-25", {}, 409, BOOKS),
    ("POST /usage-events", "/usage-events", {"json": {"events": []}}, 422, LEDGER),
    ("GET /rated-lines", "/rated-lines", {}, 200, RUNS),
    ("GET /invoices", "/invoices", {}, 200, RUNS),
    ("POST /invoices", "/invoices", {"json": {"customer": "none", "period": "2026-10"}}, 404, LEDGER),
    ("GET /invoices/draft", "/invoices/draft?customer=none&period=2026-10", {}, 404, RUNS),
    ("GET /invoices/{invoice_id}", "/invoices/none", {}, 404, RUNS),
    ("GET /exports/focus", "/exports/focus?period=none", {}, 422, RUNS),
    ("GET /exports/beancount", "/exports/beancount", {}, 200, LEDGER),
    ("GET /exports/csv", "/exports/csv", {}, 200, LEDGER),
    ("POST /agent/facts", "/agent/facts", {"json": None}, 422, NODE),
    ("GET /agent/desired", "/agent/desired?wait_s=0", {}, 200, NODE),
    ("POST /agent/report", "/agent/report", {"json": None}, 422, NODE),
    ("POST /agent/telemetry", "/agent/telemetry", {"json": None}, 422, NODE),
    ("POST /agent/logs/{lease_id}/{stream}", "/agent/logs/none/out", {}, 404, NODE),
    ("GET /agent/files/{digest}", "/agent/files/" + "0" * 64, {}, 404, NODE),
]
OPEN = {"GET /health", "POST /agent/join"}  # to be let in is what one asks them for


async def test_every_route_answers_every_role_as_the_table_says(platform: Platform) -> None:
    wrong = []
    for route, path, said, status, who in ROUTES:
        for role in (*EVERYBODY, "node"):
            answer = await platform.ask(route.split()[0], path, key=role, **said)
            expected = status if role in who else 403
            if answer.status_code != expected:
                wrong.append(
                    f"{role}: {route} gave {answer.status_code}, not {expected}: {answer.text[:200]}"
                )
    assert wrong == []


async def test_no_route_answers_a_stranger(platform: Platform) -> None:
    for route, path, said, _, _ in ROUTES:
        assert (await platform.ask(route.split()[0], path, key=None, **said)).status_code == 401, route


async def test_the_table_names_every_route(platform: Platform) -> None:
    paths = platform.app.openapi()["paths"]
    known = {
        f"{method.upper()} {path.removeprefix('/api/v1')}"
        for path, methods in paths.items()
        for method in methods
    }
    assert known == {route for route, *_ in ROUTES} | OPEN


async def test_a_wrong_a_revoked_and_a_missing_key_get_the_same_answer(platform: Platform) -> None:
    made = (await platform.ask("POST", "/keys", json={"name": "gone", "role": "viewer"})).json()
    assert (await platform.ask("GET", "/me", key=made["secret"])).json()["role"] == "viewer"
    assert (await platform.ask("DELETE", f"/keys/{made['key_id']}")).status_code == 204
    shown = [b"", b"Bearer", b"Bearer ", b"Bearer bai_wrong", b"Bearer " + made["secret"].encode(), b"Basic b3A6b3A=",
             "Bearer ünïcode".encode(), b"Bearer a\tb"]  # fmt: skip
    answers = [await platform.ask("GET", "/nodes", key=None)]
    answers += [await platform.client.get("/api/v1/nodes", headers={"Authorization": said}) for said in shown]
    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.content for answer in answers}) == 1
    assert {answer.headers["www-authenticate"] for answer in answers} == {"Bearer"}


async def test_what_a_role_does_not_cover_is_told_in_a_sentence(platform: Platform) -> None:
    answer = await platform.ask("POST", "/tenants", key="viewer", json={"name": "mine"})
    assert answer.status_code == 403
    assert answer.json()["detail"] == "a key of the role viewer may not manage tenants and keys"


async def test_a_key_is_shown_once_and_stored_only_as_its_hash(platform: Platform) -> None:
    made = (
        await platform.ask("POST", "/keys", json={"name": "ci", "role": "customer", "tenant": "alpha"})
    ).json()
    assert made["secret"].startswith("bai_")
    listed = (await platform.ask("GET", "/keys")).json()["items"]
    assert [row["secret"] for row in listed if row["key_id"] == made["key_id"]] == [None]
    for table in ("api_keys", "idempotency", "events"):
        assert made["secret"] not in str(await platform.rows(f"SELECT * FROM {table}")), table


async def test_a_key_for_calling_models_opens_no_route_at_all(platform: Platform) -> None:
    said = {"name": "bot", "role": "operator", "scopes": ["call", "service:chat"], "expires_in_s": 3600}
    made = (await platform.ask("POST", "/keys", json=said)).json()
    assert made["scopes"] == ["call", "service:chat"]
    shown = {"Authorization": f"Bearer {made['secret']}"}
    wrong = []
    for route, path, body, *_ in ROUTES:
        answer = await platform.client.request(route.split()[0], "/api/v1" + path, headers=shown, **body)
        if answer.status_code != 403 or (answer.content and "may only call models" not in answer.text):
            wrong.append(f"{route} gave {answer.status_code}: {answer.text[:200]}")
    assert wrong == []


@pytest.mark.parametrize("said", [{"expires_in_s": 0}, {"scopes": ["service:"]}, {"requests_per_minute": 0}])
async def test_a_key_that_would_open_nothing_is_not_made(platform: Platform, said: dict[str, object]) -> None:
    assert (
        await platform.ask("POST", "/keys", json={"name": "x", "role": "operator"} | said)
    ).status_code == 422


@pytest.mark.parametrize(
    ("role", "tenant", "sentence"),
    [
        ("customer", None, "a customer's key belongs to a tenant: name it with --tenant"),
        ("viewer", "alpha", "a key of the role viewer is the platform's own and takes no tenant"),
    ],
)
async def test_role_and_tenant_go_together(
    platform: Platform, role: str, tenant: str | None, sentence: str
) -> None:
    answer = await platform.ask("POST", "/keys", json={"name": "x", "role": role, "tenant": tenant})
    assert (answer.status_code, answer.json()["detail"]) == (422, sentence)


async def test_a_sign_in_link_works_once(platform: Platform) -> None:
    link = (await platform.ask("POST", "/sign-in-links", key="alpha")).json()["url"].rpartition("/")[2]
    session = await platform.rooms.tenancy.use_link(link)
    assert (await platform.rooms.tenancy.session_holder(session)).name == "alpha"
    with pytest.raises(NotAdmitted):
        await platform.rooms.tenancy.use_link(link)
