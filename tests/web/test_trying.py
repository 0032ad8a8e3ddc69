"""A service's page in a real browser: its charts stand side by side, and a request that is tried speaks as it comes."""

import pytest

from tests.web.chromium import BROWSER
from tests.web.platform import Platform
from tests.web.services import SERVICE, chat_shelf
from tests.web.test_map import DRAWN, seen

pytestmark = [
    pytest.mark.skipif(BROWSER is None, reason="needs Chromium to see the page as people do"),
    pytest.mark.slow,
]
# A character, and an event, may be cut anywhere.
PIECES = (
    b'data: {"choices":[{"delta":{"content":"Ol\xc3', b'\xa1"}}]}\n\ndata: {"choi',
    b'ces":[{"delta":{"content":", <b>mundo"}}]}\n\n',
    b"data: [DONE]\n\n",
)  # fmt: skip
SEND = "document.querySelector('form[data-try] button.send').click()"
ANSWERED = "document.querySelector('form[data-try] .told').textContent"


def test_charts_of_a_service_are_drawn_within_their_frames() -> None:
    with seen(Platform(), f"/services/{SERVICE}?lang=en", height=1000) as browser:
        browser.wait_for(DRAWN)
        beyond = browser.evaluate(
            "[...document.querySelectorAll('.plot:not([hidden])')].filter((each) =>"
            " each.querySelector('canvas').getBoundingClientRect().right > each.getBoundingClientRect().right).length"
        )
        assert browser.evaluate("document.querySelectorAll('.plot:not([hidden]) canvas').length") == 4
        assert beyond == 0
        assert browser.errors == []


def test_what_is_tried_is_shown_as_text_when_all_of_it_came() -> None:
    shelf = chat_shelf()
    shelf.answer = (200, {"content-type": "text/event-stream", "cache-status": "baseai; fwd=miss"}, PIECES)
    with seen(Platform(shelf=shelf), f"/services/{SERVICE}?lang=en", height=1000) as browser:
        browser.evaluate(SEND)
        browser.wait_for(ANSWERED)
        assert (
            browser.evaluate("document.querySelector('form[data-try] output').textContent") == "Olá, <b>mundo"
        )
        told = browser.evaluate(ANSWERED)
        assert told.startswith("200 · ")
        assert told.endswith("baseai; fwd=miss")
        assert browser.errors == []


def test_a_gateway_that_is_away_is_said_in_words() -> None:
    shelf = chat_shelf()
    shelf.answer = None
    with seen(Platform(shelf=shelf), f"/services/{SERVICE}?lang=en", height=1000) as browser:
        browser.evaluate(SEND)
        browser.wait_for(ANSWERED)
        assert "restarted by itself" in browser.evaluate(
            "document.querySelector('form[data-try] output').textContent"
        )
