"""Bytes of a stream become events, however they are cut; what is too long harms nothing else."""

import pytest

from baseai.telemetry.board.event_stream import EVENT_BYTES_MAX, EventStream, Sent

TWO = b': hello\n\nid: 7\ndata: {"a":\ndata: 1}\n\nevent: x\nid: 8\r\ndata:{}\r\n\r\n'
EVENTS = [Sent(event_id="7", data='{"a":\n1}'), Sent(event_id="8", data="{}")]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_events_do_not_depend_on_how_bytes_arrive(size: int) -> None:
    stream = EventStream()
    found = [event for place in range(0, len(TWO), size) for event in stream.fed(TWO[place : place + size])]
    assert (found, stream.last_id) == (EVENTS, "8")


def test_what_a_lost_connection_cut_off_is_not_told() -> None:
    stream = EventStream()
    assert stream.fed(b'id: 1\ndata: {}\n\nid: 2\ndata: {"half"') == [Sent(event_id="1", data="{}")]
    stream.reconnected()
    assert stream.last_id == "1"
    assert stream.fed(b"id: 2\ndata: {}\n\n") == [Sent(event_id="2", data="{}")]


@pytest.mark.parametrize("between", [b"", b"\n"], ids=["one endless line", "many lines"])
def test_an_event_without_end_is_dropped_and_the_next_one_is_heard(between: bytes) -> None:
    stream = EventStream()
    piece = b"data: " + b"x" * (EVENT_BYTES_MAX // 4) + between
    for _ in range(8):
        assert stream.fed(piece) == []
    assert stream.fed(b"\n\nid: 3\ndata: {}\n\n") == [Sent(event_id="3", data="{}")]
    assert stream.dropped >= 1
