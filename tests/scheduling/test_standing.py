"""A standing that is kept decides as one that is built anew, leaves nothing behind, and does the same when replayed."""

import os
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from baseai.scheduling.admit import Fits, fits_ever
from baseai.scheduling.decide import decide_on
from baseai.scheduling.fleet import fleet_of
from baseai.scheduling.hall import Hall
from baseai.scheduling.plan import Plan
from baseai.scheduling.snapshot import Snapshot, seconds
from baseai.scheduling.standing import Standing
from tests.scheduling.world import WATTS, World, assert_everybody_is_told, assert_sound

CASES = int(os.environ.get("BASEAI_CASES", "400"))  # of each property, six cycles or more each
CYCLES = 6
REST = 40  # cycles within which all that can move has moved
SEEDS = st.integers(0, 2**32 - 1)


def columns(hall: Hall) -> dict[str, Any]:
    """All that changes of a hall."""
    names = (
        "free",
        "whole",
        "spare",
        "largest",
        "cpu_milli",
        "memory_mib",
        "disk_mib",
        "watts",
        "tenant",
        "ready",
    )
    return {name: np.array(getattr(hall, name)).tolist() for name in names} | {
        "held": {
            run_id: (held.shape, tuple(spot.row for spot in held.spots)) for run_id, held in hall.held.items()
        }
    }


def remembered(standing: Standing, now_s: float) -> dict[str, Any]:
    """All that one cycle could leave behind for the next."""
    house = standing.house
    shares = house.shares
    free = [house.outlook.free_at(now_s + ahead_s) for ahead_s in (0.0, 400.0, 2000.0, 20_000.0)]
    return columns(standing.hall) | {
        "free_at": [(each.amounts.tolist(), each.tenant.tolist(), each.open.tolist()) for each in free],
        "shares": {
            name: (
                dict(one.firm), dict(one.spot), round(one.mean_worth, 9), one.charged, dict(one.claimed),
                round(one.firm_worth, 9), round(one.spot_worth, 9),
            )
            for name, one in sorted(shares._portions.items())
        },
        "stakes": {
            each.gang.run_id: (each.since_s, each.saved_s, each.rate, tuple(spot.row for spot in each.spots))
            for each in house.stakes
        },
        "line": [gang.run_id for gang in shares.order(set())],
        "parts": sorted(standing.parts), "giving_way": sorted(standing.giving_way), "beside": house.beside,
    }  # fmt: skip


def built_anew(kept: Standing, snapshot: Snapshot, now_s: float) -> Standing:
    """One that knows nothing but the rows, what was promised, and what each queue had: the database's."""
    used = {
        name: leaf.mean_worth * leaf.half_life_s / float(np.log(2.0))
        for name, leaf in kept.house.shares._leaves.items()
    }
    fresh = Standing("best_fit")
    fresh.take_in(replace(snapshot, usage_s=used), now_s)
    fresh.house.promised = dict(kept.house.promised)
    return fresh


def decided(plan: Plan) -> tuple[Any, ...]:
    """What a plan does, and what it says; explanations may be of a moment ago."""
    waits = [replace(wait, explanation=None) for wait in plan.waits]
    return plan.grants, plan.evictions, waits


@settings(max_examples=CASES, deadline=None)
@given(SEEDS)
def test_one_that_is_kept_decides_as_one_that_is_built_anew_and_leaves_nothing_behind(seed: int) -> None:
    world, kept = World(seed), Standing("best_fit")
    for _ in range(CYCLES):
        world.happen()
        snapshot, now_s = world.snapshot(), seconds(world.now)
        kept.take_in(snapshot, now_s)
        fresh = built_anew(kept, snapshot, now_s)
        kept.house.shares.reckon(now_s)
        before = remembered(kept, now_s)
        plan = decide_on(kept, world.now)
        assert remembered(kept, now_s) == before
        assert_sound(plan, snapshot, world.now)
        assert_everybody_is_told(plan, snapshot)
        assert decided(plan) == decided(decide_on(fresh, world.now))
        world.write(plan, refused=0.1)


@settings(max_examples=CASES, deadline=None)
@given(SEEDS)
def test_a_cycle_in_which_nobody_is_told_why_is_as_sound_and_as_busy(seed: int) -> None:
    world, kept = World(seed), Standing("best_fit")
    for _ in range(CYCLES):
        world.happen()
        snapshot, now_s = world.snapshot(), seconds(world.now)
        kept.take_in(snapshot, now_s)
        told = decide_on(built_anew(kept, snapshot, now_s), world.now)
        plan = decide_on(kept, world.now, everybody=False)
        assert_sound(plan, snapshot, world.now)
        assert plan.waits == ()
        assert bool(plan.grants or plan.evictions) == bool(told.grants or told.evictions)
        world.write(plan, refused=0.1)


@settings(max_examples=CASES, deadline=None)
@given(SEEDS)
def test_what_was_decided_live_is_decided_in_a_replay(seed: int) -> None:
    """By the packing of the house, which learns from what it has placed."""
    world, live, record = World(seed), Standing(), []
    for _ in range(CYCLES):
        world.happen()
        snapshot = world.snapshot()
        live.take_in(snapshot, seconds(world.now))
        plan = decide_on(live, world.now)
        assert_sound(plan, snapshot, world.now)
        record.append((snapshot, world.now, plan))
        world.write(plan, refused=0.1)
    replayed = Standing()
    for snapshot, now, plan in record:
        replayed.take_in(snapshot, seconds(now))
        assert decide_on(replayed, now) == plan


@settings(max_examples=CASES, deadline=None)
@given(SEEDS)
@example(90278572)  # nodes were cleared for a run, and promised to another meanwhile
def test_everybody_whom_an_empty_fleet_can_take_has_his_turn_and_then_all_is_at_rest(seed: int) -> None:
    world, kept = World(seed), Standing("best_fit")
    for _ in range(CYCLES):
        world.happen()
        _cycle(world, kept)
    world.mend()
    able = {
        run_id
        for run_id in world.waiting | world.leases.keys()
        if isinstance(fits_ever(world.demands[run_id], fleet_of(world.nodes, WATTS)), Fits)
    }
    for _ in range(len(able) + 20):
        for _ in range(REST):
            plan = _cycle(world, kept)
            world.now += timedelta(seconds=1)
            for run_id in [run_id for run_id, rows in world.leases.items() if rows[0].yields]:
                world.stop(run_id)
            if not (plan.grants or plan.evictions):
                break
        else:
            raise AssertionError(f"somebody starts or goes in each of {REST} cycles, though nothing ends")
        if not able & world.waiting and not world.leases:
            return
        world.pass_until_somebody_ends()
    raise AssertionError(f"{sorted(able & world.waiting)} wait for ever")


@settings(max_examples=CASES, deadline=None)
@given(SEEDS)
@example(21149)  # watts were counted for a node that a window was to close
def test_who_was_promised_a_start_first_has_it_by_then(seed: int) -> None:
    """Whoever comes or ends meanwhile, windows of maintenance and breakers among them; nobody may stop another here."""
    world, kept = World(seed, calm=True), Standing("best_fit")
    first, told = (
        "",
        None,
    )  # whose promise is the oldest that stands, and till when, as it was told when it became so
    for _ in range(3 * CYCLES):
        world.happen()
        plan = _cycle(world, kept)
        promises = [
            (wait.promised_since, wait.run_id, wait.promised_at)
            for wait in plan.waits
            if wait.promised_at is not None and wait.promised_since is not None
        ]
        _, run_id, by = min(promises, default=(None, "", None))
        if first in world.waiting and first not in {grant.run_id for grant in plan.grants}:
            assert run_id == first, "somebody else is looked at before it"
            assert by is not None
            assert told is not None
            assert by <= told, "it is put off"
            assert world.now <= told, "it is late"
        elif run_id != first:
            first, told = run_id, by


@settings(max_examples=CASES, deadline=None)
@given(SEEDS)
@example(1121)  # an older promise found other nodes, and took them from a younger one
def test_whoever_was_promised_a_start_has_it_by_then(seed: int) -> None:
    """Of several promises none is kept at the cost of another, though all that stands is built anew now and then."""
    world, kept = World(seed, calm=True), Standing("best_fit")
    told: dict[str, datetime] = {}  # till when, the earliest that each was told
    for number in range(3 * CYCLES):
        world.happen()
        if number % 5 == 4:
            kept = Standing("best_fit")
        plan = _cycle(world, kept)
        by = {wait.run_id: wait.promised_at for wait in plan.waits if wait.promised_at is not None}
        for run_id in told.keys() & world.waiting - {grant.run_id for grant in plan.grants}:
            assert run_id in by, "it is told nothing any more"
            assert by[run_id] <= told[run_id], "it is put off"
            assert world.now <= told[run_id], "it is late"
        told = {run_id: min(at, told.get(run_id, at)) for run_id, at in by.items()}


def _cycle(world: World, kept: Standing) -> Plan:
    snapshot = world.snapshot()
    kept.take_in(snapshot, seconds(world.now))
    plan = decide_on(kept, world.now)
    assert_sound(plan, snapshot, world.now)
    world.write(plan)
    return plan
