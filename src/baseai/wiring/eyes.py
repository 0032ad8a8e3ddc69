"""The eyes of a node: every collector it can have, built from the agent's settings and handed to the agent.

Invariant: only here are the shells of telemetry known to the agent. A collector that finds nothing on this node is off,
with a sentence that says why; none is left out by a guess.
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from baseai.agent.apart import Apart
from baseai.agent.facts import allowed_cores, boot_id
from baseai.agent.main import AgentSettings, run_agent
from baseai.ground.fault import Refused
from baseai.telemetry.collector import Collector, Rank, Source

if TYPE_CHECKING:
    from baseai.telemetry.redfish.session import BoardSettings

TIMEOUT_SHARE = 0.8  # of the interval: a source has answered or failed before it is due again
TIMEOUT_MAX_S = 8.0
SHORTEST_INTERVAL_S = 0.5


def watch_and_tend(settings: AgentSettings) -> int:
    """The agent with its eyes; the exit code."""
    return run_agent(settings, collectors_of(settings))


def collectors_of(settings: AgentSettings) -> Sequence[Collector]:
    """All collectors of a node. Raises Refused for an interval too short to measure in, or no address to scrape."""
    from baseai.telemetry.amd_smi import AmdSmi
    from baseai.telemetry.host import Slots, ThisNode
    from baseai.telemetry.infiniband import Infiniband
    from baseai.telemetry.kernel_log import KernelLog
    from baseai.telemetry.nvml import Nvml
    from baseai.telemetry.redfish.collector import RedfishCollector
    from baseai.telemetry.scrape import Exporter
    from baseai.telemetry.tpu import Tpu

    if settings.sample_every_s < SHORTEST_INTERVAL_S:
        raise Refused(
            f"samples every {settings.sample_every_s:g} s are too many: {SHORTEST_INTERVAL_S:g} s is the least"
        )
    for url in settings.scrape:
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            raise Refused(f"{url!r} is no exporter's address; write it like http://127.0.0.1:9400/metrics")
    boot, cores = boot_id(), allowed_cores()
    watts, watts_source = watts_of_slot()
    folder = settings.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    host = ThisNode(
        folder=folder,
        boot_id=boot,
        slots=Slots(cores=cores, count=len(cores) if settings.cpu_slots is None else settings.cpu_slots),
        watts_per_core=watts,
        watts_source=watts_source,
        energy_of_node=not settings.redfish,
    )
    every_s, timeout_s = settings.sample_every_s, _timeout_s(settings)
    return [
        _apart(host, settings, quick=True),
        _apart(Nvml(boot_id=boot), settings, quick=True),
        _apart(AmdSmi(boot_id=boot), settings, quick=True),
        _apart(Tpu(), settings, quick=True),
        *(Exporter(url, interval_s=every_s, timeout_s=timeout_s, boot_id=boot) for url in settings.scrape),
        _apart(Infiniband(), settings),
        _apart(KernelLog(boot_id=boot, record=folder / "kernel_log.json"), settings),
        *(RedfishCollector(_board_settings(url, settings), chance=random.random) for url in settings.redfish),
    ]


def board_account(file: Path | None, environ: Mapping[str, str]) -> tuple[str, str] | None:
    """User and password for the management controllers: of a file, else of the environment; None without either.

    Raises Refused for a file that others can read, or that holds no account.
    """
    if file is None:
        user, password = environ.get("BASEAI_REDFISH_USER"), environ.get("BASEAI_REDFISH_PASSWORD")
        if (user is None) != (password is None):
            raise Refused("BASEAI_REDFISH_USER and BASEAI_REDFISH_PASSWORD go together")
        return (user, password) if user is not None and password is not None else None
    try:
        mode, text = file.stat().st_mode, file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"the account for management controllers cannot be read from {file}: {error}") from None
    if mode & 0o077:
        raise Refused(f"{file} holds a password and others can read it; chmod 600 {file}")
    user, colon, password = text.strip("\n").partition(":")
    if not user or not colon or not password or "\n" in password:
        raise Refused(f"{file} shall hold one line, user:password")
    return user, password


def check_boards(urls: Iterable[str], credentials: Path | None) -> None:
    """Raises Refused now for what an agent started later would have to refuse."""
    from baseai.telemetry.redfish.session import checked_address

    for url in urls:
        checked_address(url)
    board_account(credentials, {})


def _board_settings(url: str, settings: AgentSettings) -> "BoardSettings":
    from baseai.telemetry.redfish.session import BoardSettings

    user, password = settings.redfish_account or (None, None)
    return BoardSettings(
        url=url,
        user=user,
        password=password,
        ca_file=settings.redfish_ca_file,
        verify=not settings.redfish_insecure,
        every_s=settings.redfish_every_s,
    )


def watts_of_slot() -> tuple[float | None, str]:
    """What one CPU slot at work is assumed to draw, and where that stands in the catalogue."""
    from baseai.catalog import load_catalog
    from baseai.catalog.accelerator import CPU_SLOT
    from baseai.catalog.bounds import Case

    for owned in load_catalog().assumptions.owned:
        if owned.model == CPU_SLOT:
            server_watts = float(owned.server_watts.at(Case.DEFAULT))
            return server_watts / owned.accelerators_per_server, f"catalogue: owned.{CPU_SLOT}.server_watts"
    return None, ""


def _apart(source: Source, settings: AgentSettings, *, quick: bool = False) -> Apart:
    return Apart(
        source,
        interval_s=settings.sample_every_s,
        timeout_s=_timeout_s(settings),
        rank=Rank.DRIVER,
        quick=quick,
    )


def _timeout_s(settings: AgentSettings) -> float:
    return min(TIMEOUT_MAX_S, TIMEOUT_SHARE * settings.sample_every_s)
