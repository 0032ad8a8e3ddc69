"""Answers: each for its time, within the bytes of its service, the least used forgotten first."""

from baseai.gateway.answers import ENTRY_BYTES, Answers
from baseai.gateway.seams import Answer

BODY = b"x" * 400
SIZE = ENTRY_BYTES + len(BODY)


def answer(body: bytes = BODY) -> Answer:
    return Answer(status=200, headers=(), body=body, tokens_in=0, tokens_out=0, run_id="run_1")


def put(answers: Answers, service: str, key: bytes, *, until_s: float = 100.0, most: int = 3 * SIZE) -> bool:
    return answers.put(service, key, answer(), since_s=0.0, until_s=until_s, most=most)


def keys(answers: Answers, service: str, now_s: float = 1.0) -> set[bytes]:
    return {key for key in (b"1", b"2", b"3", b"4") if answers.get(service, key, now_s=now_s) is not None}


def test_the_least_used_is_forgotten_for_a_new_one() -> None:
    answers = Answers()
    for key in (b"1", b"2", b"3"):
        assert put(answers, "a", key)
    assert answers.get("a", b"1", now_s=1.0) is not None
    put(answers, "a", b"4")
    assert keys(answers, "a") == {b"1", b"3", b"4"}
    assert answers.size == 3 * SIZE


def test_what_is_too_old_is_given_no_more_and_takes_no_room() -> None:
    answers = Answers()
    put(answers, "a", b"1", until_s=10.0)
    assert keys(answers, "a", now_s=9.9) == {b"1"}
    assert keys(answers, "a", now_s=10.0) == set()
    assert answers.size == 0


def test_a_service_has_its_own_room_and_its_own_answers() -> None:
    answers = Answers()
    put(answers, "a", b"1")
    for key in (b"2", b"3", b"4"):
        put(answers, "b", key, most=SIZE)
    assert (keys(answers, "a"), keys(answers, "b")) == ({b"1"}, {b"4"})


def test_what_is_larger_than_the_room_is_not_kept() -> None:
    answers = Answers()
    put(answers, "a", b"1")
    assert not put(answers, "a", b"2", most=SIZE - 1)
    assert keys(answers, "a") == {b"1"}


def test_all_services_together_have_a_bound_and_the_largest_gives_way() -> None:
    answers = Answers(everything_most=4 * SIZE)
    for key in (b"1", b"2", b"3"):
        put(answers, "large", key, most=9 * SIZE)
    put(answers, "small", b"1", most=9 * SIZE)
    put(answers, "small", b"2", most=9 * SIZE)
    assert (keys(answers, "large"), keys(answers, "small")) == ({b"2", b"3"}, {b"1", b"2"})


def test_the_same_question_is_kept_once() -> None:
    answers = Answers()
    for _ in range(5):
        put(answers, "a", b"1")
    assert answers.size == SIZE
