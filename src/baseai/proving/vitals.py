"""Vitals are what telemetry saw of an accelerator while it was tested: heat, throttling, memory errors.

Invariant: pure; counters count from the first to the last sample of the test, a reset from zero; a field that the
device does not offer becomes a figure that says so, and a test that no sample covers has no vitals at all.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from baseai.telemetry.field import State
from baseai.telemetry.sample import state_of
from baseai.workloads.burn_in.figure import Figure, Test

FIELDS: Mapping[str, tuple[Test, str]] = {
    "temp_c": (Test.HEAT, "temp_c"),
    "temp_mem_c": (Test.HEAT, "temp_mem_c"),
    "throttle_ms": (Test.THROTTLE, "throttled"),
    "ecc_ce": (Test.ECC, "corrected"),
    "ecc_ue": (Test.ECC, "uncorrected"),
}
COUNTERS = frozenset({"throttle_ms", "ecc_ce", "ecc_ue"})
NOT_SEEN: Mapping[State, str] = {
    State.UNSUPPORTED: "this device has no such sensor",
    State.BLANK: "its driver left the field blank",
    State.PAUSED: "the field was paused meanwhile",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """The samples of one accelerator during its test.

    values, codes: shape (ticks, fields) in the order of `fields`; boots: shape (ticks,).
    """

    fields: tuple[str, ...]
    values: NDArray[np.float64]
    codes: NDArray[np.uint8]
    boots: NDArray[np.int32]


def vitals_of(accelerator_id: str, watched: Watched | None) -> tuple[Figure, ...]:
    """One figure for each field of FIELDS. `watched` is None where telemetry gave no answer."""
    return tuple(_figure(accelerator_id, name, watched) for name in FIELDS)


def _figure(accelerator_id: str, name: str, watched: Watched | None) -> Figure:
    value, sentence = _seen(name, watched)
    test, variant = FIELDS[name]
    return Figure(test=test, variant=variant, accelerator_id=accelerator_id, value=value, sentence=sentence)


def _seen(name: str, watched: Watched | None) -> tuple[float | None, str | None]:
    if watched is None or len(watched.values) == 0:
        return None, "no sample of telemetry covers the test"
    column = watched.fields.index(name)
    numbers, codes = watched.values[:, column], watched.codes[:, column]
    known = ~np.isnan(numbers)
    if not known.any():
        return None, NOT_SEEN.get(state_of(int(codes[-1])), "its collector did not report it")
    if name not in COUNTERS:
        return float(numbers[known].max()), None
    kept, boots = numbers[known], watched.boots[known]
    if len(kept) < 2:
        return None, "one sample is too few to count between"
    steps = np.diff(kept)
    began_again = (np.diff(boots) != 0) | (steps < 0)
    return float(np.where(began_again, kept[1:], steps).sum()), None
