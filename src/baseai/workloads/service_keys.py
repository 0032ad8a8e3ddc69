"""The keys of a service as a tenant writes them, and what each of them means where it is left out.

Invariant: a key that could not take effect beside the others is refused with a sentence. Read by `service_of`, which
notes every error and goes on; the noun itself is in `service.py`.
"""

import re
from typing import cast, get_args

from baseai.workloads.model import ModelSource, model_source_of
from baseai.workloads.service import Engine, Protocol, Service
from baseai.workloads.service_terms import (
    balance_of,
    batching_of,
    body_bytes,
    cache_of,
    one_of,
    or_usual,
    p99_ms_of,
    rate_limits_of,
    request_s,
    rollout_of,
    scaling_of,
    short,
    truth_of,
)
from baseai.workloads.sheet import Entries

KEYS = (
    "model",
    "engine",
    "runtime",
    "protocol",
    "commands",
    "port",
    "model_name",
    "license",
    "replicas",
    "scaling",
    "concurrency",
    "batching",
    "slo",
    "cache",
    "auth",
    "rate_limits",
    "balance",
    "timeout",
    "queue_most",
    "max_body",
    "max_tokens",
    "probes",
    "rollout",
)

# What each engine answers in, its own first. Of a program of the tenant's we only pass on what it says.
SPOKEN: dict[Engine, tuple[Protocol, ...]] = {
    "onnx": ("oip",),
    "embeddings": ("openai",),
    "chat": ("openai", "oip"),
    "callable": ("json",),
    "command": ("json", "openai", "oip"),
    "vllm": ("openai",),
    "ray": ("json", "openai", "oip"),
}
BATCHED: frozenset[Engine] = frozenset({"callable", "onnx", "embeddings"})  # where the spec wants it
GIVEN = frozenset({"HOST", "PORT"})  # variables in which a replica is told where to listen
STARTED: frozenset[Engine] = frozenset({"command", "ray"})  # of which the tenant says what is started
CONCURRENCY_MOST = 10_000

_MODEL_NAME = re.compile(r"^[A-Za-z0-9][\w.:/-]{0,127}$")


def service_of(top: Entries, *, name: str, on_accelerators: bool) -> Service:
    """The service of a spec; what is wrong has been noted and stands at its default.

    name: of the run, which clients call the model by where `model_name` is left out. on_accelerators: whether the
    spec asks for any but CPU slots, on which vLLM serves a language model.
    """
    source = top.parsed("model", lambda written: model_source_of(str(written)))
    commands = _commands(top)
    known = _engine(top, source, commands, on_accelerators=on_accelerators)
    if known is not None:
        _fit(top, known, source, commands)
    engine = known or "command"  # stands in where none is known, so that the other keys are read as well
    protocol = one_of(top, "protocol", SPOKEN[engine], f"of `engine: {engine}`") or SPOKEN[engine][0]
    concurrency = top.whole("concurrency", 1, CONCURRENCY_MOST) or (256 if engine == "vllm" else 16)
    auth = truth_of(top, "auth", usual=True)
    timeout_s = float(top.parsed("timeout", request_s) or 60)
    port = top.whole("port", 1, 65_535)
    scaling = scaling_of(top, concurrency)
    if port is not None and scaling.most > 1:
        top.wrong(
            "port",
            f"up to {scaling.most} replicas may stand on one node, and only one of them can listen at {port}",
            "let the command listen at $PORT, which each replica is given, and leave `port` out",
        )
    return Service(
        engine=engine,
        model=None if source is None else top.text("model"),
        model_name=_model_name(top, protocol) or name,
        protocol=protocol,
        commands=commands or (),
        port=port,
        ready_path=_ready_path(top) or "/",
        license=top.parsed("license", short),
        scaling=scaling,
        concurrency=concurrency,
        batching=batching_of(top),
        p99_ms=p99_ms_of(top),
        cache=cache_of(top, engine, protocol),
        auth=auth,
        rate_limits=rate_limits_of(top, protocol, auth=auth),
        balance=balance_of(top, protocol),
        timeout_s=timeout_s,
        queue_most=or_usual(top.whole("queue_most", 0, 100_000), 200),
        most_body_bytes=top.parsed("max_body", body_bytes) or (8 << 20),
        most_tokens=top.whole("max_tokens", 1, 10_000_000),
        rollout=rollout_of(top),
    )


# ---- what answers


def _commands(top: Entries) -> tuple[str, ...] | None:
    lines = top.texts("commands")
    if lines is None:
        return None
    if not any(line.strip() for line, _ in lines):
        top.wrong("commands", "hold no command", "write one below it, `- python serve.py --port $PORT`")
    return tuple(line for line, _ in lines)


def _engine(
    top: Entries, source: ModelSource | None, commands: tuple[str, ...] | None, *, on_accelerators: bool
) -> Engine | None:
    """As written, or as model and commands say. None where neither does; that has been noted."""
    written = one_of(top, "engine", get_args(Engine), "for a service")
    runtime = one_of(top, "runtime", ("ray",), "for a service")
    if runtime is not None and written not in (None, "ray"):
        top.wrong("runtime", f"does not go with `engine: {written}`", "keep one of them")
    if written is not None:
        return cast(Engine, written)
    if runtime is not None:
        return "ray"
    if "engine" in top or "runtime" in top:
        return None
    if commands is not None:
        return "command"
    if source is None:
        if "model" not in top:
            fix = "write `model: …`, or `commands:` that open a port at $PORT"
            top.wrong("model", "a service needs something that answers", fix)
        return None
    if source.kind == "python":
        return "callable"
    if source.is_onnx:
        return "onnx"
    return "vllm" if on_accelerators else "chat"


def _fit(top: Entries, engine: Engine, source: ModelSource | None, commands: tuple[str, ...] | None) -> None:
    """Note what of `model`, `commands`, `port`, `probes` and `batching` the engine makes nothing of."""
    if engine == "command" and commands is None:
        top.wrong("engine", "a command needs commands", "write `commands:` and below it what opens $PORT")
    if engine == "ray" and commands is None and (source is None or source.kind != "python"):
        fix = "write `model: python:file.py:app`, or `commands:` such as `- serve run file:app`"
        top.wrong("model" if "model" in top else "engine", "names no application of Ray Serve", fix)
    if engine == "ray" and commands is not None and source is not None and source.kind == "python":
        top.wrong("commands", "start an application beside the one in `model`", "keep one of them")
    if engine not in STARTED:
        if commands is not None:
            fix = "leave it out" + (
                ", or write `engine: command` and `- vllm serve … --port $PORT`" if engine == "vllm" else ""
            )
            top.wrong("commands", f"are not run by `engine: {engine}`, which is a program of its own", fix)
        for key in ("port", "probes"):
            if key in top:
                top.wrong(
                    key, f"belongs to a service of your own `commands`, not to `{engine}`", "leave it out"
                )
        if "model" not in top:
            top.wrong("model", f"`engine: {engine}` needs a model", "write `model: …`")
    if engine == "ray" and "port" in top:
        top.wrong("port", "is given to Ray Serve by the replica", "leave it out")
    if source is not None:
        is_python = source.kind == "python"
        if engine == "callable" and not is_python:
            top.wrong("model", "is not a callable", "write `model: python:file.py:name`")
        elif is_python and engine not in ("callable", "ray", "command"):
            top.wrong("model", f"is a callable, not what `{engine}` loads", "write `engine: callable`")
        elif engine == "onnx" and not source.is_onnx and source.kind in ("path", "pkg"):
            top.wrong("model", "is not an ONNX file", "name the file, which ends in .onnx")
        elif source.is_onnx and engine in ("embeddings", "chat", "vllm"):
            top.wrong("model", f"is an ONNX file, which `{engine}` does not load", "write `engine: onnx`")
        elif engine == "vllm" and source.kind in ("s3", "pkg"):
            fix = "write run:NAME, hf:org/name, or the path of a folder"
            top.wrong("model", "is not a folder that vLLM loads", fix)
    if "batching" in top and engine not in BATCHED:
        owner = (
            "goes from request to request by itself"
            if engine in ("vllm", "chat")
            else "is a program of its own"
        )
        top.wrong("batching", f"is not for `{engine}`, which {owner}", "leave it out")
    if "max_tokens" in top and "openai" not in SPOKEN[engine]:
        top.wrong("max_tokens", f"`{engine}` counts no tokens", "leave it out")


def _model_name(top: Entries, protocol: Protocol) -> str | None:
    def named(written: str | int | float) -> str:
        text = str(written)
        if not _MODEL_NAME.match(text):
            raise ValueError(f"`{text}` is not a model's name; use up to 128 letters, digits and . _ - : /")
        if "/" in text and protocol != "openai":
            raise ValueError(
                f"`{text}` has a slash, and stands in paths of `{protocol}`; leave the slash out"
            )
        return text

    return top.parsed("model_name", named)


def _ready_path(top: Entries) -> str | None:
    probes = top.mapping("probes")
    if probes is None:
        return None
    probes.only(("ready",))

    def path(written: str | int | float) -> str:
        if not re.match(r"^/[!-~]*$", str(written)):
            raise ValueError(f"`{written}` is no path of HTTP; write it like /health")
        return str(written)

    return probes.parsed("ready", path)
