"""Queues on the terminal: a tree with its figures, and settings that say what was typed and nothing else."""

import json
import re

import pytest

from tests.cli.conftest import Baseai
from tests.cli.loopback import Loopback


def test_queues_are_listed_as_a_tree(platform: Loopback, baseai: Baseai) -> None:
    listed = baseai("queue", "list")
    assert listed.status == 0
    assert [re.split(r" {2,}", line.strip()) for line in listed.out.splitlines()] == [
        ["QUEUE", "TENANT", "WEIGHT", "WAIT", "RUN", "MODEL", "HELD", "QUOTA", "LIMIT", "SPOT", "USED"],
        ["lab", "-", "2", "3", "1", "H100-SXM", "12", "16", "-", "4", "1,234.6"],
        ["vision", "-", "2", "3", "1", "H100-SXM", "12", "16", "-", "4", "1,234.6"],
        ["default", "acme", "2", "3", "1", "-", "-", "-", "-", "-", "-"],
    ]
    assert "\n  vision " in listed.out
    assert [one["name"] for one in json.loads(baseai("queue", "list", "--json").out)["items"]] == [
        "vision", "lab", "default",
    ]  # fmt: skip


def test_one_queue_is_shown_with_its_figures(platform: Loopback, baseai: Baseai) -> None:
    shown = baseai("queue", "show", "vision")
    assert re.search(
        r"below +lab\nfor +everybody\nweight +2\nhalf-life +168 h 00 min\nruns +3 waiting, 1 running",
        shown.out,
    )
    assert re.search(r"H100-SXM +12 +16 +- +4 +1,234\.6", shown.out)
    assert json.loads(baseai("queue", "show", "vision", "--json").out)["models"][0]["held"] == 12


@pytest.mark.parametrize(
    ("words", "document"),
    [
        pytest.param("--weight 3", {"weight": 3.0}, id="one thing"),
        pytest.param(
            "--parent lab --quota H100-SXM=16 --quota L4=0 --limit H100-SXM=64 --half-life 2d --tenant ufmg"
            " --project v",
            {
                "parent": "lab", "quota": {"H100-SXM": 16, "L4": 0}, "limit": {"H100-SXM": 64},
                "half_life_s": 172_800, "tenant": "ufmg", "project": "v",
            },
            id="everything",
        ),
        pytest.param("--quota none --shared --parent root", {"quota": {}, "shared": True, "parent": "root"}, id="back"),
        pytest.param("", {}, id="nothing makes a queue with the defaults"),
    ],
)  # fmt: skip
def test_a_setting_says_what_was_typed(
    platform: Loopback, baseai: Baseai, words: str, document: dict[str, object]
) -> None:
    done = baseai("queue", "set", "vision", *words.split())
    assert (done.status, done.err) == (0, "")
    assert platform.state.settings == [("vision", document)]
    assert "H100-SXM" in done.out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--quota H100-SXM", "--quota H100-SXM: write MODEL=COUNT, as H100-SXM=16, or `none` alone"),
        ("--limit L4=many", "--limit L4=many: write MODEL=COUNT"),
        ("--quota none --quota L4=1", "--quota none: write MODEL=COUNT"),
        ("--quota L4=1 --quota L4=2", "--quota L4=2: L4 is said twice"),
        ("--half-life week", "--half-life week: 'week' is not a duration; write it like"),
    ],
)
def test_what_cannot_be_meant_never_reaches_the_platform(
    platform: Loopback, baseai: Baseai, words: str, sentence: str
) -> None:
    refused = baseai("queue", "set", "vision", *words.split())
    assert refused.status == 2
    assert sentence in refused.err
    assert platform.state.settings == []


def test_a_promise_of_more_than_there_is_is_noted(platform: Loopback, baseai: Baseai) -> None:
    assert baseai("queue", "show", "dear").err == "the quotas of all queues come to more than there is\n"


def test_a_queue_is_removed(platform: Loopback, baseai: Baseai) -> None:
    assert baseai("queue", "remove", "vision").out == "vision is removed\n"
    assert platform.state.settings == [("vision", None)]
