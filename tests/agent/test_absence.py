"""A device is missed only by who has seen it and answers, and lost only after three misses."""

from baseai.agent.absence import Absences


def test_one_lost_probe_changes_nothing() -> None:
    absences = Absences(expected=["a", "b"])
    assert absences.note({"nvml": {"a", "b"}}) == ([], [])
    assert absences.note({"nvml": {"a"}}) == ([], [])
    assert absences.note({"nvml": {"a", "b"}}) == ([], [])
    assert absences.seen() == 2


def test_three_misses_are_a_loss_told_once_and_its_return_too() -> None:
    absences = Absences(expected=["a", "b"])
    absences.note({"nvml": {"a", "b"}})
    said = [absences.note({"nvml": {"a"}}) for _ in range(5)]
    assert said == [([], []), ([], []), (["b"], []), ([], []), ([], [])]
    assert absences.seen() == 1
    assert absences.note({"nvml": {"a", "b"}}) == ([], ["b"])


def test_a_source_that_fails_misses_nobody() -> None:
    absences = Absences(expected=["a"])
    absences.note({"nvml": {"a"}})
    for _ in range(9):
        assert absences.note({"host": set()}) == ([], [])
    assert absences.seen() == 1


def test_one_source_is_enough_to_be_there() -> None:
    absences = Absences(expected=["a"])
    absences.note({"nvml": {"a"}, "dcgm": {"a"}})
    for _ in range(9):
        assert absences.note({"nvml": set(), "dcgm": {"a"}}) == ([], [])


def test_what_was_never_seen_is_not_lost_and_not_there() -> None:
    absences = Absences(expected=["a"])
    for _ in range(9):
        assert absences.note({"nvml": set()}) == ([], [])
    assert absences.seen() == 0
