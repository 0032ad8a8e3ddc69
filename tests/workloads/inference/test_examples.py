"""The examples of services are specs, and what they name answers in the process that an agent would start."""

import base64
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from baseai.workloads.service import Service
from baseai.workloads.spec import RunSpec, spec_of
from tests.workloads.inference.hosted import WAIT_S, Hosted, hosted
from tests.workloads.inference.served import client_of
from tests.workloads.inference.tiny_gpt import write_tiny_gpt

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
NAMES = sorted(path.name for path in EXAMPLES.glob("serve-*.yaml"))
OCTETS = {"content-type": "application/octet-stream"}
PICTURE = base64.b64decode(  # one grey dot
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)


def spec(name: str) -> RunSpec:
    return spec_of((EXAMPLES / name).read_text(encoding="utf-8"), name, lambda recipe, config: {})


def served(name: str, folder: Path, **order: Any) -> Any:
    """A replica of the example, with the files that it brings."""
    read = spec(name)
    assert isinstance(read.work, Service)
    work = folder / "work"
    work.mkdir()
    for mount in read.files:
        (work / mount.remote).write_bytes((EXAMPLES / mount.local).read_bytes())
    return hosted(folder, "model: x.onnx\n", service=read.work.to_json(), run_name=f"{read.name}-1", **order)


@pytest.mark.parametrize("name", NAMES)
def test_each_rests_when_nobody_asks(name: str) -> None:
    work = spec(name).work
    assert isinstance(work, Service)
    assert (work.scaling.least, work.scaling.most) == (0, 2)


def test_magika_tells_what_a_file_is(tmp_path: Path) -> None:
    pytest.importorskip("magika")
    with served("serve-magika.yaml", tmp_path) as replica:
        source = octets(replica, Path(__file__).read_bytes())
        picture = octets(replica, PICTURE)
        by_text = replica.post("/json", {"text": "def main() -> None:\n    print(1)\n" * 9}).json()
        by_json = replica.post("/json", {"content": base64.b64encode(PICTURE).decode()}).json()
        refused = replica.post("/json", {"file": "a"})
    assert (source["label"], source["mime_type"]) == ("python", "text/x-python")
    assert picture["label"] == "png"
    assert by_json == picture
    assert by_text["label"] == "python"
    assert refused.status_code == 422
    assert "send the file as it is" in refused.json()["detail"]


def octets(replica: Hosted, content: bytes) -> Any:
    return httpx.post(f"{replica.url}/json", content=content, headers=OCTETS, timeout=WAIT_S).json()


def test_chat_answers_with_what_a_training_run_made(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    model = write_tiny_gpt(tmp_path / "model")
    with (
        served("serve-chat.yaml", tmp_path, model_path=str(model)) as replica,
        client_of(replica.url) as client,
    ):
        asked: Any = {"messages": [{"role": "user", "content": "def read"}], "max_tokens": 5, "seed": 1}
        whole = client.chat.completions.create(model="gpt", **asked).choices[0].message.content
        stream = client.chat.completions.create(model="gpt", stream=True, **asked)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == whole
        with pytest.raises(openai.NotFoundError, match="this is gpt"):
            client.chat.completions.create(model="gpt-4", **asked)
