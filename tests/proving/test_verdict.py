"""What fails a burn-in: a wrong result whatever the speed, and a share of the peak that is too small."""

from typing import Any

import pytest

from baseai.proving.verdict import failure_of, measured
from baseai.workloads.burn_in.figure import Figure, Test


class DataSheet:
    """An accelerator of 1,000 TFLOP/s in bf16, 3,000 GB/s of memory and 450 GB/s on its links."""

    def peak(self, model: str, test: Test, variant: str) -> float | None:
        if model != "H100-SXM":
            return None
        return {Test.GEMM: 1_000_000.0, Test.MEMORY: 3_000.0, Test.BUS: 450.0}.get(test)


def figure(test: str, variant: str, value: float | None, **other: Any) -> Figure:
    usual: dict[str, Any] = {"accelerator_id": "acc", "sentence": None if value is not None else "no sensor"}
    return Figure(test=Test(test), variant=variant, value=value, **(usual | other))


def failure(*figures: Figure, profile: str = "standard", model: str = "H100-SXM") -> str | None:
    return failure_of(measured(figures, model, DataSheet()), profile)


SOUND = (
    figure("gemm", "bf16", 720_000), figure("gemm_wrong", "bf16", 0), figure("memory", "triad", 2_700),
    figure("bus", "all_reduce", 2, size_bytes=1 << 20, accelerator_id=None),
    figure("bus", "all_reduce", 360, size_bytes=1 << 30, accelerator_id=None),
    figure("soak", "rate_kept", 0.98), figure("ecc", "uncorrected", 0), figure("ecc", "corrected", 12),
    figure("heat", "temp_c", None),
)  # fmt: skip


def test_a_sound_accelerator_passes() -> None:
    assert failure(*SOUND) is None


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        pytest.param(
            figure("gemm", "bf16", 400_000),
            "gemm bf16 of accelerator acc: 4e+05 GFLOP/s are 40% of the data sheet's 1e+06, and 50% is the least",
            id="slow products",
        ),
        pytest.param(
            figure("memory", "copy", 1_500), "memory copy of accelerator acc: 1500 GB/s are 50%", id="memory"
        ),
        pytest.param(
            figure("bus", "all_reduce", 361, size_bytes=1 << 29, accelerator_id=None),
            None,
            id="one good size is enough",
        ),
        pytest.param(figure("gemm_wrong", "fp32", 3), "3 rows came out wrong", id="silent corruption"),
        pytest.param(
            figure("memory_wrong", "copy", 1), "1 elements came out wrong", id="memory that forgets"
        ),
        pytest.param(
            figure("bus_wrong", "broadcast", 5, accelerator_id=None),
            "broadcast of all accelerators: 5",
            id="a bad link",
        ),
        pytest.param(
            figure("ecc", "uncorrected", 1), "1 memory errors were not corrected", id="an uncorrected error"
        ),
        pytest.param(figure("soak", "rate_kept", 0.7), "only 70% of the first rate was left", id="heat"),
        pytest.param(figure("memory", "triad", None), None, id="what was not measured fails nobody"),
        pytest.param(figure("ecc", "corrected", 900), None, id="corrected errors are for health to weigh"),
    ],
)
def test_what_fails(bad: Figure, said: str | None) -> None:
    found = failure(*SOUND, bad)
    assert (found is None) is (said is None)
    assert (said or "") in (found or "")


def test_a_slow_bus_fails_only_where_training_waits_for_it() -> None:
    slow = {"accelerator_id": None, "size_bytes": 1 << 30}
    assert failure(figure("bus", "all_to_all", 20, **slow)) is None
    assert "all_reduce" in (failure(figure("bus", "all_reduce", 20, **slow)) or "")


def test_where_no_peak_is_known_only_wrong_results_fail() -> None:
    assert failure(figure("gemm", "fp32", 0.1), model="cpu-slot") is None
    assert failure(figure("gemm_wrong", "fp32", 1), model="cpu-slot") is not None


def test_a_short_test_says_nothing_of_heat() -> None:
    assert failure(figure("soak", "rate_kept", 0.5), profile="quick") is None


def test_a_burn_in_without_a_figure_has_no_verdict() -> None:
    with pytest.raises(ValueError, match="without a figure"):
        failure()
