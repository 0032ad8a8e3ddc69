"""The calendar is what is booked of the future: what reservations and maintenance windows keep free, from when to when.

Invariant: what runs of a reservation hold already is not claimed once more; a hold that is due to be forfeited, and a
window whose notice has not come, claim nothing. The scheduler starts no run on what is claimed that could outlive the
claim's beginning (`baseai.scheduling.policy.house`); who stands there already makes way (`leaving`), and no more is
booked than there will be (`oversold`). All of it is pure, on seconds of one clock.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from baseai.scheduling.gang import Shape
from baseai.scheduling.maintenance import AHEAD, Window
from baseai.scheduling.reservation import Reservation, stands

LEAVING_S = 600.0  # what a run may take at most to save and stop, as long as the engine lets it
RESALE_AFTER_S = (
    300.0  # so long from its start a reservation's capacity stays empty; then spot runs may stand on it
)

ClaimKind = Literal["reservation", "maintenance"]
Used = Mapping[str, Mapping[str, int]]
"""By reservation, then node: the accelerators that its own runs hold there."""


class Bay(NamedTuple):
    """Accelerators of one model on one node that are installed and, but for maintenance, of use."""

    node_id: str
    site: str
    model: str
    accelerators: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """What one run holds on one node."""

    run_id: str
    node_id: str
    model: str
    accelerators: int
    ends_s: float
    firm_until_s: float  # maintenance aside; 0 for spot, the first end of what was extended
    grace_s: float  # what it needs to save and stop, once asked
    reservation_id: str | None = None  # on whose capacity it stands
    going: bool = False  # it has been asked to stop already


@dataclass(frozen=True, slots=True, kw_only=True)
class Calendar:
    """All that is booked, and what stands now."""

    bays: Sequence[Bay]
    reservations: Sequence[Reservation]
    windows: Sequence[Window]
    holdings: Sequence[Holding]


@dataclass(frozen=True, slots=True, kw_only=True)
class FutureClaim:
    """What has to be free over [from_s, until_s).

    A reservation claims `pods_left` pods of `shape`, on `node_ids` where it names any. A window claims whole nodes.
    """

    name: str  # of the reservation, or the id of the maintenance
    kind: ClaimKind
    from_s: float
    until_s: float
    shape: Shape | None
    node_ids: tuple[str, ...]
    pods_left: int
    reservation_id: str = ""
    tenant_id: str = ""  # whose runs of `reservation: name` may stand on it

    def resold(self, now_s: float) -> bool:
        """Whether it has begun long enough ago for what is not used of it to be sold as spot."""
        return self.kind == "reservation" and now_s >= self.from_s + RESALE_AFTER_S

    def lets_spot_on(self, now_s: float, least_s: float = 0.0) -> bool:
        """Whether a spot run may start on what is claimed: not while those who must make way are leaving.

        least_s: what it has to run for its start to be worth anything; it makes way before that all the same.
        """
        ahead = self.kind == "reservation" and now_s + least_s < self.from_s - LEAVING_S
        return ahead or self.resold(now_s)

    def lets_own_on(self, tenant_id: str, reservation: str, now_s: float) -> bool:
        """Whether a run of `reservation` of that tenant may start on what is claimed now."""
        mine = self.kind == "reservation" and (self.tenant_id, self.name) == (tenant_id, reservation)
        return mine and self.from_s <= now_s < self.until_s


def claims_of(
    reservations: Iterable[Reservation], windows: Iterable[Window], used: Used, now_s: float
) -> tuple[FutureClaim, ...]:
    """What has to be kept free, in the order of its beginning.

    used: what runs of a reservation hold already is not claimed once more; a node on which they hold a part of a pod
    is claimed for the rest of it by itself. A window is claimed from its notice on.
    """
    claims: list[FutureClaim] = []
    for window in windows:
        if (
            window.state in AHEAD
            and window.from_s - window.notice_s <= now_s < window.until_s
            and window.node_ids
        ):
            claims.append(
                FutureClaim(
                    name=window.maintenance_id,
                    kind="maintenance",
                    from_s=window.from_s,
                    until_s=window.until_s,
                    shape=None,
                    node_ids=tuple(sorted(window.node_ids)),
                    pods_left=0,
                )
            )
    for one in reservations:
        if not stands(one, now_s):
            continue
        begun, pods_left = one.pods_left(used.get(one.reservation_id, {}))
        wanted: list[tuple[int, tuple[str, ...], int]] = (
            [(pods_left, (), one.accelerators)] if pods_left else []
        )
        wanted += [(1, (node_id,), one.accelerators - held) for node_id, held in begun]
        claims += [
            FutureClaim(
                name=one.name,
                kind="reservation",
                from_s=one.from_s,
                until_s=one.until_s,
                shape=one.shape(pods, accelerators),
                node_ids=node_ids,
                pods_left=pods,
                reservation_id=one.reservation_id,
                tenant_id=one.tenant_id,
            )
            for pods, node_ids, accelerators in wanted
        ]
    return tuple(
        sorted(claims, key=lambda claim: (claim.from_s, claim.kind, claim.reservation_id, claim.node_ids))
    )
