"""Services on a real database: replicas as they are wanted, versions that take over, whatever ends in between."""

from dataclasses import replace
from pathlib import Path

import pytest

from baseai.ground.fault import Conflict, NotFound, Refused
from baseai.serving.postgres.routes import load_routes
from baseai.truth.session import Truth
from baseai.wiring.household import Household
from baseai.workloads.service import Rollout
from tests.serving.yard import OPERATOR, WORK, Yard, at_once, scaled, spec_of_service

pytestmark = pytest.mark.anyio
KEY = b"k" * 32


@pytest.fixture
async def yard(truth: Truth, tmp_path: Path) -> Yard:
    made = Yard(truth, tmp_path)
    await made.begin()
    return made


async def test_a_spec_becomes_a_service_whose_replica_answers(yard: Yard) -> None:
    applied = await yard.apply(spec_of_service())
    assert (applied.made, applied.rolling, applied.version_no) == (True, False, 1)
    await yard.turn()
    assert await yard.replicas() == [(1, "ready")]
    assert (await yard.service())["state"] == "serving"
    [route] = (await load_routes(yard.rooms.truth, KEY)).by_id.values()
    [backend] = route.backends
    assert (backend.address, backend.port, backend.draining) == ("127.0.0.1", yard.port, False)
    [run] = await yard.rows("SELECT * FROM runs")
    assert (run["kind"], run["state"], run["service_id"], run["version_no"]) == (
        "service", "running", applied.service_id, 1,
    )  # fmt: skip


async def test_a_gateway_shows_the_token_that_the_replica_was_ordered_with(
    yard: Yard, tmp_path: Path
) -> None:
    await yard.apply(spec_of_service())
    await yard.turn()
    [route] = (await load_routes(yard.rooms.truth, Household(data=tmp_path).key("replicas"))).by_id.values()
    [order] = (await yard.rooms.engine.orders(yard.node_id)).orders
    assert order.service is not None
    assert [backend.token for backend in route.backends] == [order.service["token"]]
    [elsewhere] = (await load_routes(yard.rooms.truth, KEY)).by_id.values()
    assert elsewhere.backends[0].token != order.service["token"]


async def test_the_same_spec_again_changes_nothing(yard: Yard) -> None:
    first = await yard.apply(spec_of_service())
    again = await yard.apply(spec_of_service())
    assert again == replace(first, made=False)
    assert len(await yard.rows("SELECT FROM service_versions")) == 1


async def test_replicas_follow_demand_within_their_bounds(yard: Yard) -> None:
    applied = await yard.apply(spec_of_service(work=scaled(0, 3)))
    await yard.turn()
    assert await yard.replicas() == []
    assert (await yard.service())["state"] == "idle"
    await yard.ask(applied.service_id, 1.0, held=1)
    await yard.turn()
    assert await yard.replicas() == [(1, "ready")]
    await yard.ask(applied.service_id, 40.0)
    await yard.turn()
    assert [state for _, state in await yard.replicas()] == ["ready"] * 3
    scalings = await yard.rows("SELECT wanted, why FROM service_scalings ORDER BY at")
    assert [row["wanted"] for row in scalings][-2:] == [1, 3]
    assert all(row["why"] for row in scalings)


async def test_one_that_is_spared_ends_only_after_gateways_have_heard_of_it(yard: Yard) -> None:
    await yard.apply(spec_of_service(work=scaled(2, 2)))
    await yard.turn()
    await yard.rooms.services.scale(OPERATOR, "echo", least=1, most=1, by="test")
    await yard.turn()
    assert await yard.replicas() == [(1, "draining"), (1, "ready")]
    [route] = (await load_routes(yard.rooms.truth, KEY)).by_id.values()
    assert sorted(backend.draining for backend in route.backends) == [False, True]
    assert await yard.rows("SELECT FROM runs WHERE stop_reason IS NOT NULL") == []
    await yard.age("draining_at", 3.0)
    await yard.rooms.keeper.step()
    [stopped] = await yard.rows("SELECT stop_reason FROM runs WHERE stop_reason IS NOT NULL")
    assert stopped["stop_reason"] == "scaled_in"
    await yard.rooms.engine.settle()
    await yard.turn()
    await yard.turn()
    assert await yard.replicas() == [(1, "ready")]
    assert {row["state"] for row in await yard.rows("SELECT state FROM runs")} == {"running", "cancelled"}


async def test_a_new_version_takes_over_once_it_answers_and_the_old_one_stays_till_then(yard: Yard) -> None:
    await yard.apply(spec_of_service(work=at_once()))
    await yard.turn()
    second = await yard.apply(spec_of_service(work=at_once(replace(WORK, concurrency=7))))
    assert (second.version_no, second.rolling) == (2, True)
    await yard.rooms.keeper.step()
    assert await yard.replicas() == [(1, "ready"), (2, "starting")]
    [route] = (await load_routes(yard.rooms.truth, KEY)).by_id.values()
    assert [(version.version_no, version.share) for version in route.versions] == [(1, 1.0), (2, 0.0)]
    await yard.turn()
    assert (await yard.service())["candidate_share"] == 1.0
    await answer(yard, version_no=2, requests=100, errors=0)
    await yard.turn()
    assert (await yard.service())["version_no"] == 2
    await yard.age("draining_at", 3.0)
    await yard.turn()
    await yard.turn()
    assert await yard.replicas() == [(2, "ready")]
    states = await yard.rows("SELECT version_no, state FROM service_versions ORDER BY version_no")
    assert [row["state"] for row in states] == ["retired", "current"]


async def test_a_version_that_answers_worse_is_rolled_back_while_most_requests_go_to_the_old_one(
    yard: Yard,
) -> None:
    baking = replace(WORK, rollout=Rollout(shares=(0.1, 1.0), bake_s=600.0))
    await yard.apply(spec_of_service(work=baking))
    await yard.turn()
    await yard.apply(spec_of_service(work=replace(baking, concurrency=7)))
    await yard.turn()
    await yard.turn()
    assert (await yard.service())["candidate_share"] == 0.1
    await answer(yard, version_no=1, requests=900, errors=0)
    await answer(yard, version_no=2, requests=100, errors=40)
    await yard.rooms.keeper.step()
    service = await yard.service()
    assert (service["version_no"], service["candidate_no"]) == (1, None)
    [second] = await yard.rows("SELECT state, sentence FROM service_versions WHERE version_no = 2")
    assert second["state"] == "rolled_back"
    assert "40 of 100 requests failed" in second["sentence"]
    assert (2, "draining") in await yard.replicas()


async def test_a_replica_whose_lease_ends_soon_is_replaced_before(yard: Yard) -> None:
    await yard.apply(spec_of_service())
    await yard.turn()
    async with yard.rooms.truth.transaction() as session:
        await session.execute("UPDATE leases SET ends_at = now() + interval '5 minutes'")
        await session.execute("UPDATE replicas SET made_at = made_at - interval '2 days'")
    await yard.rooms.keeper.step()
    assert await yard.replicas() == [(1, "ready"), (1, "starting")]
    await yard.turn()
    assert await yard.replicas() == [(1, "draining"), (1, "ready")]


async def test_a_version_that_never_answers_is_rolled_back_and_says_why(yard: Yard) -> None:
    await yard.apply(spec_of_service(work=at_once()))
    await yard.turn()
    await yard.apply(spec_of_service(work=at_once(replace(WORK, concurrency=7))))
    for _ in range(8):
        await yard.rooms.keeper.step()
        await yard.rooms.scheduler.tick()
        orders = (await yard.rooms.engine.orders(yard.node_id)).orders
        old = {row["run_id"] for row in await yard.rows("SELECT run_id FROM runs WHERE version_no = 1")}
        assert len([order for order in orders if order.run_id in old]) == 1, "the old one goes on"
        await fail_the_new(yard, old)
        await yard.rooms.engine.settle()
        await age_ends(yard, 400.0)
    service = await yard.service()
    assert (service["version_no"], service["candidate_no"], service["state"]) == (1, None, "serving")
    [second] = await yard.rows("SELECT state, sentence FROM service_versions WHERE version_no = 2")
    assert second["state"] == "rolled_back"
    assert "no such model" in second["sentence"]
    assert await yard.replicas() == [(1, "ready")]


async def test_one_that_fails_to_start_is_tried_ever_more_slowly(yard: Yard) -> None:
    await yard.apply(spec_of_service())
    for _ in range(3):
        await yard.rooms.keeper.step()
        await yard.rooms.scheduler.tick()
        await fail_the_new(yard, set())
        await yard.rooms.engine.settle()
    await yard.rooms.keeper.step()
    assert len(await yard.rows("SELECT FROM runs")) == 1, "no other for five seconds"
    service = await yard.service()
    assert service["state"] == "failing"
    assert "no such model" in service["sentence"]
    await age_ends(yard, 6.0)
    await yard.rooms.keeper.step()
    assert len(await yard.rows("SELECT FROM runs")) == 2


async def test_a_replica_that_was_lost_gets_nothing_until_it_answers_again(yard: Yard) -> None:
    await yard.apply(spec_of_service())
    await yard.turn()
    await fail_the_new(yard, set(), reason="process_lost")
    await yard.rooms.engine.settle()
    await yard.rooms.keeper.step()
    [route] = (await load_routes(yard.rooms.truth, KEY)).by_id.values()
    assert route.backends == ()
    assert (await yard.service())["state"] == "starting"
    await yard.turn()
    [route] = (await load_routes(yard.rooms.truth, KEY)).by_id.values()
    assert [backend.port for backend in route.backends] == [yard.port]


async def test_stopping_ends_every_replica_and_frees_the_name(yard: Yard) -> None:
    await yard.apply(spec_of_service(work=scaled(2, 2)))
    await yard.turn()
    await yard.rooms.services.stop(OPERATOR, "echo", by="test")
    with pytest.raises(Conflict):
        await yard.rooms.services.stop(OPERATOR, "echo", by="test")
    await yard.rooms.keeper.step()
    assert (await load_routes(yard.rooms.truth, KEY)).by_id == {}
    await yard.age("draining_at", 3.0)
    await yard.rooms.keeper.step()
    await yard.rooms.engine.settle()
    await yard.turn()
    await yard.turn()
    assert await yard.replicas() == []
    assert (await yard.rooms.keeper.step()).services == 0
    assert (await yard.apply(spec_of_service())).made


@pytest.mark.parametrize(
    ("deed", "wrong", "sentence"),
    [
        pytest.param({"least": 3, "most": 1}, Refused, "no range", id="bounds that are none"),
        pytest.param({"name": "nobody", "least": 1, "most": 1}, NotFound, "nobody", id="no such service"),
    ],
)
async def test_what_cannot_be_scaled(
    yard: Yard, deed: dict[str, object], wrong: type[Exception], sentence: str
) -> None:
    await yard.apply(spec_of_service())
    asked = {"name": "echo", **deed}
    with pytest.raises(wrong, match=sentence):
        await yard.rooms.services.scale(OPERATOR, asked.pop("name"), **asked, by="test")  # type: ignore[arg-type]


async def test_a_model_of_a_run_is_that_run_for_ever(yard: Yard) -> None:
    work = replace(WORK, engine="chat", protocol="openai", model="run:gpt", commands=())
    with pytest.raises(Refused, match="there is no run gpt"):
        await yard.apply(spec_of_service(work=work))
    async with yard.rooms.truth.transaction() as session:
        await session.execute(
            "INSERT INTO runs (run_id, tenant_id, project_id, name, kind, spec, priority, state, submitted_by)"
            " SELECT 'run_x', tenant_id, project_id, 'gpt', 'train', '{}', 50, 'running', 'test' FROM projects"
        )
    with pytest.raises(Refused, match="saved no checkpoint"):
        await yard.apply(spec_of_service(work=work))
    async with yard.rooms.truth.transaction() as session:
        await session.execute("UPDATE runs SET state = 'stopping'")
        await session.execute("UPDATE runs SET state = 'succeeded'")
    await yard.apply(spec_of_service(work=work))
    [version] = await yard.rows("SELECT spec->'work'->>'model' AS model FROM service_versions")
    assert version["model"] == "run:run_x"


async def answer(yard: Yard, *, version_no: int, requests: int, errors: int) -> None:
    """Gateways tell of what a version answered just now."""
    async with yard.rooms.truth.transaction() as session:
        await session.execute(
            "INSERT INTO service_traffic (service_id, tenant_id, project_id, version_no, gateway, from_at, requests,"
            " errors, refused, slow, cache_hits, collapsed, retried, lost, tokens_in, tokens_out, bytes_in, bytes_out,"
            " latency, first_byte) SELECT service_id, tenant_id, project_id, %s, 'g', now(), %s, %s, 0, 0, 0, 0, 0, 0,"
            " 0, 0, 0, 0, '{}', '{}' FROM services",
            (version_no, requests, errors),
        )


async def fail_the_new(yard: Yard, old: set[str], *, reason: str = "spec_wrong") -> None:
    """The node reports that whatever is not among `old` ended."""
    from baseai.engine.order import NodeReport, Sighting
    from baseai.ground.clock import now_utc

    orders = [one for one in (await yard.rooms.engine.orders(yard.node_id)).orders if one.run_id not in old]
    others = [one for one in (await yard.rooms.engine.orders(yard.node_id)).orders if one.run_id in old]
    await yard.rooms.engine.take(
        yard.node_id,
        NodeReport(
            boot_id="b",
            sent_at=now_utc(),
            alive=tuple((order.lease_id, 7) for order in others),
            gone=tuple(order.lease_id for order in orders),
            sightings=tuple(
                Sighting(
                    event_id=f"{order.lease_id}-{kind}", at=now_utc(), kind=kind, lease_id=order.lease_id,
                    attempt_no=order.attempt_no, pid=7, exit_code=1 if kind == "exited" else None,
                    reason=reason if kind == "exited" else None, sentence="no such model",
                )
                for order in orders
                for kind in ("started", "exited")
            ),
        ),
    )  # fmt: skip


async def age_ends(yard: Yard, seconds: float) -> None:
    async with yard.rooms.truth.transaction() as session:
        await session.execute(
            "UPDATE runs SET ended_at = ended_at - make_interval(secs => %s) WHERE ended_at IS NOT NULL",
            (seconds,),
        )
