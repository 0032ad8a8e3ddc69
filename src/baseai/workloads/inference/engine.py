"""An engine is what a replica computes with: it loads one model and answers the kinds of request it is able to.

Invariant: an engine knows tensors, texts and tokens and never HTTP; a server knows HTTP and never a model. What an
engine can do is what it has methods for (`Infers`, `Embeds`, `Generates`, `Calls`), and a server offers no other route.
The engines stand under `engines/`, callables in `callable.py`; the host makes, loads and closes one.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from baseai.ground.fault import Fault

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FinishReason = Literal["stop", "length"]

Together = Callable[[Any], Awaitable[Any]]
"""Answers one item, computed in one batch with those of other requests."""

Gather = Callable[[Callable[[Sequence[Any]], Awaitable[Sequence[Any]]], Callable[[Any], int]], Together]
"""Of what computes a batch (answers in the order of the items) and an item's size in rows, what answers one item.

`batching.py` makes one of a spec's `batching`; an item larger than a whole batch is a batch of its own. When a batch
fails, each of its items is computed by itself, and gets its own answer or error.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """What an engine is given at birth."""

    model: str  # a file or folder on this node, or `file.py:name` of a callable
    model_name: str  # what clients call it
    digest: str | None = None  # of the model's bytes, where whoever brought it has reckoned it
    concurrency: int  # requests that come at once, at most
    threads: int = 1  # leased slots: threads for one computation
    device: Literal["cpu", "cuda"] = "cpu"
    gather: Gather | None = None  # None: each request is computed by itself
    most_tokens: int | None = None  # of a prompt with its answer; None: what the model allows


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorForm:
    """What one input or output of a model is like."""

    name: str
    datatype: str  # of the Open Inference Protocol: FP32, INT64, BYTES, …
    shape: tuple[int | None, ...]  # None: any length


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """What a loaded engine says of its model."""

    platform: str  # as the Open Inference Protocol writes it: onnxruntime_onnx, pytorch_bert, …
    digest: str  # sha256 of the model's file or folder, hexadecimal
    inputs: tuple[TensorForm, ...] = ()
    outputs: tuple[TensorForm, ...] = ()
    context: int | None = None  # tokens that one request may have
    facts: Mapping[str, Any] = field(
        default_factory=dict
    )  # JSON-ready, for people: parameters, dimensions, …


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request as an engine sees it. Its task is cancelled when the client goes or the deadline is over."""

    request_id: str
    deadline_at_s: float | None = None  # on the loop's clock (`loop.time()`)
    session_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Inferred:
    """The outputs that were asked for."""

    outputs: "Mapping[str, NDArray[Any]]"
    tokens: int | None = None  # of the inputs; None where the model knows no tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """The vectors of some texts."""

    vectors: "NDArray[np.float32]"  # shape (texts, dimensions), in the order of the texts
    tokens: int  # of all texts together, with the marks that the model sets around them


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How an answer's tokens are drawn."""

    most_tokens: int | None = None  # of the answer; None: as many as the context has room for
    temperature: float = 1.0  # 0: always the likeliest token
    top_p: float = 1.0
    seed: int | None = None  # the same seed and prompt give the same answer; None: another one each time
    stop: tuple[str, ...] = ()  # texts that end the answer and are no part of it


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A part of an answer as it is made. The last one has a `finish_reason`."""

    text: str  # whole characters; may be empty
    tokens: int  # drawn for this piece
    finish_reason: FinishReason | None = None


@runtime_checkable
class Engine(Protocol):
    """One loaded model. Beside these it has the methods of one or more of the four below."""

    def load(self) -> None:
        """Bring the model into memory and compute once. Blocks: it is called in a thread, once.

        Raises ModelUnusable.
        """

    def describe(self) -> Described:
        """The model, once it is loaded."""

    async def close(self) -> None:
        """End threads and give memory back; nothing is asked afterwards."""


@runtime_checkable
class Infers(Protocol):
    """Computes named tensors from named tensors (the Open Inference Protocol's `infer`)."""

    async def infer(
        self, inputs: "Mapping[str, NDArray[Any]]", outputs: Sequence[str], call: Call
    ) -> Inferred:
        """The named outputs. Inputs are of the forms that `describe` says; BYTES tensors hold `bytes` objects.

        Raises BadInput where lengths do not fit together.
        """


@runtime_checkable
class Embeds(Protocol):
    """Gives texts their vectors (`/v1/embeddings`)."""

    async def embed(self, texts: Sequence[str | Sequence[int]], call: Call) -> Embedded:
        """Each text is a string or its tokens. Raises TooLong, BadInput."""


@runtime_checkable
class Generates(Protocol):
    """Continues text (`/v1/chat/completions`, `/v1/completions`, `generate`)."""

    def chat_prompt(self, messages: Sequence[tuple[str, str]]) -> Sequence[int]:
        """The tokens of a conversation of (role, text), ready for the next answer."""

    def chat_stops(self) -> Sequence[str]:
        """Texts that end the answer to a conversation, beside those that are asked for."""

    def text_prompt(self, text: str) -> Sequence[int]:
        """The tokens of a text that is to be continued."""

    def generate(self, prompt: Sequence[int], sampling: Sampling, call: Call) -> AsyncGenerator[Piece, None]:
        """The answer, piece by piece as it is made. Closing the iterator ends the work within one token.

        Raises TooLong or BadInput before the first piece.
        """


@runtime_checkable
class Calls(Protocol):
    """Answers a body with a value (`POST /json`)."""

    async def call(self, body: Any, call: Call) -> Any:
        """A JSON-ready answer. The body is the parsed JSON, or `bytes` where the content type is another one.

        Raises BadInput; whatever else comes out is a fault of the callable.
        """


class ModelUnusable(Fault):
    """A model cannot be loaded as it stands; trying again does not help."""

    def __init__(self, model: str, problem: str, fix: str) -> None:
        super().__init__(model, problem, fix)
        self.model = model
        self.problem = problem
        self.fix = fix

    def __str__(self) -> str:
        return f"model {self.model}: {self.problem}; {self.fix}"


class BadInput(Fault):
    """What a client sent cannot be computed; the sentence names the part, what was wanted and what came."""

    def __init__(self, sentence: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(sentence, param, code)
        self.sentence = sentence
        self.param = param  # the field of the body
        self.code = code  # for programs

    def __str__(self) -> str:
        return self.sentence


class WrongValue(BadInput):
    """A well-formed request with a value that cannot be used; the protocol tells it apart from a bad one."""


class CallableFailed(Fault):
    """The tenant's own code raised; what it raised is said, for it is the tenant's to mend."""

    def __init__(self, raised: str, message: str) -> None:
        super().__init__(raised, message)
        self.raised = raised  # the name of the exception's class
        self.message = message

    def __str__(self) -> str:
        return (
            f"the callable failed with {self.raised}: {self.message}"
            if self.message
            else (f"the callable failed with {self.raised}")
        )


class TooLong(Fault):
    """A request has more tokens than the model can attend to at once."""

    def __init__(self, limit: int, asked: int, answer: int = 0) -> None:
        super().__init__(limit, asked, answer)
        self.limit = limit
        self.asked = asked  # tokens of the prompt
        self.answer = answer  # tokens of the answer that were asked for beside them

    def __str__(self) -> str:
        beside = f" and {self.answer} are asked for as answer" if self.answer else ""
        return (
            f"this model's context is {self.limit} tokens, but the input has {self.asked}{beside}; shorten it"
        )


class Busy(Fault):
    """All places are taken; another replica, or this one a little later, can answer."""

    retryable = True

    def __init__(self, concurrency: int, retry_after_s: float) -> None:
        super().__init__(concurrency, retry_after_s)
        self.concurrency = concurrency
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return f"this replica computes {self.concurrency} requests at once, and as many again wait"


class DeadlineOver(Fault):
    """The time that a request was given is over."""

    def __init__(self, request_id: str) -> None:
        super().__init__(request_id)
        self.request_id = request_id

    def __str__(self) -> str:
        return f"the deadline of request {self.request_id} is over"
