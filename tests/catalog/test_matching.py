"""What a name in a spec may mean."""

import pytest

from baseai.catalog import load_catalog

CATALOG = load_catalog()


@pytest.mark.parametrize(
    ("name", "memory_gib", "models"),
    [
        pytest.param("H100", None, ("H100-SXM", "H100-PCIe"), id="an alias of two"),
        pytest.param("h100-sxm", None, ("H100-SXM",), id="a key in any case"),
        pytest.param("H100", range(80, 81), ("H100-SXM", "H100-PCIe"), id="H100:80GB"),
        pytest.param("A100", range(80, 81), ("A100-80GB",), id="A100:80GB"),
        pytest.param("A100", range(40, 10**6), ("A100-40GB", "A100-80GB"), id="A100:40GB.."),
        pytest.param("NVIDIA A100", range(40, 41), ("A100-40GB",), id="with its maker"),
        pytest.param("AMD Instinct MI300X", None, ("MI300X",), id="with maker and family"),
        pytest.param("MI300", None, ("MI300X",), id="short"),
        pytest.param("tpu", None, ("TPU-v5e",), id="a leased one has a name, too"),
        pytest.param("cpu-slot", None, ("cpu-slot",), id="a CPU slot by name"),
        pytest.param(None, range(140, 10**6), ("MI300X", "H200", "MI350X"), id="anything with 140 GiB"),
        pytest.param("H10", None, (), id="no guessing"),
        pytest.param("H100", range(40, 41), (), id="the name fits, the memory does not"),
    ],
)
def test_models_matching(name: str | None, memory_gib: range | None, models: tuple[str, ...]) -> None:
    assert CATALOG.models_matching(name, memory_gib) == models


def test_anything_does_not_mean_a_cpu_slot() -> None:
    assert "cpu-slot" not in CATALOG.models_matching(None)


def test_every_known_name_matches_something() -> None:
    for name in CATALOG.known_names():
        assert CATALOG.models_matching(name), name
