"""ONNX models in ONNX Runtime: small ones written here, whose answers are known."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from baseai.workloads.inference.batching import gather_of
from baseai.workloads.inference.engine import Assignment, BadInput, Call, ModelUnusable
from baseai.workloads.inference.engines.onnx import OnnxEngine
from baseai.workloads.service import Batching
from tests.workloads.inference.onnx_file import adder, write_model

pytest.importorskip("onnxruntime")

CALL = Call(request_id="r")


def loaded(path: Path, batching: Batching | None = None) -> OnnxEngine:
    gather = None if batching is None else gather_of(batching)
    engine = OnnxEngine(Assignment(model=str(path), model_name="sum", concurrency=8, gather=gather))
    engine.load()
    return engine


def rows(count: int, start: float = 0) -> "np.ndarray[Any, np.dtype[np.float32]]":
    return np.arange(start, start + 2 * count, dtype=np.float32).reshape(count, 2)


def test_the_model_says_its_tensors(tmp_path: Path) -> None:
    described = loaded(adder(tmp_path / "sum.onnx")).describe()
    assert [(form.name, form.datatype, form.shape) for form in described.inputs] == [
        ("left", "FP32", (None, 2)),
        ("right", "FP32", (None, 2)),
    ]
    assert [form.name for form in described.outputs] == ["sum"]
    assert len(described.digest) == 64


def test_requests_in_a_batch_have_the_answers_that_they_have_alone(tmp_path: Path) -> None:
    sizes: list[int] = []

    class Watched(OnnxEngine):
        def _computed(self, item: Any) -> Any:
            sizes.append(item.rows)
            return super()._computed(item)

    gather = gather_of(Batching(most=8, wait_ms=50.0))
    path = str(adder(tmp_path / "sum.onnx"))
    engine = Watched(Assignment(model=path, model_name="sum", concurrency=8, gather=gather))
    engine.load()
    sizes.clear()

    async def ask() -> Any:
        given = [{"left": rows(1 + number % 3, number), "right": rows(1 + number % 3)} for number in range(9)]
        answers = await asyncio.gather(*(engine.infer(each, ["sum"], CALL) for each in given))
        await engine.close()
        return list(zip(given, answers, strict=True))

    for given, answer in asyncio.run(ask()):
        assert np.array_equal(answer.outputs["sum"], given["left"] + given["right"])
    assert len(sizes) < 9  # fewer computations than requests
    assert max(sizes) <= 8


def test_one_that_cannot_be_computed_spoils_no_other(tmp_path: Path) -> None:
    engine = loaded(adder(tmp_path / "sum.onnx"), Batching(most=16, wait_ms=50.0))

    async def ask() -> Any:
        good = {"left": rows(2), "right": rows(2)}
        bad = {"left": rows(2), "right": rows(3)}
        return await asyncio.gather(
            *(engine.infer(each, ["sum"], CALL) for each in (good, bad, good)), return_exceptions=True
        )

    first, refused, last = asyncio.run(ask())
    assert np.array_equal(first.outputs["sum"], 2 * rows(2))
    assert isinstance(refused, BadInput)
    assert np.array_equal(last.outputs["sum"], 2 * rows(2))


def test_a_model_of_fixed_rows_is_not_batched(tmp_path: Path) -> None:
    engine = loaded(adder(tmp_path / "sum.onnx", rows=2), Batching(most=16))
    assert engine.describe().facts["batched"] is False
    answer = asyncio.run(engine.infer({"left": rows(2), "right": rows(2)}, ["sum"], CALL))
    assert np.array_equal(answer.outputs["sum"], 2 * rows(2))


def test_strings_are_bytes_of_utf8(tmp_path: Path) -> None:
    path = write_model(
        tmp_path / "same.onnx", "Identity", [("text", "string", ("n",))], [("same", "string", ("n",))]
    )
    engine = loaded(path)
    given = np.array(["São".encode(), b""], dtype=object)
    answer = asyncio.run(engine.infer({"text": given}, ["same"], CALL))
    assert list(answer.outputs["same"]) == ["São", ""]
    with pytest.raises(BadInput, match="is not UTF-8"):
        asyncio.run(engine.infer({"text": np.array([b"\xff"], dtype=object)}, ["same"], CALL))


@pytest.mark.parametrize("content", [b"", b"not a model"], ids=["an empty file", "another file"])
def test_a_file_that_is_no_model_says_so(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelUnusable, match="give the path of an ONNX model"):
        loaded(path)


def test_a_folder_holds_one_model(tmp_path: Path) -> None:
    adder(tmp_path / "a.onnx")
    assert loaded(tmp_path).describe().platform == "onnxruntime_onnx"
    adder(tmp_path / "b.onnx")
    with pytest.raises(ModelUnusable, match=r"here are a\.onnx, b\.onnx; name the file"):
        loaded(tmp_path)
