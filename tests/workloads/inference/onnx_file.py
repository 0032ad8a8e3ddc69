"""Small ONNX models, written byte by byte: the format is protobuf, and none of its packages is needed to write it."""

from collections.abc import Sequence
from pathlib import Path

Form = tuple[str, str, Sequence[int | str]]  # name, ONNX element type, lengths: a text is a free one

ELEMENTS = {"float": 1, "uint8": 2, "int32": 6, "int64": 7, "string": 8, "bool": 9, "double": 11}


def write_model(path: Path, op: str, inputs: Sequence[Form], outputs: Sequence[Form]) -> Path:
    """A graph of one node."""
    node = (
        [_text(1, name) for name, _, _ in inputs]
        + [_text(2, name) for name, _, _ in outputs]
        + [_text(4, op)]
    )
    graph = [_bytes(1, b"".join(node)), _text(2, "graph")]
    graph += [_bytes(11, _value(form)) for form in inputs] + [_bytes(12, _value(form)) for form in outputs]
    opset = _bytes(8, _number(2, 17))
    path.write_bytes(_number(1, 8) + _bytes(7, b"".join(graph)) + opset)
    return path


def adder(path: Path, rows: int | str = "rows") -> Path:
    """sum = left + right, each of shape (rows, 2)."""
    shape = (rows, 2)
    forms = [("left", "float", shape), ("right", "float", shape)]
    return write_model(path, "Add", forms, [("sum", "float", shape)])


def _value(form: Form) -> bytes:
    name, element, lengths = form
    sizes = [_number(1, length) if isinstance(length, int) else _text(2, length) for length in lengths]
    shape = b"".join(_bytes(1, size) for size in sizes)
    tensor = _number(1, ELEMENTS[element]) + _bytes(2, shape)
    return _text(1, name) + _bytes(2, _bytes(1, tensor))


def _varint(number: int) -> bytes:
    parts = bytearray()
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    parts.append(number)
    return bytes(parts)


def _number(field: int, number: int) -> bytes:
    return _varint(field << 3) + _varint(number)


def _bytes(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _text(field: int, text: str) -> bytes:
    return _bytes(field, text.encode())
