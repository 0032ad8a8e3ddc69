"""Where cells stand: in an order that equal fleets share, by rack where one is known, with no name that is not due."""

import random

from baseai.web.floorplan import FREE, HELD, floorplan_of
from tests.web.fleet import installed


def test_equal_fleets_give_equal_plans_in_whatever_order_they_come() -> None:
    rows = installed(12, 8)
    shuffled = random.Random(1).sample(rows, len(rows))
    assert floorplan_of(rows, names_holders=True) == floorplan_of(shuffled, names_holders=True)


def test_cells_stand_by_site_then_rack_then_node() -> None:
    plan = floorplan_of(installed(5, 2), names_holders=True)
    assert plan.blocks == (
        ("rj2", "R000", True, (("node-0003", 2),)),
        ("rj2", "R001", True, (("node-0004", 2),)),
        ("sp4", "R000", True, (("node-0000", 2), ("node-0001", 2), ("node-0002", 2))),
    )
    assert plan.serials[:3] == ("SIM-0003-0", "SIM-0003-1", "SIM-0004-0")
    assert plan.place_of["SIM-0004-0"] == 2


def test_a_node_of_which_no_rack_is_known_stands_by_itself() -> None:
    plan = floorplan_of(installed(2, 2, racks=False), names_holders=True)
    assert [block[1:3] for block in plan.blocks] == [("node-0000", False), ("node-0001", False)]


def test_who_may_not_see_runs_learns_only_that_a_cell_is_held() -> None:
    rows = installed(3, 1)
    told, hidden = (floorplan_of(rows, names_holders=named) for named in (True, False))
    assert [told.holders[number - 2].name for number in told.holder if number > HELD] == [
        "train-02",
        "train-00",
    ]
    assert set(hidden.holder) == {FREE, HELD}
    assert "train" not in str(hidden.to_json())


def test_a_plan_is_another_when_a_holder_changes() -> None:
    rows = installed(3, 1)
    before = floorplan_of(rows, names_holders=True)
    after = floorplan_of([{**rows[0], "run_id": None}, *rows[1:]], names_holders=True)
    assert before.version != after.version
