"""What holds on every route of a replica: deadlines, capacity, sizes, clients that go, and how errors are told."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import Any

import httpx
import openai
import pytest

from baseai.workloads.inference.engine import Call, CallableFailed, Described, Piece, Sampling
from tests.workloads.inference.mirror import Mirror
from tests.workloads.inference.served import Served, serving, until


class Patient:
    """An engine whose calls end when a test lets them; it remembers what became of each."""

    def __init__(self) -> None:
        self.begun: list[Call] = []
        self.stopped: list[str] = []
        self.free = False

    def load(self) -> None:
        """Nothing to load."""

    async def close(self) -> None:
        """Nothing to give back."""

    def describe(self) -> Described:
        return Described(platform="patience", digest="0" * 64)

    async def call(self, body: Any, call: Call) -> Any:
        self.begun.append(call)
        try:
            while not self.free:  # noqa: ASYNC110  set from another thread
                await asyncio.sleep(0.002)
        except asyncio.CancelledError:
            self.stopped.append(call.request_id)
            raise
        if isinstance(body, dict) and "raise" in body:
            raise {"ours": CallableFailed("KeyError", "'x'"), "bug": KeyError("secret")}[body["raise"]]
        return body

    def chat_prompt(self, messages: Sequence[tuple[str, str]]) -> Sequence[int]:
        return [0]

    def chat_stops(self) -> Sequence[str]:
        return ()

    def text_prompt(self, text: str) -> Sequence[int]:
        return [0]

    async def generate(
        self, prompt: Sequence[int], sampling: Sampling, call: Call
    ) -> AsyncGenerator[Piece, None]:
        yield Piece(text="first", tokens=1)
        if sampling.seed == 13:
            raise RuntimeError("secret")
        await self.call(None, call)
        yield Piece(text=" last", tokens=1, finish_reason="stop")


@pytest.fixture
def patient() -> Patient:
    return Patient()


@pytest.fixture
def served(patient: Patient) -> Iterator[Served]:
    with serving(patient, model_name="patient", concurrency=2, most_body_bytes=1000) as served:
        yield served
        patient.free = True


def test_a_deadline_that_is_over_is_answered_before_any_work(served: Served, patient: Patient) -> None:
    answer = served.post("/json", json={}, headers={"x-baseai-deadline-ms": "0", "x-request-id": "r-1"})
    assert answer.status_code == 504
    assert answer.headers["x-should-retry"] == "false"
    assert "r-1" in answer.json()["detail"]
    assert patient.begun == []


def test_a_deadline_stops_the_work_when_it_comes(served: Served, patient: Patient) -> None:
    answer = served.post("/json", json={}, headers={"x-baseai-deadline-ms": "40", "x-request-id": "r-1"})
    assert answer.status_code == 504
    assert patient.stopped == ["r-1"]
    assert served.app.under_way == 0


def test_a_deadline_within_a_stream_is_an_event_of_it(served: Served) -> None:
    asked = {"model": "patient", "prompt": "a", "stream": True}
    answer = served.post("/v1/completions", json=asked, headers={"x-baseai-deadline-ms": "60"})
    first, last, done, _ = answer.text.split("\n\n")
    assert answer.status_code == 200
    assert '"text": "first"' in first
    assert '"code": "deadline_over"' in last
    assert done == "data: [DONE]"


@pytest.mark.parametrize("left", ["soon", "", "nan", "inf", "1e300"])
def test_a_deadline_that_is_none_ends_nothing(served: Served, patient: Patient, left: str) -> None:
    patient.free = True
    assert served.post("/json", json=1, headers={"x-baseai-deadline-ms": left}).json() == 1


def test_an_error_within_a_stream_is_raised_by_the_official_client(served: Served) -> None:
    stream = served.client.completions.create(model="patient", prompt="a", stream=True, seed=13)
    assert next(stream).choices[0].text == "first"
    with pytest.raises(openai.APIError, match="the model failed on this request") as raised:
        next(stream)
    assert "secret" not in str(raised.value)


def test_a_client_that_goes_stops_the_work(served: Served, patient: Patient) -> None:
    with pytest.raises(httpx.ReadTimeout):
        served.post("/json", json={}, headers={"x-request-id": "gone"}, timeout=0.1)
    until(lambda: patient.stopped == ["gone"])
    until(lambda: served.app.under_way == 0)


def test_beyond_twice_its_concurrency_a_replica_says_busy(served: Served, patient: Patient) -> None:
    statuses: list[int] = []

    def ask() -> None:
        statuses.append(served.post("/json", json={}).status_code)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    until(lambda: served.app.under_way == 4)
    busy = served.post("/json", json={})
    free = served.get("/v2/health/live")
    patient.free = True
    for thread in threads:
        thread.join()
    assert busy.status_code == 503
    assert int(busy.headers["retry-after"]) >= 1
    assert int(busy.headers["retry-after-ms"]) >= 1
    assert free.status_code == 200
    assert statuses == [200] * 4
    assert (served.app.under_way, served.app.served) == (0, 4)


def test_a_body_over_the_limit_is_refused_whether_its_length_is_told_or_not(
    served: Served, patient: Patient
) -> None:
    patient.free = True
    assert served.post("/json", content=b'"%s"' % (b"a" * 998)).status_code == 200
    told = served.post("/json", content=b"a" * 1001)
    assert (told.status_code, told.json()["status"]) == (413, 413)
    assert "1,000 bytes at most, and this one has 1,001" in told.json()["detail"]
    untold = served.post("/json", content=iter([b"a" * 600, b"a" * 600]))
    assert untold.status_code == 413
    assert "1,000 bytes at most" in untold.json()["detail"]
    with pytest.raises(openai.APIStatusError) as refused:
        served.client.completions.create(model="patient", prompt="a" * 2000)
    assert (refused.value.status_code, refused.value.code) == (413, "body_too_large")
    assert served.post("/json", json="still here").json() == "still here"


def test_each_protocol_is_refused_in_its_own_words(served: Served, patient: Patient) -> None:
    patient.free = True
    plain = served.post("/json", content=b"{")
    assert plain.headers["content-type"] == "application/problem+json"
    assert plain.json()["detail"] == (
        "the body is not JSON at line 1, column 2: Expecting property name enclosed in double quotes"
    )
    by_openai = served.post("/v1/completions", content=b"{").json()
    assert by_openai["error"]["code"] == "invalid_json"
    assert list(served.post("/v2/models/patient/generate", content=b"{").json()) == ["error"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        pytest.param(rb'{"text": "\ud83d"}', "half of a surrogate pair", id="half a character"),
        pytest.param(
            b'{"n": ' + b"9" * 5000 + b"}", "a number of too many digits", id="a number without end"
        ),
        pytest.param(b"[" * 100_000, "nested too deeply", id="nested without end"),
        pytest.param(b'"\xff"', "not UTF-8 from byte 1 on", id="no text"),
    ],
)
def test_json_that_nothing_can_be_done_with_is_the_client_s_mistake(
    patient: Patient, body: bytes, said: str
) -> None:
    patient.free = True
    with serving(patient, model_name="patient", concurrency=2, most_body_bytes=1 << 20) as served:
        refused = served.post("/json", content=body)
        whole = served.post("/json", content=rb'"\ud83d\ude00 \\ud800"')
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_json")
    assert said in refused.json()["detail"]
    assert whole.json() == "\U0001f600 \\ud800"


def test_an_answer_that_is_no_json_is_the_callable_s_failure(patient: Patient) -> None:
    async def strange(body: Any, call: Call) -> Any:
        return {"nan": float("nan"), "object": object()}[body]

    patient.call = strange  # type: ignore[method-assign]
    with serving(patient, model_name="patient", concurrency=2) as served:
        for body, said in (("nan", "not JSON compliant"), ("object", "holds a object")):
            answer = served.post("/json", json=body)
            assert (answer.status_code, answer.json()["code"]) == (500, "callable_failed")
            assert said in answer.json()["detail"]


def test_a_route_that_is_not_there_names_those_that_are(served: Served) -> None:
    detail = served.post("/other", json=1).json()["detail"]
    assert detail == (
        "POST /other is not offered for this model; there are /json, /v1/chat/completions, /v1/completions, "
        "/v2/models/patient/generate, /v2/models/patient/generate_stream"
    )


@pytest.mark.parametrize(
    ("how", "said"),
    [
        pytest.param("ours", "the callable failed with KeyError: 'x'", id="the tenant's own code"),
        pytest.param("bug", "the model failed on this request (KeyError)", id="the engine"),
    ],
)
def test_a_failure_of_the_model_is_told_by_its_kind(
    served: Served, patient: Patient, caplog: pytest.LogCaptureFixture, how: str, said: str
) -> None:
    patient.free = True
    answer = served.post("/json", json={"raise": how}, headers={"x-request-id": "r-9"})
    assert answer.status_code == 500
    assert said in answer.json()["detail"]
    assert "secret" not in answer.text
    assert any("r-9" in record.message for record in caplog.records)


def test_the_request_id_comes_back_on_every_answer(served: Served, patient: Patient) -> None:
    patient.free = True
    headers = {"x-request-id": "r-7"}
    for answer in (
        served.post("/json", json=1, headers=headers),
        served.post("/json", content=b"{", headers=headers),
        served.http.get("/nothing", headers=headers),
        served.post(
            "/v1/completions", json={"model": "patient", "prompt": "a", "stream": True}, headers=headers
        ),
    ):
        assert answer.headers["x-request-id"] == "r-7"
    assert patient.begun[0].request_id == "r-7"


def test_the_wrong_method_is_told_the_right_one(served: Served) -> None:
    for answer, allowed in (
        (served.get("/v1/completions"), "POST"),
        (served.post("/v1/models"), "GET"),
        (served.http.delete("/v2/health/live"), "GET"),
    ):
        assert (answer.status_code, answer.headers["allow"]) == (405, allowed)


def test_what_is_not_there_is_said_with_what_is(served: Served) -> None:
    answer = served.post("/v1/embeddings", json={})
    assert answer.status_code == 404
    assert "/v1/completions" in answer.json()["error"]["message"]


def test_bytes_go_to_a_callable_as_bytes_and_json_as_json() -> None:
    octets = {"content-type": "application/octet-stream"}
    with serving(Mirror(), model_name="mirror") as served:
        assert served.post("/json", json={"a": [1, None]}).json() == {"a": [1, None]}
        answer = served.post("/json", content=b"\x00\xff", headers=octets)
        assert (answer.content, answer.headers["content-type"]) == (b"\x00\xff", "application/octet-stream")
        assert served.post("/json", content=b"", headers=octets).content == b""
        refused = served.post("/json", json="what")
        assert (refused.status_code, refused.json()["detail"]) == (400, "there is no answer to what")


def test_ready_tells_the_model_and_what_is_under_way(served: Served) -> None:
    told = served.get("/baseai/ready").json()
    assert (told["ready"], told["model"], told["digest"], told["under_way"]) == (True, "patient", "0" * 64, 0)
    served.app.draining = True
    assert served.get("/baseai/ready").status_code == 503
