"""Builders for what an accelerator's samples told: one line a sample, in seconds, joules and percent."""

from collections.abc import Sequence

import numpy as np

from baseai.telemetry.attribution import FIELDS, Course, course_of
from baseai.telemetry.field import Origin, State
from baseai.telemetry.sample import code_of
from baseai.telemetry.store import Series, Tier

SECOND = 1000
Told = dict[str, float | None]


def series(
    *rows: tuple[float, Told], boots: Sequence[int] | None = None, origin: Origin = Origin.MEASURED
) -> Series:
    """A raw series of (second, fields told) with all of FIELDS; what a row does not tell is absent."""
    values = np.array([[told.get(name) for name in FIELDS] for _, told in rows], np.float64)
    values = values.reshape(len(rows), len(FIELDS))
    codes = np.where(np.isnan(values), code_of(State.ABSENT), code_of(State.VALUE, origin)).astype(np.uint8)
    return Series(
        key="GPU-1",
        fields=FIELDS,
        tier=Tier.RAW,
        ts_ms=np.array([round(at * SECOND) for at, _ in rows], np.int64),
        values=values,
        codes=codes,
        boots=np.array(boots if boots is not None else [0] * len(rows), np.int32),
    )


def course(
    *rows: tuple[float, Told], boots: Sequence[int] | None = None, origin: Origin = Origin.MEASURED
) -> Course:
    return course_of(series(*rows, boots=boots, origin=origin))


def energy(*readings: tuple[float, float], boots: Sequence[int] | None = None) -> Course:
    """A course of (second, joules on the counter)."""
    return course(*((at, {"energy_j": joules}) for at, joules in readings), boots=boots)
