"""A Ray cluster of a run's own: its token, its ports, its end; and an application in it where Ray is installed."""

import contextlib
import importlib.util
import os
import shutil
import stat
import subprocess
from pathlib import Path

import httpx
import pytest

from baseai.workloads.inference import ray_app
from baseai.workloads.inference.command import bound
from baseai.workloads.inference.engine import ModelUnusable
from tests.workloads.inference.hosted import hosted, write
from tests.workloads.inference.test_vllm import order

APP = "engine: ray\nmodel: python:src/shop.py:app\n"
HAS_RAY = importlib.util.find_spec("ray") is not None
SHOP = """
from ray import serve

@serve.deployment
class Shop:
    async def __call__(self, request):
        return {"path": request.url.path}

app = Shop.bind()
"""


def made(folder: Path) -> ray_app.Cluster:
    asked = order(folder, APP)
    asked.attempt_folder.mkdir(exist_ok=True)
    return ray_app.made(asked, address="127.0.0.1")


def test_two_clusters_of_one_node_share_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one = made(tmp_path / "a")
    with contextlib.ExitStack() as running:
        for port in one.ports.values():
            running.enter_context(bound("127.0.0.1", port))
        other = made(tmp_path / "b")
    assert set(one.ports) == set(ray_app.PORTS)
    assert not set(one.ports.values()) & set(other.ports.values())
    assert one.temp_folder != other.temp_folder
    assert one.token_file.read_text() != other.token_file.read_text()
    assert len(one.token_file.read_text()) == 64
    for cluster in (one, other):
        assert stat.S_IMODE(cluster.token_file.stat().st_mode) == 0o600
        assert stat.S_IMODE(cluster.temp_folder.stat().st_mode) == 0o700
        assert (
            len(str(cluster.temp_folder)) < 30
        )  # Ray's sockets lie some 70 characters deeper, and 107 are allowed
        shutil.rmtree(cluster.temp_folder)


def test_what_a_killed_host_left_is_swept_and_nobody_else_s(tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    for name, owner in (
        ("baseai-ray-dead", ended.pid),
        ("baseai-ray-alive", os.getpid()),
        ("other", ended.pid),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "host.pid").write_text(str(owner))
    (tmp_path / "baseai-ray-new").mkdir()  # its host has not written yet who it is
    ray_app.sweep(tmp_path)
    assert {each.name for each in tmp_path.iterdir()} == {"baseai-ray-alive", "baseai-ray-new", "other"}


def test_a_new_attempt_has_a_new_token(tmp_path: Path) -> None:
    first = made(tmp_path)
    before = first.token_file.read_text()
    second = made(tmp_path)
    assert second.token_file.read_text() != before
    for cluster in (first, second):
        shutil.rmtree(cluster.temp_folder)


def test_the_head_stays_ours_and_the_application_is_the_tenant_s(tmp_path: Path) -> None:
    asked = order(tmp_path, APP, threads=3, device="cuda", accelerators=2)
    asked.attempt_folder.mkdir()
    cluster = ray_app.made(asked, address="127.0.0.1")
    shutil.rmtree(cluster.temp_folder)
    head = ray_app.head_argv(asked, cluster)
    assert head[:4] == ("ray", "start", "--head", "--block")
    assert {
        "--num-cpus=3",
        "--num-gpus=2",
        f"--temp-dir={cluster.temp_folder}",
        f"--port={cluster.ports['port']}",
    } <= {*head}
    proxy = ray_app.proxy_argv(cluster, host="127.0.0.1", port=20_001)
    assert {"--http-host=127.0.0.1", "--http-port=20001", f"--address={cluster.at}"} <= {*proxy}
    with pytest.raises(
        ModelUnusable, match=r"there is no src/shop.py in the run's folder; bring it with `files`"
    ):
        ray_app.application_argv(asked, cluster)
    write(tmp_path, "src/shop.py", SHOP)
    application = ray_app.application_argv(asked, cluster)
    assert application == (
        "serve",
        "run",
        f"--address={cluster.at}",
        f"--app-dir={tmp_path}/work/src",
        "shop:app",
    )
    own = {"RAY_AUTH_TOKEN": "another", "CUDA_VISIBLE_DEVICES": "0,1"}
    found = ray_app.variables_of(asked, cluster, own, host="127.0.0.1", port=20_001)
    assert "RAY_AUTH_TOKEN" not in found  # it would win over the file
    assert (found["RAY_AUTH_MODE"], found["RAY_AUTH_TOKEN_PATH"]) == ("token", str(cluster.token_file))
    assert (found["RAY_ADDRESS"], found["PORT"], found["CUDA_VISIBLE_DEVICES"]) == (
        cluster.at,
        "20001",
        "0,1",
    )


def test_an_application_finds_the_token_that_its_gateway_shows(tmp_path: Path) -> None:
    cluster = made(tmp_path)
    asked = order(tmp_path, APP, token="rpl_secret")
    found = ray_app.variables_of(asked, cluster, {}, host="127.0.0.1", port=20_001)
    assert found["BASEAI_REPLICA_TOKEN"] == "rpl_secret"
    words = (*ray_app.head_argv(asked, cluster), *ray_app.proxy_argv(cluster, host="127.0.0.1", port=1))
    assert "rpl_secret" not in " ".join(words)


def test_nothing_of_ours_ends_by_name() -> None:
    source = Path(ray_app.__file__).read_text() + (Path(ray_app.__file__).parent / "host.py").read_text()
    code = "\n".join(line for line in source.splitlines() if not line.lstrip().startswith(('"', "#")))
    assert '"stop"' not in code
    assert "pkill" not in code


@pytest.mark.skipif(HAS_RAY, reason="this node has Ray")
def test_a_node_without_ray_says_what_to_install(tmp_path: Path) -> None:
    with hosted(tmp_path, APP) as replica:
        assert replica.ended() == 64
        assert replica.last_line().startswith(
            "model ray: is not installed on this node; have the node's operator run"
        )


@pytest.mark.skipif(not HAS_RAY, reason="needs baseai[ray]")
@pytest.mark.slow
def test_an_application_of_ray_serve_answers(tmp_path: Path) -> None:
    write(tmp_path, "src/shop.py", SHOP)
    with hosted(tmp_path, APP, threads=2, stop_grace_s=20.0) as replica:
        assert httpx.post(replica.url + "/cart", timeout=30).json() == {"path": "/cart"}
        replica.ask()
        assert replica.ended() == 0
