"""vLLM's command line from a spec and a lease; what a node without vLLM says."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from baseai.workloads.inference.engine import ModelUnusable
from baseai.workloads.inference.order import Order, read
from baseai.workloads.inference.vllm import argv_of, require, variables_of
from tests.workloads.inference.hosted import order_of

LLAMA = "engine: vllm\nmodel: hf:org/llama\nmodel_name: org/llama\n"


def order(folder: Path, text: str, **other: Any) -> Order:
    path = folder / "service.json"
    path.write_text(json.dumps(order_of(folder, text, **other)))
    return read(path)


def options(argv: tuple[str, ...]) -> dict[str, str]:
    """Each option with its value, or with nothing."""
    named = [word for word in argv if word.startswith("--")]
    after = dict(zip(argv, [*argv[1:], "--"], strict=True))
    return {word: "" if after[word].startswith("--") else after[word] for word in named}


def test_the_model_is_spread_over_all_accelerators_of_the_lease(tmp_path: Path) -> None:
    asked = order(tmp_path, LLAMA + "max_tokens: 8192\nconcurrency: 64\n", device="cuda", accelerators=4)
    argv = argv_of(asked, host="10.0.0.1", port=20_001, model="/hub/llama", interpreter="/python")
    assert argv[:5] == ("/python", "-m", "vllm.entrypoints.cli.main", "serve", "/hub/llama")
    assert options(argv) == {
        "--host": "10.0.0.1",
        "--port": "20001",
        "--served-model-name": "org/llama",
        "--tensor-parallel-size": "4",
        "--max-model-len": "8192",
        "--max-num-seqs": "64",
        "--enable-prefix-caching": "",
        "--disable-uvicorn-access-log": "",
        "--uvicorn-log-level": "warning",
    }


def test_what_the_spec_leaves_open_is_left_to_vllm(tmp_path: Path) -> None:
    argv = argv_of(order(tmp_path, LLAMA), host="127.0.0.1", port=1, model="/m", interpreter="/python")
    assert not {"--max-model-len", "--tensor-parallel-size"} & set(argv)
    assert options(argv)["--max-num-seqs"] == "256"


def test_its_variables_keep_the_devices_and_tell_nobody(tmp_path: Path) -> None:
    own = {"CUDA_VISIBLE_DEVICES": "2,3", "PYTHONPATH": "/agent", "RUN_SECRET": "s"}
    found = variables_of(order(tmp_path, LLAMA), own, host="0.0.0.0", port=20_001, model="/m")
    assert (found["CUDA_VISIBLE_DEVICES"], found["RUN_SECRET"]) == ("2,3", "s")
    assert (found["VLLM_NO_USAGE_STATS"], found["VLLM_HOST_IP"]) == ("1", "127.0.0.1")
    assert "PYTHONPATH" not in found


def test_its_key_and_its_guard_know_the_token_and_its_command_line_does_not(tmp_path: Path) -> None:
    asked = order(tmp_path, LLAMA, token="rpl_secret", python_path="lib")
    argv = argv_of(asked, host="127.0.0.1", port=1, model="/m", interpreter="/python")
    assert options(argv)["--middleware"] == "baseai.workloads.inference.server.guard.VllmGuard"
    assert not [word for word in argv if "rpl_secret" in word]
    own = {"VLLM_API_KEY": "the tenant's, which no gateway would show"}
    found = variables_of(asked, own, host="127.0.0.1", port=1, model="/m")
    assert (found["VLLM_API_KEY"], found["BASEAI_REPLICA_TOKEN"]) == ("rpl_secret", "rpl_secret")
    tenant, ours = found["PYTHONPATH"].split(os.pathsep)
    assert tenant == "lib"
    seen = [sys.executable, "-c", "import baseai.workloads.inference.server.guard"]
    subprocess.run(seen, env={"PYTHONPATH": ours}, check=True)


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="this node has vLLM")
def test_a_node_without_it_says_what_to_install() -> None:
    with pytest.raises(
        ModelUnusable, match=r"vllm: is not installed on this node; have .* -m pip install vllm"
    ):
        require()
