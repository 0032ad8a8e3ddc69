"""What a spec asks of the fleet."""

import pytest

from baseai.ground.identity import RunId, TenantId
from baseai.workloads.demand import Ask, Demand, UnknownAccelerator, demand_of
from baseai.workloads.spec import spec_of

CATALOGUE = {"H100-SXM": 80, "H100-PCIe": 80, "A100-40GB": 40, "A100-80GB": 80}


def models_matching(name: str | None, memory_gib: range | None) -> tuple[str, ...]:
    return tuple(
        model
        for model, gib in CATALOGUE.items()
        if (name is None or model.startswith(name)) and (memory_gib is None or gib in memory_gib)
    )


def demand(lines: str) -> Demand:
    spec = spec_of(f"type: task\ncommands: [x]\n{lines}\n", "run.yaml", lambda recipe, config: None)
    return demand_of(spec, RunId("run"), TenantId("acme"), models_matching)


@pytest.mark.parametrize(
    ("lines", "asks"),
    [
        ("", [(("cpu-slot",), 1)]),
        ("resources: {cpu: 2.5}", [(("cpu-slot",), 3)]),
        ("resources: {cpu: 2..4}", [(("cpu-slot",), 4), (("cpu-slot",), 3), (("cpu-slot",), 2)]),
        ("resources: {gpu: cpu-slot:2}", [(("cpu-slot",), 2)]),
        ("resources: {gpu: H100:8}", [(("H100-SXM", "H100-PCIe"), 8)]),
        ("resources: {gpu: A100:80GB}", [(("A100-80GB",), 1)]),
        ("resources: {gpu: 80GB..}", [(("H100-SXM", "H100-PCIe", "A100-80GB"), 1)]),
        (
            "resources: {gpu: [H100-SXM:2, A100:80GB:1..2]}",
            [(("H100-SXM",), 2), (("A100-80GB",), 2), (("A100-80GB",), 1)],
        ),
    ],
)
def test_asks(lines: str, asks: list[tuple[tuple[str, ...], int]]) -> None:
    assert demand(lines).asks == tuple(Ask(models=models, count=count) for models, count in asks)


def test_cores_beside_accelerators_are_host_cores() -> None:
    assert demand("resources: {gpu: H100, cpu: 4}").cpu_milli == 4000
    assert demand("resources: {cpu: 4}").cpu_milli == 0


def test_the_rest_of_a_demand() -> None:
    found = demand(
        "nodes: 2\nimage: a/b:c\nsite: SP4\ndata_residency: BR\npriority: 7\nmax_duration: 1h\n"
        "resources: {memory: 16GB, disk: 100GB}"
    )
    assert found == Demand(
        run_id=RunId("run"),
        tenant_id=TenantId("acme"),
        node_count=2,
        asks=(Ask(models=("cpu-slot",), count=1),),
        memory_mib=16 << 10,
        disk_mib=100 << 10,
        cpu_milli=0,
        sites=("SP4",),
        residency=("BR",),
        max_duration_s=3600,
        priority=7,
        needs_container=True,
    )


def test_a_name_the_catalogue_does_not_know_is_refused() -> None:
    with pytest.raises(UnknownAccelerator, match="gpu: H1000:8"):
        demand("resources: {gpu: H1000:8}")
