"""A replay from files to files: the same hash again, one sentence for what is wrong, and then nothing written."""

import gzip
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from baseai.scheduling.capture import captured
from baseai.scheduling.hall import Bay, Hall
from baseai.scheduling.policy.registry import PACKING, TIMING
from tests.cli.conftest import Baseai, Ended

NOWHERE: dict[str, str] = {}
CLUSTER = "node_id,gpu_model,gpus,cpu_milli,mem_mib\nn0,A,4,8000,100\nn1,B,2,,\n"
WORKLOAD = (
    "job_id,submit_s,duration_s,pods,gpu_milli,cpu_milli,mem_mib,gpu_models,group,duration_by_model\n"
    "a,0,100,1,4000,,,,x,\nb,1,50,2,2000,100,,,y,\nc,2,10,1,500,,,A|B,x,\nd,3,,1,1000,,,,y,A=20|B=5\n"
)
OPTIONS = {"c": "cluster", "w": "workload", "d": "decisions"}
POLICIES = Path(__file__).parents[2] / "docs" / "policies.md"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "c.csv").write_text(CLUSTER)
    (tmp_path / "w.csv").write_text(WORKLOAD)
    return tmp_path


def replay(baseai: Baseai, folder: Path, *words: str, out: str = "d.csv") -> Ended:
    files = (
        "--cluster",
        str(folder / "c.csv"),
        "--workload",
        str(folder / "w.csv"),
        "--out",
        str(folder / out),
    )
    return baseai("twin", "replay", *files, *words, environ=NOWHERE)


def written(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()} - {"c.csv", "w.csv"}


def judged(shared: Path, folder: Path, *words: str) -> dict[str, Any]:
    """What the independent judge says of the decisions."""
    files = [word for name in "cwd" for word in (f"--{OPTIONS[name]}", str(folder / f"{name}.csv"))]
    judge = [sys.executable, str(shared / "tools" / "judge_placement.py"), "judge"]
    ended = subprocess.run([*judge, *files, *words], capture_output=True, text=True, check=False)
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def test_a_replay_writes_decisions_and_a_page_and_says_what_came_of_it(baseai: Baseai, folder: Path) -> None:
    ended = replay(
        baseai, folder, "--policy", "srsf", "--restart-s", "5", "--report", str(folder / "r.html"), "--json"
    )
    told = json.loads(ended.out)
    assert (ended.status, ended.err, told["gangs"]) == (0, "", 4)
    assert written(folder) == {"d.csv", "r.html"}
    lines = (folder / "d.csv").read_text().splitlines()
    assert lines[0] == "job_id,pod,start_s,end_s,node_id,gpus"
    assert "d,0,3,23,n0,3" in lines  # twenty seconds on A, for b has all of B
    assert told["sha256"] in (folder / "r.html").read_text()
    again = replay(baseai, folder, "--policy", "srsf", "--restart-s", "5", "--json", out="e.csv.gz")
    assert json.loads(again.out)["sha256"] == told["sha256"]
    assert gzip.decompress((folder / "e.csv.gz").read_bytes()) == (folder / "d.csv").read_bytes()


def test_packed_files_are_read_and_people_get_figures(baseai: Baseai, folder: Path) -> None:
    (folder / "w.csv.gz").write_bytes(gzip.compress(WORKLOAD.encode()))
    ended = baseai(
        "twin", "replay", "--cluster", str(folder / "c.csv"), "--workload", str(folder / "w.csv.gz"),
        "--mode", "packing", "--policy", "first_fit", "--out", str(folder / "d.csv"), environ=NOWHERE,
    )  # fmt: skip
    assert (ended.status, ended.err) == (0, "")
    assert re.search(r"^allocated +91.67 % of 158.33 % asked for$", ended.out, re.MULTILINE)
    assert re.search(r"^seed +42$", ended.out, re.MULTILINE)
    assert re.search(r"^sha256 +[0-9a-f]{64}$", ended.out, re.MULTILINE)


@pytest.mark.parametrize("policy", ["fifo", "easy", "sjf", "srtf", "srsf"])
def test_the_judge_finds_every_policy_feasible(
    baseai: Baseai, folder: Path, shared: Path, policy: str
) -> None:
    assert replay(baseai, folder, "--policy", policy, "--restart-s", "5").status == 0
    found = judged(shared, folder, "--preemptive", "--restart-cost", "5")
    assert (found["feasible"], found["unplaced"]) == (True, 0)


@pytest.mark.parametrize("policy", ["random", "first_fit", "best_fit", "fgd"])
def test_the_judge_finds_every_packing_feasible(
    baseai: Baseai, folder: Path, shared: Path, policy: str
) -> None:
    assert replay(baseai, folder, "--policy", policy, "--mode", "packing").status == 0
    assert judged(shared, folder, "--mode", "packing")["feasible"]


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        pytest.param("e,9,x,1,1000,,,,,", "w.csv, line 6, duration_s: 'x' is not a number", id="a bad row"),
        pytest.param("a,9,1,1,1000,,,,,", "w.csv, line 6, job_id: a stands on line 2 already", id="an id twice"),
        pytest.param("e,9,1,1,5000,,,,,", "w.csv, line 6, gpu_milli: run e fits nowhere", id="an impossible job"),
    ],
)  # fmt: skip
def test_a_bad_trace_is_told_with_line_and_field_and_nothing_is_written(
    baseai: Baseai, folder: Path, row: str, sentence: str
) -> None:
    (folder / "w.csv").write_text(WORKLOAD + row + "\n")
    ended = replay(baseai, folder, "--report", str(folder / "r.html"))
    assert (ended.status, ended.out, written(folder)) == (2, "", set())
    assert sentence in ended.err
    assert len(ended.err.splitlines()) == 1


def own_policy(folder: Path, body: str) -> str:
    (folder / "own.py").write_text(body)
    return f"{folder / 'own.py'}:Own"


INFEASIBLE = """
from baseai.scheduling.hall import Spot
class Own:
    def __init__(self, hall, rng): pass
    def place(self, gang, hall): return [Spot(0, tuple(range(gang.shape.devices)))] * gang.shape.pods
"""


@pytest.mark.parametrize(
    ("body", "status", "sentence"),
    [
        pytest.param(INFEASIBLE, 1, "run b cannot be placed on n0: gpu_milli: device 0 has 0 milli", id="infeasible"),
        pytest.param("class Own:\n    def __init__(self, hall, rng): 1 / 0\n    def place(self, gang, hall): ...", 1,
                     "own.py, line 2: ZeroDivisionError", id="it breaks"),
        pytest.param("class Own: ...", 2, "has no class Own with a method place", id="no policy"),
        pytest.param("class Own\n", 1, "own.py, line 1: SyntaxError", id="no Python"),
    ],
)  # fmt: skip
def test_a_policy_that_is_wrong_is_told_and_nothing_is_written(
    baseai: Baseai, folder: Path, body: str, status: int, sentence: str
) -> None:
    ended = replay(baseai, folder, "--mode", "packing", "--policy", own_policy(folder, body))
    assert (ended.status, ended.out, written(folder) & {"d.csv"}) == (status, "", set())
    assert sentence in ended.err
    assert "this is a bug" not in ended.err


def test_the_page_names_every_policy_that_comes_along() -> None:
    page = POLICIES.read_text()
    assert [name for name in [*PACKING, *TIMING] if f"`{name}`" not in page] == []


def test_the_examples_of_the_page_run_as_they_stand(baseai: Baseai, folder: Path) -> None:
    packing, timing = re.findall(r"```python\n(.+?)```", POLICIES.read_text(), re.DOTALL)
    (folder / "own.py").write_text(packing + timing)
    own = str(folder / "own.py")
    ended = replay(baseai, folder, "--policy", f"{own}:LargestFirst", "--packing", f"{own}:WorstFit")
    assert (ended.status, ended.err) == (0, "")
    assert replay(baseai, folder, "--policy", f"{own}:WorstFit", "--mode", "packing").status == 0
    assert max(packing.count("\n"), timing.count("\n")) <= 20


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--policy", "magic"], "no time policy has that name"),
        (["--policy", "fifo", "--mode", "packing"], "no packing policy has that name"),
        (["--policy", "none.py:Own"], "there is no file none.py"),
        (["--mode", "space"], "--mode space: one of time, packing"),
        (["--policy", "easy", "--durations-unknown"], "decides by durations"),
        (["--report", "/nowhere/at/all.html"], "its folder is not there"),
    ],
)
def test_a_request_that_cannot_be_meant_is_refused(
    baseai: Baseai, folder: Path, words: list[str], sentence: str
) -> None:
    ended = replay(baseai, folder, *words)
    assert (ended.status, ended.out, written(folder)) == (2, "", set())
    assert sentence in ended.err


def test_no_file_takes_the_place_of_another(baseai: Baseai, folder: Path) -> None:
    for words in (["--report", str(folder / "d.csv")], ["--out", str(folder / "w.csv")]):
        ended = replay(baseai, folder, *words)
        assert (ended.status, "cannot be written: it is read, or written already" in ended.err) == (2, True)
    assert (folder / "w.csv").read_text() == WORKLOAD


def test_files_that_are_no_files_are_told(baseai: Baseai, folder: Path) -> None:
    (folder / "torn.csv.gz").write_bytes(gzip.compress(WORKLOAD.encode() * 50)[:-60])
    (folder / "latin.csv").write_bytes(b"node_id,gpus\nn\xe9,4\n")
    for option, file, why in (
        ("--workload", "missing.csv", "No such file"),
        ("--workload", "torn.csv.gz", "the packed file is cut off"),
        ("--workload", "c.csv", "there is no column of this name"),
        ("--cluster", "latin.csv", "this is not UTF-8"),
    ):
        ended = replay(baseai, folder, option, str(folder / file))
        assert (ended.status, file in ended.err, why in ended.err) == (2, True, True), ended.err
    assert "d.csv" not in written(folder)


def test_failures_cost_work_and_a_captured_hall_stands_for_a_cluster(baseai: Baseai, folder: Path) -> None:
    (folder / "f.csv").write_text("node_id,down_s,up_s\nn0,30,40\n")
    told = json.loads(
        replay(baseai, folder, "--policy", "fifo", "--failures", str(folder / "f.csv"), "--json").out
    )
    assert (told["preemptions"], told["work_lost_s"]) == (1, 30)
    hall = Hall([Bay(node_id="n0", model="A", devices=4), Bay(node_id="n1", model="B", devices=4)])
    (folder / "h.npz").write_bytes(captured(hall))
    ended = replay(baseai, folder, "--cluster", str(folder / "h.npz"), "--policy", "fifo")
    assert (ended.status, ended.err) == (0, "")
