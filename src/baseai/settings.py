"""Settings of the platform on one machine: what `baseai up` takes, from options and from the environment.

Invariant: the environment is read once, by wiring, into these values; an unknown BASEAI_ name is refused.
"""

import difflib
import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path

from baseai.ground.fault import Refused

DEFAULT_PORT = 7800
GATEWAYS_MOST = 64
ENVIRONMENT = frozenset(
    {
        "BASEAI_DATA", "BASEAI_URL", "BASEAI_KEY", "BASEAI_CA_FILE", "BASEAI_DEBUG", "BASEAI_DATABASE",
        "BASEAI_CHILD", "BASEAI_SHARED", "BASEAI_SHARED_CACHE", "BASEAI_REDFISH_USER", "BASEAI_REDFISH_PASSWORD",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformSettings:
    """How `baseai up` runs the platform."""

    data: Path  # everything the platform keeps; one platform each
    listen: str = "127.0.0.1"  # address the server listens on; beyond loopback only with a certificate
    port: int = DEFAULT_PORT  # of the server; 0 takes a free one
    database: str | None = None  # a PostgreSQL ≥ 16 to use instead of the embedded one, `postgresql://…`
    tls_cert: Path | None = None  # certificate chain of the server, PEM
    tls_key: Path | None = None  # its private key, PEM
    # Where people and other nodes reach the server; by default where it listens.
    public_url: str | None = None
    agent: bool = True  # whether this machine is a node as well
    node_name: str | None = None  # of this machine in the fleet; by default the host's name
    node_address: str | None = None  # where other nodes reach this one
    cpu_slots: int | None = None  # how many CPU slots this machine offers; by default all cores
    rack: str | None = None  # the rack this machine stands in, unless an operator has said another
    leaf: str | None = None  # the leaf switch it hangs on, likewise
    pod: str | None = None  # the pod of the network that leaf is in, likewise
    run_user: str | None = None  # the user runs are started as; needs root
    gateway_port: int | None = None  # of the gateway to services; by default the server's next, or a free one
    # Where clients elsewhere reach the gateway; by default where it listens.
    public_gateway_url: str | None = None
    gateways: int = 1  # gateway processes that share that port; 0 serves no models
    shared_cache: str | None = None  # a Redis or Valkey in which gateways share kept answers, `redis://…`
    sample_every_s: float = 10.0  # how often this machine's accelerators are measured
    scrape: tuple[str, ...] = ()  # exporters its agent reads as well, http://127.0.0.1:9400/metrics
    redfish: tuple[str, ...] = ()  # management controllers of this machine, https://10.0.0.7
    redfish_credentials: Path | None = None  # file with one line, user:password, that only its owner can read
    redfish_ca_file: Path | None = None  # certificate that signs the controllers'
    redfish_insecure: bool = False  # do not verify it: whoever stands between can read the password
    # Its agent may reset accelerators, restart the fabric manager, reboot; needs root.
    allow_repairs: bool = False
    demo: bool = False  # label every page as a demonstration
    durable: bool = True  # off only in tests: PostgreSQL then trades safety against a power cut for speed

    @property
    def scheme(self) -> str:
        return "https" if self.tls_cert else "http"

    @property
    def shown_url(self) -> str:
        """The address in links and join commands."""
        return (self.public_url or self.url).rstrip("/")

    @property
    def url(self) -> str:
        """The address at which this machine's own processes reach the server."""
        return f"{self.scheme}://{self._host}:{self.port}"

    @property
    def gateway_url(self) -> str | None:
        """Where this machine reaches its gateway, once it is known on which port; None where there is none."""
        if not self.gateways or not self.gateway_port:
            return None
        return f"{self.scheme}://{self._host}:{self.gateway_port}"

    @property
    def shown_gateway_url(self) -> str | None:
        """The gateway's address in examples and on pages; None where there is none."""
        url = self.gateway_url and (self.public_gateway_url or self.gateway_url)
        return url and url.rstrip("/")

    @property
    def _host(self) -> str:
        reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.listen, self.listen)  # noqa: S104 - only compared
        return f"[{reached}]" if ":" in reached else reached


def is_loopback(listen: str) -> bool:
    """Whether nobody beyond this machine reaches the address."""
    try:
        return listen == "localhost" or ip_address(listen).is_loopback
    except ValueError:
        return False


def checked(settings: PlatformSettings) -> PlatformSettings:
    """The settings, if they may be run with. Raises Refused with the sentence to show."""
    if not is_loopback(settings.listen) and settings.tls_cert is None:
        raise Refused(
            f"the server listens beyond this machine ({settings.listen}) only with --tls-cert and --tls-key"
        )
    if (settings.tls_cert is None) != (settings.tls_key is None):
        raise Refused("--tls-cert and --tls-key go together")
    for file in (settings.tls_cert, settings.tls_key):
        if file is not None and not file.is_file():
            raise Refused(f"there is no file {file}")
    for option, url in (
        ("--public-url", settings.public_url),
        ("--public-gateway-url", settings.public_gateway_url),
    ):
        if url is not None and not re.fullmatch(r"https?://[^\s/?#]+/?", url):
            raise Refused(f"{option} {url} is not an address: write it like https://cloud.example")
    for port in (settings.port, settings.gateway_port or 0):
        if not 0 <= port <= 65_535:
            raise Refused(f"{port} is not a port")
    if settings.port and settings.port == settings.gateway_port:
        raise Refused(
            f"--port and --gateway-port are both {settings.port}: give the gateway a port of its own"
        )
    if settings.shared_cache is not None:
        _refuse_no_cache(settings.shared_cache)
    if not 0 <= settings.gateways <= GATEWAYS_MOST:
        raise Refused(f"--gateways {settings.gateways} is not between 0 and {GATEWAYS_MOST}")
    return settings


def _refuse_no_cache(url: str) -> None:
    """Raises Refused where no gateway could share answers there. The address may hold a password and is not shown."""
    if not re.match(r"(redis|rediss|unix)://.", url):
        raise Refused("--shared-cache is not an address: write it like redis://cache.example:6379/0")
    if find_spec("redis") is None:
        raise Refused("--shared-cache needs the extra `redis`: pip install 'baseai[redis]'")


def refuse_unknown(environ: Mapping[str, str]) -> None:
    """Raises Refused for a BASEAI_ variable that means nothing, with the nearest that does."""
    for name in sorted(environ):
        # BASEAI_RUN_… and the like are what a run is told of itself; a command within a run may meet them.
        if not name.startswith("BASEAI_") or name in ENVIRONMENT or "BASEAI_RUN_ID" in environ:
            continue
        near = difflib.get_close_matches(name, ENVIRONMENT, n=1)
        raise Refused(f"{name} is not a setting" + (f"; did you mean {near[0]}?" if near else ""))


def data_folder(given: Path | None, environ: Mapping[str, str]) -> Path:
    """The data folder: the one given, BASEAI_DATA, or ~/.baseai (for root /var/lib/baseai)."""
    if given is not None:
        return given.absolute()
    if environ.get("BASEAI_DATA"):
        return Path(environ["BASEAI_DATA"]).absolute()
    return Path("/var/lib/baseai") if os.geteuid() == 0 else Path.home() / ".baseai"


def runtime_folder(data: Path, environ: Mapping[str, str]) -> Path:
    """A short folder for sockets, one for each data folder."""
    name = f"baseai-{hashlib.sha256(str(data).encode()).hexdigest()[:10]}"
    if os.geteuid() != 0 and environ.get("XDG_RUNTIME_DIR"):
        return Path(environ["XDG_RUNTIME_DIR"]) / name
    if os.geteuid() == 0 and os.access("/run", os.W_OK):
        return Path("/run") / name
    return Path("/tmp") / f"{name}-{os.geteuid()}"  # noqa: S108 - created mode 700 and owned, or refused
