"""The engine `onnx`: a model file that ONNX Runtime computes, on the CPU or on a GPU of the lease.

Invariant: a request's rows are the same whether it was computed alone or in a batch with others. Batches are put
together over the first dimension, where every input and output leaves it free; else each request stands alone.
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from baseai.workloads.inference.datatype import DTYPES
from baseai.workloads.inference.engine import (
    Assignment,
    BadInput,
    Call,
    Described,
    Inferred,
    ModelUnusable,
    TensorForm,
    Together,
)
from baseai.workloads.inference.engines.compute import Compute
from baseai.workloads.inference.model_source import digest_of

# ONNX Runtime's names of element types, and the protocol's.
DATATYPES: Mapping[str, str] = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}

MOST_SAID = 400  # characters of what ONNX Runtime says


@dataclass(frozen=True, slots=True, eq=False)  # arrays have no equality that is true or false
class Item:
    """One request's part of a batch."""

    inputs: Mapping[str, NDArray[Any]]
    outputs: tuple[str, ...]

    @property
    def rows(self) -> int:
        return int(next(iter(self.inputs.values())).shape[0])

    @property
    def likeness(self) -> tuple[object, ...]:
        """Items of equal likeness can be one computation."""
        return (self.outputs, *((name, given.shape[1:]) for name, given in sorted(self.inputs.items())))


class OnnxEngine:
    """See `Engine` and `Infers`."""

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment

    def load(self) -> None:
        """See `Engine.load`."""
        try:
            import onnxruntime
        except ImportError:
            raise ModelUnusable(
                self._assignment.model, "onnxruntime is not installed here", "install baseai[serve]"
            ) from None
        path = Path(self._assignment.model)
        if path.is_dir():
            path = _only_file(path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._assignment.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # what goes wrong is told to who asked
        # Threads that wait by turning round and round take the lease's processor from the next request.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers = ["CPUExecutionProvider"]
        if self._assignment.device == "cuda":
            if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
                raise ModelUnusable(
                    str(path), "this ONNX Runtime has no CUDA", "install onnxruntime-gpu on the node's image"
                )
            providers.insert(0, "CUDAExecutionProvider")
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=providers)
        except Exception as wrong:  # ONNX Runtime's classes have no common ancestor but this one
            sentence = str(wrong).strip().splitlines()[0]
            raise ModelUnusable(str(path), sentence, "give the path of an ONNX model") from wrong
        inputs = tuple(_form(tensor) for tensor in self._session.get_inputs())
        outputs = tuple(_form(tensor) for tensor in self._session.get_outputs())
        self._texts = frozenset(form.name for form in (*inputs, *outputs) if form.datatype == "BYTES")
        self._described = Described(
            platform="onnxruntime_onnx",
            digest=self._assignment.digest or digest_of(path),
            inputs=inputs,
            outputs=outputs,
            facts={
                "size_bytes": path.stat().st_size,
                "providers": self._session.get_providers(),
                "threads": self._assignment.threads,
                "batched": self._assignment.gather is not None and _free_in_rows((*inputs, *outputs)),
            },
        )
        self._compute = Compute(self._assignment.threads)
        self._together: Together | None = None
        if self._assignment.gather is not None and _free_in_rows((*inputs, *outputs)):
            self._together = self._assignment.gather(self._batch, lambda item: item.rows)
        self._warm_up()

    def describe(self) -> Described:
        """See `Engine.describe`."""
        return self._described

    async def close(self) -> None:
        """See `Engine.close`."""
        await self._compute.close()

    async def infer(self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str], call: Call) -> Inferred:
        """See `Infers.infer`."""
        item = Item(inputs, tuple(outputs))
        if self._together is not None and _in_rows(inputs):
            return Inferred(outputs=await self._together(item))
        return Inferred(outputs=await self._compute.run(self._computed, item))

    async def _batch(self, items: Sequence[Item]) -> Sequence[Any]:
        """The answers of the items. Where one is not to be computed, none is, and each is asked for again alone."""
        return await self._compute.run(self._computed_together, items)

    def _computed(self, item: Item) -> dict[str, NDArray[Any]]:
        from onnxruntime.capi import onnxruntime_pybind11_state as told

        given = {
            name: _texts_of(value) if name in self._texts else value for name, value in item.inputs.items()
        }
        try:
            made = self._session.run(list(item.outputs), given)
        except (told.InvalidArgument, told.RuntimeException, told.Fail) as wrong:
            # The forms fit, and yet the model cannot compute this: lengths that belong together do not agree.
            sentence = str(wrong).splitlines()[0][:MOST_SAID]
            raise BadInput(f"the model cannot compute these inputs: {sentence}") from wrong
        return dict(zip(item.outputs, made, strict=True))

    def _computed_together(self, items: Sequence[Item]) -> list[dict[str, NDArray[Any]]]:
        alike: dict[tuple[object, ...], list[int]] = {}
        for index, item in enumerate(items):
            alike.setdefault(item.likeness, []).append(index)
        answers: list[dict[str, NDArray[Any]]] = [{} for _ in items]
        for indexes in alike.values():
            parts = [items[index] for index in indexes]
            joined = {name: np.concatenate([part.inputs[name] for part in parts]) for name in parts[0].inputs}
            rows = sum(part.rows for part in parts)
            made = self._computed(Item(joined, parts[0].outputs))
            if any(len(tensor) != rows for tensor in made.values()):
                raise BadInput("the model's outputs have not the rows of its inputs")
            begin = 0
            for index, part in zip(indexes, parts, strict=True):
                end = begin + part.rows
                answers[index] = {name: tensor[begin:end] for name, tensor in made.items()}
                begin = end
        return answers

    def _warm_up(self) -> None:
        """Compute once on zeros, where the model's free lengths allow it, so that the first request is not slow."""
        zeros: dict[str, NDArray[Any]] = {}
        for form in self._described.inputs:
            shape = tuple(1 if length is None else length for length in form.shape)
            zeros[form.name] = np.full(
                shape, b"" if form.datatype == "BYTES" else 0, dtype=DTYPES[form.datatype]
            )
        # A model may not like lengths of one; then its first request tells what the matter is.
        with contextlib.suppress(Exception):
            self._computed(Item(zeros, tuple(form.name for form in self._described.outputs)))


def _only_file(folder: Path) -> Path:
    """The one ONNX model of a folder. Raises ModelUnusable."""
    found = sorted(folder.glob("*.onnx"))
    if len(found) == 1:
        return found[0]
    names = ", ".join(path.name for path in found) or "none"
    raise ModelUnusable(
        str(folder), f"a folder must hold one .onnx file, and here are {names}", "name the file"
    )


def _form(tensor: Any) -> TensorForm:
    datatype = DATATYPES.get(tensor.type)
    if datatype is None:
        raise ModelUnusable(
            tensor.name, f"{tensor.type} has no datatype to be sent in", "export it with another"
        )
    shape = tuple(length if isinstance(length, int) else None for length in tensor.shape)
    return TensorForm(name=tensor.name, datatype=datatype, shape=shape)


def _free_in_rows(forms: Sequence[TensorForm]) -> bool:
    return all(form.shape and form.shape[0] is None for form in forms)


def _in_rows(inputs: Mapping[str, NDArray[Any]]) -> bool:
    """Whether all inputs have the same number of rows, and at least one."""
    rows = {given.shape[0] for given in inputs.values()}
    return len(rows) == 1 and 0 not in rows


def _texts_of(tensor: NDArray[Any]) -> NDArray[Any]:
    """BYTES as ONNX Runtime wants its strings. Raises BadInput where they are no UTF-8."""
    try:
        texts = [element.decode() for element in tensor.ravel()]
    except UnicodeDecodeError as wrong:
        raise BadInput(f"a string of a BYTES input is not UTF-8: {wrong.reason}") from wrong
    made = np.empty(len(texts), dtype=object)
    made[:] = texts
    return made.reshape(tensor.shape)
