"""Requests replayed through autoscalers from the terminal: figures side by side, and one sentence for what is wrong."""

import gzip
import json
from pathlib import Path

import pytest

from tests.cli.conftest import Baseai, Ended

NOWHERE: dict[str, str] = {}
TABLE = (
    "model,hardware,prompt_size,batch_size,token_size,prompt_time,token_time,tensor_parallel\n"
    "llama2-70b,h100-80gb,100,1,128,50,30,8\nllama2-70b,h100-80gb,200,1,128,80,30,8\n"
)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """Two a second for a minute, eight a second for the next."""
    instants = [number / 2 for number in range(120)] + [60 + number / 8 for number in range(480)]
    file = tmp_path / "requests.csv.gz"
    rows = "".join(f"{at_s},100,50\n" for at_s in instants)
    file.write_bytes(gzip.compress(f"at_s,prompt_tokens,answer_tokens\n{rows}".encode()))
    return file


def serve(baseai: Baseai, trace: Path, *words: str) -> Ended:
    return baseai("twin", "serve", "--trace", str(trace), *words, environ=NOWHERE)


def test_autoscalers_stand_side_by_side_and_the_same_seed_says_the_same(baseai: Baseai, trace: Path) -> None:
    words = (
        "--service-ms",
        "2000",
        "--policy",
        "ours",
        "--policy",
        "ray",
        "--target",
        "4",
        "--target",
        "6",
        "--json",
    )
    ended = serve(baseai, trace, *words)
    told = json.loads(ended.out)
    assert (ended.status, ended.err) == (0, "")
    assert [(each["policy"], each["target"], each["requests"]) for each in told["points"]] == [
        ("ours", 4.0, 600), ("ours", 6.0, 600), ("ray", 4.0, 600), ("ray", 6.0, 600)
    ]  # fmt: skip
    ours, ray = told["points"][0], told["points"][2]
    assert ours["missed"] < ray["missed"]
    assert any(each["front"] for each in told["points"])
    assert serve(baseai, trace, *words).out == ended.out


def test_people_get_a_table_also_of_a_measured_model(baseai: Baseai, trace: Path, tmp_path: Path) -> None:
    (tmp_path / "perf.csv").write_text(TABLE)
    ended = serve(baseai, trace, "--measured", str(tmp_path / "perf.csv"))
    assert ended.status == 0
    head, row = ended.out.splitlines()
    assert head.split() == [
        "policy",
        "target",
        "missed",
        "replica-seconds",
        "replicas",
        "wait",
        "p99",
        "changes",
        "front",
    ]
    assert row.split()[:2] == ["ours", "5.6"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        pytest.param((), "say how long a request takes", id="no pace"),
        pytest.param(("--service-ms", "1", "--measured", "x"), "one of them", id="two paces"),
        pytest.param(("--service-ms", "1", "--policy", "yours"), "there is no autoscaler yours", id="no such rule"),
        pytest.param(("--service-ms", "1", "--target", "0"), "--target 0", id="nothing for each"),
        pytest.param(("--service-ms", "1", "--least", "9", "--most", "3"), "--least 9", id="no range"),
        pytest.param(("--service-ms", "1", "--from-s", "999"), "no request from 999 s on", id="beyond the end"),
        pytest.param(("--measured", "nowhere.csv"), "nowhere.csv", id="no such table"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_said_in_one_sentence(
    baseai: Baseai, trace: Path, words: tuple[str, ...], told: str
) -> None:
    ended = serve(baseai, trace, *words)
    assert ended.status != 0
    assert ended.out == ""
    assert told in ended.err
    assert len(ended.err.strip().splitlines()) == 1


def test_a_row_that_cannot_be_meant_is_named(baseai: Baseai, tmp_path: Path) -> None:
    file = tmp_path / "bad.csv"
    file.write_text("at_s,prompt_tokens,answer_tokens\n0,1,2\nsoon,1,2\n")
    ended = serve(baseai, file, "--service-ms", "1")
    assert f"{file}, line 3, at_s: 'soon' is not a number" in ended.err
