"""The host of a replica from its order to its end: what it loads, what it tells, and that no request is lost."""

import contextlib
import json
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from tests.workloads.inference.hosted import hosted, order_of, write

pytest.importorskip("onnxruntime")
pytest.importorskip("magika")

MAGIKA = "model: pkg:magika:models/standard_v3_3/model.onnx\nmodel_name: magika\n"
SLOW = """
import time

def answer(body):
    time.sleep(body)
    return "slept"
"""


def test_an_onnx_model_of_a_package_tells_where_it_is_and_what(tmp_path: Path) -> None:
    with hosted(tmp_path, MAGIKA) as replica:
        ready = replica.ready()
        assert replica.told("loading") == {**(replica.told("loading") or {}), "engine": "onnx"}
        assert (ready["models"], ready["engine"], ready["origin_run_id"]) == (["magika"], "onnx", None)
        assert len(ready["digest"]) == 64
        assert ready["bytes"] > 1_000_000
        assert ready["warm_up_s"] > 0
        (tensor,) = httpx.get(replica.url + "/v2/models/magika").json()["inputs"]
        length = 2048 if tensor["shape"][1] < 0 else tensor["shape"][1]
        zeros = {
            "name": tensor["name"],
            "datatype": tensor["datatype"],
            "shape": [1, length],
            "data": [0] * length,
        }
        body = {"inputs": [zeros]}
        answer = replica.post("/v2/models/magika/infer", body)
        assert answer.status_code == 200, answer.text
        assert answer.json()["model_version"] == "3"  # the version of the service
        assert httpx.get(replica.url + "/baseai/ready").json()["digest"] == ready["digest"]
        # Clients may say the service's own name as well.
        assert httpx.get(replica.url + "/v2/models/shop-1").status_code == 200


def test_requests_under_way_are_answered_before_it_ends(tmp_path: Path) -> None:
    write(tmp_path, "app.py", SLOW)
    answers: list[httpx.Response] = []
    with hosted(tmp_path, "model: python:app.py:answer\n") as replica:
        url = replica.url

        def ask(seconds: float) -> None:
            answers.append(httpx.post(f"{url}/json", json=seconds, timeout=30))

        asking = [threading.Thread(target=ask, args=(seconds,)) for seconds in (0.8, 1.2)]
        for each in asking:
            each.start()
        time.sleep(0.4)
        replica.ask()
        time.sleep(0.1)
        late = httpx.post(f"{url}/json", json=0.1, timeout=30)  # a gateway that has not heard of it yet
        draining = httpx.get(f"{url}/baseai/ready", timeout=30)
        for each in asking:
            each.join()
        assert replica.ended() == 0
    assert [answer.json() for answer in answers] == ["slept", "slept"]
    assert late.json() == "slept"
    assert draining.status_code == 503


def test_what_is_not_done_within_the_grace_is_given_up(tmp_path: Path) -> None:
    write(tmp_path, "app.py", SLOW)
    statuses: list[int] = []
    with hosted(tmp_path, "model: python:app.py:answer\n", stop_grace_s=3.0) as replica:
        url = replica.url

        def ask() -> None:
            with contextlib.suppress(httpx.HTTPError):
                statuses.append(httpx.post(f"{url}/json", json=60, timeout=30).status_code)

        asking = threading.Thread(target=ask)
        asking.start()
        time.sleep(0.3)
        began_s = time.monotonic()
        replica.ask()
        assert replica.ended() == 0
        assert time.monotonic() - began_s < 6.0
        asking.join()
    assert all(status >= 500 for status in statuses)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        pytest.param("model: nets/lost.onnx", "there is no nets/lost.onnx in the run's folder; bring it", id="lost"),
        pytest.param("model: bad.onnx", "bad.onnx", id="a file that is no ONNX"),
        pytest.param("model: run:gpt", "the run gpt has made no model yet; name a run", id="no such run"),
        pytest.param("model: python:app.py:nobody", "app.py has no nobody; it has answer", id="no such callable"),
        pytest.param(f"{MAGIKA.splitlines()[0]}#sha256={'0' * 64}", "which is another than was asked for", id="digest"),
        pytest.param("engine: vllm\nmodel: folder", "model vllm: is not installed on this node", id="no vLLM here"),
    ],
)  # fmt: skip
def test_what_cannot_be_served_ends_with_a_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    write(tmp_path, "bad.onnx", "not an ONNX file")
    write(tmp_path, "app.py", SLOW)
    write(tmp_path, "folder/config.json", "{}")
    with hosted(tmp_path, text) as replica:
        assert replica.ended() == 64
        assert sentence in replica.last_line()
        assert "; " in replica.last_line()
        assert replica.told("ready") is None


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        pytest.param(None, "cannot read", id="no file"),
        pytest.param("{", "service.json: ", id="no JSON"),
        pytest.param("[]", "service.json: ", id="no object"),
        pytest.param("{}", "service.json lacks run_id", id="nothing in it"),
    ],
)
def test_an_order_that_cannot_be_read_says_so(tmp_path: Path, text: str | None, sentence: str) -> None:
    path = tmp_path / "service.json"
    if text is not None:
        path.write_text(text)
    ended = subprocess.run(
        [sys.executable, "-m", "baseai.workloads.inference.host", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 64
    assert sentence in ended.stderr


def test_an_order_of_a_later_version_is_read(tmp_path: Path) -> None:
    from baseai.workloads.inference.order import read

    path = tmp_path / "service.json"
    path.write_text(json.dumps(order_of(tmp_path, MAGIKA, further="key")))
    order = read(path)
    assert (order.service.model_name, order.version_no, order.model_checkpoints) == ("magika", 3, None)


def test_a_stop_while_it_loads_ends_it_at_once(tmp_path: Path) -> None:
    write(tmp_path, "app.py", "import time\nprint('importing', flush=True)\ntime.sleep(60)\n")
    with hosted(tmp_path, "model: python:app.py:answer\n") as replica:
        while "importing" not in replica.log():
            time.sleep(0.02)
        replica.ask()
        assert replica.ended() == 143
        assert replica.last_line() == "stopped before it was ready"


def test_a_stranger_on_loopback_is_refused_and_the_token_is_found_nowhere(tmp_path: Path) -> None:
    write(tmp_path, "app.py", "import os\n\ndef answer(body):\n    return dict(os.environ)\n")
    with hosted(tmp_path, "model: python:app.py:answer\n", token="rpl_secret") as replica:
        assert replica.post("/json", 1).status_code == 401
        assert httpx.get(replica.url + "/baseai/ready").status_code == 200
        shown = {"authorization": "Bearer rpl_secret"}
        answer = httpx.post(replica.url + "/json", json=1, headers=shown)
        assert answer.status_code == 200
        assert "rpl_secret" not in answer.text, "what computes has no use for it"
        replica.ask()
        assert replica.ended() == 0
    assert stat.S_IMODE((tmp_path / "service.json").stat().st_mode) == 0o600
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or b"rpl_secret" not in path.read_bytes(), path


def test_what_is_left_of_an_order_is_all_but_its_token(tmp_path: Path) -> None:
    from baseai.workloads.inference.order import taken

    path = tmp_path / "service.json"
    text = json.dumps(order_of(tmp_path, MAGIKA, token="rpl_secret"))
    path.write_text(text)
    order = taken(path)
    assert order.token == "rpl_secret"
    assert "rpl_secret" not in repr(order)
    assert json.loads(path.read_text()) == {**json.loads(text), "token": None}
    assert taken(path).token is None
