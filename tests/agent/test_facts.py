"""A node says what it has, and leaves out what the catalogue does not know."""

import json
from pathlib import Path

from baseai.agent.facts import amd_devices, cpu_slots, model_of, nvidia_devices, observe_facts, told_apart
from baseai.catalog import load_catalog


def test_product_names_become_models_of_the_catalogue() -> None:
    products = {
        "NVIDIA H100 80GB HBM3": "H100-SXM",
        "NVIDIA H100 PCIe": "H100-PCIe",
        "NVIDIA A100-SXM4-40GB": "A100-40GB",
        "NVIDIA A100-SXM4-80GB": "A100-80GB",
        "NVIDIA A100 80GB PCIe": "A100-80GB",
        "NVIDIA L40S": "L40S",
        "NVIDIA H200": "H200",
        "AMD Instinct MI300X": "MI300X",
        "NVIDIA GeForce RTX 3060": None,
        "NVIDIA H100 NVL": None,
    }
    assert {product: model_of(product) for product in products} == products
    known = {each.model for each in load_catalog().accelerators}
    assert {model for model in products.values() if model} <= known


def test_nvidia_devices_are_read_and_unknown_ones_left_out() -> None:
    table = (
        "0, 1654922012345, GPU-aa, NVIDIA H100 80GB HBM3, 81559, 00000000:9B:00.0\n"
        "1, [N/A], GPU-bb, NVIDIA L40S, 46068, [N/A]\n"
        "2, [N/A], GPU-cc, NVIDIA GeForce RTX 3060, 12288, 00000000:C1:00.0\n"
    )
    found = [(each.index, each.serial, each.model, each.memory_mib) for each in nvidia_devices(table)]
    assert found == [(0, "1654922012345", "H100-SXM", 81559), (1, "GPU-bb", "L40S", 46068)]
    names = [(each.uuid, each.pci) for each in nvidia_devices(table)]
    assert names == [("GPU-aa", "0000:9b:00.0"), ("GPU-bb", None)]


def test_devices_that_share_a_serial_go_by_a_name_of_their_own() -> None:
    """A board with two accelerators may have one serial for both."""
    table = (
        "0, 1653925000001, GPU-a, NVIDIA H200, 143771, 00000008:06:00.0\n"
        "1, 1653925000001, GPU-b, NVIDIA H200, 143771, 00000009:06:00.0\n"
        "2, 1653925000002, GPU-c, NVIDIA H200, 143771, 00000018:06:00.0\n"
    )
    found = told_apart(nvidia_devices(table))
    assert [each.serial for each in found] == ["GPU-a", "GPU-b", "1653925000002"]
    nameless = [each.model_copy(update={"uuid": None}) for each in nvidia_devices(table)]
    assert [each.serial for each in told_apart(nameless)] == [
        "1653925000001/0008:06:00.0",
        "1653925000001/0009:06:00.0",
        "1653925000002",
    ]


def test_amd_devices_are_read() -> None:
    entry = {
        "gpu": 3,
        "asic": {"market_name": "AMD Instinct MI300X", "asic_serial": "0xAB"},
        "bus": {"bdf": "0000:C1:00.0"},
        "vram": {"size": {"value": 196592, "unit": "MB"}},
    }
    for said in ([entry], {"gpu_data": [entry]}):
        (device,) = amd_devices(json.dumps(said))
        assert (device.index, device.serial, device.model, device.memory_mib) == (3, "0xAB", "MI300X", 196592)
        assert device.pci == "0000:c1:00.0"
    assert amd_devices("no json") == []


def test_a_slot_keeps_its_serial_and_shares_it_with_no_other() -> None:
    mine = cpu_slots(machine_id="m", node="n1", count=3, memory_mib=3000)
    assert mine == cpu_slots(machine_id="m", node="n1", count=3, memory_mib=3000)
    others = cpu_slots(machine_id="m", node="n2", count=3, memory_mib=3000)
    assert len({each.serial for each in (*mine, *others)}) == 6


def test_this_machine_offers_as_many_slots_as_it_was_told(tmp_path: Path) -> None:
    facts = observe_facts(
        folder=tmp_path,
        url="http://127.0.0.1:1",
        name=None,
        address=None,
        site="local",
        slots=5,
        isolation="none",
        devices=(),
    )
    assert [each.model for each in facts.devices] == ["cpu-slot"] * 5
    assert facts.address == "127.0.0.1"
    assert facts.boot_id
    assert facts.memory_mib > 0
