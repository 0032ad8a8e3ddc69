"""What the commands around the calendar ask for, and what they show."""

import json
from datetime import datetime, timedelta

import pytest

from tests.cli.conftest import Baseai
from tests.cli.loopback import Loopback, run_of

ADD = ("reservation", "add", "exam", "--gpu", "H100:8", "--nodes", "2", "--site", "SP4")


def test_a_reservation_is_asked_for_in_ones_own_zone(platform: Loopback, baseai: Baseai) -> None:
    done = baseai(
        *ADD, "--from", "2026-12-01T09:00-03:00", "--until", "2026-12-03T09:00-03:00", "--take-or-pay"
    )
    assert done.status == 0, done.err
    said = platform.state.booked
    assert (said["name"], said["gpu"], said["nodes"], said["site"]) == ("exam", "H100:8", 2, "SP4")
    assert (said["from_at"], said["take_or_pay"]) == ("2026-12-01T12:00:00+00:00", True)
    assert done.out.splitlines()[:3] == [
        "reservation  exam (rsv_1)",
        "tenant       acme, project default",
        "what         2 x 8 H100-SXM at SP4",
    ]


def test_an_end_may_be_a_duration(platform: Loopback, baseai: Baseai) -> None:
    assert baseai(*ADD, "--from", "now", "--until", "2d").status == 0
    ends = [datetime.fromisoformat(platform.state.booked[name]) for name in ("from_at", "until_at")]
    assert ends[1] - ends[0] == timedelta(days=2)


@pytest.mark.parametrize(
    ("begins", "ends", "says"),
    [
        pytest.param("tomorrow", "2d", "--from: 'tomorrow' is no instant with its zone", id="no instant"),
        pytest.param("2026-12-01T09:00", "2d", "write it like 2026-12-01T09:00-03:00", id="no zone"),
        pytest.param("now", "later", "--until: 'later' is no instant", id="no end"),
    ],
)
def test_an_instant_without_its_zone_is_asked_again(
    platform: Loopback, baseai: Baseai, begins: str, ends: str, says: str
) -> None:
    done = baseai(*ADD, "--from", begins, "--until", ends)
    assert done.status == 2
    assert says in done.err
    assert platform.state.booked == {}


def test_reservations_are_listed_shown_and_given_back(platform: Loopback, baseai: Baseai) -> None:
    assert "nothing is reserved" in baseai("reservation", "list").err
    baseai(*ADD, "--from", "now", "--until", "2d")
    [_, line] = baseai("reservation", "list").out.splitlines()
    assert line.split()[:6] == ["exam", "acme", "2", "x", "8", "H100-SXM"]
    assert "forfeited    2026-01-02 03:34:05Z, if unused" in baseai("reservation", "show", "exam").out
    assert "state        cancelled" in baseai("reservation", "cancel", "exam").out
    assert json.loads(baseai("reservation", "list", "--json").out)["items"][0]["name"] == "exam"


def test_maintenance_is_planned_listed_and_ended(platform: Loopback, baseai: Baseai) -> None:
    assert baseai("maintenance", "list").err == "no maintenance is planned\n"
    words = ("maintenance", "add", "--node", "gpu-0", "--node", "gpu-1", "--from", "2026-12-01T22:00-03:00")
    done = baseai(*words, "--until", "2h", "--why", "new fans", "--notice", "12h")
    assert done.status == 0, done.err
    said = platform.state.booked
    assert (said["nodes"], said["site"], said["notice"]) == (["gpu-0", "gpu-1"], None, "12h")
    assert said["until_at"] == "2026-12-02T03:00:00+00:00"
    assert done.out.splitlines()[1] == "why          new fans"
    [_, line] = baseai("maintenance", "list").out.splitlines()
    assert line.startswith("mnt_1  gpu-0,gpu-1,gpu-2,gpu-3 and 2 more")
    assert "state        cancelled" in baseai("maintenance", "cancel", "mnt_1").out
    assert "state        in_progress" in baseai("maintenance", "end", "mnt_1").out
    assert "gpu-5  ready" in baseai("maintenance", "show", "mnt_1").out


def test_a_run_goes_on_longer(platform: Loopback, baseai: Baseai) -> None:
    platform.state.add(run_of("hello"))
    assert baseai("extend", "hello", "6h").out == "hello may go on until 2026-01-02 09:04:05Z\n"
    assert baseai("extend", "nobody", "6h").status != 0
