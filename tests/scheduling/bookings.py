"""Builders of what is booked: reservations, windows, bays and what runs hold, in hours and in one model at one site."""

from baseai.scheduling.calendar import Bay, Calendar, Holding
from baseai.scheduling.maintenance import Window
from baseai.scheduling.reservation import Reservation, ReservationKind

HOUR = 3600.0
MODEL, SITE = "H100-SXM", "SP4"


def reserved(
    name: str,
    nodes: int,
    accelerators: int,
    from_h: float,
    until_h: float,
    *,
    kind: ReservationKind = ReservationKind.TAKE_OR_PAY,
    **more: object,
) -> Reservation:
    forfeit_after_s = 1800.0 if kind is ReservationKind.HOLD else None
    return Reservation(
        reservation_id=f"res-{name}",
        name=name,
        tenant_id="acme",
        nodes=nodes,
        accelerators=accelerators,
        model=MODEL,
        site=SITE,
        from_s=from_h * HOUR,
        until_s=until_h * HOUR,
        kind=kind,
        forfeit_after_s=forfeit_after_s,
        **more,  # type: ignore[arg-type]
    )


def hold(
    name: str, nodes: int, accelerators: int, from_h: float, until_h: float, **more: object
) -> Reservation:
    return reserved(name, nodes, accelerators, from_h, until_h, kind=ReservationKind.HOLD, **more)


def window(
    name: str, nodes: str, from_h: float, until_h: float, *, notice_h: float = 1.0, **more: object
) -> Window:
    """nodes: one letter each."""
    return Window(
        maintenance_id=name,
        node_ids=tuple(nodes),
        site=None,
        from_s=from_h * HOUR,
        until_s=until_h * HOUR,
        notice_s=notice_h * HOUR,
        why="a fan",
        **more,  # type: ignore[arg-type]
    )


def bays(**accelerators: int) -> tuple[Bay, ...]:
    return tuple(Bay(node_id, SITE, MODEL, count) for node_id, count in accelerators.items())


def holds(
    run_id: str,
    node_id: str,
    accelerators: int,
    until_h: float,
    *,
    firm_until_h: float | None = None,
    grace_s: float = 60.0,
    of: str | None = None,
) -> Holding:
    """What a run holds; firm to its end, without a word."""
    return Holding(
        run_id=run_id,
        node_id=node_id,
        model=MODEL,
        accelerators=accelerators,
        ends_s=until_h * HOUR,
        firm_until_s=(until_h if firm_until_h is None else firm_until_h) * HOUR,
        grace_s=grace_s,
        reservation_id=None if of is None else f"res-{of}",
    )


def spot(
    run_id: str, node_id: str, accelerators: int, until_h: float = 24.0, *, grace_s: float = 60.0
) -> Holding:
    return holds(run_id, node_id, accelerators, until_h, firm_until_h=0.0, grace_s=grace_s)


def booked(*entries: object, **accelerators: int) -> Calendar:
    """Bays by node, and reservations, windows and holdings in any order."""
    return Calendar(
        bays=bays(**accelerators),
        reservations=[one for one in entries if isinstance(one, Reservation)],
        windows=[one for one in entries if isinstance(one, Window)],
        holdings=[one for one in entries if isinstance(one, Holding)],
    )
