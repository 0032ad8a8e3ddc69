"""A figure has a value or a reason for having none, on its way through JSON as well."""

import pytest

from baseai.workloads.burn_in.figure import UNITS, Figure, Test


def test_it_comes_back_from_json_as_it_went() -> None:
    figure = Figure(test=Test.BUS, variant="all_reduce", accelerator_id=None, value=12.5, size_bytes=1024)
    assert Figure.from_json(figure.to_json()) == figure


@pytest.mark.parametrize(
    ("value", "sentence"), [pytest.param(None, None, id="neither"), pytest.param(1.0, "no", id="both")]
)
def test_a_value_or_a_sentence_and_not_both(value: float | None, sentence: str | None) -> None:
    with pytest.raises(ValueError, match="either"):
        Figure(test=Test.GEMM, variant="fp32", accelerator_id="a", value=value, sentence=sentence)


@pytest.mark.parametrize(
    "told",
    [
        pytest.param({}, id="nothing"),
        pytest.param({"test": "speed", "variant": "x", "accelerator_id": None, "value": 1}, id="no test"),
        pytest.param(
            {"test": "gemm", "variant": "x", "accelerator_id": None, "value": float("inf")}, id="infinite"
        ),
        pytest.param(
            {"test": "gemm", "variant": "x", "accelerator_id": None, "value": "fast"}, id="no number"
        ),
    ],
)
def test_what_is_no_figure_is_refused(told: dict[str, object]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        Figure.from_json(told)


def test_every_test_has_a_unit() -> None:
    assert set(UNITS) == set(Test)
