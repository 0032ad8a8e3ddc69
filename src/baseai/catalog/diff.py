"""A difference is a figure that Base A.I has published and somebody nearer to the thing states otherwise.

Invariant: every difference carries both values and both sources, and neither value is changed by it. A figure
of ours that nobody else's stands beside is no difference: it is unconfirmed, and is listed apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from baseai.catalog.accelerator import Accelerator
from baseai.catalog.partner import Partner
from baseai.catalog.server import Server
from baseai.catalog.source import Source

__all__ = ["Difference", "Unconfirmed", "differences", "unconfirmed"]

Figure = float | int | str | tuple[str, ...]

UNEXPLAINED = "not explained yet: one of the two is wrong"

_UNITS = {
    "memory_gib": "GiB",
    "memory_bandwidth_gb_per_s": "GB/s",
    "fp32_tflops": "TFLOPS",
    "bf16_tflops": "TFLOPS",
    "int8_tops": "TOPS",
    "purchase_low_usd": "US$",
    "purchase_high_usd": "US$",
    "memory_max_tb": "TB",
    "nvme_max_tb": "TB",
    "network_gbit_per_s": "Gbit/s",
    "availability_percent": "%",
}
_ACCELERATOR = (
    "memory_gib",
    "memory_kind",
    "memory_bandwidth_gb_per_s",
    "fp32_tflops",
    "bf16_tflops",
    "int8_tops",
    "purchase_low_usd",
    "purchase_high_usd",
)
_SERVER = (
    "processors",
    "accelerators_max",
    "accelerator_models",
    "memory_max_tb",
    "memory_kind",
    "nvme_max_tb",
    "network",
    "network_gbit_per_s",
)
_PARTNER = ("data_centers", "data_centers_in_brazil", "countries", "networks", "availability_percent")


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One figure in two versions."""

    kind: str  # accelerator, server or partner
    subject: str
    figure: str
    unit: str | None
    ours: Figure
    theirs: Figure  # the maker's or the partner's
    why: str
    our_source: Source
    their_source: Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Unconfirmed:
    """A figure we have published and found in no other source."""

    kind: str
    subject: str
    figure: str
    unit: str | None
    ours: Figure
    our_source: Source


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pair:
    kind: str
    subject: str
    figure: str
    ours: Figure
    our_source: Source
    theirs: Figure | None
    their_source: Source | None
    why: str


def differences(
    accelerators: Sequence[Accelerator], servers: Sequence[Server], partners: Sequence[Partner]
) -> tuple[Difference, ...]:
    """Where our published figures and the makers' part, in the order of the catalogue."""
    return tuple(
        Difference(
            kind=pair.kind,
            subject=pair.subject,
            figure=pair.figure,
            unit=_UNITS.get(pair.figure),
            ours=pair.ours,
            theirs=pair.theirs,
            why=pair.why,
            our_source=pair.our_source,
            their_source=pair.their_source,
        )
        for pair in _pairs(accelerators, servers, partners)
        if pair.theirs is not None and pair.their_source is not None and not _same(pair.ours, pair.theirs)
    )


def unconfirmed(
    accelerators: Sequence[Accelerator], servers: Sequence[Server], partners: Sequence[Partner]
) -> tuple[Unconfirmed, ...]:
    """Our published figures that no other source in the catalogue states."""
    return tuple(
        Unconfirmed(
            kind=pair.kind,
            subject=pair.subject,
            figure=pair.figure,
            unit=_UNITS.get(pair.figure),
            ours=pair.ours,
            our_source=pair.our_source,
        )
        for pair in _pairs(accelerators, servers, partners)
        if pair.theirs is None
    )


def _pairs(
    accelerators: Sequence[Accelerator], servers: Sequence[Server], partners: Sequence[Partner]
) -> list[_Pair]:
    return [
        *(pair for accelerator in accelerators for pair in _accelerator_pairs(accelerator)),
        *(pair for server in servers for pair in _server_pairs(server)),
        *(pair for partner in partners for pair in _partner_pairs(partner)),
    ]


def _accelerator_pairs(accelerator: Accelerator) -> list[_Pair]:
    published = accelerator.published
    if published is None:
        return []
    pairs = []
    for figure in _ACCELERATOR:
        ours: Figure | None = getattr(published, figure)
        if ours is None:
            continue
        theirs: Figure | None
        fact = figure
        if figure in ("purchase_low_usd", "purchase_high_usd"):
            fact, bounds = "purchase_usd", accelerator.purchase_usd
            theirs = None
            if bounds is not None:
                theirs = int(bounds.low if figure == "purchase_low_usd" else bounds.high)
        else:
            theirs = getattr(accelerator, figure)
        pairs.append(
            _Pair(
                kind="accelerator",
                subject=accelerator.model,
                figure=figure,
                ours=ours,
                our_source=published.source_of(figure),
                theirs=theirs,
                their_source=None if theirs is None else accelerator.source_of(fact),
                why=dict(accelerator.why).get(figure, UNEXPLAINED),
            )
        )
    return pairs


def _server_pairs(server: Server) -> list[_Pair]:
    published = server.published
    if published is None:
        return []
    return [
        _Pair(
            kind="server",
            subject=server.model,
            figure=figure,
            ours=getattr(published, figure),
            our_source=published.source_of(figure),
            theirs=getattr(server, figure),
            their_source=server.source_of(figure),
            why=dict(server.why).get(figure, UNEXPLAINED),
        )
        for figure in _SERVER
        if getattr(published, figure) is not None
    ]


def _partner_pairs(partner: Partner) -> list[_Pair]:
    published = partner.published
    pairs = [
        _Pair(
            kind="partner",
            subject=partner.name,
            figure=figure,
            ours=getattr(published, figure),
            our_source=published.source_of(figure),
            theirs=getattr(partner, figure),
            their_source=None if getattr(partner, figure) is None else partner.source_of(figure),
            why=dict(partner.why).get(figure, UNEXPLAINED),
        )
        for figure in _PARTNER
        if getattr(published, figure) is not None
    ]
    pairs.append(
        _Pair(
            kind="partner",
            subject=partner.name,
            figure="certifications",
            ours=published.certifications,
            our_source=published.source_of("certifications"),
            theirs=None,
            their_source=None,
            why=UNEXPLAINED,
        )
    )
    return pairs


def _same(ours: Figure, theirs: Figure) -> bool:
    if isinstance(ours, tuple) and isinstance(theirs, tuple):
        return set(ours) == set(theirs)
    if isinstance(ours, str) and isinstance(theirs, str):
        return theirs.startswith(ours)  # "dual AMD EPYC 9004" is one of "dual AMD EPYC 9004 or 9005"
    return ours == theirs
