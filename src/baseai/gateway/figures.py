"""Figures are what one gateway process tells Prometheus of itself.

Invariant: totals of the process only. Whoever reaches the port may read them, so they name no tenant, service or key;
figures of a service are its tenant's and stand in `service_traffic`.
"""

from collections.abc import Iterable, Iterator

from baseai.gateway.door import Door, steady_s

PREFIX = "baseai_gateway_"


def exposition(door: Door) -> bytes:
    """Prometheus' text format, version 0.0.4."""
    return "".join(_lines(door)).encode()


def _lines(door: Door) -> Iterator[str]:
    counts = door.counts
    yield from _family(
        "answers_total",
        "counter",
        "Answers given, by status.",
        ((f'{{status="{status}"}}', number) for status, number in sorted(counts.answers.items())),
    )
    yield from _family(
        "retries_total", "counter", "Times another replica was asked for one request.", [("", counts.retries)]
    )
    yield from _family(
        "requests_under_way", "gauge", "Requests that have come and are not over.", [("", counts.under_way)]
    )
    lobbies = door.lobbies.values()
    yield from _family(
        "requests_held",
        "gauge",
        "Of these, waiting for a replica.",
        [("", sum(len(lobby.hold) for lobby in lobbies))],
    )
    yield from _family(
        "replicas", "gauge", "Replicas known.", [("", sum(len(lobby.desks) for lobby in lobbies))]
    )
    yield from _family(
        "replicas_ejected",
        "gauge",
        "Of these, spared because they failed requests.",
        [("", sum(lobby.ejected() for lobby in lobbies))],
    )
    if door.routes_at_s is not None:
        yield from _family(
            "routes_age_seconds",
            "gauge",
            "Since the database was last heard of.",
            [("", round(steady_s() - door.routes_at_s, 3))],
        )


def _family(name: str, kind: str, said: str, samples: Iterable[tuple[str, float]]) -> Iterator[str]:
    yield f"# HELP {PREFIX}{name} {said}\n# TYPE {PREFIX}{name} {kind}\n"
    for labels, value in samples:
        yield f"{PREFIX}{name}{labels} {value}\n"
