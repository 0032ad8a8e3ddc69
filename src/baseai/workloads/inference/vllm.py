"""vLLM's own OpenAI server as a replica: its command line and its variables, from a service and its lease.

Invariant: pure but for the look whether vLLM is installed; what the spec does not say is left to vLLM. Written for
vLLM 0.33, which names these options as the versions before it did. Its own key guards OpenAI's paths and few others
(vLLM's docs, usage/security), so a guard of ours stands before all of them as well.
"""

import importlib.util
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import baseai
from baseai.workloads.inference.command import Program, environment_of
from baseai.workloads.inference.engine import ModelUnusable
from baseai.workloads.inference.order import Order

PACKAGE = "vllm"
GUARD = "baseai.workloads.inference.server.guard.VllmGuard"
READY_PATH = "/health"


def require() -> None:
    """Raises ModelUnusable where this node has no vLLM."""
    if importlib.util.find_spec(PACKAGE) is None:
        fix = f"have the node's operator run `{sys.executable} -m pip install vllm`, or ask for nodes that have it"
        raise ModelUnusable("vllm", "is not installed on this node", fix)


def argv_of(order: Order, *, host: str, port: int, model: str, interpreter: str) -> tuple[str, ...]:
    """The command line of `vllm serve`, over all accelerators of the lease."""
    service = order.service
    argv = [interpreter, "-m", "vllm.entrypoints.cli.main", "serve", model]
    argv += ["--host", host, "--port", str(port), "--served-model-name", service.model_name]
    if order.device == "cuda":
        argv += ["--tensor-parallel-size", str(order.accelerators)]
    if service.most_tokens is not None:
        argv += ["--max-model-len", str(service.most_tokens)]
    argv += ["--max-num-seqs", str(service.concurrency), "--enable-prefix-caching"]
    argv += ["--disable-uvicorn-access-log", "--uvicorn-log-level", "warning"]
    if order.token is not None:
        argv += ["--middleware", GUARD]
    return tuple(argv)


def variables_of(order: Order, own: Mapping[str, str], *, host: str, port: int, model: str) -> dict[str, str]:
    """The run's variables with vLLM's own: it tells nobody how it is used, and binds what it opens inside.

    Where there is a token, it is vLLM's key, and vLLM finds the guard behind the tenant's own packages.
    """
    inside = "127.0.0.1" if host in ("0.0.0.0", "::") else host  # noqa: S104  compared, not bound
    environment = environment_of(order, own, host=host, port=port, model=model)
    environment |= {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_HOST_IP": inside}
    if order.token is not None:
        paths = (environment.get("PYTHONPATH"), str(Path(baseai.__file__).parents[1]))
        environment |= {"VLLM_API_KEY": order.token, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    return environment


def program_of(order: Order, own: Mapping[str, str], *, host: str, port: int, model: str) -> Program:
    """What the host starts. Raises ModelUnusable where this node has no vLLM."""
    require()
    return Program(
        argv=argv_of(order, host=host, port=port, model=model, interpreter=sys.executable),
        env=variables_of(order, own, host=host, port=port, model=model),
        ready_path=READY_PATH,
    )
