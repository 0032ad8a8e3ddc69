"""What the node of a replica is told: the service's terms, and the model that its version serves."""

from pathlib import Path

import pytest

from baseai.api.schemas import Launch
from baseai.engine.order import Order
from baseai.ground.identity import RunId, mint
from baseai.tenancy.replica_token import replica_token
from baseai.wiring.household import Household
from baseai.workloads.service import Service
from tests.engine.test_postgres import OPERATOR, Yard
from tests.engine.test_postgres import yard as yard  # the fixture

pytestmark = pytest.mark.anyio
SERVICE = "type: service\nname: shop\nmodel: {model}\ntimeout: 30s\nreplicas: 0..2\nfiles: [net.onnx]\n"


async def ended(yard: Yard) -> str:
    """A run `job` that has ended well."""
    run_id = await yard.submit()
    [lease] = await yard.leases(run_id)
    await yard.report(lease, "started")
    await yard.rooms.engine.settle()
    await yard.report(lease, "exited", gone=True, exit_code=0)
    await yard.rooms.engine.settle()
    return run_id


async def replica(yard: Yard, model: str, service: tuple[str, int] | None = None) -> Order:
    """The order of a replica that has just been given a lease."""
    project = await yard.rooms.tenancy.project(OPERATOR, None, None)
    spec = yard.rooms.admission.read(SERVICE.format(model=model), "shop.yaml")
    run_id = RunId(mint("run"))
    await yard.rooms.runs.submit(OPERATOR, project, run_id, spec, (), submitted_by="test", service=service)
    await yard.rooms.scheduler.tick()
    [lease] = await yard.leases(run_id)
    orders = await yard.rooms.engine.orders(lease["node_id"])
    return next(order for order in orders.orders if order.run_id == run_id)


async def test_a_replica_is_told_the_terms_and_has_time_for_the_requests_under_way(yard: Yard) -> None:
    await yard.join("one")
    order = await replica(yard, "net.onnx")
    assert order.kind == "service"
    assert order.service is not None
    work = Service.from_json(order.service["terms"])
    assert (work.engine, work.model, work.timeout_s) == ("onnx", "net.onnx", 30.0)
    assert "model_path" not in order.service
    assert order.stop_grace_s == 50.0  # its timeout, and what every run has


async def test_a_model_is_what_the_newest_run_of_that_name_made(yard: Yard) -> None:
    await yard.join("one")
    await ended(yard)
    newest = await ended(yard)
    order = await replica(yard, "run:job")
    assert order.service is not None
    assert order.service["model_run_id"] == newest
    assert Path(order.service["model_path"]).name == newest


async def test_an_id_names_one_run_and_a_run_that_made_nothing_is_none(yard: Yard) -> None:
    await yard.join("one")
    first = await ended(yard)
    await ended(yard)
    named = (await replica(yard, f"run:{first}")).service
    assert named is not None
    assert named["model_run_id"] == first
    await yard.join("two")
    nobody = (await replica(yard, "run:nobody")).service
    assert nobody is not None
    assert "model_path" not in nobody


async def test_a_version_keeps_the_run_that_its_model_meant_when_it_was_applied(yard: Yard) -> None:
    await yard.join("one")
    project = await yard.rooms.tenancy.project(OPERATOR, None, None)
    old = await ended(yard)
    spec = yard.rooms.admission.read(SERVICE.format(model="run:job:net.onnx"), "shop.yaml")
    await yard.rooms.services.apply(OPERATOR, project, spec, (), by="test")
    await ended(yard)
    [version] = await yard.rows("SELECT spec FROM service_versions")
    pinned = version["spec"]["work"]["model"]
    assert pinned == f"run:{old}:net.onnx"
    order = await replica(yard, pinned)
    assert order.service is not None
    assert order.service["model_run_id"] == old


async def test_a_training_run_that_goes_on_is_served_from_its_checkpoints(yard: Yard) -> None:
    await yard.join("one")
    project = await yard.rooms.tenancy.project(OPERATOR, None, None)
    spec = yard.rooms.admission.read("type: train\nname: gpt\nconfig: {layers: 2}\n", "gpt.yaml")
    run_id = RunId(mint("run"))
    await yard.rooms.runs.submit(OPERATOR, project, run_id, spec, (), submitted_by="test")
    await yard.rooms.scheduler.tick()
    await yard.join("two")
    asked = (await replica(yard, "run:gpt")).service
    assert asked is not None
    assert asked["model_run_id"] == run_id
    assert Path(asked["model_checkpoints"]["folder"]).name == run_id
    assert (asked["model_checkpoints"]["recipe"], asked["model_checkpoints"]["config"]["layers"]) == (
        "gpt",
        2,
    )


async def test_an_order_carries_the_token_that_gateways_show_and_nothing_else_does(
    yard: Yard, tmp_path: Path
) -> None:
    await yard.join("one")
    order = await replica(yard, "net.onnx")
    assert order.service is not None
    token = order.service["token"]
    assert token == replica_token(Household(data=tmp_path / "home").key("replicas"), order.run_id)
    assert token not in repr(order)
    assert token not in repr(Launch.model_validate(order, from_attributes=True))
    for table in ("runs", "attempts", "leases", "replicas", "events", "observations"):
        assert token not in str(await yard.rows(f"SELECT * FROM {table}"))
    assert token not in repr(await yard.rooms.views.run(OPERATOR, order.run_id))
