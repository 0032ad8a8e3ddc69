"""A callable as a replica: what it gives and what it raises, with and without batches."""

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from baseai.workloads.inference.batching import gather_of
from baseai.workloads.inference.callable import CallableEngine
from baseai.workloads.inference.engine import Assignment, Call, CallableFailed, ModelUnusable, WrongValue
from baseai.workloads.service import Batching
from tests.workloads.inference.hosted import hosted, write

APP = """
import asyncio, os, sys, threading
from helper import double

def answer(body):
    if body == "wrong":
        raise ValueError("a number is wanted, not a word")
    if body == "fail":
        raise KeyError("shoes")
    if body == "exit":
        sys.exit(9)
    if body == "interrupt":
        raise KeyboardInterrupt
    return {"doubled": double(body)}

async def later(body):
    await asyncio.sleep(0)
    if body is None:
        raise ValueError("nothing came")
    return [body, threading.current_thread() is threading.main_thread()]

class Model:
    def __init__(self):
        self.calls = 0
    def __call__(self, body):
        self.calls += 1
        return self.calls

class Batch:
    def __init__(self):
        self.sizes = []
    def __call__(self, bodies):
        self.sizes.append(len(bodies))
        if "bad" in bodies:
            raise ValueError("one of these is bad")
        return [[body, len(bodies)] for body in bodies]

def too_few(bodies):
    return bodies[1:]

word = "no function"
"""


@pytest.fixture
def app(tmp_path: Path) -> Path:
    write(tmp_path, "app.py", APP)
    write(tmp_path, "helper.py", "def double(body):\n    return 2 * body\n")
    return tmp_path / "work" / "app.py"


def engine(app: Path, name: str, batching: Batching | None = None) -> CallableEngine:
    gather = None if batching is None else gather_of(batching)
    made = CallableEngine(Assignment(model=f"{app}:{name}", model_name="m", concurrency=4, gather=gather))
    made.load()
    return made


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


CALL = Call(request_id="r")


def test_functions_coroutines_and_objects_answer(app: Path) -> None:
    assert run(engine(app, "answer").call(4, CALL)) == {"doubled": 8}
    assert run(engine(app, "later").call("x", CALL)) == ["x", True]
    counting = engine(app, "Model")
    assert [run(counting.call(None, CALL)) for _ in range(3)] == [1, 2, 3]  # one object for all requests


def test_what_it_raises_is_told_by_name_and_ends_nothing_else(app: Path) -> None:
    answering = engine(app, "answer")
    with pytest.raises(WrongValue, match="a number is wanted, not a word"):
        run(answering.call("wrong", CALL))
    with pytest.raises(CallableFailed, match="the callable failed with KeyError: 'shoes'"):
        run(answering.call("fail", CALL))
    with pytest.raises(CallableFailed, match="SystemExit"):
        run(answering.call("exit", CALL))
    with pytest.raises(CallableFailed, match="KeyboardInterrupt"):
        run(answering.call("interrupt", CALL))
    with pytest.raises(WrongValue, match="nothing came"):
        run(engine(app, "later").call(None, CALL))
    assert run(answering.call(1, CALL)) == {"doubled": 2}


def test_inputs_that_come_together_are_computed_together(app: Path) -> None:
    async def together() -> list[Any]:
        batching = engine(app, "Batch", Batching(most=8, wait_ms=50.0))
        return await asyncio.gather(*(batching.call(number, CALL) for number in range(8)))

    assert run(together()) == [[number, 8] for number in range(8)]


def test_a_bad_input_spoils_no_other_s_answer(app: Path) -> None:
    async def mixed() -> list[Any]:
        batching = engine(app, "Batch", Batching(most=3, wait_ms=50.0))
        bodies = ["good", "bad", "fine"]
        return await asyncio.gather(*(batching.call(body, CALL) for body in bodies), return_exceptions=True)

    good, bad, fine = run(mixed())
    assert (good, fine) == (["good", 1], ["fine", 1])
    assert isinstance(bad, WrongValue)


def test_a_batch_with_another_number_of_answers_is_the_callable_s_fault(app: Path) -> None:
    with pytest.raises(CallableFailed, match="1 inputs came back as 0 answers; give a list with one answer"):
        run(engine(app, "too_few", Batching()).call(1, CALL))
    with pytest.raises(CallableFailed, match="1 inputs came back as no list"):
        run(engine(app, "Model", Batching()).call(1, CALL))


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        pytest.param(
            "nobody", APP, "app.py has no nobody; it has Batch, Model, answer, later, too_few", id="no such"
        ),
        pytest.param(
            "word", APP, "word cannot be called; write a function, or a class with __call__", id="a word"
        ),
        pytest.param(
            "f", "import shoes", "app.py imports shoes, which is not there; bring it with `files`", id="lost"
        ),
        pytest.param(
            "f", "1 / 0", "importing app.py failed with ZeroDivisionError: division by zero", id="broken"
        ),
        pytest.param(
            "F", "class F:\n  def __init__(s, x): ...", "F() failed with TypeError", id="wants arguments"
        ),
    ],
)
def test_one_that_cannot_be_had_says_why(app: Path, name: str, text: str, sentence: str) -> None:
    app.write_text(text)
    with pytest.raises(ModelUnusable) as caught:
        engine(app, name)
    assert sentence in str(caught.value)


def test_over_http(tmp_path: Path, app: Path) -> None:
    with hosted(tmp_path, "model: python:app.py:answer\n") as replica:
        ready = replica.ready()
        assert (ready["engine"], ready["models"], len(ready["digest"])) == ("callable", ["shop"], 64)
        assert replica.post("/json", 21).json() == {"doubled": 42}
        wrong, failed, exited = (replica.post("/json", body) for body in ("wrong", "fail", "exit"))
        assert (wrong.status_code, wrong.json()["detail"]) == (422, "a number is wanted, not a word")
        assert (failed.status_code, failed.json()["detail"]) == (
            500,
            "the callable failed with KeyError: 'shoes'",
        )
        assert exited.status_code == 500
        assert failed.headers["content-type"] == "application/problem+json"
        assert replica.post("/json", 1).status_code == 200
        assert 'raise KeyError("shoes")' in replica.log()  # where it happened is in the run's log
        replica.ask()
        assert replica.ended() == 0
        assert replica.last_line() == "stopped; 5 requests were answered"
