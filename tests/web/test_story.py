"""What a page works out from rows."""

from datetime import timedelta
from decimal import Decimal

import pytest

from baseai.web.language import load_languages
from baseai.web.story import (
    curve_of,
    done_ratio,
    lasted_s,
    models_of,
    remaining_s,
    restart_steps,
    silent_s,
    sums_of,
    thinned,
)
from tests.web.platform import NOON, cost, event, node, points, run

EN = load_languages()["en"]


def test_a_restart_stands_at_the_last_step_before_it() -> None:
    lost = event("recover", 47.5, to_state="recovering")
    assert restart_steps(points(), [lost]) == (210,)  # the 43rd point, of second 47
    assert restart_steps([], [lost]) == (0,)
    assert restart_steps(points(), [event("begin", 3, to_state="running")]) == ()


def test_a_curve_tells_its_story_in_words() -> None:
    told = curve_of(
        points(), [event("recover", 47, to_state="recovering")], [{"step": 100}], {"steps_total": 600}, EN
    )
    assert told is not None
    assert "The loss went from 7.300 to" in told.svg
    assert "; restarts: 1." in told.svg
    assert len(told.rows) == 24


def test_without_a_loss_there_is_no_curve() -> None:
    assert curve_of([], [], [], {}, EN) is None
    assert curve_of([points(1)[0] | {"loss": None}], [], [], {}, EN) is None


@pytest.mark.parametrize("count", [1, 23, 24, 25, 47, 400])
def test_thinned_keeps_both_ends(count: int) -> None:
    rows = [{"step": step} for step in range(count)]
    kept = thinned(rows, 24)
    assert (kept[0], kept[-1], len(kept)) == (rows[0], rows[-1], min(count, 24))


def test_how_far_and_how_long() -> None:
    now = NOON + timedelta(seconds=63)
    assert done_ratio(run()) == pytest.approx(2 / 3)
    assert done_ratio(run(progress={})) is None
    assert lasted_s(run(), now) == 60
    assert lasted_s(run(ended_at=NOON + timedelta(seconds=13)), now) == 10
    assert lasted_s(run(started_at=None), now) is None
    assert remaining_s(run(), points()) == pytest.approx(200 * 0.172)
    assert remaining_s(run(state="recovering"), points()) is None  # nobody knows
    assert remaining_s(run(), []) is None


def test_a_silent_node_is_silent_since_it_was_last_heard() -> None:
    now = NOON + timedelta(seconds=41)
    assert silent_s(node(reachable=False), now) == 41
    assert silent_s(node(), now) is None


def test_a_silent_or_closed_node_has_nothing_free() -> None:
    nodes = [node("a"), node("b", reachable=False), node("c", state="cordoned")]
    [total] = models_of(nodes)
    assert (total.model, total.total, total.free) == ("cpu-slot", 12, 2)


def test_amounts_of_two_currencies_are_never_added() -> None:
    rows = [cost("a"), cost("b", accruing=False), cost("c", currency="BRL", accruing=False)]
    brl, usd = sums_of(rows)
    assert (brl["currency"], brl["revenue"], brl["accruing"]) == ("BRL", Decimal("0.001833"), False)
    assert (usd["currency"], usd["revenue"], usd["accruing"]) == ("USD", Decimal("0.003666"), True)
