"""The time of every accelerator adds up on a running platform, whatever becomes of its controller meanwhile."""

import json
import subprocess
import sys
import time

import pytest

from tests.scenarios.platform import ENVIRONMENT, Platform, platform

HOUR_US = 3_600_000_000
SLEEPER = "type: task\nname: sleeper\ncommands: [sleep 3]\nresources: {cpu: 1}\n"
HOURS = 24_000  # so many that they are closed in several transactions


def controller_dies(home: Platform) -> None:
    old = home.pid("controller")
    home.kill("controller")
    deadline = time.monotonic() + 30
    while home.pid("controller") == old:
        assert time.monotonic() < deadline, "the controller was not started again"
        time.sleep(0.05)


def closed(home: Platform) -> bool:
    """Every hour but this one, and the one before while it is in its grace."""
    [(done, late)] = home.sql(
        "SELECT closed_until >= date_trunc('hour', now() - interval '3 minutes', 'UTC'),"
        " (SELECT count(*) FROM late_facts) FROM time_mark"
    )
    return bool(done) and late == 0


def wait_closed(home: Platform, within_s: float = 90.0) -> None:
    deadline = time.monotonic() + within_s
    while not closed(home):
        assert time.monotonic() < deadline, home.logs()
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_time_adds_up_through_kills_of_the_controller() -> None:
    with platform("--cpu-slots", "2") as home:
        run_id = home.submit(SLEEPER)
        home.wait_ended(run_id)
        home.check_metered(run_id)
        now = home.ask("GET", "/time")
        buckets = {row["bucket"]: row["micro_seconds"] for row in now["items"]}
        [(metered,)] = home.sql("SELECT sum(micro_seconds)::bigint FROM usage_lines")
        assert buckets["on_demand"] == metered
        assert sum(buckets.values()) == now["installed_us"]

        # As if it had stood here for years: the controller closes them all, and dies over it, twice.
        home.sql(
            "UPDATE accelerators SET installed_at = date_trunc('hour', now(), 'UTC')"
            f" - interval '{HOURS} hours' RETURNING accelerator_no"
        )
        controller_dies(home)
        time.sleep(1.5)
        controller_dies(home)
        wait_closed(home)
        [(first, last, rows, revisions)] = home.sql(
            "SELECT min(hour)::text, max(hour)::text, count(DISTINCT (hour, accelerator_no)), max(revision)"
            " FROM time_buckets WHERE replaced_at IS NULL"
        )
        assert rows in (2 * HOURS, 2 * (HOURS - 1)), (first, last)
        assert revisions == 1

        # A fact that comes late: one of them came two hours earlier than was known.
        home.sql(
            "UPDATE accelerators SET installed_at = installed_at - interval '2 hours'"
            " WHERE accelerator_no = (SELECT min(accelerator_no) FROM accelerators) RETURNING accelerator_no"
        )
        controller_dies(home)
        wait_closed(home)
        [(summed,)] = home.sql(
            "SELECT sum(micro_seconds)::bigint FROM time_buckets WHERE replaced_at IS NULL"
        )
        assert summed == (rows + 2) * HOUR_US
        assert home.sql("SELECT count(*) FROM checks") == [(0,)]
        deadline = time.monotonic() + 60
        while home.sql("SELECT failing FROM check_rounds WHERE name = 'time'") != [(0,)]:
            assert time.monotonic() < deadline, home.logs()
            time.sleep(0.2)

        said = subprocess.run(
            [sys.executable, "-m", "baseai", "books", "time", "--by", "node", "--json"],
            env={**ENVIRONMENT, "BASEAI_URL": home.connect["url"], "BASEAI_KEY": home.connect["key"]},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        month = json.loads(said.stdout)
        assert sum(row["micro_seconds"] for row in month["items"]) == month["installed_us"]
        assert month["withheld"] == []
