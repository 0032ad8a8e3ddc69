"""The Open Inference Protocol, demand by demand: each row of `oip_table.csv` names the check below that holds it."""

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from baseai.workloads.inference.datatype import DTYPES
from tests.workloads.inference.mirror import Mirror
from tests.workloads.inference.served import Served, serving
from tests.workloads.inference.test_tensor import EXAMPLES

TABLE = Path(__file__).with_name("oip_table.csv")
ROWS = list(csv.DictReader(TABLE.read_text(encoding="utf-8").splitlines()))


@dataclass(frozen=True, slots=True)
class Peers:
    """One server of each kind of model."""

    mirror: Served  # of two datatypes
    every: Served  # of all datatypes
    gpt: Served


@pytest.fixture(scope="module")
def peers(gpt: Served) -> Iterator[Peers]:
    with (
        serving(
            Mirror(["FP32", "INT64"]), model_name="mirror", aliases=("org/mirror",), version="3"
        ) as mirror,
        serving(Mirror(), model_name="every") as every,
    ):
        yield Peers(mirror, every, gpt)


def tensor(name: str, shape: list[int], data: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "datatype": name, "shape": shape, "data": data} | more


def pair(rows: int = 1, **more: Any) -> dict[str, Any]:
    """A request that the mirror takes."""
    numbers = list(range(2 * rows))
    return {"inputs": [tensor("FP32", [rows, 2], numbers), tensor("INT64", [rows, 2], numbers)]} | more


def infer(served: Served, asked: dict[str, Any], model: str = "mirror") -> httpx.Response:
    return served.post(f"/v2/models/{model}/infer", json=asked)


def refused(served: Served, asked: dict[str, Any], *words: str) -> None:
    answer = infer(served, asked)
    assert answer.status_code == 400, answer.text
    assert answer.json().keys() == {"error"}
    assert all(word in answer.json()["error"] for word in words), answer.json()["error"]


def binary(
    served: Served, asked: dict[str, Any], tail: bytes, model: str = "mirror", length: int = 0
) -> httpx.Response:
    head = json.dumps(asked).encode()
    headers = {
        "Inference-Header-Content-Length": str(length or len(head)),
        "Content-Type": "application/octet-stream",
    }
    return served.post(f"/v2/models/{model}/infer", content=head + tail, headers=headers)


def parts(answer: httpx.Response) -> tuple[dict[str, Any], bytes]:
    end = int(answer.headers["inference-header-content-length"])
    told: dict[str, Any] = json.loads(answer.content[:end])
    return told, answer.content[end:]


# ---- the checks


def live(peers: Peers) -> None:
    answer = peers.mirror.get("/v2/health/live")
    assert (answer.status_code, answer.json()["live"]) == (200, True)


def ready(peers: Peers) -> None:
    answer = peers.mirror.get("/v2/health/ready")
    assert (answer.status_code, answer.json()) == (200, {"live": True, "ready": True})
    peers.mirror.app.draining = True
    try:
        assert peers.mirror.get("/v2/health/ready").status_code == 503
        assert peers.mirror.get("/v2/models/mirror/ready").json() == {"name": "mirror", "ready": False}
        assert infer(peers.mirror, pair()).status_code == 200  # what still comes is answered
    finally:
        peers.mirror.app.draining = False


def model_ready(peers: Peers) -> None:
    for path in ("/v2/models/mirror/ready", "/v2/models/mirror/versions/3/ready"):
        answer = peers.mirror.get(path)
        assert (answer.status_code, answer.json()) == (200, {"name": "mirror", "ready": True})


def unknown_model(peers: Peers) -> None:
    for path, word in (
        ("other", "no model other"),
        ("other/ready", "no model other"),
        ("other/versions/3", "no model other"),
        ("mirror/versions/9", "mirror has no version 9"),
        ("mirror/versions/9/ready", "mirror has no version 9"),
    ):
        answer = peers.mirror.get(f"/v2/models/{path}")
        assert answer.status_code == 404
        assert word in answer.json()["error"]
    assert infer(peers.mirror, pair(), "mirror/versions/9").status_code == 404


def server_metadata(peers: Peers) -> None:
    told = peers.mirror.get("/v2").json()
    assert isinstance(told["name"], str)
    assert isinstance(told["version"], str)
    assert told["extensions"] == ["binary_tensor_data"]
    assert peers.gpt.get("/v2").json()["extensions"] == ["generate"]


def model_metadata(peers: Peers) -> None:
    for path in ("mirror", "mirror/versions/3"):
        told = peers.mirror.get(f"/v2/models/{path}").json()
        assert (told["name"], told["versions"], told["platform"]) == ("mirror", ["3"], "mirror")
        assert told["inputs"][0] == {"name": "FP32", "datatype": "FP32", "shape": [-1, 2]}
        assert [output["name"] for output in told["outputs"]] == ["FP32_back", "INT64_back"]
    assert peers.mirror.get("/v2/models/org/mirror").json()["name"] == "org/mirror"


def infers(peers: Peers) -> None:
    for model in ("mirror", "mirror/versions/3", "org/mirror"):
        answer = infer(peers.mirror, pair(2), model)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
        told = answer.json()
        assert (told["model_name"], told["model_version"]) == (model.partition("/versions")[0], "3")
        back = {"name": "INT64_back", "datatype": "INT64", "shape": [2, 2], "data": [2, 3, 0, 1]}
        assert told["outputs"][1] == back


def identity(peers: Peers) -> None:
    assert infer(peers.mirror, pair(id="a-7")).json()["id"] == "a-7"
    assert "id" not in infer(peers.mirror, pair()).json()
    refused(peers.mirror, pair(id=7), "id must be a string, not a number")


def parameters(peers: Peers) -> None:
    asked = pair(parameters={"priority": 1, "mood": "calm"})
    asked["inputs"][0]["parameters"] = {"unit": "m"}
    answer = infer(peers.mirror, asked)
    assert (answer.status_code, answer.json()["parameters"]) == (200, {"priority": 1, "mood": "calm"})
    refused(peers.mirror, pair(parameters=[]), "parameters must be an object, not an array")


def row_major(peers: Peers) -> None:
    nested = {"inputs": [tensor("FP32", [2, 2], [[0, 1], [2, 3]]), tensor("INT64", [2, 2], [[0, 1], [2, 3]])]}
    assert infer(peers.mirror, nested).json() == infer(peers.mirror, pair(2)).json()


def batch(peers: Peers) -> None:
    output = infer(peers.mirror, pair(50)).json()["outputs"][1]
    assert output["shape"] == [50, 2]
    assert np.array_equal(np.array(output["data"]).reshape(50, 2), np.arange(100).reshape(50, 2)[::-1])


def outputs(peers: Peers) -> None:
    def names(asked: dict[str, Any]) -> list[str]:
        return [output["name"] for output in infer(peers.mirror, asked).json()["outputs"]]

    assert names(pair()) == ["FP32_back", "INT64_back"]
    assert names(pair(outputs=[])) == ["FP32_back", "INT64_back"]
    assert names(pair(outputs=[{"name": "INT64_back"}])) == ["INT64_back"]
    assert names(pair(outputs=[{"name": "INT64_back"}, {"name": "FP32_back"}])) == ["INT64_back", "FP32_back"]


def datatypes(peers: Peers) -> None:
    asked = {"inputs": [tensor(each, [3, 2], EXAMPLES[each]) for each in DTYPES]}
    told = infer(peers.every, asked, "every").json()["outputs"]
    assert [output["datatype"] for output in told] == list(DTYPES)
    for output in told:
        data = EXAMPLES[output["datatype"]]
        assert output["data"] == [*data[4:], *data[2:4], *data[:2]]


def not_json(peers: Peers) -> None:
    for body, words in (
        (b"{", "not JSON at line 1, column 2"),
        (b"", "the body is empty"),
        (b"[1]", "must be a JSON object, not an array"),
        (b"\xff{}", "not UTF-8 from byte 0"),
        (b"[" * 100_000, "nested too deeply"),
    ):
        answer = peers.mirror.post("/v2/models/mirror/infer", content=body)
        assert answer.status_code == 400
        assert words in answer.json()["error"]


def missing_input(peers: Peers) -> None:
    refused(peers.mirror, {"inputs": pair()["inputs"][:1]}, "input INT64 of datatype INT64 is missing")
    refused(peers.mirror, {}, "inputs must be a list of tensors, not null")


def strange_input(peers: Peers) -> None:
    first, second = pair()["inputs"]
    refused(
        peers.mirror, {"inputs": [first, second | {"name": "depth"}]}, "no input depth", "FP32 (FP32), INT64"
    )
    refused(peers.mirror, {"inputs": [first, first]}, "input FP32 is given twice")
    refused(peers.mirror, {"inputs": [3]}, "inputs[0] must be an object with a name")


def wrong_datatype(peers: Peers) -> None:
    first, second = pair()["inputs"]
    told = {"inputs": [first | {"datatype": "FP64"}, second]}
    refused(peers.mirror, told, "input FP32 must be of datatype FP32, not FP64")
    refused(peers.mirror, {"inputs": [first | {"datatype": "float"}, second]}, "no datatype 'float'", "FP32")


def wrong_shape(peers: Peers) -> None:
    first, second = pair()["inputs"]
    refused(peers.mirror, {"inputs": [first | {"shape": [1, 3]}, second]}, "FP32", "[any, 2], not [1, 3]")
    refused(peers.mirror, {"inputs": [first | {"shape": [2]}, second]}, "[any, 2], not [2]")
    refused(
        peers.mirror, {"inputs": [first | {"shape": [-1, 2]}, second]}, "whole numbers from 0, not [-1, 2]"
    )
    refused(peers.mirror, {"inputs": [first | {"shape": None}, second]}, "FP32: shape must be a list")


def wrong_data(peers: Peers) -> None:
    first, second = pair()["inputs"]
    refused(
        peers.mirror, {"inputs": [first | {"data": [1]}, second]}, "[1, 2] has 2 elements, but data has 1"
    )
    refused(peers.mirror, {"inputs": [first, second | {"data": [1, 1 << 70]}]}, "INT64")


def strange_output(peers: Peers) -> None:
    refused(peers.mirror, pair(outputs=[{"name": "sum"}]), "no output sum", "FP32_back, INT64_back")
    refused(peers.mirror, pair(outputs=[{"name": "FP32_back"}] * 2), "output FP32_back is asked for twice")
    refused(peers.mirror, pair(outputs="all"), "outputs must be a list, not a string")


def error_object(peers: Peers) -> None:
    for answer in (
        infer(peers.mirror, {}),
        infer(peers.mirror, {}, "other"),
        peers.mirror.get("/v2/nothing"),
        peers.mirror.get("/v2/models/mirror/infer"),
    ):
        assert answer.status_code >= 400
        assert list(answer.json()) == ["error"]
        assert isinstance(answer.json()["error"], str)


def binary_input(peers: Peers) -> None:
    floats, wholes = np.arange(4, dtype="<f4").tobytes(), np.arange(4, dtype="<i8").tobytes()
    asked = pair(2)
    for each, part in zip(asked["inputs"], (floats, wholes), strict=True):
        del each["data"]
        each["parameters"] = {"binary_data_size": len(part)}
    answer = binary(peers.mirror, asked, floats + wholes)
    assert answer.json() == infer(peers.mirror, pair(2)).json()


def binary_output(peers: Peers) -> None:
    wanted = [{"name": "INT64_back", "parameters": {"binary_data": True}}, {"name": "FP32_back"}]
    told, tail = parts(infer(peers.mirror, pair(2, outputs=wanted)))
    assert told["outputs"][0]["parameters"] == {"binary_data_size": 32}
    assert "data" not in told["outputs"][0]
    assert told["outputs"][1]["data"] == [2, 3, 0, 1]
    assert np.array_equal(np.frombuffer(tail, "<i8"), [2, 3, 0, 1])
    told, tail = parts(infer(peers.mirror, pair(2, parameters={"binary_data_output": True})))
    assert [output["parameters"]["binary_data_size"] for output in told["outputs"]] == [16, 32]
    assert len(tail) == 48
    but = [{"name": "FP32_back", "parameters": {"binary_data": False}}, {"name": "INT64_back"}]
    told, tail = parts(infer(peers.mirror, pair(2, parameters={"binary_data_output": True}, outputs=but)))
    assert ("data" in told["outputs"][0], len(tail)) == (True, 32)


def binary_datatypes(peers: Peers) -> None:
    asked = {
        "inputs": [tensor(each, [3, 2], EXAMPLES[each]) for each in DTYPES],
        "parameters": {"binary_data_output": True},
    }
    told, tail = parts(infer(peers.every, asked, "every"))
    again: dict[str, Any] = {"inputs": []}
    for output in told["outputs"]:
        again["inputs"].append(
            {"name": output["datatype"], **{key: output[key] for key in ("datatype", "shape", "parameters")}}
        )
    back = binary(peers.every, again, tail, "every").json()["outputs"]
    assert [output["data"] for output in back] == [EXAMPLES[output["datatype"]] for output in back]
    sizes = {output["datatype"]: output["parameters"]["binary_data_size"] for output in told["outputs"]}
    assert (sizes["BOOL"], sizes["FP16"], sizes["INT64"]) == (6, 12, 48)
    assert sizes["BYTES"] == sum(4 + len(text.encode()) for text in EXAMPLES["BYTES"])


def bytes_of_no_text(peers: Peers) -> None:
    raw = tensor("BYTES", [1, 2], ["/wA=", "YQ=="], parameters={"content_type": "base64"})
    others = [tensor(each, [1, 2], EXAMPLES[each][:2]) for each in DTYPES if each != "BYTES"]
    asked = {"inputs": [raw, *others], "outputs": [{"name": "BYTES_back"}]}
    answer = infer(peers.every, asked, "every")
    assert answer.status_code == 400
    assert "output BYTES_back holds bytes that are no text" in answer.json()["error"]
    asked["outputs"][0]["parameters"] = {"binary_data": True}
    assert parts(infer(peers.every, asked, "every"))[1] == b"\2\0\0\0\xff\0\1\0\0\0a"


def binary_mixed(peers: Peers) -> None:
    asked = pair(2)
    wholes = np.arange(4, dtype="<i8").tobytes()
    del asked["inputs"][1]["data"]
    asked["inputs"][1]["parameters"] = {"binary_data_size": 32}
    assert binary(peers.mirror, asked, wholes).json() == infer(peers.mirror, pair(2)).json()


def binary_lengths(peers: Peers) -> None:
    asked = pair(2)
    del asked["inputs"][1]["data"]
    asked["inputs"][1]["parameters"] = {"binary_data_size": 32}
    for answer, words in (
        (binary(peers.mirror, asked, b"\0" * 31), "binary_data_size is 32, but 31 bytes are left"),
        (binary(peers.mirror, asked, b"\0" * 33), "1 bytes behind the JSON belong to no input"),
        (
            binary(peers.mirror, pair(), b"", length=10_000),
            "Inference-Header-Content-Length is 10000, but the body",
        ),
    ):
        assert answer.status_code == 400
        assert words in answer.json()["error"]


def generate(peers: Peers) -> None:
    asked = {"id": "g", "text_input": "line 7", "parameters": {"max_tokens": 6, "seed": 1}}
    answer = peers.gpt.post("/v2/models/gpt/generate", json=asked)
    told = answer.json()
    assert (answer.status_code, told["model_name"], told["model_version"], told["id"]) == (
        200,
        "gpt",
        "3",
        "g",
    )
    assert told["text_output"]
    assert answer.headers["x-baseai-usage"].endswith("tokens_out=6")


def generate_parameters(peers: Peers) -> None:
    def said(**parameters: Any) -> str:
        asked = {"text_input": "line 7", "parameters": {"max_tokens": 20} | parameters}
        text: str = peers.gpt.post("/v2/models/gpt/generate", json=asked).json()["text_output"]
        return text

    likeliest = said(temperature=0)
    assert said(top_p=0) == likeliest
    assert said(temperature=0, max_tokens=3) == likeliest[: len(said(temperature=0, max_tokens=3))]
    stop = likeliest[4:6]
    assert said(temperature=0, stop=[stop]) == likeliest[: likeliest.index(stop)]


def generate_refused(peers: Peers) -> None:
    for asked, words in (
        ({}, "text_input is missing"),
        ({"text_input": 3}, "text_input must be a string, not a number"),
        ({"text_input": "a", "parameters": {"temperature": -1}}, "temperature must be from 0 to 2"),
        ({"text_input": "a", "parameters": {"best_of": 3}}, "best_of"),
    ):
        answer = peers.gpt.post("/v2/models/gpt/generate", json=asked)
        assert (answer.status_code, list(answer.json())) == (422, ["error"])
        assert words in answer.json()["error"]


def generate_stream(peers: Peers) -> None:
    asked = {"text_input": "line 7", "parameters": {"max_tokens": 8, "temperature": 0}}
    whole = peers.gpt.post("/v2/models/gpt/generate", json=asked).json()["text_output"]
    answer = peers.gpt.post("/v2/models/gpt/generate_stream", json=asked)
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [json.loads(event.removeprefix("data: ")) for event in answer.text.split("\n\n")[:-1]]
    assert "".join(event["text_output"] for event in events) == whole
    assert [event["done"] for event in events] == [False] * (len(events) - 1) + [True]
    assert {event["model_name"] for event in events} == {"gpt"}
    assert events[-1]["usage"]["completion_tokens"] == 8


CHECKS: dict[str, Callable[[Peers], None]] = {
    check.__name__: check
    for check in (
        live, ready, model_ready, unknown_model, server_metadata, model_metadata, identity, parameters, row_major,
        batch, outputs, datatypes, not_json, missing_input, strange_input, wrong_datatype, wrong_shape, wrong_data,
        strange_output, error_object, binary_input, binary_output, binary_datatypes, bytes_of_no_text, binary_mixed,
        binary_lengths,
        generate, generate_parameters, generate_refused, generate_stream,
    )
} | {"infer": infers}  # fmt: skip


@pytest.mark.parametrize("check", CHECKS)
def test_the_demands_of_the_protocol_are_met(peers: Peers, check: str) -> None:
    CHECKS[check](peers)


def test_every_demand_has_its_check_and_every_check_its_demand() -> None:
    assert {row["check"] for row in ROWS} == CHECKS.keys()
    assert [int(row["number"]) for row in ROWS] == list(range(1, len(ROWS) + 1))


def test_a_real_model_tells_what_files_are(magika: Served) -> None:
    source = Path(__file__).read_bytes()
    features = [*source[:1024].lstrip()[:1024], *source[-1024:].rstrip()]
    features = [*features[:1024], *([256] * (2048 - len(features))), *features[1024:]]
    asked = {"inputs": [{"name": "bytes", "shape": [1, 2048], "datatype": "INT32", "data": features}]}
    [output] = magika.post("/v2/models/magika/infer", json=asked).json()["outputs"]
    assert output["shape"] == [1, 214]
    assert max(output["data"]) > 0.9
    assert sum(output["data"]) == pytest.approx(1, abs=1e-3)
