"""A server model is a machine that carries accelerators: the XE9680, the SYS-821GE-TNHR, the AS-8125GS-TNMR2.

Invariant: a server never lists a model that is only leased. What its maker says and what Base A.I offers it
as stand side by side. Figures change only in `data/servers.toml`, each with its source.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from baseai.catalog.accelerator import Accelerator, explanations
from baseai.catalog.sheet import Entry, Sheet
from baseai.catalog.source import Evidence, Source, source_in

__all__ = ["PublishedServer", "Server", "servers_in", "servers_taking"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedServer:
    """What Base A.I offers the server as; None where it said nothing."""

    processors: str | None
    accelerators_max: int | None
    accelerator_models: tuple[str, ...]
    memory_max_tb: float | None
    memory_kind: str | None
    nvme_max_tb: float | None
    network: str | None
    network_gbit_per_s: int | None
    evidence: Evidence

    def source_of(self, fact: str) -> Source:
        return source_in(self.evidence, fact)


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One server model, with its maker's figures."""

    model: str
    name: str
    vendor: str
    rack_units: int
    sockets: int
    processors: str
    accelerators_max: int
    accelerator_models: tuple[str, ...]  # catalogue keys; the maker may take others as well
    memory_max_tb: float
    memory_kind: str
    nvme_max_tb: float | None
    network: str
    network_gbit_per_s: int  # one port of the fabric between accelerators
    rated_watts: int | None  # the whole server with eight accelerators
    power_supplies: str
    published: PublishedServer | None
    why: tuple[tuple[str, str], ...]
    evidence: Evidence

    def takes(self, model: str) -> bool:
        return model in self.accelerator_models

    def source_of(self, fact: str) -> Source:
        return source_in(self.evidence, fact)


_PUBLISHED = (
    "processors",
    "accelerators_max",
    "accelerator_models",
    "memory_max_tb",
    "memory_kind",
    "nvme_max_tb",
    "network",
    "network_gbit_per_s",
)
_FACTS = ("vendor", "rack_units", "sockets", *_PUBLISHED, "rated_watts", "power_supplies")


def servers_in(sheet: Sheet, accelerators: Sequence[Accelerator]) -> tuple[Server, ...]:
    """The servers of a sheet. Raises BrokenSheet, also for a model that is unknown or that nobody can own."""
    known = {accelerator.model: accelerator for accelerator in accelerators}
    return tuple(_server(entry, known) for entry in sheet.entries("servers"))


def servers_taking(accelerator: Accelerator, servers: Sequence[Server]) -> tuple[Server, ...]:
    """The servers that hold this model; none at all for one that is only leased."""
    if not accelerator.may_stand_in_our_servers:
        return ()
    return tuple(server for server in servers if server.takes(accelerator.model))


def _server(entry: Entry, known: dict[str, Accelerator]) -> Server:
    entry.only("name", "published", "why", *_FACTS)
    models = entry.texts("accelerator_models")
    for model in models:
        if model not in known:
            raise entry.broken("accelerator_models", f"{model!r} is not in the catalogue")
        if not known[model].may_stand_in_our_servers:
            raise entry.broken("accelerator_models", f"{model} is lease only and stands in no server of ours")
    return Server(
        model=entry.name,
        name=entry.plain("name"),
        vendor=entry.text("vendor"),
        rack_units=entry.whole("rack_units"),
        sockets=entry.whole("sockets"),
        processors=entry.text("processors"),
        accelerators_max=entry.whole("accelerators_max"),
        accelerator_models=models,
        memory_max_tb=entry.number("memory_max_tb"),
        memory_kind=entry.text("memory_kind"),
        nvme_max_tb=entry.maybe_number("nvme_max_tb"),
        network=entry.text("network"),
        network_gbit_per_s=entry.whole("network_gbit_per_s"),
        rated_watts=entry.maybe_whole("rated_watts"),
        power_supplies=entry.text("power_supplies"),
        published=_published(entry.table("published")) if entry.has("published") else None,
        why=explanations(entry),
        evidence=entry.evidence(),
    )


def _published(entry: Entry) -> PublishedServer:
    entry.only(*_PUBLISHED)
    return PublishedServer(
        processors=entry.maybe_text("processors"),
        accelerators_max=entry.maybe_whole("accelerators_max"),
        accelerator_models=entry.texts("accelerator_models"),
        memory_max_tb=entry.maybe_number("memory_max_tb"),
        memory_kind=entry.maybe_text("memory_kind"),
        nvme_max_tb=entry.maybe_number("nvme_max_tb"),
        network=entry.maybe_text("network"),
        network_gbit_per_s=entry.maybe_whole("network_gbit_per_s"),
        evidence=entry.evidence(),
    )
