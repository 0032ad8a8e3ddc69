"""An event is kept whatever is odd about it: text made printable, numbers bounded, its instant of these days."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from baseai.telemetry.witness import Witness, judged

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
NONE = timedelta(0)


def witness(**differing: Any) -> Witness:
    told: dict[str, Any] = {
        "event_id": "evt_1", "at": NOW, "kind": "xid", "key": "GPU-1", "code": 79, "severity": "critical",
        "sentence": "fell off the bus",
    }  # fmt: skip
    return Witness(**(told | differing))


def kept(*, shift: timedelta = NONE, **differing: Any) -> Witness:
    found = judged(witness(**differing), shift=shift, now=NOW)
    assert isinstance(found, Witness), found
    return found


def test_an_event_that_can_be_is_kept_as_it_is() -> None:
    assert kept(payload={"pid": 7, "words": ["a", 1.5, None, True]}) == witness(
        payload={"pid": 7, "words": ["a", 1.5, None, True]}
    )


@pytest.mark.parametrize(
    ("differing", "attribute", "expected"),
    [
        pytest.param({"sentence": "a\x00b\ud800"}, "sentence", "a b ", id="text that no store holds"),
        pytest.param({"sentence": "x" * 5000}, "sentence", "x" * 1000, id="text without end"),
        pytest.param({"code": 2**70}, "code", None, id="a code that cannot be"),
        pytest.param({"code": -5}, "sentence", "fell off the bus (its code cannot be)", id="and says so"),
        pytest.param(
            {"payload": {"x": float("nan"), "y": 10**400}}, "payload", {"x": None, "y": None}, id="no numbers"
        ),
        pytest.param({"payload": {"\x00": "\x00"}}, "payload", {" ": " "}, id="text inside"),
        pytest.param({"at": NOW + timedelta(days=900)}, "at", NOW, id="an instant to come is the present"),
        pytest.param(
            {"at": datetime.max.replace(tzinfo=UTC), "shift": timedelta(days=900)},
            "at",
            NOW,
            id="beyond all time",
        ),
        pytest.param(
            {"shift": timedelta(minutes=-10)}, "at", NOW - timedelta(minutes=10), id="a clock that is ahead"
        ),
    ],
)
def test_what_cannot_be_is_mended_and_the_event_kept(
    differing: dict[str, Any], attribute: str, expected: object
) -> None:
    assert getattr(kept(**differing), attribute) == expected


@pytest.mark.parametrize(
    ("differing", "why"),
    [({"event_id": ""}, "event_id"), ({"event_id": "a\x00"}, "event_id"), ({"kind": " "}, "kind")],
)
def test_an_event_without_a_name_is_refused(differing: dict[str, Any], why: str) -> None:
    found = judged(witness(**differing), shift=NONE, now=NOW)
    assert isinstance(found, str)
    assert found.startswith(why)
