"""Serving is what a spec of a service comes to: what would be made, what was, and staying until it answers.

Invariant: it serves when the platform says so, at the version that was applied; the terminal guesses nothing.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from baseai.cli.call import OTHERWISE, Call, segment
from baseai.cli.column import plain
from baseai.cli.http import Answer
from baseai.cli.price import listed_price

if TYPE_CHECKING:
    from baseai.api.schemas import ReplicaView, ServiceApplied, ServiceDetail, ServiceView

SERVICE = "service"
POLL_S = 1.0


def would_serve(call: Call, answer: Answer, files: str) -> int:
    """Say what a spec would make, after a dry run."""
    from baseai.api.schemas import ServiceApplied

    service = answer.read(ServiceApplied).service
    call.screen.say(f"{plain(service.name)} would be created or changed; nothing was")
    call.screen.facts(_facts(call, service, files))
    return 0


def served(call: Call, answer: Answer, files: str, *, follow: bool) -> int:
    """Say what a spec has made and how it is called; with `follow` stay until it serves."""
    from baseai.api.schemas import ServiceApplied

    screen, applied = call.screen, answer.read(ServiceApplied)
    service = applied.service
    if screen.as_json and not follow:
        screen.document(answer.text)
        return 0
    if not screen.as_json:
        screen.say(_made(applied))
        screen.facts(
            [
                *_facts(call, service, files),
                ("address", service.url or ""),
                ("page", f"{call.platform.connection.url}/services/{service.service_id}"),
            ]
        )
        if applied.example:
            screen.say("", "call it with a key in BASEAI_KEY:", f"  {applied.example}")
    if not follow:
        return 0
    return _followed(call, service, applied.version_no)


def bounds_text(service: "ServiceView") -> str:
    """`2`, or `0..4`."""
    return str(service.most) if service.least == service.most else f"{service.least}..{service.most}"


def _made(applied: "ServiceApplied") -> str:
    name, number = plain(applied.service.name), applied.version_no
    if applied.made:
        return f"{name} was created ({applied.service.service_id})"
    if applied.rolling:
        return f"{name}: version {number} takes over from version {applied.service.version_no}, step by step"
    return f"{name}: nothing changed, version {number} is what the spec says"


def _facts(call: Call, service: "ServiceView", files: str) -> list[tuple[str, str]]:
    price = listed_price(call, service)
    nodes = f" on each of {service.nodes} nodes" if service.nodes > 1 else ""
    return [
        ("kind", SERVICE),
        ("engine", f"{service.engine}, {service.protocol}"),
        ("model", f"{service.model or 'its own'}, called {service.model_name}"),
        ("replicas", f"{bounds_text(service)}, each {plain(service.gpu)}{nodes}"),
        ("files", files),
        ("price", f"{price} for each replica" if price else ""),
    ]


# ---- following ------------------------------------------------------------------------------------------------


def _followed(call: Call, service: "ServiceView", version_no: int) -> int:
    """Until the version serves (0), or will not (1). What is new is said on standard error."""
    from baseai.api.schemas import ServiceDetail
    from baseai.cli.follow import patiently

    screen, platform = call.screen, call.platform
    said: list[str] = []
    try:
        while True:
            answer = patiently(
                lambda: platform.get(f"/services/{segment(service.service_id)}"),
                note=screen.note,
                sleep=platform.sleep,
            )
            detail = answer.read(ServiceDetail)
            lines = list(progress_lines(detail))
            screen.note(*(line for line in lines if line not in said))
            said = lines
            over = outcome_of(detail, version_no)
            if over is not None:
                if screen.as_json:
                    screen.document(answer.text)
                return over
            platform.sleep(POLL_S)
    except KeyboardInterrupt:
        screen.note(f"the service goes on; `baseai service stop {plain(service.name)}` ends it")
        raise


def outcome_of(detail: "ServiceDetail", version_no: int) -> int | None:
    """The exit status once a version serves, rests or will not come; None while that is open."""
    service = detail.service
    version = next((one for one in detail.versions if one.version_no == version_no), None)
    if (
        service.state in ("stopped", "failing")
        or version is None
        or version.state in ("rolled_back", "retired")
    ):
        return OTHERWISE
    if version.state == "candidate":
        return None
    rests = service.state == "idle" and service.least == 0 and service.wanted == 0
    return 0 if rests or (service.state == "serving" and service.ready >= service.wanted) else None


def progress_lines(detail: "ServiceDetail") -> Iterator[str]:
    """Where a service is: its state and why, and each replica that does not answer yet."""
    service = detail.service
    name = plain(service.name)
    because = plain(service.sentence or "")
    if service.state == "idle" and not service.wanted:
        because = "it rests until the first request"
    yield f"{name}: {service.state}, {service.ready} of {service.wanted} ready" + (
        f" ({because})" if because else ""
    )
    for version in detail.versions:
        if version.state == "candidate":
            yield f"{name}: version {version.version_no} takes {version.share:.0%} of requests"
        elif version.state == "rolled_back" and version.version_no > service.version_no:
            yield f"{name}: version {version.version_no} was taken back: {plain(version.sentence or '')}"
    for replica in detail.replicas:
        if replica.state == "starting":
            yield f"{plain(replica.run)}: {replica_text(replica)}"


def replica_text(replica: "ReplicaView") -> str:
    """What a replica does, in words."""
    if replica.state != "starting":
        return replica.state if not replica.why else f"{replica.state} ({plain(replica.why)})"
    if replica.run_state == "queued":
        return f"waits in the queue: {plain(replica.waits or 'it has just come')}"
    if replica.run_state == "running":
        return f"gets ready on {plain(replica.node or 'its node')}"
    return f"{replica.run_state}" + (f": {plain(replica.run_sentence)}" if replica.run_sentence else "")
