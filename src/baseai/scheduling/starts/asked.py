"""What is asked of the estimates in one cycle: pools, who runs and who waits, read off the standing and its plan.

Invariant: nothing is asked of those who wait for no accelerators to come free; all else that waits is asked in the
order of the plan. Pure; reads and changes nothing.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from baseai.scheduling.gang import WHOLE, Gang, Shape
from baseai.scheduling.plan import Grant, Plan, StartEstimate
from baseai.scheduling.record import UNTIMED
from baseai.scheduling.snapshot import NodeRow
from baseai.scheduling.standing import Part
from baseai.scheduling.starts.said import Pool


def pools_of(nodes: Iterable[NodeRow]) -> dict[str, Pool]:
    """By model, what is usable on nodes that take runs; simulated where nothing of it is real."""
    found: dict[str, Pool] = {}
    for node in nodes:
        if node.state != "ready":
            continue
        for model, usable in node.accelerators:
            before = found.get(model)
            found[model] = Pool(
                milli=usable * WHOLE + (before.milli if before else 0),
                simulated=node.simulated and (before is None or before.simulated),
            )
    return found


def running_of(
    parts: Iterable[Part], grants: Iterable[Grant], now_s: float
) -> dict[str, list[tuple[Shape, float]]]:
    """By model, shape and start (seconds since 1970) of all that runs, and of what is granted now."""
    found: dict[str, list[tuple[Shape, float]]] = {}
    for part in parts:
        running = part.running
        found.setdefault(running.model, []).append((running.gang.shape, running.gang.submit_s))
    for grant in grants:
        _, model, count = grant.places[0]
        shape = Shape(pods=len(grant.places), milli=count * WHOLE)
        found.setdefault(model, []).append((shape, now_s))
    return found


def line_of(plan: Plan, waiting: Mapping[str, Gang]) -> list[Gang]:
    """Those who wait for accelerators to come free, in the order of the plan."""
    timed = [wait for wait in plan.waits if wait.kind not in UNTIMED and wait.run_id in waiting]
    return [waiting[wait.run_id] for wait in sorted(timed, key=lambda wait: wait.position)]


def told(plan: Plan, estimates: Mapping[str, StartEstimate]) -> Plan:
    """The plan with what is known of when those who wait will start."""
    if not estimates:
        return plan
    waits = (
        replace(wait, estimate=estimates[wait.run_id]) if wait.run_id in estimates else wait
        for wait in plan.waits
    )
    return replace(plan, waits=tuple(waits))
