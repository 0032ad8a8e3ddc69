"""What a customer reckons at a terminal without a platform, and what the terminal refuses before it asks one."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Baseai

EVENTS = """{"event_id": "1", "subject": "s1", "turn": "down", "at": "2026-11-03T10:00:00-03:00"}
{"event_id": "2", "subject": "s1", "turn": "up", "at": "2026-11-03T12:00:00-03:00"}
"""


@pytest.fixture
def events(tmp_path: Path) -> str:
    file = tmp_path / "events.jsonl"
    file.write_text(EVENTS, encoding="utf-8")
    return str(file)


def test_a_customer_reckons_its_credit_without_a_platform(baseai: Baseai, events: str) -> None:
    words = ("books", "sla", "--events", events, "--month", "2026-11", "--promise", "99.9%=5%")
    ended = baseai(*words, "--promise", "99%=25%", "--charged", "1000", "--json")
    assert ended.status == 0, ended.err
    found = json.loads(ended.out)
    assert (found["lost_s"], found["availability"]) == (7200, "0.997222222")
    assert (found["credit_ratio"], found["credit"], found["event_ids"]) == ("0.05", "50.000000", ["1"])
    assert "availability  99.7222222%" in baseai(*words).out


def test_a_line_that_is_no_event_is_named_by_its_place(baseai: Baseai, events: str) -> None:
    file = Path(events)
    file.write_text(EVENTS + '{"event_id": "3", "subject": "s1", "turn": "gone", "at": "2026-11-03"}\n')
    ended = baseai("books", "sla", "--events", events, "--month", "2026-11", "--promise", "99.9%=5%")
    assert ended.status == 2
    assert "events.jsonl:3" in ended.err


@pytest.mark.parametrize(
    ("words", "why"),
    [
        pytest.param(
            ("contract", "add", "a", "t", "--term", "reserved", "--commit", "h100"),
            "--commit h100 is not MODEL:COUNT",
            id="no count",
        ),
        pytest.param(
            ("contract", "add", "a", "t", "--term", "on_demand", "--discount", "ten"),
            "'ten' is not a number",
            id="no number",
        ),
        pytest.param(
            ("contract", "add", "a", "t", "--term", "on_demand", "--from", "soon"),
            "'soon' is not a day",
            id="no day",
        ),
        pytest.param(("fx", "show", "23/11/2026"), "'23/11/2026' is not a day like", id="another order"),
        pytest.param(("price", "add", "/nowhere.csv"), "cannot be read", id="no file"),
    ],
)
def test_what_cannot_be_meant_is_refused_at_once(baseai: Baseai, words: tuple[str, ...], why: str) -> None:
    ended = baseai(*words)
    assert ended.status == 2
    assert why in ended.err
