"""The eyes of a node: every collector it can have, built from the agent's settings and handed to the agent.

Invariant: only here are the shells of telemetry known to the agent. A collector that finds nothing on this node is off,
with a sentence that says why; none is left out by a guess.
"""

from collections.abc import Sequence

from baseai.agent.apart import Apart
from baseai.agent.facts import allowed_cores, boot_id
from baseai.agent.main import AgentSettings, run_agent
from baseai.ground.fault import Refused
from baseai.telemetry.collector import Collector, Rank, Source

TIMEOUT_SHARE = 0.8  # of the interval: a source has answered or failed before it is due again
TIMEOUT_MAX_S = 8.0


def watch_and_tend(settings: AgentSettings) -> int:
    """The agent with its eyes; the exit code."""
    return run_agent(settings, collectors_of(settings))


def collectors_of(settings: AgentSettings) -> Sequence[Collector]:
    """All collectors of a node. Raises Refused for an interval that is too short to measure in."""
    from baseai.telemetry.host import Host, Slots

    if settings.sample_every_s < 0.5:
        raise Refused(
            f"samples every {settings.sample_every_s:g} s are too many: 0.5 s is the shortest interval"
        )
    cores = allowed_cores()
    watts, watts_source = watts_of_slot()
    folder = settings.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    host = Host(
        folder=folder,
        boot_id=boot_id(),
        slots=Slots(cores=cores, count=len(cores) if settings.cpu_slots is None else settings.cpu_slots),
        watts_per_core=watts,
        watts_source=watts_source,
    )
    return [_apart(host, settings, rank=Rank.DRIVER, quick=True)]


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


def _apart(source: Source, settings: AgentSettings, *, rank: int, quick: bool = False) -> Apart:
    every_s = settings.sample_every_s
    timeout_s = min(TIMEOUT_MAX_S, TIMEOUT_SHARE * every_s)
    return Apart(source, interval_s=every_s, timeout_s=timeout_s, rank=rank, quick=quick)
