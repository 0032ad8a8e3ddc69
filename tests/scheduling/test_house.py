"""The policy of the house, case by case: who comes first, who keeps clear of what, and who goes for whom."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from baseai.scheduling.calendar import FutureClaim
from baseai.scheduling.decide import decide
from baseai.scheduling.gang import WHOLE, Shape
from baseai.scheduling.plan import Obstacle, Plan, StartKind, WaitKind
from baseai.scheduling.queue_tree import Queue, QueueTree
from baseai.scheduling.snapshot import LeaseRow, NodeRow, WaitingRun, seconds, snapshot_of
from baseai.workloads.demand import Demand
from tests.scheduling.fleet import H100, NOON, at, gang, lease, node, places, wait_of

L4 = "L4"
OURS, THEIRS = "ours", "theirs"


def queued(*runs: Demand, promised: dict[str, float] | None = None) -> list[WaitingRun]:
    """Submitted in this order; some were told when they start at the latest, in hours after noon."""
    by = {run: at(hours) for run, hours in (promised or {}).items()}
    return [
        WaitingRun(demand=run, enqueued_at=at(-1 + number / 3600), promised_since=by.get(run.run_id))
        for number, run in enumerate(runs)
    ]


def decided(
    nodes: Sequence[NodeRow], leases: Sequence[LeaseRow], waiting: Sequence[WaitingRun], **agreed: Any
) -> Plan:
    return decide(snapshot_of(nodes, leases, waiting, **agreed), NOON)


def window(*nodes: str, from_h: float, until_h: float) -> FutureClaim:
    return FutureClaim(
        name="mnt", kind="maintenance", from_s=seconds(at(from_h)), until_s=seconds(at(until_h)), shape=None,
        node_ids=nodes, pods_left=0,
    )  # fmt: skip


def reservation(
    pods: int, count: int, *, from_h: float, until_h: float, tenant: str = "globex"
) -> FutureClaim:
    shape = Shape(pods=pods, milli=count * WHOLE, models=(H100,), one_model=True, apart=True)
    return FutureClaim(
        name="exam", kind="reservation", from_s=seconds(at(from_h)), until_s=seconds(at(until_h)), shape=shape,
        node_ids=(), pods_left=pods, tenant_id=tenant,
    )  # fmt: skip


# ---- claims of those who wait


@pytest.mark.parametrize(
    ("hours", "starts"),
    [
        pytest.param(2, True, id="who is gone by then starts"),
        pytest.param(2.01, False, id="who would put it off does not"),
    ],
)
def test_behind_a_gang_that_waits(hours: float, starts: bool) -> None:
    """One node is free for two hours, then the gang takes both."""
    queue = queued(gang(2, 8, run="big"), gang(1, 8, run="small", hours=hours))
    plan = decided([node("a"), node("b")], [lease("a", 8, hours=2)], queue)
    assert wait_of(plan, "big").promised_at == at(2)
    assert ("small" in places(plan)) is starts
    if not starts:
        held = wait_of(plan, "small")
        assert (held.kind, held.behind, held.obstacle) == (WaitKind.HELD, "big", Obstacle.RUN)
    else:
        [grant] = plan.grants
        assert grant.why is not None
        assert grant.why.kind is StartKind.BACKFILL


def test_who_was_promised_a_start_comes_before_who_is_first_by_now() -> None:
    """An urgent run has come since, and would fill the node on which the gang was to start at two."""
    queue = queued(
        gang(2, 8, run="gang"), gang(1, 8, run="urgent", hours=9, priority=100), promised={"gang": 2}
    )
    plan = decided([node("a"), node("b")], [lease("a", 8, hours=2)], queue)
    assert places(plan) == {}
    assert wait_of(plan, "gang").promised_at == at(2)
    assert wait_of(plan, "urgent").behind == "gang"


def test_for_each_model_the_first_in_line_claims_and_nobody_behind_him() -> None:
    nodes = [node("a"), node("b", accelerators=((L4, 8),))]
    leases = [lease("a", 8, hours=2, run="x"), lease("b", 8, hours=3, run="y", model=L4)]
    queue = queued(
        gang(1, 8, run="h1"), gang(1, 8, run="h2"), gang(1, 8, run="l1", models=(L4,)),
        gang(1, 8, run="l2", models=(L4,)),
    )  # fmt: skip
    plan = decided(nodes, leases, queue)
    promised = {wait.run_id: wait.promised_at for wait in plan.waits}
    assert promised == {"h1": at(2), "l1": at(3), "h2": None, "l2": None}


def test_two_who_were_promised_keep_both_claims_though_they_want_the_same_model() -> None:
    nodes = [node("a", 4), node("b", accelerators=((L4, 4),))]
    leases = [lease("a", 4, hours=2, run="x"), lease("b", 4, hours=3, run="y", model=L4)]
    queue = queued(
        gang(1, 4, run="either", models=(L4, H100)),
        gang(1, 4, run="h", hours=9),
        promised={"h": 2, "either": 3},
    )
    plan = decided(nodes, leases, queue)
    assert [(wait.run_id, wait.promised_at) for wait in plan.waits] == [("h", at(2)), ("either", at(3))]


def test_a_claim_leaves_the_nodes_that_are_free_to_those_who_start_now() -> None:
    """At two either node will do, and it claims the one on which nothing is free before."""
    queue = queued(gang(1, 8, run="bound"), gang(1, 4, run="long", hours=9))
    leases = [lease("a", 4, hours=2, run="half"), lease("b", 8, hours=2, run="all")]
    plan = decided([node("a"), node("b")], leases, queue)
    assert wait_of(plan, "bound").promised_at == at(2)
    assert places(plan) == {"long": ("a",)}


def test_whoever_no_empty_node_can_take_claims_nothing() -> None:
    queue = queued(gang(3, 8, run="never"), gang(1, 8, run="long", hours=99))
    plan = decided([node("a"), node("b")], [lease("a", 8, hours=2)], queue)
    assert wait_of(plan, "never").kind is WaitKind.NEVER
    assert places(plan) == {"long": ("b",)}


def test_whoever_no_empty_node_can_take_holds_nobody_up_who_is_behind_him() -> None:
    queue = queued(gang(3, 8, run="never"), gang(2, 8, run="both"), gang(1, 8, run="long", hours=99))
    plan = decided([node("a"), node("b")], [lease("a", 8, hours=2)], queue)
    assert wait_of(plan, "both").promised_at == at(2)
    assert places(plan) == {}


@pytest.mark.parametrize("keeps", [True, False])
def test_a_promise_is_of_nodes_and_an_older_one_does_not_take_them(keeps: bool) -> None:
    """The older would choose b, the tighter, if it were not told; and b is all that the younger can have."""
    queue = [
        WaitingRun(
            demand=gang(1, 4, run="older"), enqueued_at=at(-1), promised_since=at(-0.5), promised_at=at(2),
            promised_on=(("a", H100, 4),) if keeps else (),
        ),
        WaitingRun(
            demand=gang(1, 4, run="younger", sites=("SP5",)), enqueued_at=at(-0.9), promised_since=at(-0.4),
            promised_at=at(2), promised_on=(("b", H100, 4),) if keeps else (),
        ),
    ]  # fmt: skip
    nodes = [node("a", 8), node("b", 4, site="SP5")]
    plan = decided(nodes, [lease("a", 8, hours=2, run="x"), lease("b", 4, hours=2, run="y")], queue)
    on = {wait.run_id: [node_id for node_id, _, _ in wait.promised_on] for wait in plan.waits}
    assert on == {"older": ["a" if keeps else "b"], "younger": ["b"]}
    assert wait_of(plan, "younger").promised_at == (at(2) if keeps else at(3))


# ---- the calendar


@pytest.mark.parametrize(
    ("run", "starts_on"),
    [
        pytest.param(gang(1, 8, run="r", hours=2), "a", id="who is gone by then may be there"),
        pytest.param(gang(1, 8, run="r", hours=3), None, id="who outlives its beginning may not"),
        pytest.param(gang(1, 8, run="r", hours=3, spot=True), None, id="spot neither"),
    ],
)
def test_before_maintenance(run: Demand, starts_on: str | None) -> None:
    plan = decided([node("a")], [], queued(run), calendar=[window("a", from_h=2, until_h=4)])
    assert places(plan).get("r") == (None if starts_on is None else (starts_on,))
    if starts_on is None:
        assert (wait_of(plan, "r").behind, wait_of(plan, "r").obstacle) == ("mnt", Obstacle.MAINTENANCE)


def test_who_is_held_by_maintenance_keeps_the_start_he_was_promised() -> None:
    """At five the long one ends; the node that is free until then is maintained, and is nobody's to promise."""
    queue = queued(gang(1, 8, run="first", hours=3), gang(1, 8, run="second", hours=9), promised={"first": 5})
    plan = decided(
        [node("a"), node("b")], [lease("b", 8, hours=5)], queue, calendar=[window("a", from_h=2, until_h=4)]
    )
    first = wait_of(plan, "first")
    assert (first.kind, first.behind, first.promised_at) == (WaitKind.HELD, "mnt", at(5))


@pytest.mark.parametrize(
    ("run", "kind"),
    [
        pytest.param(gang(1, 8, run="r", hours=2), StartKind.IN_TURN, id="who is gone by then starts"),
        pytest.param(gang(1, 8, run="r", hours=3), None, id="who outlives its beginning does not"),
        pytest.param(gang(1, 8, run="r", hours=3, spot=True), StartKind.SPOT, id="spot does, and makes way"),
        pytest.param(
            gang(1, 8, run="r", hours=3, reservation="exam", tenant_id="globex"),
            None,
            id="its own run waits for it",
        ),
    ],
)
def test_before_a_reservation(run: Demand, kind: StartKind | None) -> None:
    plan = decided([node("a")], [], queued(run), calendar=[reservation(1, 8, from_h=2, until_h=4)])
    assert [grant.why.kind for grant in plan.grants if grant.why] == ([] if kind is None else [kind])


def test_a_run_of_a_reservation_that_has_not_begun_waits_for_it_beside_free_nodes() -> None:
    """It would be paid twice, and take what others could have."""
    run = gang(1, 8, run="own", reservation="exam", tenant_id="globex")
    plan = decided(
        [node("a"), node("b")], [], queued(run, gang(1, 8, run="other", hours=9)),
        calendar=[reservation(1, 8, from_h=2, until_h=4)],
    )  # fmt: skip
    own = wait_of(plan, "own")
    assert (own.kind, own.behind, own.promised_at) == (WaitKind.BOOKED, "exam", at(2))
    assert set(places(plan)) == {"other"}


def test_on_a_reservation_that_has_begun_its_own_runs_start_and_no_more_than_it_holds() -> None:
    runs = [
        gang(1, 8, run=f"own{number}", reservation="exam", tenant_id="globex", hours=9) for number in range(2)
    ]
    plan = decided(
        [node("a"), node("b")], [], queued(gang(1, 8, run="long", hours=9), *runs),
        calendar=[reservation(1, 8, from_h=0, until_h=4)],
    )  # fmt: skip
    kinds = {grant.run_id: grant.why.kind for grant in plan.grants if grant.why}
    assert kinds == {"long": StartKind.IN_TURN, "own0": StartKind.RESERVED}
    assert wait_of(plan, "own1").kind is WaitKind.SHORT


# ---- limits and quotas


def test_a_queue_holds_no_more_than_its_limit_and_says_so() -> None:
    tree = QueueTree((Queue(name=OURS, limit={H100: 8}), Queue(name=THEIRS)))
    queue = queued(
        *(gang(1, 8, run=f"r{number}", queue=OURS) for number in range(2)), gang(1, 8, run="t", queue=THEIRS)
    )
    plan = decided([node(name) for name in "abc"], [], queue, tree=tree)
    assert set(places(plan)) == {"r0", "t"}
    wait = wait_of(plan, "r1")
    assert (wait.kind, wait.behind, wait.obstacle) == (WaitKind.LIMIT, OURS, Obstacle.QUEUE)


def test_whom_a_quota_covers_starts_before_who_borrows_however_late_he_came() -> None:
    tree = QueueTree((Queue(name=OURS, quota={H100: 8}), Queue(name=THEIRS, quota={H100: 0})))
    queue = queued(gang(1, 8, run="borrows", queue=THEIRS, priority=100), gang(1, 8, run="owed", queue=OURS))
    assert set(places(decided([node("a")], [], queue, tree=tree))) == {"owed"}


@pytest.mark.parametrize(
    ("held", "gone"),
    [
        pytest.param(("spot", "borrowed", "junior"), "spot", id="spot first"),
        pytest.param(("borrowed", "junior"), "borrowed", id="then who borrows"),
        pytest.param(("junior",), "junior", id="a junior of one's own queue last"),
        pytest.param(("equal",), None, id="nobody who is as good"),
    ],
)
def test_who_goes_for_a_run_within_its_quota(held: tuple[str, ...], gone: str | None) -> None:
    kinds: dict[str, dict[str, Any]] = {
        "spot": {"queue": THEIRS, "spot": True},
        "borrowed": {"queue": THEIRS},
        "junior": {"queue": OURS, "priority": 20},
        "equal": {"queue": OURS},
    }
    quota = 8 * len(held) if "junior" not in held else 16
    tree = QueueTree((Queue(name=OURS, quota={H100: quota}), Queue(name=THEIRS, quota={H100: 0})))
    leases = [lease(name, 8, hours=9, run=name, granted_at=at(-1), **kinds[name]) for name in held]
    plan = decided(
        [node(name) for name in held], leases, queued(gang(1, 8, run="owed", queue=OURS)), tree=tree
    )
    assert [each.run_id for each in plan.evictions] == ([] if gone is None else [gone])


def test_equal_rows_in_any_order_give_equal_plans() -> None:
    rng = np.random.default_rng(1)
    nodes = [node(name) for name in "abcd"]
    leases = [
        lease(name, 4, hours=hours, run=f"x{name}") for name, hours in zip("abc", (3, 2, 2), strict=True)
    ]
    queue = queued(*(gang(1 + number % 2, 4 * (1 + number % 2), run=f"r{number}") for number in range(6)))
    plan = decided(nodes, leases, queue)
    for _ in range(10):
        shuffled = [[rows[place] for place in rng.permutation(len(rows))] for rows in (nodes, leases, queue)]
        assert decided(*shuffled) == plan  # type: ignore[arg-type]
