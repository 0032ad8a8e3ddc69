"""Server-sent events as they pass: whole at once, counted, and without the usage that nobody asked to see."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseai.gateway.protocol import Usage
from baseai.gateway.stream import Stream


def event(*, usage: object = None, choices: int = 1, text: str = "olá") -> bytes:
    chunk = {"choices": [{"index": 0, "delta": {"content": text}}] * choices, "usage": usage}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


TOLD = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
DONE = b"data: [DONE]\n\n"
WORDS = event() + event(text='"usage": 1')
WHOLE = WORDS + event(usage=TOLD, choices=0) + DONE


def through(stream: Stream, answer: bytes, cuts: list[int]) -> bytes:
    places = [0, *sorted(cut for cut in cuts if cut < len(answer)), len(answer)]
    pieces = [answer[a:b] for a, b in itertools.pairwise(places)]
    return b"".join(stream.passed(piece) for piece in pieces) + stream.rest()


@given(st.lists(st.integers(0, len(WHOLE)), max_size=6))
def test_usage_nobody_asked_for_is_kept_back_however_the_bytes_come(cuts: list[int]) -> None:
    stream = Stream(hides_usage=True)
    assert through(stream, WHOLE, cuts) == WORDS + DONE
    assert stream.served == Usage(3, 2)
    assert stream.ended


@given(st.lists(st.integers(0, len(WHOLE)), max_size=6))
def test_usage_that_was_asked_for_passes_and_is_read(cuts: list[int]) -> None:
    stream = Stream(hides_usage=False)
    assert through(stream, WHOLE, cuts) == WHOLE
    assert stream.served == Usage(3, 2)


def test_an_event_goes_on_as_soon_as_it_is_whole() -> None:
    stream = Stream(hides_usage=True)
    assert stream.passed(event() + b"data: {") == event()
    assert stream.passed(b'"choices":[1]}\n\n') == b'data: {"choices":[1]}\n\n'


def test_without_usage_each_event_counts_as_a_token() -> None:
    stream = Stream(hides_usage=True)
    stream.passed(event() * 7)
    assert stream.served == Usage(0, 7)


def test_usage_beside_words_passes() -> None:
    stream = Stream(hides_usage=True)
    last = event(usage=TOLD)
    assert stream.passed(last) == last
    assert stream.served == Usage(3, 2)


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param(b": keep-alive\n\n", id="a comment"),
        pytest.param(b'data: {"usage"\n\n', id="no JSON"),
        pytest.param(b'event: x\ndata: "usage"\n\n', id="a text"),
        pytest.param(b'data: {"choices":[]}\r\n\r\n', id="other line ends"),
    ],
)
def test_what_is_odd_passes_unchanged(odd: bytes) -> None:
    assert Stream(hides_usage=True).passed(odd) == odd
