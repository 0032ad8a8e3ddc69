"""An accelerator model is a kind of device that leases are cut from: H100-SXM, L40S, one CPU slot.

Invariant: peaks are dense, never "with sparsity", and None where the device lacks the number format. What the
maker's data sheet says and what Base A.I has published stand side by side and never overwrite each other.
Figures change only in `data/accelerators.toml`, each with its source.
"""

from dataclasses import dataclass
from enum import StrEnum

from baseai.catalog.bounds import Bounds
from baseai.catalog.sheet import Entry, Sheet
from baseai.catalog.source import Evidence, Source, source_in

__all__ = ["CPU_SLOT", "Accelerator", "Placement", "PublishedAccelerator", "accelerators_in"]

CPU_SLOT = "cpu-slot"


class Placement(StrEnum):
    """Where a model may stand."""

    OWNED = "owned"  # bought, and built into our servers
    LEASE_ONLY = "lease_only"  # used at its provider's site; nobody can buy it


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedAccelerator:
    """What Base A.I has published about a model, as published; None where it said nothing."""

    memory_gib: int | None
    memory_kind: str | None
    memory_bandwidth_gb_per_s: float | None
    fp32_tflops: float | None
    bf16_tflops: float | None
    int8_tops: float | None
    purchase_low_usd: int | None
    purchase_high_usd: int | None
    ideal_uses: tuple[str, ...]
    offer: str | None  # how customers get it, where that is not our own hardware
    evidence: Evidence

    def source_of(self, fact: str) -> Source:
        return source_in(self.evidence, fact)


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    """One model, with the maker's figures."""

    model: str  # the key used in specs, leases and prices
    aliases: tuple[str, ...]  # other names a spec may use; several models may share one
    placement: Placement
    vendor: str
    architecture: str
    process: str | None
    memory_gib: int  # 0 for a CPU slot, whose memory is asked for beside it
    memory_kind: str | None
    memory_bandwidth_gb_per_s: float | None
    fp32_tflops: float | None
    bf16_tflops: float | None
    fp8_tflops: float | None
    int8_tops: float | None
    interconnect: str | None
    interconnect_gb_per_s: float | None  # both directions together
    board_power_watts: int | None
    form_factor: str
    ideal_uses: tuple[str, ...]
    purchase_usd: Bounds | None  # one accelerator, before taxes; None where it cannot be bought
    published: PublishedAccelerator | None
    why: tuple[tuple[str, str], ...]  # (figure, why the published one differs from the maker's)
    evidence: Evidence

    @property
    def may_stand_in_our_servers(self) -> bool:
        """False for what is only leased: no server of ours ever holds one."""
        return self.placement is Placement.OWNED

    def source_of(self, fact: str) -> Source:
        return source_in(self.evidence, fact)


_FACTS = (
    "vendor",
    "architecture",
    "process",
    "memory_gib",
    "memory_kind",
    "memory_bandwidth_gb_per_s",
    "fp32_tflops",
    "bf16_tflops",
    "fp8_tflops",
    "int8_tops",
    "interconnect",
    "interconnect_gb_per_s",
    "board_power_watts",
    "form_factor",
    "ideal_uses",
    "purchase_usd",
)
_PUBLISHED = (
    "memory_gib",
    "memory_kind",
    "memory_bandwidth_gb_per_s",
    "fp32_tflops",
    "bf16_tflops",
    "int8_tops",
    "purchase_low_usd",
    "purchase_high_usd",
    "ideal_uses",
    "offer",
)


def accelerators_in(sheet: Sheet) -> tuple[Accelerator, ...]:
    """The models of a sheet, in its order. Raises BrokenSheet."""
    return tuple(_accelerator(entry) for entry in sheet.entries("accelerators"))


def _accelerator(entry: Entry) -> Accelerator:
    entry.only("aliases", "placement", "published", "why", *_FACTS)
    for fact in _FACTS:
        if not entry.has(fact):
            raise entry.broken(fact, 'is missing; write ["none", source] where there is no such figure')
    placement = entry.plain("placement")
    if placement not in set(Placement):
        raise entry.broken("placement", f"{placement!r} is none of {', '.join(Placement)}")
    return Accelerator(
        model=entry.name,
        aliases=entry.words("aliases"),
        placement=Placement(placement),
        vendor=entry.text("vendor"),
        architecture=entry.text("architecture"),
        process=entry.maybe_text("process"),
        memory_gib=entry.whole("memory_gib"),
        memory_kind=entry.maybe_text("memory_kind"),
        memory_bandwidth_gb_per_s=entry.maybe_number("memory_bandwidth_gb_per_s"),
        fp32_tflops=entry.maybe_number("fp32_tflops"),
        bf16_tflops=entry.maybe_number("bf16_tflops"),
        fp8_tflops=entry.maybe_number("fp8_tflops"),
        int8_tops=entry.maybe_number("int8_tops"),
        interconnect=entry.maybe_text("interconnect"),
        interconnect_gb_per_s=entry.maybe_number("interconnect_gb_per_s"),
        board_power_watts=entry.maybe_whole("board_power_watts"),
        form_factor=entry.text("form_factor"),
        ideal_uses=entry.texts("ideal_uses"),
        purchase_usd=entry.maybe_bounds("purchase_usd"),
        published=_published(entry.table("published")) if entry.has("published") else None,
        why=explanations(entry),
        evidence=entry.evidence(),
    )


def _published(entry: Entry) -> PublishedAccelerator:
    entry.only(*_PUBLISHED)
    return PublishedAccelerator(
        memory_gib=entry.maybe_whole("memory_gib"),
        memory_kind=entry.maybe_text("memory_kind"),
        memory_bandwidth_gb_per_s=entry.maybe_number("memory_bandwidth_gb_per_s"),
        fp32_tflops=entry.maybe_number("fp32_tflops"),
        bf16_tflops=entry.maybe_number("bf16_tflops"),
        int8_tops=entry.maybe_number("int8_tops"),
        purchase_low_usd=entry.maybe_whole("purchase_low_usd"),
        purchase_high_usd=entry.maybe_whole("purchase_high_usd"),
        ideal_uses=entry.texts("ideal_uses"),
        offer=entry.maybe_text("offer"),
        evidence=entry.evidence(),
    )


def explanations(entry: Entry) -> tuple[tuple[str, str], ...]:
    """The `why` table of an entry: for each figure that differs, the reason in one sentence."""
    if not entry.has("why"):
        return ()
    table = entry.table("why")
    return tuple((figure, table.plain(figure)) for figure in table.values)
