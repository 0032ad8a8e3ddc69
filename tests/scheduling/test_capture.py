"""A captured hall answers every question as the hall did, and other bytes are refused."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baseai.scheduling.capture import NoCapture, captured, hall_from
from baseai.scheduling.gang import Shape
from baseai.scheduling.hall import Hall
from tests.scheduling.halls import assert_adds_up, bay, hall
from tests.scheduling.test_hall import halls, shapes


@settings(max_examples=60, deadline=None)
@given(one=halls(), asked=st.lists(shapes, max_size=12))
def test_what_is_captured_comes_back(one: Hall, asked: list[Shape]) -> None:
    for number, shape in enumerate(asked):
        shape = replace(shape, reach=("", "site")[number % 2], near=("", "leaf")[number // 2 % 2])
        if spots := one.spots(shape, range(len(one))):
            one.place(f"run {number}", shape, spots)
    back = hall_from(captured(one))
    assert (back.bays, dict(back.held)) == (one.bays, dict(one.held))
    assert np.array_equal(back.free, one.free)
    assert captured(back) == captured(one)
    assert_adds_up(back)


def test_a_closed_node_comes_back_closed() -> None:
    one = Hall([bay("a", 2, site="SP4", country="BR", leaf="l1", pod="p", rack="r", watts=700), bay("b", 2)])
    one.set_ready("b", False)
    assert hall_from(captured(one)).ready.tolist() == [True, False]


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04 torn", captured(hall(2))[:-40], np.arange(3).tobytes()]
)
def test_other_bytes_are_refused(content: bytes) -> None:
    with pytest.raises(NoCapture):
        hall_from(content)
