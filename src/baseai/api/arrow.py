"""An Arrow stream is a table as data frames read it: columns with types and gaps, one record batch."""

import io
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

MEDIA_TYPE = "application/vnd.apache.arrow.stream"
Column = Sequence[str] | NDArray[np.generic]


def arrow_stream(columns: Mapping[str, Column]) -> bytes:
    """Columns of equal length in the Arrow IPC streaming format. Imported late: few ask for it.

    Texts become strings, float64 with NaN as null, int64 and uint8 stay, and a column named `ts` is an instant of
    int64 milliseconds since 1970 in UTC.
    """
    import nanoarrow as na
    from nanoarrow.ipc import StreamWriter

    length = len(next(iter(columns.values()), ()))
    fields, children = {}, []
    for name, column in columns.items():
        if not isinstance(column, np.ndarray):
            kind, child = na.string(nullable=False), na.c_array(list(column), na.string())
        elif name == "ts":
            kind = na.timestamp("ms", timezone="UTC", nullable=False)
            child = na.c_array_from_buffers(kind, length, [None, np.ascontiguousarray(column, np.int64)])
        elif column.dtype == np.float64:
            kind, known = na.float64(), ~np.isnan(column)
            gaps = None if known.all() else np.packbits(known, bitorder="little")
            child = na.c_array_from_buffers(
                kind, length, [gaps, np.ascontiguousarray(column)], null_count=int(length - known.sum())
            )
        else:
            kind = {"u": na.uint8, "i": na.int64}[column.dtype.kind](nullable=False)
            child = na.c_array_from_buffers(kind, length, [None, np.ascontiguousarray(column)])
        fields[name] = kind
        children.append(child)
    table = na.c_array_from_buffers(na.struct(fields, nullable=False), length, [None], children=children)
    out = io.BytesIO()
    with StreamWriter.from_writable(out) as writer:
        writer.write_array(table)
    return out.getvalue()
