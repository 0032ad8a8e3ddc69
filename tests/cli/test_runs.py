"""A spec becomes a run once, with its files; a wrong one becomes nothing."""

import json
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from baseai.api.schemas import ChangeView, NodeView, Offer, WaitView
from baseai.cli.price import price_text
from baseai.cli.runs import run_columns
from tests.cli.conftest import Baseai
from tests.cli.loopback import LONG_AGO, Loopback, run_of


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.txt").write_text("a")
    (tmp_path / "data" / "same.txt").write_text("a")
    path = tmp_path / "hello.yaml"
    path.write_text("type: task\nname: hello\nfiles: [data]\ncommands: [cat data/a.txt]\n")
    return path


def test_apply_creates_a_run_and_says_where_and_for_how_much(
    platform: Loopback, baseai: Baseai, spec: Path
) -> None:
    done = baseai("apply", "-f", str(spec))
    assert done.status == 0
    run = platform.state.run("hello")
    assert run is not None
    assert done.out.splitlines() == [
        f"hello was created ({run.run_id})",
        "kind      task",
        "asks for  cpu-slot:2",
        "files     2 (2 B)",
        "price     USD 0.0816 an hour at list price",
        f"page      {platform.url}/runs/{run.run_id}",
    ]
    assert done.err == "uploading 1 file, 1 B\n"
    assert platform.state.puts == 1  # two files of one digest


def test_what_the_platform_has_is_not_sent_again(platform: Loopback, baseai: Baseai, spec: Path) -> None:
    baseai("apply", "-f", str(spec))
    again = baseai("apply", "-f", str(spec), "--name", "other", "--json")
    assert (again.status, again.err) == (0, "")
    assert json.loads(again.out)["name"] == "other"
    assert platform.state.puts == 1


def test_a_dry_run_creates_and_sends_nothing(platform: Loopback, baseai: Baseai, spec: Path) -> None:
    done = baseai("apply", "-f", str(spec), "--dry-run")
    assert done.out.startswith("hello would be created; nothing was\n")
    assert (platform.state.runs, platform.state.files) == ({}, {})


def test_a_waiting_run_says_why(platform: Loopback, baseai: Baseai, spec: Path) -> None:
    platform.state.waits = WaitView(
        position=2,
        ahead=1,
        sentence="waits for 2 accelerators",
        failing={"model": 3, "memory": 0},
        change=ChangeView(
            lever="accelerators", asked=2, instead=1, sentence="1 accelerator on each node instead of 2"
        ),
        earliest_at=LONG_AGO + timedelta(hours=1),
    )
    out = baseai("apply", "-f", str(spec)).out
    assert "waits            waits for 2 accelerators\n" in out
    assert "nodes ruled out  3 by model\n" in out
    assert "would start now  with 1 accelerator on each node instead of 2\n" in out
    assert "not before       " in out


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        pytest.param(
            "comands: [a]\n",
            "hello.yaml:1:1 comands: is not a key — write `commands`",
            id="the server's word",
        ),
        pytest.param(
            "files:\n- gone\n", "hello.yaml:2:3 files: there is no gone in ", id="a file that is not there"
        ),
        pytest.param("a: [", "hello.yaml:1:1 : is not YAML", id="no YAML"),
        pytest.param("a: \udcff", "hello.yaml:1 is not UTF-8 text", id="no text"),
    ],
)
def test_a_wrong_spec_creates_nothing(
    text: str, sentence: str, platform: Loopback, baseai: Baseai, spec: Path
) -> None:
    spec.write_bytes(text.encode("utf-8", "surrogateescape"))
    wrong = baseai("apply", "-f", str(spec))
    assert (wrong.status, wrong.out) == (2, "")
    assert sentence in wrong.err
    assert (platform.state.runs, platform.state.files) == ({}, {})


def test_a_missing_spec_is_named(baseai: Baseai) -> None:
    wrong = baseai("apply", "-f", "gone.yaml")
    assert (wrong.status, wrong.err) == (2, "baseai: there is no file gone.yaml\n")


def test_a_spec_may_come_by_standard_input(platform: Loopback, baseai: Baseai) -> None:
    assert baseai("apply", "-f", "-", stdin="type: task\nname: piped\ncommands: [a]\n").status == 0
    assert platform.state.run("piped") is not None


OFFERS = [
    Offer(model="cpu-slot", site="local", total=4, free=4, price_per_hour=Decimal("0.04")),
    Offer(model="H100-SXM", site="SP4", total=8, free=8, price_per_hour=Decimal("3.85")),
    Offer(model="H100-PCIe", site="SP4", total=8, free=8, price_per_hour=Decimal("2.79")),
]


def test_only_the_run_that_is_there_is_shown_on_a_node() -> None:
    where = NodeView.model_construct(name="gpu-07", runs=["again"])
    runs = [
        run_of("again", run_id="run_3", state="queued"),
        run_of("again", run_id="run_2", state="running"),
        run_of("again", run_id="run_1", state="failed", ended_at=LONG_AGO),
    ]
    columns, rows = run_columns(runs, [], [where], LONG_AGO)
    nodes = [column.head for column in columns].index("NODES")
    assert [row[nodes] for row in rows] == ["", "gpu-07", ""]


@pytest.mark.parametrize(
    ("gpu", "nodes", "text"),
    [
        pytest.param("cpu-slot:2", 1, "USD 0.08 an hour at list price", id="slots"),
        pytest.param("cpu-slot:2", 2, "USD 0.16 an hour at list price", id="on each node"),
        pytest.param("8 × H100-SXM", 1, "USD 30.80 an hour at list price", id="in words"),
        pytest.param("H100:80GB:8", 1, "USD 22.32 to 30.80 an hour at list price", id="either of two models"),
        pytest.param(
            "H100-PCIe:1 | cpu-slot:2", 1, "USD 0.08 to 2.79 an hour at list price", id="alternatives"
        ),
        pytest.param("cpu-slot:2.5", 1, "USD 0.12 an hour at list price", id="slots are whole"),
        pytest.param("H100-PCIe:1..4", 1, "USD 2.79 to 11.16 an hour at list price", id="a range"),
        pytest.param("quantum:1", 1, "", id="no offer"),
    ],
)
def test_price_text(gpu: str, nodes: int, text: str) -> None:
    assert price_text(run_of(gpu=gpu, nodes=nodes), OFFERS) == text
