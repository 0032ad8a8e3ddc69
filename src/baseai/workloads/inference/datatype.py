"""A datatype is what the elements of a tensor are, by the Open Inference Protocol's names.

Invariant: a name stands for one type of numpy's, little-endian as bytes travel; BYTES are Python objects of `bytes`.
The protocol decides the names; its bfloat16 has no type of numpy's and is not among them.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

DTYPES: Mapping[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BYTES": np.dtype(object),  # each element is `bytes`
}
DATATYPES: Mapping[np.dtype[Any], str] = {dtype: name for name, dtype in DTYPES.items()}


def datatype_of(tensor: NDArray[Any]) -> str:
    """The protocol's name of a tensor's type. Raises ValueError where it has none."""
    dtype = tensor.dtype.newbyteorder("<")
    if dtype.kind in "SU":
        return "BYTES"
    if dtype not in DATATYPES:
        raise ValueError(f"the Open Inference Protocol has no datatype for {tensor.dtype}")
    return DATATYPES[dtype]
