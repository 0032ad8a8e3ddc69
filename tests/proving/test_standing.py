"""How a figure stands against its like and its own past."""

from typing import Any

import pytest

from baseai.proving.standing import standing_of


def standing(**other: Any) -> Any:
    usual: dict[str, Any] = {
        "test": "gemm", "value": 80.0, "fleet_median": 100.0, "fleet_count": 5, "own_median": 82.0, "own_count": 5,
    }  # fmt: skip
    return standing_of(**(usual | other))


@pytest.mark.parametrize(
    ("changed", "alert"),
    [
        pytest.param({}, "80% of the median of 5 of its model", id="below its like"),
        pytest.param(
            {"own_median": 100.0}, "80% of its own median over 5 tests", id="its own loss comes first"
        ),
        pytest.param({"value": 95.0, "own_median": 100.0}, None, id="within a tenth"),
        pytest.param({"fleet_count": 2}, None, id="two make no median"),
        pytest.param({"test": "heat"}, None, id="cooler is no loss"),
        pytest.param({"value": None}, None, id="nothing measured, nothing compared"),
    ],
)
def test_alerts(changed: dict[str, Any], alert: str | None) -> None:
    assert standing(**changed).alert == alert


def test_ratios_are_to_the_medians() -> None:
    found = standing()
    assert (found.fleet_ratio, found.own_ratio) == (0.8, pytest.approx(80 / 82))
