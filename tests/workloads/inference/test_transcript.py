"""The text of an answer comes in whole characters, and nothing of a stop text is ever said."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseai.workloads.inference.engines.transcript import HALF, Transcript


def spelled(tokens: Sequence[int]) -> str:
    """A tokenizer whose tokens are bytes."""
    return bytes(tokens).decode("utf-8", errors="replace")


def said(text: bytes, *stops: str) -> list[str]:
    transcript = Transcript(spelled, stops)
    pieces = []
    for token in text:
        pieces.append(transcript.add(token))
        if transcript.stopped:
            return pieces
    return [*pieces, transcript.end()]


@pytest.mark.parametrize(
    ("text", "stops", "pieces"),
    [
        pytest.param("ab", (), ["a", "b", ""], id="each token at once"),
        pytest.param("é!", (), ["", "é", "!", ""], id="half a character waits"),
        pytest.param("a.b", (".",), ["a", ""], id="the stop is no part of it"),
        pytest.param("ab\n\nc", ("\n\n",), ["a", "b", "", ""], id="what may be a stop waits"),
        pytest.param("a\nb", ("\n\n",), ["a", "", "\nb", ""], id="and is said when it was none"),
        pytest.param("a\n", ("\n\n",), ["a", "", "\n"], id="or when nothing follows"),
        pytest.param("xaab", ("aab", "ab"), ["x", "", "", ""], id="the stop that begins first"),
    ],
)
def test_pieces(text: str, stops: tuple[str, ...], pieces: list[str]) -> None:
    assert said(text.encode(), *stops) == pieces


@given(st.text(max_size=60), st.lists(st.text(min_size=1, max_size=4), max_size=3))
def test_joined_they_are_the_text_up_to_the_first_stop(text: str, stops: list[str]) -> None:
    ends = [text.index(stop) for stop in stops if stop in text]
    assert "".join(said(text.encode(), *stops)) == text[: min(ends, default=len(text))]


def test_bytes_that_are_no_text_are_said_after_a_while_and_lose_nothing_behind_them() -> None:
    pieces = said(b"a" + b"\xff" * 20 + b"b")
    assert "".join(pieces) == "a" + HALF * 20 + "b"
