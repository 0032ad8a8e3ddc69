"""`/v1/embeddings` and `/v1/models` as the official client asks for them, of a real sentence encoder."""

import base64
import threading
from typing import Any

import numpy as np
import openai
import pytest

from tests.workloads.inference.served import Served

CAT, GATO, BOND = "A cat sits on the mat.", "Um gato está no tapete.", "The bond yields four per cent."


def vectors(answer: Any) -> "np.ndarray[Any, np.dtype[np.float64]]":
    return np.array([each.embedding for each in answer.data])


def test_like_texts_have_like_vectors_of_length_one(minilm: Served) -> None:
    answer = minilm.client.embeddings.create(model="minilm", input=[CAT, "There is a cat on a rug.", BOND])
    cat, rug, bond = vectors(answer)
    assert np.linalg.norm(cat) == pytest.approx(1, abs=1e-5)
    assert cat @ rug > 0.6 > 0.3 > cat @ bond
    assert [each.index for each in answer.data] == [0, 1, 2]


def test_base64_is_the_same_as_numbers(minilm: Served) -> None:
    asked = {"model": "minilm", "input": CAT}
    numbers = minilm.post("/v1/embeddings", json=asked | {"encoding_format": "float"}).json()
    letters = minilm.post("/v1/embeddings", json=asked | {"encoding_format": "base64"}).json()
    decoded = np.frombuffer(base64.b64decode(letters["data"][0]["embedding"]), dtype="<f4")
    assert np.array_equal(decoded, np.array(numbers["data"][0]["embedding"], dtype=np.float32))


def test_the_vector_is_the_one_that_its_makers_library_gives(minilm: Served) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    folder = minilm.app.engine._assignment.model  # type: ignore[attr-defined]
    peer = sentence_transformers.SentenceTransformer(folder, device="cpu").encode([CAT, GATO])
    ours = vectors(minilm.client.embeddings.create(model="minilm", input=[CAT, GATO]))
    assert np.abs(ours - peer).max() < 1e-5


def test_usage_counts_the_tokens_of_all_texts(minilm: Served) -> None:
    one = minilm.client.embeddings.create(model="minilm", input=CAT).usage.prompt_tokens
    answer = minilm.client.embeddings.with_raw_response.create(model="minilm", input=[CAT, CAT])
    assert answer.parse().usage.prompt_tokens == 2 * one == answer.parse().usage.total_tokens
    assert answer.headers["x-baseai-usage"] == f"tokens_in={2 * one},tokens_out=0"


def test_tokens_are_texts_as_well(minilm: Served) -> None:
    tokens = [101, 1037, 4937, 102]  # [CLS] a cat [SEP]
    by_tokens = minilm.client.embeddings.create(model="minilm", input=[tokens, tokens])
    by_text = minilm.client.embeddings.create(model="minilm", input="a cat")
    assert vectors(by_tokens) == pytest.approx(np.repeat(vectors(by_text), 2, axis=0), abs=1e-5)
    assert by_tokens.usage.prompt_tokens == 8


def test_a_text_among_others_has_the_vector_that_it_has_alone(minilm: Served) -> None:
    texts = [f"{CAT} " * (1 + number % 7) for number in range(16)]
    alone = [vectors(minilm.client.embeddings.create(model="minilm", input=text))[0] for text in texts]
    together: dict[int, Any] = {}

    def ask(number: int) -> None:
        together[number] = vectors(minilm.client.embeddings.create(model="minilm", input=texts[number]))[0]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(texts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(np.abs(together[number] - alone[number]).max() for number in together) < 1e-5


@pytest.mark.parametrize(
    ("asked", "param", "words"),
    [
        pytest.param({"input": ""}, "input", "input[0] is empty", id="an empty text"),
        pytest.param({"input": []}, "input", "1 to 2048 texts, not 0", id="no text"),
        pytest.param({"input": ["a"] * 2049}, "input", "1 to 2048 texts, not 2049", id="too many"),
        pytest.param({"input": [1, "a"]}, "input", "input[0] must be a string", id="mixed"),
        pytest.param({"input": [[40_000]]}, "input", "token 40000 is not in", id="no such token"),
        pytest.param({"input": {"a": 1}}, "input", "not an object", id="an object"),
        pytest.param({}, "input", "input is missing", id="nothing"),
        pytest.param({"input": "a", "dimensions": 64}, "dimensions", "must be 384 or absent, not 64", id="shorter"),
        pytest.param({"input": "a", "encoding_format": "hex"}, "encoding_format", "float or base64", id="a format"),
    ],
)  # fmt: skip
def test_what_cannot_be_embedded_is_refused_by_field(
    minilm: Served, asked: dict[str, Any], param: str, words: str
) -> None:
    answer = minilm.post("/v1/embeddings", json={"model": "minilm"} | asked)
    error = answer.json()["error"]
    assert answer.status_code == 400
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", param, "invalid_value")
    assert words in error["message"]


def test_a_text_beyond_the_context_is_refused_with_both_numbers(minilm: Served) -> None:
    with pytest.raises(openai.BadRequestError, match="256 tokens, but the input has 402") as refused:
        minilm.client.embeddings.create(model="minilm", input=[CAT, "word " * 400])
    assert (refused.value.code, refused.value.param) == ("context_length_exceeded", "input")


def test_the_clients_own_exceptions_come_up(minilm: Served) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        minilm.client.embeddings.create(model="maxilm", input=CAT)
    assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError, match="dimensions must be 384"):
        minilm.client.embeddings.create(model="minilm", input=CAT, dimensions=64)
    with pytest.raises(openai.NotFoundError, match="not offered for this model"):
        minilm.client.chat.completions.create(model="minilm", messages=[{"role": "user", "content": CAT}])


def test_models_are_listed_and_found(minilm: Served) -> None:
    assert [model.id for model in minilm.client.models.list()] == ["minilm"]
    assert minilm.client.models.retrieve("minilm").object == "model"
    with pytest.raises(openai.NotFoundError):
        minilm.client.models.retrieve("other")


def test_texts_go_by_the_open_inference_protocol_too(minilm: Served) -> None:
    text = {"name": "text", "datatype": "BYTES", "shape": [2], "data": [CAT, BOND]}
    answer = minilm.post("/v2/models/minilm/infer", json={"inputs": [text]}).json()
    by_openai = vectors(minilm.client.embeddings.create(model="minilm", input=[CAT, BOND]))
    assert answer["outputs"][0]["shape"] == [2, 384]
    assert np.array(answer["outputs"][0]["data"]).reshape(2, 384) == pytest.approx(by_openai, abs=1e-5)
