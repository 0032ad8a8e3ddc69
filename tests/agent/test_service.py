"""A replica under an agent: told where it listens, drained when it is asked to stop, and a wrong one said to be."""

import json
import os
import signal
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from baseai.agent.environment import environment_of, service_order
from baseai.api.schemas import Launch, LeasedDevice
from baseai.ground.clock import now_utc
from tests.agent.peer import AgentProcess, Peer
from tests.workloads.inference.hosted import service

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="sessions, descriptors and /proc are Linux's")

Join = Callable[..., AgentProcess]
Make = Callable[..., Launch]
FOLDER = Path("/attempt")
SERVER = f"exec {sys.executable} -S -m http.server --bind $HOST $PORT"  # answers GET / with the list of the run's files


def told(peer: Peer, lease_id: str, kind: str) -> dict[str, Any]:
    """The first progress of that kind."""

    def found() -> dict[str, Any] | None:
        payloads = (each.payload for each in peer.of(lease_id, "progress"))
        return next((payload for payload in payloads if payload["kind"] == kind), None)

    payload: dict[str, Any] = peer.until(found, f"{kind} of {lease_id}")
    return payload


def replica(text: str, **other: Any) -> dict[str, Any]:
    asked = {"terms": service(text).to_json(), "service_id": "svc_1", "version_no": 2}
    return {"kind": "service", "service": asked | other}


def test_a_replica_of_a_command_is_asked_and_stops(peer: Peer, join: Join, launch: Make) -> None:
    join()
    peer.want(launch("lease_1", **replica(f"commands: ['{SERVER}']\n")))
    assert told(peer, "lease_1", "loading")["engine"] == "command"
    ready = told(peer, "lease_1", "ready")
    assert httpx.get(f"http://{ready['address']}:{ready['port']}/").status_code == 200
    peer.stop("lease_1", reason="scaled_in")
    exited = peer.exited("lease_1")
    assert (exited.exit_code, exited.reason) == (0, "scaled_in")


def test_a_replica_of_a_callable_finds_the_run_s_files(peer: Peer, join: Join, launch: Make) -> None:
    join()
    app = peer.store(b"import side\n\ndef answer(body):\n    return side.TIMES * body\n", "code/app.py")
    side = peer.store(b"TIMES = 2\n", "code/side.py")
    asked = replica("model: python:app.py:answer\n") | {"files": [app, side], "working_dir": "code"}
    peer.want(launch("lease_1", **asked))
    ready = told(peer, "lease_1", "ready")
    answer = httpx.post(f"http://{ready['address']}:{ready['port']}/json", json=21)
    assert answer.json() == 42


def test_a_killed_host_leaves_no_command_behind(peer: Peer, join: Join, launch: Make) -> None:
    agent = join()
    peer.want(launch("lease_1", **replica(f"commands: ['echo pid $$; {SERVER}']\n")))
    ready = told(peer, "lease_1", "ready")
    (record,) = agent.folder.glob("runs/*/*/process.json")
    os.kill(json.loads(record.read_text())["pid"], signal.SIGKILL)
    exited = peer.exited("lease_1")
    assert (exited.exit_code, exited.reason) == (-9, "process_lost")
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://{ready['address']}:{ready['port']}/")


def test_a_model_that_is_not_there_is_the_spec_s_fault_and_says_what_to_do(
    peer: Peer, join: Join, launch: Make
) -> None:
    join()
    peer.want(launch("lease_1", **replica("model: nets/lost.onnx\n")))
    exited = peer.exited("lease_1")
    assert exited.reason == "spec_wrong"
    assert exited.sentence == (
        "model nets/lost.onnx: there is no nets/lost.onnx in the run's folder; bring it with `files`, and write the"
        " path that it has there"
    )


def test_a_replica_s_token_is_its_owner_s_alone_and_in_no_log(peer: Peer, join: Join, launch: Make) -> None:
    agent = join()
    tells = f"commands: ['echo \"it is $BASEAI_REPLICA_TOKEN.\"; {SERVER}']\n"
    peer.want(launch("lease_1", **replica(tells, token="rpl_secret")))
    told(peer, "lease_1", "ready")
    peer.until(lambda: "it is ***." in peer.log_of("lease_1"), "the log")
    (order,) = agent.folder.glob("runs/*/*/train/service.json")
    assert stat.S_IMODE(order.stat().st_mode) == 0o600
    for path in agent.folder.rglob("*"):
        assert not path.is_file() or b"rpl_secret" not in path.read_bytes(), path


def asked_of(*models: str, **other: Any) -> Launch:
    usual: dict[str, Any] = {
        "lease_id": "lea", "run_id": "run", "run_name": "shop-1", "tenant_id": "ten", "attempt_no": 2,
        "node_rank": 0, "nodes": 1, "addresses": ["10.0.0.1"], "rendezvous_port": 20_000, "checkpoint_folder": "/c",
        "output_folder": "/o", "ends_at": now_utc(), "ends_in_s": 60.0,
        "devices": [
            LeasedDevice(accelerator_id=f"acc{number}", model=model, index=number)
            for number, model in enumerate(models)
        ],
    }  # fmt: skip
    return Launch(
        **(usual | replica("model: run:gpt\n", model_path="/o/run_7", model_run_id="run_7") | other)
    )


@pytest.mark.parametrize(
    ("models", "device", "threads"),
    [
        pytest.param(("cpu-slot", "cpu-slot"), "cpu", 2, id="a thread for each leased slot"),
        pytest.param(("H100-SXM",) * 4, "cuda", 8, id="beside accelerators, for each core"),
    ],
)
def test_the_lease_decides_what_a_replica_computes_with(
    models: tuple[str, ...], device: str, threads: int
) -> None:
    order = service_order(asked_of(*models), 8, FOLDER, FOLDER / "work")
    assert (order["device"], order["accelerators"], order["threads"]) == (device, len(models), threads)
    assert (order["address"], order["version_no"]) == ("10.0.0.1", 2)
    assert (order["model_path"], order["model_run_id"]) == ("/o/run_7", "run_7")
    assert order["token"] is None, "of a platform that knows of none"
    variables = variables_of(asked_of(*models), {})
    assert variables["OMP_NUM_THREADS"] == str(threads)


def variables_of(launch: Launch, own: dict[str, str]) -> dict[str, str]:
    return environment_of(launch, own, interpreter=Path("/bin/python"), cores=8, attempt_folder=FOLDER)


def test_the_tenant_s_path_of_python_comes_after_the_agent_s() -> None:
    own = {"PYTHONPATH": "/ours"}
    assert variables_of(asked_of("cpu-slot"), own)["PYTHONPATH"] == "/ours"
    launch = asked_of("cpu-slot", env={"PYTHONPATH": "/theirs"})
    assert variables_of(launch, own)["PYTHONPATH"] == "/ours:/theirs"
    assert variables_of(launch, {})["PYTHONPATH"] == "/theirs"
    assert service_order(launch, 8, FOLDER, FOLDER)["python_path"] == "/theirs"
