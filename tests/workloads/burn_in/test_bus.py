"""Bus bandwidth by the formulas of nccl-tests, against values reckoned by hand."""

import pytest

from baseai.workloads.burn_in.bus import FACTORS, bandwidth_of, sizes_of


@pytest.mark.parametrize(
    ("collective", "ranks", "bus"),
    [
        # 1 GB in 10 ms is an algorithm bandwidth of 100 GB/s.
        pytest.param("all_reduce", 8, 175.0, id="all_reduce: 2·7/8"),
        pytest.param("all_reduce", 2, 100.0, id="all_reduce of two: each sends its half and gets one back"),
        pytest.param("all_gather", 8, 87.5, id="all_gather: 7/8"),
        pytest.param("reduce_scatter", 4, 75.0, id="reduce_scatter: 3/4"),
        pytest.param("all_to_all", 16, 93.75, id="all_to_all: 15/16"),
        pytest.param("broadcast", 8, 100.0, id="broadcast: 1"),
    ],
)
def test_bus_bandwidth(collective: str, ranks: int, bus: float) -> None:
    found = bandwidth_of(collective, size_bytes=10**9, ranks=ranks, slowest_s=0.01)
    assert found.algorithm_gb_per_s == pytest.approx(100.0)
    assert found.bus_gb_per_s == pytest.approx(bus)


@pytest.mark.parametrize("collective", FACTORS)
def test_no_factor_exceeds_twice_the_payload(collective: str) -> None:
    assert all(0 < FACTORS[collective](ranks) < 2 for ranks in range(2, 1025))


@pytest.mark.parametrize(
    ("size_bytes", "ranks", "slowest_s"),
    [
        pytest.param(8, 1, 1.0, id="nobody to exchange with"),
        pytest.param(0, 2, 1.0, id="nothing exchanged"),
        pytest.param(8, 2, 0.0, id="no time passed"),
    ],
)
def test_what_is_no_exchange_has_no_bandwidth(size_bytes: int, ranks: int, slowest_s: float) -> None:
    with pytest.raises(ValueError, match="exchange"):
        bandwidth_of("all_reduce", size_bytes=size_bytes, ranks=ranks, slowest_s=slowest_s)


def test_sizes_double_up_to_the_most() -> None:
    assert list(sizes_of(1024, 5000)) == [1024, 2048, 4096]
    assert list(sizes_of(8, 4)) == []
