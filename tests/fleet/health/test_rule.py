"""The policy as data: each code has its action, a file of one's own changes it, and errors name their line."""

import csv
import re
from pathlib import Path

import pytest

from baseai.fleet.health.rule import CODES, RULES, Action, PolicyBroken, policy_of, shipped_policy
from baseai.fleet.node import Health
from tests.fleet.health.ward import POLICY

# The table of the project's notes on telemetry, section 6.1, written out by hand.
BY_ACTION = {
    "note": [
        8, 11, 13, 25, 31, 32, 39, 40, 41, 68, 69, 70, 71, 72, 94,  # the run's own
        37, 38, 43, 44, 63, 92, 93, 121,  # ignored alone
    ],
    "reset": [46, 62, 95, 109, 119, 120, 136, 140, 143, 155, 156, 158, 48, 144, 145, 146, 147, 148, 149, 150],
    "rma": [64],
    "reboot": [79],
    "fabric": [45],
    "cordon": [74],
    "reseat": [54],
}  # fmt: skip


@pytest.mark.parametrize(
    ("code", "action"), [(code, action) for action, codes in BY_ACTION.items() for code in codes]
)
def test_the_action_of_each_code_is_the_one_of_the_notes(code: int, action: str) -> None:
    assert POLICY.code("xid", code).action == action


def test_every_code_of_the_catalogue_has_a_rule_and_nothing_of_nvidias_is_gentler_than_it_says(
    shared: Path,
) -> None:
    with (shared / "fixtures" / "health" / "xid_catalog.csv").open() as file:
        catalogue = list(csv.DictReader(file))
    assert len(catalogue) == 172
    for row in catalogue:
        rule = POLICY.rules[f"xid.{row['xid']}"]
        if row["immediate_action"] == "RESET_GPU":
            assert rule.action.drains, row
        elif row["immediate_action"] == "RESTART_BM":
            assert rule.action is Action.REBOOT
        elif row["immediate_action"] in ("RESTART_APP", "IGNORE"):
            assert rule.action.rank <= Action.TICKET.rank, row


def test_what_the_driver_itself_asks_for_has_a_rule() -> None:
    asked = {code: POLICY.code("recovery", code).action.value for code in range(8)}
    assert asked == {
        0: "note", 1: "reset", 2: "reboot", 3: "fabric", 4: "reset", 5: "fabric", 6: "reboot", 7: "reboot",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("code", "action"),
    [(11012, "note"), (20001, "ticket"), (20034, "reboot"), (22003, "reboot"), (99, "ticket")],
)
def test_switches(code: int, action: str) -> None:
    assert POLICY.code("sxid", code).action == action


def test_every_rule_says_what_it_means_and_where_that_comes_from() -> None:
    for rule in POLICY.rules.values():
        assert rule.says, rule
        assert re.match(r"\[[NVB]\]", rule.source), rule


@pytest.mark.parametrize(
    ("action", "health"),
    [("note", "healthy"), ("ticket", "healthy"), ("cordon", "suspect"), ("reset_idle", "suspect"),
     ("fabric", "faulty"), ("reset", "faulty"), ("rma", "faulty")],
)  # fmt: skip
def test_an_action_says_what_a_device_is(action: str, health: str) -> None:
    assert Action(action).health is Health(health)


def test_an_operators_file_changes_single_keys_and_adds_rules() -> None:
    own = """
[limits]
reboots = 1

[[rule]]
id = "xid.43"
action = "cordon"

[[rule]]
id = "temp_critical"
above = 88.0

[[event]]
id = "own.bell"
kind = "kernel"
pattern = "bell rings"
action = "note"
severity = "info"
says = "the bell rings"
"""
    policy = shipped_policy(("health.toml", own))
    assert policy.code("xid", 43).action is Action.CORDON
    hot = policy.rules["temp_critical"].condition
    was = POLICY.rules["temp_critical"].condition
    assert hot is not None
    assert was is not None
    assert (hot.value, hot.clear, hot.seen_k) == (88.0, was.clear, was.seen_k)
    assert policy.events[0].rule_id == "own.bell", "an operator's rules are tried first"
    assert (policy.limits.reboots, policy.limits.reboots_days) == (1, 7.0)


@pytest.mark.parametrize(
    ("own", "line", "problem"),
    [
        pytest.param('x = 1\n[[rule]]\nid = "xid.43"\n', 1, "x is not a table here", id="a strange table"),
        pytest.param(
            '\n[[rule]]\nid = "xid.430"\naction = "note"\n',
            3,
            "xid.430, which does not exist",
            id="no such rule",
        ),
        pytest.param(
            '[[rule]]\nid = "xid.43"\naction = "explode"\n',
            3,
            "must be one of note, ticket",
            id="no such action",
        ),
        pytest.param(
            '[[rule]]\nid = "xid.43"\n\nabove = 3\n', 4, "above is not a key here", id="a key of other rules"
        ),
        pytest.param(
            '[[rule]]\nid = "xid.43"\nk = "two"\n', 3, "k must be a number", id="a text for a number"
        ),
        pytest.param('[[rule]]\nid = "xid.43"\naction = \n', 3, "Invalid value", id="not TOML"),
        pytest.param(
            '[[metric]]\nid = "own"\nfamily = "accelerator"\nfield = "temp"\nabove = 3.0\n',
            4,
            "no field of accelerator",
            id="no such field",
        ),
        pytest.param(
            '[[event]]\nid = "own"\nkind = "kernel"\npattern = "("\naction = "note"\n',
            4,
            "is not a regular expression",
            id="a bad pattern",
        ),
        pytest.param("[limits]\nreboots = 0.5\n", 2, "reboots must be a whole number", id="half a reboot"),
    ],
)
def test_what_is_wrong_in_a_file_is_told_by_its_line(own: str, line: int, problem: str) -> None:
    with pytest.raises(PolicyBroken) as broken:
        shipped_policy(("health.toml", own))
    assert (broken.value.file, broken.value.line) == ("health.toml", line)
    assert problem in str(broken.value)


def test_a_row_of_codes_that_has_a_hole_is_told_by_its_line() -> None:
    texts = {f"{table}.csv": "code,mnemonic,class,vendor,meaning\n" for table in CODES}
    texts[RULES] = ""
    texts["xid.csv"] += "1,A,user,x,y\n2,B\n"
    with pytest.raises(PolicyBroken, match=r"xid\.csv, line 3: a row has 5 columns"):
        policy_of(texts)
