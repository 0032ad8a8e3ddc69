"""A sample is what one source said of one thing at one tick; a batch is the samples of one node and family, as columns.

Invariant: where the state is not VALUE the number is NaN, and a number is finite and within its field's range. A batch
is known by an id made when it was closed, so that sending it twice is the same as once. Nobody changes one once made.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from baseai.telemetry.field import Family, Origin, State

ORIGIN_SHIFT = 4


def code_of(state: State, origin: Origin = Origin.MEASURED) -> int:
    """State and origin in one byte, as columns keep them: the state in the low four bits."""
    return int(state) | int(origin) << ORIGIN_SHIFT


def state_of(code: int) -> State:
    return State(code & 15)


def origin_of(code: int) -> Origin:
    return Origin(code >> ORIGIN_SHIFT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One field of one thing at one tick, as its collector read it."""

    value: float | None  # None unless the state is VALUE
    state: State = State.VALUE
    source: str = (
        ""  # exporter, its version, the vendor's own name and the unit factor, for a person to follow
    )
    origin: Origin = Origin.MEASURED

    def __post_init__(self) -> None:
        if (self.value is None) == (self.state is State.VALUE):
            raise ValueError(f"a reading that is {self.state.name} cannot be {self.value}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """All fields of one thing at one tick. A field that is missing here is ABSENT."""

    key: str  # of its family: an accelerator's serial (or UUID until it is resolved), a node's id, node/device/port
    ts_ms: int  # of the tick, UTC, milliseconds since 1970
    fields: Mapping[str, Reading]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """What a collector could not take over, and of which thing and field, so that an operator can look there."""

    source: str  # collector, and the line or resource within what it read
    key: str | None
    field: str | None
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Rows of one node and one family, as columns.

    keys: shape (rows,). ts_ms: shape (rows,), int64. values: shape (rows, fields), float64, NaN unless VALUE.
    codes: shape (rows, fields), uint8, see `code_of`. `boot_id` changes when the node starts anew: counters restart.
    """

    batch_id: str
    family: Family
    node_id: str
    site: str
    boot_id: str
    keys: tuple[str, ...]
    ts_ms: NDArray[np.int64]
    values: NDArray[np.float64]
    codes: NDArray[np.uint8]
    sources: Mapping[str, str] = field(default_factory=dict)  # field → where its values come from

    def __post_init__(self) -> None:
        shape = (len(self.keys), len(self.family.fields))
        if self.values.shape != shape or self.codes.shape != shape or self.ts_ms.shape != shape[:1]:
            raise ValueError(
                f"batch {self.batch_id}: {shape} expected, values {self.values.shape}, codes {self.codes.shape},"
                f" instants {self.ts_ms.shape}"
            )

    def __len__(self) -> int:
        return len(self.keys)
