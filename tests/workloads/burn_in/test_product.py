"""A product is right to the last bit or it is found wrong, and its rate is work over time."""

import pytest

torch = pytest.importorskip("torch", reason="the extra `train` is not installed")

from baseai.workloads.burn_in.product import WARM_UPS, NotOffered, Product, Rates, median_of  # noqa: E402

ROWS = 128


@pytest.mark.parametrize("number_format", ["fp32", "bf16", "int8"])
def test_a_sound_product_has_no_wrong_row(number_format: str) -> None:
    product = Product(number_format, ROWS, "cpu", seed=7)
    found = product.run(0.05)
    assert found.wrong_rows == 0
    assert found.median > 0


@pytest.mark.parametrize("number_format", ["fp32", "int8"])
@pytest.mark.parametrize("row", [0, 63, ROWS - 1])
def test_one_wrong_digit_anywhere_is_found(number_format: str, row: int) -> None:
    product = Product(number_format, ROWS, "cpu", seed=7)
    spoilt = product.first.clone()
    spoilt[row, (row * 31) % ROWS] += 1
    assert product.wrong_rows(spoilt) == 1


def test_of_a_rounded_format_a_lost_sign_is_found_and_its_own_rounding_is_not() -> None:
    product = Product("bf16", ROWS, "cpu", seed=7)
    assert product.wrong_rows(product.first) == 0
    spoilt = product.first.clone()
    column = int(spoilt[5].abs().argmax())
    spoilt[5, column] = -spoilt[5, column]
    spoilt[9, 3] = float("nan")
    assert product.wrong_rows(spoilt) == 2


def test_a_result_that_changes_between_windows_is_wrong() -> None:
    product = Product("fp32", ROWS, "cpu", seed=7)
    sound, count = product._multiply, 0

    def flips() -> object:
        nonlocal count
        count += 1
        result = sound()
        if count > WARM_UPS + 2:  # one measures, one is the reference
            result[3, 3] += 1
        return result

    product._multiply = flips  # type: ignore[assignment]
    assert product.run(0.5).wrong_rows >= 1


def test_what_is_not_offered_says_so() -> None:
    with pytest.raises(NotOffered, match="fp4"):
        Product("fp4", ROWS, "cpu", seed=7)


def test_what_is_kept_is_the_last_quarter_over_the_first() -> None:
    assert Rates(gflops=(100.0, 100.0, 100.0, 90.0, 85.0, 80.0, 80.0, 80.0), wrong_rows=0).kept_ratio == 0.8
    assert Rates(gflops=(50.0,), wrong_rows=0).kept_ratio == 1.0
    assert median_of((1.0, 9.0, 2.0, 4.0)) == 3.0
