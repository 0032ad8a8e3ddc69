"""Time is cut where it changes hands, and what is divided adds up again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseai.telemetry.span import Span, parted, pieces
from baseai.telemetry.use import Method


def test_time_is_cut_where_it_changes_hands() -> None:
    spans = [
        Span(owner="b", from_ms=5, until_ms=20, method=Method.TIME_SLICE, size=0.5),
        Span(owner="a", from_ms=-5, until_ms=10, method=Method.TIME_SLICE, size=0.5),
    ]
    assert [(p.from_ms, p.until_ms, [s.owner for s in p.spans]) for p in pieces(spans, 0, 30)] == [
        (0, 5, ["a"]), (5, 10, ["a", "b"]), (10, 20, ["b"]), (20, 30, []),
    ]  # fmt: skip


@given(
    st.integers(0, 10**13), st.lists(st.floats(0, 1), min_size=1, max_size=8).filter(lambda w: sum(w) > 1e-6)
)
def test_parts_add_up_and_none_is_negative(amount: int, weights: list[float]) -> None:
    parts = parted(amount, weights)
    assert sum(parts) == amount
    assert min(parts) >= 0


@pytest.mark.parametrize(
    ("from_ms", "until_ms", "size"), [(5, 5, 1.0), (6, 5, 1.0), (0, 1, 0.0), (0, 1, 1.1)]
)
def test_a_span_has_a_length_and_a_size(from_ms: int, until_ms: int, size: float) -> None:
    with pytest.raises(ValueError, match="of a device"):
        Span(owner="a", from_ms=from_ms, until_ms=until_ms, size=size)
