"""A tensor as the Open Inference Protocol writes it: in JSON, nested or flat in row-major order, or as bytes behind it.

Invariant: what cannot be the tensor it says to be is refused by a sentence with its name, what was wanted and what
came; nothing is rounded, wrapped or cut. JSON has no form for a number that is not finite: it goes out as null, and as
bytes exactly.
"""

import base64
import binascii
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from baseai.workloads.inference.datatype import DTYPES, datatype_of
from baseai.workloads.inference.engine import BadInput, TensorForm
from baseai.workloads.inference.server.exchange import kind_of

Array = NDArray[Any]

LENGTH_BYTES = 4  # before each element of a BYTES tensor


def fits(form: TensorForm, datatype: str, shape: Sequence[int]) -> None:
    """Raises BadInput unless a tensor of this type and shape can be this input."""
    if datatype != form.datatype:
        raise BadInput(f"input {form.name} must be of datatype {form.datatype}, not {datatype}", form.name)
    wanted = form.shape
    if len(shape) != len(wanted) or any(
        length is not None and length != given for length, given in zip(wanted, shape, strict=True)
    ):
        told = ", ".join("any" if length is None else str(length) for length in wanted)
        raise BadInput(f"input {form.name} must be of shape [{told}], not {list(shape)}", form.name)


def shape_of(name: str, given: object) -> list[int]:
    """A shape: whole numbers that are not negative. Raises BadInput."""
    if not isinstance(given, list) or not all(type(length) is int and length >= 0 for length in given):
        raise BadInput(f"input {name}: shape must be a list of whole numbers from 0, not {given!r}", name)
    return given


def tensor_of_json(
    name: str, datatype: str, shape: Sequence[int], data: object, *, in_base64: bool = False
) -> Array:
    """The tensor of a `data` field. Raises BadInput. `in_base64`: its BYTES elements are."""
    dtype = DTYPES[datatype]
    if not isinstance(data, list):
        raise BadInput(f"input {name}: data must be a list, not {kind_of(data)}", name)
    if datatype == "BYTES":
        return _bytes_tensor(name, shape, data, in_base64)
    given = _numbers(data)
    if dtype.kind in "iu" and given.dtype.kind == "f":
        given = _whole(data)  # beyond 63 bits numpy takes whole numbers for floats
    if given.size == 0 and given.dtype != object:
        given = given.astype(dtype)
    if given.dtype.kind not in _KINDS[dtype.kind]:
        wanted = {"b": "true and false", "f": "numbers"}.get(dtype.kind, "whole numbers")
        raise BadInput(f"input {name}: data must hold {wanted} of {datatype}, in lists of equal length", name)
    if dtype.kind in "iu" and given.size:
        bounds = np.iinfo(dtype)
        least, most = int(given.min()), int(given.max())
        if least < bounds.min or most > bounds.max:
            wrong = least if least < bounds.min else most
            raise BadInput(f"input {name}: {wrong} is outside {datatype}", name)
    return _shaped(name, given.astype(dtype, copy=False), shape, given.shape)


def _numbers(data: list[Any]) -> Array:
    """As numpy reads the lists; of kind `O` where it cannot."""
    try:
        return np.asarray(data)
    except (ValueError, OverflowError):
        return np.empty(0, dtype=object)


def _whole(data: list[Any]) -> Array:
    """The same as 64 bits without sign; of kind `O` where they are no whole numbers that fit in."""
    given = np.array(data, dtype=object)
    if not all(type(element) is int and 0 <= element < 1 << 64 for element in given.flat):
        return np.empty(0, dtype=object)
    return given.astype(np.uint64)


# Kinds of number that JSON may bring for a kind of tensor: a whole number is also a float, nothing else is another.
_KINDS: Mapping[str, str] = {"b": "b", "i": "iu", "u": "iu", "f": "iuf"}


def tensor_of_bytes(name: str, datatype: str, shape: Sequence[int], part: memoryview) -> Array:
    """The tensor of its part of the binary tail. Raises BadInput."""
    dtype = DTYPES[datatype]
    if datatype == "BYTES":
        elements = list(_elements(name, part))
        return _shaped(name, _objects(elements), shape, (len(elements),))
    count = 1
    for length in shape:
        count *= length
    if count * dtype.itemsize != len(part):
        raise BadInput(
            f"input {name}: a {datatype} tensor of shape {list(shape)} has {count * dtype.itemsize} bytes, "
            f"not {len(part)}",
            name,
        )
    given = np.frombuffer(part, dtype=np.uint8 if datatype == "BOOL" else dtype).reshape(shape)
    if datatype == "BOOL":
        if given.size and given.max() > 1:
            raise BadInput(f"input {name}: a byte of a BOOL tensor is 0 or 1, not {given.max()}", name)
        return given.astype(np.bool_)
    return given


def json_of(tensor: Array) -> list[Any]:
    """The elements, flat in row-major order. Raises UnicodeDecodeError where bytes are no text."""
    if tensor.dtype == object:
        return [
            element.decode() if isinstance(element, bytes) else str(element) for element in tensor.ravel()
        ]
    elements: list[Any] = tensor.ravel().tolist()
    if tensor.dtype.kind == "f" and not np.isfinite(tensor).all():
        return [element if -np.inf < element < np.inf else None for element in elements]
    return elements


def bytes_of(tensor: Array) -> bytes:
    """The elements as the binary tail has them."""
    if tensor.dtype == object:
        parts = [
            element if isinstance(element, bytes) else str(element).encode() for element in tensor.ravel()
        ]
        return b"".join(len(part).to_bytes(LENGTH_BYTES, "little") + part for part in parts)
    little: Array = tensor.astype(DTYPES[datatype_of(tensor)], copy=False)
    return little.tobytes()


def _shaped(name: str, given: Array, shape: Sequence[int], came: tuple[int, ...]) -> Array:
    """Nested data has the shape itself; flat data has as many elements. Raises BadInput."""
    wanted = tuple(shape)
    if came == wanted:
        return given
    count = 1
    for length in wanted:
        count *= length
    if len(came) != 1 or came[0] != count:
        raise BadInput(
            f"input {name}: shape {list(wanted)} has {count} elements, but data has {given.size} in shape {list(came)}",
            name,
        )
    return given.reshape(wanted)


def _bytes_tensor(name: str, shape: Sequence[int], data: list[Any], in_base64: bool) -> Array:
    parts = []
    for element in _flat(data, len(shape)):
        if not isinstance(element, str):
            raise BadInput(f"input {name}: data must hold strings, not {kind_of(element)}", name)
        try:
            parts.append(base64.b64decode(element, validate=True) if in_base64 else element.encode())
        except (binascii.Error, UnicodeEncodeError) as wrong:
            raise BadInput(f"input {name}: {element[:40]!r} cannot be bytes: {wrong}", name) from None
    made = _objects(parts)
    if not any(isinstance(element, list) for element in data):
        return _shaped(name, made, shape, made.shape)
    if not _has(data, shape):
        raise BadInput(f"input {name}: data has {len(parts)} strings, and not in shape {list(shape)}", name)
    return made.reshape(tuple(shape))


def _flat(data: list[Any], depth: int) -> Iterator[Any]:
    """The elements in row-major order; lists that lie deeper than `depth` are taken for elements."""
    for element in data:
        if isinstance(element, list) and depth > 1:
            yield from _flat(element, depth - 1)
        else:
            yield element


def _has(data: object, shape: Sequence[int]) -> bool:
    """Whether nested lists are of this shape throughout."""
    if not shape:
        return not isinstance(data, list)
    return isinstance(data, list) and len(data) == shape[0] and all(_has(part, shape[1:]) for part in data)


def _objects(elements: list[bytes]) -> Array:
    tensor = np.empty(len(elements), dtype=object)
    tensor[:] = elements
    return tensor


def _elements(name: str, part: memoryview) -> Iterator[bytes]:
    at = 0
    while at < len(part):
        end = at + LENGTH_BYTES
        length = int.from_bytes(part[at:end], "little")
        if end > len(part) or end + length > len(part):
            raise BadInput(f"input {name}: its {len(part)} bytes end within an element", name)
        yield bytes(part[end : end + length])
        at = end + length
