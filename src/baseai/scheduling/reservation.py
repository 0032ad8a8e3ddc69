"""A reservation is capacity promised to a tenant for a time to come: by count, model and site, never by serial.

Invariant: it moves only along TRANSITIONS, and only one that stands (held, or active and not due to be forfeited) keeps
anything free. `hold` costs nothing while it is not used, and is forfeited when nobody has used it for a while; a
`take_or_pay` is paid whether it is used or not, so nobody takes it away. Tenants make and cancel reservations; the
platform's calendar moves them on.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from baseai.scheduling.gang import WHOLE, Shape


class ReservationKind(StrEnum):
    HOLD = "hold"
    TAKE_OR_PAY = "take_or_pay"


class ReservationState(StrEnum):
    HELD = "held"  # promised, and its time has not come
    ACTIVE = "active"
    COMPLETED = "completed"
    FORFEITED = "forfeited"  # a hold that nobody used
    CANCELLED = "cancelled"


class ReservationEvent(StrEnum):
    BEGIN = "begin"
    COMPLETE = "complete"
    FORFEIT = "forfeit"
    CANCEL = "cancel"


_S, _E = ReservationState, ReservationEvent
TRANSITIONS: Mapping[tuple[ReservationState, ReservationEvent], ReservationState] = MappingProxyType(
    {
        (_S.HELD, _E.BEGIN): _S.ACTIVE,
        (_S.HELD, _E.CANCEL): _S.CANCELLED,
        (_S.ACTIVE, _E.COMPLETE): _S.COMPLETED,
        (_S.ACTIVE, _E.FORFEIT): _S.FORFEITED,
        (_S.ACTIVE, _E.CANCEL): _S.CANCELLED,
    }
)
STANDING = frozenset({ReservationState.HELD, ReservationState.ACTIVE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """So many accelerators of one model on each of so many nodes of one site, over [from_s, until_s)."""

    reservation_id: str
    name: str  # unique within the tenant
    tenant_id: str
    nodes: int
    accelerators: int  # on each node
    model: str
    site: str
    from_s: float
    until_s: float
    kind: ReservationKind
    forfeit_after_s: float | None  # a hold unused so long after its start is forfeited; None: never
    state: ReservationState = ReservationState.HELD
    used: bool = False  # a run of it has started since its beginning

    def __post_init__(self) -> None:
        if self.nodes < 1 or self.accelerators < 1:
            raise ValueError(f"{self.name} reserves {self.nodes} nodes of {self.accelerators} accelerators")
        if self.until_s <= self.from_s:
            raise ValueError(f"{self.name} ends before it begins")
        if (self.kind is ReservationKind.HOLD) != (self.forfeit_after_s is not None):
            raise ValueError(f"{self.name}: a hold is forfeited some time, what is paid for is not")

    @property
    def accelerators_total(self) -> int:
        return self.nodes * self.accelerators

    def pods_left(self, held: Mapping[str, int]) -> tuple[list[tuple[str, int]], int]:
        """What is still to be had of it: nodes on which a part of a pod is in use, with how much; pods not begun.

        held: by node, the accelerators that its own runs hold there.
        """
        touched = sum(-(-count // self.accelerators) for count in held.values())
        begun = [
            (node_id, count % self.accelerators)
            for node_id, count in sorted(held.items())
            if count % self.accelerators
        ]
        return begun[: self.nodes], max(0, self.nodes - touched)

    def shape(self, pods: int, accelerators: int | None = None) -> Shape:
        """What so many of its pods need: each on a node of its own."""
        return Shape(
            pods=pods,
            milli=(self.accelerators if accelerators is None else accelerators) * WHOLE,
            models=(self.model,),
            sites=(self.site,),
            one_model=True,
            apart=True,
        )


def moved(state: ReservationState, event: ReservationEvent) -> ReservationState | None:
    """Where `event` leads from `state`; None when it comes too late to matter."""
    return TRANSITIONS.get((state, event))


def due(reservation: Reservation, now_s: float) -> ReservationEvent | None:
    """The move that time calls for; asked again after it was made, the next one."""
    if reservation.state is ReservationState.HELD:
        return ReservationEvent.BEGIN if now_s >= reservation.from_s else None
    if reservation.state is not ReservationState.ACTIVE:
        return None
    if now_s >= reservation.until_s:
        return ReservationEvent.COMPLETE
    return ReservationEvent.FORFEIT if _unused_too_long(reservation, now_s) else None


def stands(reservation: Reservation, now_s: float) -> bool:
    """Whether it keeps anything free from now on, also before the move that is due was written down."""
    return (
        reservation.state in STANDING
        and now_s < reservation.until_s
        and not _unused_too_long(reservation, now_s)
    )


def _unused_too_long(reservation: Reservation, now_s: float) -> bool:
    if reservation.used or reservation.forfeit_after_s is None:
        return False
    return now_s >= reservation.from_s + reservation.forfeit_after_s
