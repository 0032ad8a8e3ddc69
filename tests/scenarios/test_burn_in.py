"""A node is tested by a run of our own: its figures are kept, nobody pays, and a customer never waits for it."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.scenarios.platform import Declined, Platform, platform

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]
WORK = "type: task\nname: customer\nresources: {cpu: 2}\ncommands: [sleep 1]\n"


@pytest.fixture(scope="module")
def live() -> Iterator[Platform]:
    with platform("--cpu-slots", "2", "--node-name", "bench") as found:
        yield found


def ask_for_test(live: Platform, profile: str = "quick") -> str:
    [asked] = live.ask("POST", "/nodes/bench/test", {"profile": profile})["items"]
    return str(asked["run_id"])


def verdict(live: Platform, run_id: str, within_s: float = 60.0) -> dict[str, Any]:
    deadline = time.monotonic() + within_s
    while True:
        found = live.ask("GET", "/nodes/bench/figures")
        [one] = [one for one in found["burn_ins"] if one["run_id"] == run_id]
        if one["verdict"]:
            return dict(found) | {"burn_in": one}
        assert time.monotonic() < deadline, f"{one}\n{live.run(run_id)['run']}\n{live.logs()}"
        time.sleep(0.2)


def test_a_node_is_tested_and_its_figures_are_kept(live: Platform) -> None:
    run_id = ask_for_test(live)
    found = verdict(live, run_id)
    assert (found["burn_in"]["verdict"], found["burn_in"]["sentence"]) == ("passed", None)
    figures = {(one["test"], one["variant"], one["device_index"]): one for one in found["figures"]}
    for slot in (0, 1):
        gemm = figures["gemm", "fp32", slot]
        assert gemm["value"] > 0.1
        assert (gemm["unit"], gemm["peak"], gemm["ratio"]) == (
            "GFLOP/s",
            None,
            None,
        )  # no peak known of a core
        assert gemm["origin"] == "measured"
        assert gemm["software"]["torch"]
        assert figures["gemm_wrong", "fp32", slot]["value"] == 0
        assert figures["memory", "triad", slot]["value"] > 0.01
        assert figures["soak", "rate_kept", slot]["value"] > 0.1
        ecc = figures["ecc", "uncorrected", slot]
        assert (ecc["state"], ecc["value"]) == ("unsupported", None)
        assert ecc["sentence"]
    for collective in ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast"):
        assert figures["bus", collective, None]["value"] > 0
        assert figures["bus_wrong", collective, None]["value"] == 0
    # Nobody pays for it, and it is no use: each line says so from the first on.
    live.check_metered(run_id)
    assert live.sql(f"SELECT DISTINCT billable, reason FROM usage_lines WHERE run_id = '{run_id}'") == [
        (False, "burn_in")
    ]
    assert live.sql(
        f"SELECT count(*) FROM transfers WHERE run_id = '{run_id}' AND credit_account LIKE 'revenue:%'"
    ) == [(0,)]
    assert [row["name"] for row in live.ask("GET", "/tenants")["items"]] == ["base"]
    live.check_books()


def test_a_customer_does_not_wait_for_a_test(live: Platform) -> None:
    run_id = ask_for_test(live, "standard")
    live.wait(run_id, lambda run: run["state"] == "running")
    [offer] = live.ask("GET", "/offers")["items"]
    assert offer["free"] == 2, "what a test holds is free"
    asked_s = time.monotonic()
    customer = live.submit(WORK)
    live.wait(customer, lambda run: run["state"] in ("running", "succeeded"), within_s=20)
    waited_s = time.monotonic() - asked_s
    assert live.wait_ended(customer)["run"]["state"] == "succeeded"
    assert waited_s < 10, "its processes are killed after 2 s at the latest"
    detail = live.wait(run_id, lambda run: run["attempt_no"] == 2)
    moves = [
        event["to_state"] for event in detail["events"] if event["subject"] == run_id and event["to_state"]
    ]
    assert moves[:5] == ["queued", "starting", "running", "preempted", "queued"]
    live.ask("POST", f"/runs/{run_id}/stop", {"reason": "enough"})
    live.wait_ended(run_id)
    assert verdict(live, run_id)["burn_in"]["verdict"] == "void"
    live.check_books()


def test_a_second_test_of_a_node_is_refused_while_one_is_under_way(live: Platform) -> None:
    run_id = ask_for_test(live, "standard")
    with pytest.raises(Declined) as refused:
        ask_for_test(live)
    assert refused.value.status == 409
    live.ask("POST", f"/runs/{run_id}/stop", {})
    live.wait_ended(run_id)
    with pytest.raises(Declined) as unknown:
        live.ask("POST", "/nodes/bench/test", {"profile": "gentle"})
    assert (unknown.value.status, "quick" in unknown.value.problem["detail"]) == (422, True)


def test_a_repaired_node_is_tested_before_anybody_runs_on_it(live: Platform) -> None:
    verdict_before = len(live.ask("GET", "/nodes/bench/figures")["burn_ins"])
    for verb in ("drain", "repair", "verify"):
        live.ask("POST", f"/nodes/bench/{verb}", {"reason": "a fan was replaced"})
    customer = live.submit(WORK)
    deadline = time.monotonic() + 60
    while live.ask("GET", "/nodes/bench")["state"] == "verifying":
        assert live.run(customer)["run"]["state"] == "queued"
        assert time.monotonic() < deadline, live.logs()
        time.sleep(0.3)
    assert live.ask("GET", "/nodes/bench")["state"] == "ready"
    newest, *others = live.ask("GET", "/nodes/bench/figures")["burn_ins"]
    assert (newest["occasion"], newest["verdict"], len(others)) == ("re_entry", "passed", verdict_before)
    assert live.wait_ended(customer)["run"]["state"] == "succeeded"
