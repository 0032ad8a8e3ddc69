"""What stands against a device, by what was seen, how often, by how many tenants, and beside what."""

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseai.fleet.health.evidence import REPAIRED, Finding, Subject
from baseai.fleet.health.verdict import node_verdict, verdicts_of, weigh
from baseai.fleet.node import Health
from tests.fleet.health.ward import NODE_ID, POLICY, finding, gathered, later, signs

DAY_S = 86_400


@pytest.mark.parametrize("code", [8, 11, 13, 31, 32, 43, 45, 63, 94])
def test_an_error_of_the_run_itself_drains_nothing(code: int) -> None:
    assert set(signs(finding(f"xid.{code}", tenant="a"), at_s=60).values()) <= {"note"}


def test_a_tenant_may_err_as_often_as_it_likes() -> None:
    errors = [finding("xid.13", number * 3600, tenant="a") for number in range(50)]
    assert set(signs(*errors, at_s=50 * 3600).values()) == {"note"}


def test_three_tenants_that_err_on_one_device_make_it_suspect() -> None:
    errors = [finding("xid.13", 0, tenant="a"), finding("xid.31", DAY_S, tenant="b")]
    assert "user_errors" not in signs(*errors, at_s=DAY_S + 60)
    errors.append(finding("xid.13", 2 * DAY_S, tenant="c"))
    assert signs(*errors, at_s=2 * DAY_S + 60)["user_errors"] == "cordon"
    elsewhere = replace(errors[-1], subject=Subject(node_id=NODE_ID, serial="gpu-1"))
    assert "user_errors" not in signs(*errors[:2], elsewhere, at_s=2 * DAY_S + 60)
    assert "user_errors" not in signs(*errors, at_s=9 * DAY_S), "a week later two are forgotten"


@pytest.mark.parametrize(
    ("company", "action"),
    [
        ((), "reset"),
        (("xid.63",), "reset_idle"),
        (("xid.94", "xid.63"), "reset_idle"),
        (("xid.95",), "reset"),
        (("xid.95", "xid.63"), "reset"),
        (("xid.64",), "rma"),
        (("remap_failed", "xid.63"), "rma"),
    ],
)
def test_a_double_bit_error_is_decided_by_its_company(company: tuple[str, ...], action: str) -> None:
    found = [finding("xid.48", 0), *(finding(rule, 1) for rule in company)]
    assert "xid.48" not in signs(*found, at_s=5), "one tick is left to its company"
    assert signs(*found, at_s=12)["xid.48"] == action


def test_cleaning_up_follows_another_error() -> None:
    assert "xid.45" not in signs(finding("xid.45"), at_s=60)
    twice = [finding("xid.45", 0), finding("xid.45", 3600)]
    assert signs(*twice, at_s=3700)["xid.45"] == "fabric"
    assert signs(*twice, finding("xid.13", 3601, tenant="a"), at_s=3700)["xid.45"] == "note"


def test_an_nvlink_error_is_weighed_with_what_the_links_count() -> None:
    assert signs(finding("xid.74"), at_s=20) == {"xid.74": "cordon"}
    assert signs(finding("xid.74"), finding("link_errors", 30), at_s=40)["xid.74"] == "reset"
    again = signs(finding("xid.74"), finding("xid.74", 3600), at_s=3700)
    assert again["nvlink_again"] == "reset"


def test_a_second_fatal_error_of_amd_within_a_week_sends_it_back_also_after_a_reset() -> None:
    first, second = gathered([finding("afid.fatal", 0), finding("afid.fatal", 3 * DAY_S)])
    reset = replace(first, ended_at=later(600), ended_by=REPAIRED)
    assert {
        sign.rule_id: sign.action.value for sign in weigh(POLICY, [reset, second], later(3 * DAY_S + 60))
    } == {
        "amd_fatal_again": "rma",
        "afid.fatal": "reset",
    }
    cleared = replace(first, ended_at=later(600), ended_by="cleared by ana")
    assert [sign.rule_id for sign in weigh(POLICY, [cleared, second], later(3 * DAY_S + 60))] == [
        "afid.fatal"
    ]
    assert [sign.rule_id for sign in weigh(POLICY, [reset, second], later(8 * DAY_S))] == ["afid.fatal"]


def test_runs_that_die_without_a_word_count_against_the_node() -> None:
    deaths = [finding("run_died", number * 3600, serial=None, tenant="a") for number in range(9)]
    assert "lemon" not in signs(*deaths, at_s=DAY_S), "one tenant may kill its own runs"
    assert (
        signs(*deaths, finding("run_died", DAY_S, serial=None, tenant="b"), at_s=DAY_S + 60)["lemon"]
        == "cordon"
    )


def test_what_a_person_has_seen_asks_for_nothing_by_itself() -> None:
    [evidence] = gathered([finding("xid.95")])
    [sign] = weigh(POLICY, [replace(evidence, acknowledged_by="ana")], later(60))
    assert sign.action == "note"


def test_a_note_falls_by_itself_and_a_fault_does_not() -> None:
    assert signs(finding("xid.63"), at_s=2 * DAY_S) == {}
    assert signs(finding("xid.95"), at_s=90 * DAY_S) == {"xid.95": "reset"}


def test_a_node_is_as_ill_as_the_worst_on_it() -> None:
    found = [
        finding("xid.74", serial="gpu-1"),
        finding("xid.95", serial="gpu-2"),
        finding("bmc.psu", serial=None),
    ]
    verdicts = verdicts_of(weigh(POLICY, gathered(found), later(60)))
    healths = {subject.serial: verdict.health for subject, verdict in verdicts.items() if subject.serial}
    assert healths == {"gpu-1": Health.SUSPECT, "gpu-2": Health.FAULTY}
    node = node_verdict(verdicts, NODE_ID)
    assert node.health is Health.FAULTY
    assert [sign.rule_id for sign in node.signs] == ["xid.95", "xid.74", "bmc.psu"]
    assert all(sign.evidence_ids for sign in node.signs)


findings = st.lists(
    st.builds(
        finding,
        st.sampled_from(["xid.13", "xid.48", "xid.63", "xid.64", "xid.45", "xid.74", "link_errors", "run_died"]),
        st.integers(0, 4000),
        tenant=st.sampled_from(["a", "b", "c"]),
    ),
    max_size=12,
)  # fmt: skip


@given(findings, st.randoms(use_true_random=False))
def test_a_verdict_does_not_depend_on_the_order_of_its_evidence(
    found: list[Finding], chance: random.Random
) -> None:
    evidence = gathered(found)
    expected = weigh(POLICY, evidence, later(5000))
    chance.shuffle(evidence)
    assert weigh(POLICY, evidence, later(5000)) == expected
