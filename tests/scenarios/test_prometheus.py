"""A real Prometheus reads an exporter, hands its samples on to the platform, and reads the platform's own figures.

Skipped where there is no `prometheus` on the path (Debian has a package).
"""

import http.server
import json
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.scenarios.platform import Platform, platform

UUIDS = [f"GPU-0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f{number}" for number in range(8)]
BEGAN = time.monotonic()


def scrape() -> str:
    """What dcgm-exporter says of eight H100, as of now: each draws 400 W."""
    joules = 400 * (time.monotonic() - BEGAN)
    told = {
        "DCGM_FI_DEV_GPU_TEMP": 41.0,
        "DCGM_FI_DEV_POWER_USAGE": 400.0,
        "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": 1000 * joules,
        "DCGM_FI_PROF_GR_ENGINE_ACTIVE": 0.75,
        "DCGM_FI_DEV_FB_USED": 1024.0,
        "DCGM_FI_DEV_FB_FREE": 80_000.0,
        "DCGM_FI_DEV_FB_RESERVED": 530.0,
        "DCGM_FI_DEV_NAME_OF_TOMORROW": 1.0,
    }
    return "".join(
        f'{name}{{gpu="{index}",UUID="{uuid}",device="nvidia{index}",modelName="NVIDIA H100 80GB HBM3",'
        f'Hostname="gpu-1"}} {value}\n'
        for name, value in told.items()
        for index, uuid in enumerate(UUIDS)
    )


class Exporter(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = scrape().encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def exporter() -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Exporter)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def free_port() -> int:
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        port: int = asked.getsockname()[1]
        return port


@contextmanager
def prometheus(running: Platform, folder: Path, exporter_port: int) -> Iterator[int]:
    (folder / "key").write_text(running.connect["key"])
    address = urllib.parse.urlsplit(running.connect["url"]).netloc
    (folder / "prometheus.yml").write_text(
        json.dumps(  # JSON is YAML
            {
                "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
                "scrape_configs": [
                    {"job_name": "dcgm", "static_configs": [{"targets": [f"127.0.0.1:{exporter_port}"]}]},
                    {
                        "job_name": "baseai",
                        "authorization": {"credentials_file": str(folder / "key")},
                        "static_configs": [{"targets": [address]}],
                    },
                ],
                "remote_write": [
                    {
                        "url": f"{running.connect['url']}/api/v1/write",
                        "authorization": {"credentials_file": str(folder / "key")},
                        "queue_config": {
                            "max_samples_per_send": 40,
                            "batch_send_deadline": "200ms",
                            "min_shards": 3,
                        },
                    }
                ],
            }
        )
    )
    port = free_port()
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/tsdb",
             f"--web.listen-address=127.0.0.1:{port}"],
            stdout=log, stderr=log,
        )  # fmt: skip
    try:
        yield port
    finally:
        process.kill()  # told to end it would wait a minute for its queue
        process.wait(20)


def queried(port: int, expression: str) -> list[dict[str, Any]]:
    """What a Prometheus knows; nothing while it does not answer yet."""
    query = urllib.parse.urlencode({"query": expression})
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/query?{query}", timeout=10) as answer:
            found: list[dict[str, Any]] = json.loads(answer.read())["data"]["result"]
    except urllib.error.URLError:
        return []
    return found


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("prometheus") is None, reason="there is no prometheus on the path")
def test_a_prometheus_writes_to_the_platform_and_reads_it(tmp_path: Path) -> None:
    with platform("--no-agent") as running, exporter() as exported:
        token = running.ask("POST", "/join-tokens", {})["token"]
        facts = {
            "name": "gpu-1", "address": "127.0.0.1", "isolation": "user", "cores": 8, "memory_mib": 1024,
            "disk_mib": 1024, "boot_id": "b",
            "devices": [
                {"serial": f"16500{index}", "model": "H100-SXM", "index": index, "memory_mib": 81_559, "uuid": uuid}
                for index, uuid in enumerate(UUIDS)
            ],
        }  # fmt: skip
        running.ask("POST", "/agent/join", {"token": token, "facts": facts}, key="none")
        with prometheus(running, tmp_path, exported) as port:
            deadline = time.monotonic() + 60
            while True:
                items = running.ask("GET", "/telemetry/latest")["items"]
                told = [sum(one["state"] == "value" for one in item["fields"].values()) for item in items]
                mine = queried(port, "baseai_accelerator_power_w")
                if len(items) == 8 and min(told) >= 6 and len(mine) == 8:
                    break
                assert time.monotonic() < deadline, (
                    told,
                    len(mine),
                    (tmp_path / "prometheus.log").read_text()[-2000:],
                )
                time.sleep(0.5)
            assert queried(port, 'up{job="baseai"}')[0]["value"][1] == "1"
            time.sleep(5)
        # Whatever shards the samples came in, each device's figures are whole.
        for item in running.ask("GET", "/telemetry/latest")["items"]:
            values = {name: one["value"] for name, one in item["fields"].items() if one["state"] == "value"}
            assert (values["temp_c"], values["power_w"], values["util_pct"]) == (41.0, 400.0, 75.0)
            assert values["mem_total_b"] == pytest.approx(81_554 * 2**20, rel=0.001)
        energy = running.ask("GET", "/telemetry/range?key=165000&field=energy_j&from=5m")
        known = [
            (at, j)
            for at, j in zip(energy["ts_ms"], energy["fields"]["energy_j"]["values"], strict=True)
            if j
        ]
        (first_ms, first_j), (last_ms, last_j) = known[0], known[-1]
        assert last_j - first_j == pytest.approx(0.4 * (last_ms - first_ms), rel=0.1)
