"""What people are told of the calendar: why nothing more is booked, and what would do instead. In plain English.

Invariant: a refusal names what is short and from when to when, and then every change that was found to do.
"""

from datetime import UTC, datetime

from baseai.scheduling.oversold import Behind, Oversold
from baseai.scheduling.reservation import Reservation


def instant_text(at_s: float) -> str:
    """An instant as people read it, in UTC."""
    return f"{datetime.fromtimestamp(at_s, UTC):%Y-%m-%d %H:%M} UTC"


def oversold_sentence(asked: Reservation, found: Oversold) -> str:
    """Why a reservation is refused, and what would be taken."""
    says = (
        f"{found.accelerators_short} {asked.model} too few can be promised at {asked.site}"
        f" from {instant_text(found.from_s)} to {instant_text(found.until_s)}"
    )
    instead = []
    if found.nodes_most:
        instead.append(f"ask for {found.nodes_most} {'node' if found.nodes_most == 1 else 'nodes'}")
    instead += [
        f"begin at {instant_text(at_s)}" for at_s in (found.earlier_s, found.later_s) if at_s is not None
    ]
    if not instead:
        return f"{says}, nor would fewer nodes or another time do: ask for fewer accelerators on each, or elsewhere"
    return f"{says}: {', or '.join(instead)}"


def window_sentence(found: Behind) -> str:
    """Why a maintenance window is refused."""
    if found.kind == "maintenance":
        return (
            f"a node of it is under maintenance {found.name} from {instant_text(found.from_s)}:"
            " choose another time, or cancel that one first"
        )
    return (
        f"the reservation {found.name}, from {instant_text(found.from_s)}, needs what would be taken out:"
        " choose fewer nodes or another time, or have it cancelled first"
    )


def behind_sentence(run: str, found: Behind, ends_s: float, tenant_id: str | None) -> str:
    """Why the leases of a run are not extended, as a tenant may read it; None: the platform's own people."""
    what = f"the reservation {found.name}" if found.kind == "reservation" else f"maintenance {found.name}"
    if tenant_id is not None and found.tenant_id not in (None, tenant_id):
        what = "what another tenant has reserved"
    room_s = found.from_s - ends_s
    most = f"; until then {_span_text(room_s)} more can be added" if room_s >= 60 else ""
    return f"{run} cannot go on so long: {what} needs its place from {instant_text(found.from_s)}{most}"


def _span_text(span_s: float) -> str:
    hours, minutes = divmod(int(span_s // 60), 60)
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if minutes or not hours else "")
