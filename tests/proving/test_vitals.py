"""What telemetry saw during a test, unknown kept apart from zero."""

import numpy as np
import pytest

from baseai.proving.vitals import FIELDS, Watched, vitals_of
from baseai.telemetry.field import State
from baseai.telemetry.sample import code_of


def watched(boots: list[int] | None = None, **columns: list[float | State]) -> Watched:
    ticks = max(len(column) for column in columns.values())
    values = np.full((ticks, len(FIELDS)), np.nan)
    codes = np.full((ticks, len(FIELDS)), code_of(State.ABSENT), dtype=np.uint8)
    for number, name in enumerate(FIELDS):
        for tick, seen in enumerate(columns.get(name, [])):
            state = seen if isinstance(seen, State) else State.VALUE
            codes[tick, number] = code_of(state)
            if state is State.VALUE:
                values[tick, number] = seen
    return Watched(
        fields=tuple(FIELDS), values=values, codes=codes, boots=np.array(boots or [0] * ticks, dtype=np.int32)
    )


def seen(found: Watched | None, name: str) -> float | str | None:
    figures = {(one.test, one.variant): one for one in vitals_of("acc", found)}
    one = figures[FIELDS[name]]
    return one.value if one.value is not None else one.sentence


@pytest.mark.parametrize(
    ("found", "name", "expected"),
    [
        pytest.param(watched(temp_c=[40.0, 71.5, 66.0]), "temp_c", 71.5, id="the highest temperature"),
        pytest.param(
            watched(ecc_ue=[3.0, 3.0, 5.0]), "ecc_ue", 2.0, id="errors counted meanwhile, not before"
        ),
        pytest.param(watched(ecc_ce=[9.0, 1.0, 2.0]), "ecc_ce", 2.0, id="a counter that began again"),
        pytest.param(
            watched([0, 1], throttle_ms=[5.0, 8.0]), "throttle_ms", 8.0, id="a node that began again"
        ),
        pytest.param(
            watched(ecc_ue=[3.0]), "ecc_ue", "one sample is too few to count between", id="one sample"
        ),
        pytest.param(
            watched(temp_c=[State.UNSUPPORTED]),
            "temp_c",
            "this device has no such sensor",
            id="a core has no sensor",
        ),
        pytest.param(watched(temp_c=[50.0]), "ecc_ue", "its collector did not report it", id="absent"),
        pytest.param(None, "temp_c", "no sample of telemetry covers the test", id="nobody watched"),
    ],
)
def test_vitals(found: Watched | None, name: str, expected: float | str) -> None:
    assert seen(found, name) == expected
