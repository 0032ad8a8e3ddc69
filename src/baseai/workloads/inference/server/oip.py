"""The Open Inference Protocol, version 2, over REST: health, metadata and `infer`, with binary tensors both ways.

Invariant: a request is computed only when every input that the model has came once, in its datatype and shape; the
answer's `id` and `parameters` are the request's. The table of the specification's demands is in the tests.
"""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import baseai
from baseai.workloads.inference.datatype import DTYPES, datatype_of
from baseai.workloads.inference.engine import BadInput, Described, Engine, Generates, Infers, TensorForm
from baseai.workloads.inference.server import tensor
from baseai.workloads.inference.server.exchange import JSON, Exchange, kind_of, parsed, usage_header
from baseai.workloads.inference.server.refusal import UnknownModel
from baseai.workloads.inference.server.tensor import Array
from baseai.workloads.inference.server.terms import Terms

Free = Callable[[], tuple[int, Any]]

MODELS = "/v2/models/"
HEAD_LENGTH = b"inference-header-content-length"


def routes(engine: Engine, terms: Terms, is_ready: Callable[[], bool]) -> dict[str, Free]:
    """Health and metadata, of the server and of its one model under each of its names."""
    described = engine.describe()
    extensions = ["binary_tensor_data"] if isinstance(engine, Infers) else []
    extensions += ["generate"] if isinstance(engine, Generates) else []

    def ready() -> tuple[int, Any]:
        return (200 if is_ready() else 503), {"live": True, "ready": is_ready()}

    def model_ready(name: str) -> Free:
        return lambda: (200 if is_ready() else 503, {"name": name, "ready": is_ready()})

    def model(name: str) -> Free:
        told = {
            "name": name,
            "versions": [terms.version],
            "platform": described.platform,
            "inputs": [_metadata(form) for form in described.inputs],
            "outputs": [_metadata(form) for form in described.outputs],
        }
        return lambda: (200, told)

    server = {"name": "baseai", "version": baseai.__version__, "extensions": extensions}
    free: dict[str, Free] = {
        "/v2": lambda: (200, server),
        "/v2/health/live": lambda: (200, {"live": True}),
        "/v2/health/ready": ready,
    }
    for name in terms.names:
        for place in places(name, terms):
            free[place] = model(name)
            free[f"{place}/ready"] = model_ready(name)
    return free


def places(name: str, terms: Terms) -> tuple[str, str]:
    """The two paths of a model: without its version and with it."""
    return f"{MODELS}{name}", f"{MODELS}{name}/versions/{terms.version}"


def refuse_other_models(path: str, terms: Terms) -> None:
    """Raises UnknownModel where the path asks for a model, or a version of one, that is not here."""
    if not path.startswith(MODELS):
        return
    for name in terms.names:
        if path == f"{MODELS}{name}" or path.startswith(f"{MODELS}{name}/"):
            head, _, rest = path.partition(f"{MODELS}{name}/versions/")
            version = rest.partition("/")[0]
            if head == "" and version and version != terms.version:
                raise UnknownModel(name, terms.version, version)
            return
    name = path.removeprefix(MODELS).partition("/versions/")[0]
    for verb in ("/infer", "/generate", "/generate_stream", "/ready"):
        name = name.removesuffix(verb)
    raise UnknownModel(name, terms.model_name)


def infer_routes(
    engine: Infers, described: Described, terms: Terms
) -> dict[str, Callable[[Exchange, bytes], Awaitable[None]]]:
    """`POST …/infer`."""
    inputs = {form.name: form for form in described.inputs}
    outputs = tuple(form.name for form in described.outputs)

    def of(name: str) -> Callable[[Exchange, bytes], Awaitable[None]]:
        async def infer(exchange: Exchange, body: bytes) -> None:
            head, tail = split(body, exchange.headers.get(HEAD_LENGTH))
            asked = parsed(head)
            given = inputs_of(asked, inputs, tail)
            wanted = outputs_of(asked, outputs)
            made = await engine.infer(given, tuple(wanted), exchange.call)
            answer: dict[str, Any] = {"model_name": name, "model_version": terms.version}
            for field in ("id", "parameters"):
                if field in asked:
                    answer[field] = asked[field]
            body, headers = _told(answer, made.outputs, wanted)
            if made.tokens is not None:
                headers = (*headers, usage_header(made.tokens))
            await exchange.answer(200, body, headers)

        return infer

    return {f"{place}/infer": of(name) for name in terms.names for place in places(name, terms)}


def split(body: bytes, head_length: bytes | None) -> tuple[bytes, memoryview]:
    """The JSON of a body and the binary tail behind it. Raises BadInput."""
    if head_length is None:
        return body, memoryview(b"")
    if not head_length.isdigit() or int(head_length) > len(body):
        said = head_length.decode("latin-1")
        raise BadInput(f"Inference-Header-Content-Length is {said}, but the body has {len(body)} bytes")
    end = int(head_length)
    return body[:end], memoryview(body)[end:]


def inputs_of(
    asked: Mapping[str, Any], forms: Mapping[str, TensorForm], tail: memoryview
) -> dict[str, Array]:
    """Every input of the model, once. Raises BadInput that names the tensor, what was wanted and what came."""
    _identified(asked)
    listed = asked.get("inputs")
    if not isinstance(listed, list):
        raise BadInput(f"inputs must be a list of tensors, not {kind_of(listed)}", "inputs")
    given: dict[str, Array] = {}
    at = 0
    for index, each in enumerate(listed):
        if not isinstance(each, dict) or not isinstance(each.get("name"), str):
            raise BadInput(f"inputs[{index}] must be an object with a name", f"inputs[{index}]")
        name = each["name"]
        form = forms.get(name)
        if form is None:
            raise BadInput(f"there is no input {name}; this model takes {_listed(forms)}", name)
        if name in given:
            raise BadInput(f"input {name} is given twice", name)
        datatype = each.get("datatype")
        if not isinstance(datatype, str) or datatype not in DTYPES:
            raise BadInput(f"input {name}: there is no datatype {datatype!r}; it takes {form.datatype}", name)
        shape = tensor.shape_of(name, each.get("shape"))
        tensor.fits(form, datatype, shape)
        parameters = _parameters(each, f"input {name}")
        size_bytes = parameters.get("binary_data_size")
        if size_bytes is None:
            in_base64 = parameters.get("content_type") == "base64"
            given[name] = tensor.tensor_of_json(name, datatype, shape, each.get("data"), in_base64=in_base64)
        else:
            if type(size_bytes) is not int or not 0 <= size_bytes <= len(tail) - at:
                left = len(tail) - at
                raise BadInput(
                    f"input {name}: binary_data_size is {size_bytes}, but {left} bytes are left", name
                )
            given[name] = tensor.tensor_of_bytes(name, datatype, shape, tail[at : at + size_bytes])
            at += size_bytes
    for name, form in forms.items():
        if name not in given:
            raise BadInput(f"input {name} of datatype {form.datatype} is missing", name)
    if at != len(tail):
        raise BadInput(f"{len(tail) - at} bytes behind the JSON belong to no input", "inputs")
    return given


def outputs_of(asked: Mapping[str, Any], known: Sequence[str]) -> dict[str, bool]:
    """The wanted outputs in the order in which they are asked for, each with whether it goes as bytes.

    Raises BadInput.
    """
    all_binary = _parameters(asked, "the request").get("binary_data_output") is True
    listed = asked.get("outputs")
    if listed is None or listed == []:
        return dict.fromkeys(known, all_binary)
    if not isinstance(listed, list):
        raise BadInput(f"outputs must be a list, not {kind_of(listed)}", "outputs")
    wanted: dict[str, bool] = {}
    for index, each in enumerate(listed):
        if not isinstance(each, dict) or not isinstance(each.get("name"), str):
            raise BadInput(f"outputs[{index}] must be an object with a name", f"outputs[{index}]")
        name = each["name"]
        if name not in known:
            raise BadInput(f"there is no output {name}; this model gives {', '.join(known)}", name)
        if name in wanted:
            raise BadInput(f"output {name} is asked for twice", name)
        binary = _parameters(each, f"output {name}").get("binary_data", all_binary)
        wanted[name] = binary is True
    return wanted


def _told(
    answer: dict[str, Any], made: Mapping[str, Array], wanted: Mapping[str, bool]
) -> tuple[bytes, tuple[tuple[bytes, bytes], ...]]:
    tails = []
    told = []
    for name, binary in wanted.items():
        output = made[name]
        form: dict[str, Any] = {
            "name": name,
            "datatype": datatype_of(output),
            "shape": list(output.shape),
        }
        if binary:
            tails.append(tensor.bytes_of(output))
            form["parameters"] = {"binary_data_size": len(tails[-1])}
        else:
            try:
                form["data"] = tensor.json_of(output)
            except UnicodeDecodeError:
                fix = "ask for it with `binary_data`"
                raise BadInput(f"output {name} holds bytes that are no text; {fix}", name) from None
        told.append(form)
    head = json.dumps({**answer, "outputs": told}).encode()
    if not tails:
        return head, JSON
    length = (HEAD_LENGTH, b"%d" % len(head))
    return b"".join((head, *tails)), ((b"content-type", b"application/octet-stream"), length)


def _identified(asked: Mapping[str, Any]) -> None:
    if "id" in asked and not isinstance(asked["id"], str):
        raise BadInput(f"id must be a string, not {kind_of(asked['id'])}", "id")


def _parameters(of: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    given = of.get("parameters")
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise BadInput(f"{where}: parameters must be an object, not {kind_of(given)}", "parameters")
    return given


def _listed(forms: Mapping[str, TensorForm]) -> str:
    return ", ".join(f"{form.name} ({form.datatype})" for form in forms.values())


def _metadata(form: TensorForm) -> dict[str, Any]:
    shape = [-1 if length is None else length for length in form.shape]
    return {"name": form.name, "datatype": form.datatype, "shape": shape}
