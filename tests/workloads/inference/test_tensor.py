"""A tensor survives both of its forms, and what cannot be one is refused in words."""

from typing import Any

import numpy as np
import pytest

from baseai.workloads.inference.datatype import DTYPES
from baseai.workloads.inference.engine import BadInput
from baseai.workloads.inference.server.tensor import bytes_of, json_of, tensor_of_bytes, tensor_of_json

EXAMPLES: dict[str, list[Any]] = {
    "BOOL": [True, False, True, True, False, False],
    "UINT8": [0, 1, 2, 3, 254, 255],
    "UINT16": [0, 1, 2, 3, 4, 2**16 - 1],
    "UINT32": [0, 1, 2, 3, 4, 2**32 - 1],
    "UINT64": [0, 1, 2, 3, 2**53 + 1, 2**64 - 1],
    "INT8": [-128, -1, 0, 1, 2, 127],
    "INT16": [-(2**15), -1, 0, 1, 2, 2**15 - 1],
    "INT32": [-(2**31), -1, 0, 1, 2, 2**31 - 1],
    "INT64": [-(2**63), -1, 0, 1, 2**53 + 1, 2**63 - 1],
    "FP16": [0.0, -1.5, 0.25, 65504.0, 1.0, 2.0],
    "FP32": [0.0, -1.5, 3.4028234663852886e38, 0.10000000149011612, 1.0, 2.0],
    "FP64": [0.0, -1.5, 1e308, 0.1, 1.0, 5e-324],
    "BYTES": ["", "a", "São Paulo", "{}", "\n", "日本"],
}


def test_every_datatype_has_an_example() -> None:
    assert EXAMPLES.keys() == DTYPES.keys()


@pytest.mark.parametrize("datatype", EXAMPLES)
def test_a_tensor_survives_json_flat_and_nested(datatype: str) -> None:
    flat = EXAMPLES[datatype]
    nested = [flat[:3], flat[3:]]
    for data in (flat, nested):
        made = tensor_of_json("x", datatype, [2, 3], data)
        assert (made.shape, made.dtype) == ((2, 3), DTYPES[datatype])
        assert json_of(made) == flat


@pytest.mark.parametrize("datatype", EXAMPLES)
def test_a_tensor_survives_bytes(datatype: str) -> None:
    made = tensor_of_json("x", datatype, [3, 2], EXAMPLES[datatype])
    again = tensor_of_bytes("x", datatype, [3, 2], memoryview(bytes_of(made)))
    assert again.dtype == made.dtype
    assert np.array_equal(again, made)


def test_bytes_are_little_endian_with_lengths_before_texts() -> None:
    assert bytes_of(np.array([1, 256], dtype=">u4")) == b"\x01\0\0\0\0\x01\0\0"
    assert bytes_of(np.array([b"ab", b""], dtype=object)) == b"\x02\0\0\0ab\0\0\0\0"
    assert bytes_of(np.array([True, False])) == b"\x01\0"


def test_bytes_of_a_tensor_may_be_any_in_base64() -> None:
    [[made]] = tensor_of_json("x", "BYTES", [1, 1], ["/wA="], in_base64=True).tolist()
    assert made == b"\xff\0"


def test_what_is_not_finite_is_null_in_json_and_itself_in_bytes() -> None:
    made = np.array([1.0, np.nan, np.inf], dtype=np.float32)
    assert json_of(made) == [1.0, None, None]
    assert np.array_equal(np.frombuffer(bytes_of(made), "<f4"), made, equal_nan=True)


def test_an_empty_tensor_is_one() -> None:
    assert tensor_of_json("x", "FP32", [0, 3], []).shape == (0, 3)
    assert tensor_of_bytes("x", "INT64", [0], memoryview(b"")).shape == (0,)
    assert tensor_of_json("x", "BYTES", [0], []).shape == (0,)


@pytest.mark.parametrize(
    ("datatype", "shape", "data", "words"),
    [
        pytest.param("FP32", [2, 2], [1, 2, 3], "[2, 2] has 4 elements, but data has 3 in shape [3]", id="too few"),
        pytest.param("FP32", [2, 2], [[1, 2, 3, 4]], "data has 4 in shape [1, 4]", id="nested otherwise"),
        pytest.param("FP32", [2, 2], [[1, 2], [3]], "in lists of equal length", id="ragged"),
        pytest.param("FP32", [1], ["a"], "must hold numbers of FP32", id="text for a number"),
        pytest.param("FP32", [1], [True], "must hold numbers of FP32", id="truth for a number"),
        pytest.param("INT32", [1], [1.5], "must hold whole numbers of INT32", id="half for a whole"),
        pytest.param("INT32", [1], [2**31], "2147483648 is outside INT32", id="too big"),
        pytest.param("UINT8", [1], [-1], "-1 is outside UINT8", id="below nought"),
        pytest.param("INT64", [1], [2**63], "9223372036854775808 is outside INT64", id="beyond 63 bits"),
        pytest.param("UINT64", [1], [2**64], "must hold whole numbers of UINT64", id="beyond 64 bits"),
        pytest.param("BOOL", [1], [1], "must hold true and false of BOOL", id="number for truth"),
        pytest.param("BYTES", [1], [1], "must hold strings, not a number", id="number for text"),
        pytest.param("BYTES", [2], ["a"], "shape [2] has 2 elements, but data has 1", id="too few texts"),
        pytest.param("BYTES", [1], [["a"]], "must hold strings, not an array", id="texts too deep"),
        pytest.param("BYTES", [2, 2], [["a", "b"], ["c"]], "3 strings, and not in shape", id="ragged texts"),
        pytest.param("FP32", [1], 1.0, "data must be a list, not a number", id="no list"),
        pytest.param("FP32", [1], None, "data must be a list, not null", id="nothing"),
    ],
)  # fmt: skip
def test_what_is_no_tensor_is_refused_by_name(datatype: str, shape: list[int], data: Any, words: str) -> None:
    with pytest.raises(BadInput) as refused:
        tensor_of_json("x", datatype, shape, data)
    assert "input x" in str(refused.value)
    assert words in str(refused.value)
    assert refused.value.param == "x"


@pytest.mark.parametrize(
    ("datatype", "part", "words"),
    [
        pytest.param("FP32", b"\0" * 7, "a FP32 tensor of shape [2] has 8 bytes, not 7", id="a byte short"),
        pytest.param(
            "BOOL", b"\0\2", "a byte of a BOOL tensor is 0 or 1, not 2", id="neither true nor false"
        ),
        pytest.param("BYTES", b"\5\0\0\0ab", "end within an element", id="a text cut off"),
        pytest.param("BYTES", b"\1\0\0\0a\5", "end within an element", id="a length cut off"),
        pytest.param("BYTES", b"\1\0\0\0a", "shape [2] has 2 elements, but data has 1", id="a text short"),
    ],
)
def test_bytes_that_are_no_tensor_are_refused(datatype: str, part: bytes, words: str) -> None:
    with pytest.raises(BadInput) as refused:
        tensor_of_bytes("x", datatype, [2], memoryview(part))
    assert words in str(refused.value)
