"""An engine that shows what came: an input and an output of every datatype, each output its input turned round."""

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from baseai.workloads.inference.datatype import DTYPES
from baseai.workloads.inference.engine import BadInput, Call, Described, Inferred, TensorForm


class Mirror:
    """See `Engine`, `Infers` and `Calls`. An input of two columns and any rows; its output has the rows last first."""

    def __init__(self, datatypes: Sequence[str] = tuple(DTYPES)) -> None:
        self.datatypes = datatypes

    def load(self) -> None:
        """It knows nothing that could be loaded."""

    async def close(self) -> None:
        """It has nothing to give back."""

    def describe(self) -> Described:
        return Described(
            platform="mirror",
            digest="0" * 64,
            inputs=tuple(TensorForm(name=each, datatype=each, shape=(None, 2)) for each in self.datatypes),
            outputs=tuple(
                TensorForm(name=f"{each}_back", datatype=each, shape=(None, 2)) for each in self.datatypes
            ),
        )

    async def infer(self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str], call: Call) -> Inferred:
        return Inferred(outputs={name: inputs[name.removesuffix("_back")][::-1] for name in outputs})

    async def call(self, body: Any, call: Call) -> Any:
        if body == "what":
            raise BadInput("there is no answer to what", "what")
        if body == "boom":
            raise RuntimeError("a secret of the model's")
        return body
