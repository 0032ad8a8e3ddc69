"""A neutral file is read whole or refused with file, line and field, and what is written is read back."""

import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baseai.scheduling.gang import Gang, Shape
from baseai.scheduling.hall import Bay, Hall
from baseai.twin.neutral import (
    BadRow,
    Submission,
    bays_of,
    cluster_lines,
    outages_of,
    second_text,
    submissions_of,
    workload_lines,
)

CLUSTER = "node_id,gpu_model,gpus,cpu_milli,mem_mib\na,A,4,8000,100\nb,B,2,,\n"
HEAD = "job_id,submit_s,duration_s,pods,gpu_milli,cpu_milli,mem_mib,gpu_models,group,duration_by_model\n"


def cluster(text: str = CLUSTER) -> Hall:
    return Hall(bays_of(text.splitlines(keepends=True), "c.csv"))


def workload(rows: str, *, with_durations: bool = True) -> tuple[Submission, ...]:
    return submissions_of(
        (HEAD + rows).splitlines(keepends=True), "w.csv", cluster(), with_durations=with_durations
    )


def test_a_cluster_and_a_workload_are_read() -> None:
    assert [(one.node_id, one.model, one.devices, one.cpu_milli) for one in cluster().bays] == [
        ("a", "A", 4, 8000),
        ("b", "B", 2, None),
    ]
    late, early = workload("x,10,5,2,2000,100,10.2,A|B,team,\ny,0.5,,1,500,,,,,A=7|B=3\n")[::-1]
    assert (early.gang.run_id, early.gang.number, early.work_s("A"), early.work_s("Z")) == (
        "y",
        0,
        7.0,
        float("inf"),
    )
    assert early.gang.shape == Shape(milli=500, models=("B", "A"), one_model=True)  # the fastest first
    assert late.gang.shape == Shape(pods=2, milli=2000, cpu_milli=100, memory_mib=11, models=("A", "B"))
    assert (late.gang.group, late.work_s("A"), late.work_s("B")) == ("team", 5.0, 5.0)


@pytest.mark.parametrize(
    ("row", "field", "why"),
    [
        pytest.param("x,0,5,1,1000,,,,,\nx,1,5,1,1000,,,,,", "job_id", "stands on line 2 already", id="twice"),
        pytest.param(",0,5,1,1000,,,,,", "job_id", "is empty", id="without a name"),
        pytest.param("x,,5,1,1000,,,,,", "submit_s", "is empty", id="never submitted"),
        pytest.param("x,soon,5,1,1000,,,,,", "submit_s", "'soon' is not a number", id="a word for a number"),
        pytest.param("x,nan,5,1,1000,,,,,", "submit_s", "nan is not a number", id="not a number"),
        pytest.param("x,0,-5,1,1000,,,,,", "duration_s", "-5 is not", id="a negative duration"),
        pytest.param("x,0,inf,1,1000,,,,,", "duration_s", "inf is not", id="an endless duration"),
        pytest.param("x,0,,1,1000,,,,,", "duration_s", "is empty", id="no duration"),
        pytest.param("x,0,5,0,1000,,,,,", "pods", "at least one", id="no pod"),
        pytest.param("x,0,5,1.5,1000,,,,,", "pods", "not a whole number", id="half a pod"),
        pytest.param("x,0,5,1,1500,,,,,", "gpu_milli", "neither a share", id="one and a half accelerators"),
        pytest.param("x,0,5,1,5000,,,,,", "gpu_milli", "fits nowhere", id="more than any node has"),
        pytest.param("x,0,5,4,2000,,,,,", "pods", "fits nowhere", id="more pods than there is room for"),
        pytest.param("x,0,5,1,1000,,101,A,,", "mem_mib", "fits nowhere", id="more memory than such a node has"),
        pytest.param("x,0,5,1,1000,,,C,,", "gpu_models", "fits nowhere", id="a model nobody has"),
        pytest.param("x,0,5,2,2000,9000,,,,", "pods", "fits nowhere", id="cores of one node only"),
        pytest.param("x,0,5,1,1000,,,,,A:7", "duration_by_model", "'A:7' is not MODEL=SECONDS", id="no equals sign"),
        pytest.param("x,0,5,1,1000,,,A,,B=7", "duration_by_model", "no model of gpu_models", id="on no allowed one"),
        pytest.param("x,0,5,1,1000,,,,", "duration_by_model", "9 cells instead of 10", id="a cell too few"),
        pytest.param('x,0,5,1,1000,,,"A,,', "job_id", "this is no CSV", id="an open quote"),
    ],
)  # fmt: skip
def test_a_bad_row_is_named_with_file_line_and_field(row: str, field: str, why: str) -> None:
    with pytest.raises(BadRow) as refused:
        workload(row + "\n")
    wrong = refused.value
    assert (wrong.file, wrong.line, wrong.field) == ("w.csv", 2 + row.count("\n"), field)
    assert why in wrong.why
    assert str(wrong).startswith(f"w.csv, line {wrong.line}, {field}: ")
    assert str(pickle.loads(pickle.dumps(wrong))) == str(wrong)


@pytest.mark.parametrize(
    ("text", "line", "field"),
    [
        pytest.param("", 1, "node_id", id="nothing"),
        pytest.param("node_id,gpus\n", 1, "node_id", id="no node"),
        pytest.param("name,gpus\na,4\n", 1, "node_id", id="another name for the column"),
        pytest.param("node_id,gpus,gpus\na,4,4\n", 1, "gpus", id="a column twice"),
        pytest.param("node_id,gpus\na,4\na,2\n", 3, "node_id", id="a node twice"),
        pytest.param("node_id,gpus\na,many\n", 2, "gpus", id="no number of accelerators"),
        pytest.param("node_id,gpus,gpu_model\na,4,A|B\n", 2, "gpu_model", id="two models on a node"),
    ],
)  # fmt: skip
def test_a_bad_cluster_is_named_too(text: str, line: int, field: str) -> None:
    with pytest.raises(BadRow) as refused:
        cluster(text)
    assert (refused.value.line, refused.value.field) == (line, field)


def test_packing_needs_no_durations_and_foreign_columns_are_passed_over() -> None:
    [one] = workload("x,0,,1,1000,,,,,\n", with_durations=False)
    assert one.work_s("A") == float("inf")
    lines = ["\ufeffcolour,job_id,submit_s,gpu_milli\n", "red,x,0,1000\n", "\n"]
    assert len(submissions_of(lines, "w", cluster(), with_durations=False)) == 1


def test_outages_are_of_known_nodes_and_do_not_overlap() -> None:
    head = "node_id,down_s,up_s\n"
    assert outages_of([head, "a,5,9\n", "a,9,10\n"], "f", cluster())[0].down_s == 5
    for row, field in (("z,1,2\n", "node_id"), ("a,5,5\n", "up_s"), ("a,6,8\n", "down_s")):
        with pytest.raises(BadRow) as refused:
            outages_of([head, "a,5,9\n", row], "f", cluster())
        assert (refused.value.line, refused.value.field) == (3, field)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0"), (12.0, "12"), (0.1 + 0.2, "0.3"), (1e7 + 0.25, "10000000.25"), (float("inf"), "")],
)
def test_seconds_are_written_to_the_microsecond(seconds: float, text: str) -> None:
    assert second_text(seconds) == text


def is_name(text: str) -> bool:
    return text == text.strip() and text.isprintable() and not set("|=;") & set(text)


letters = st.characters(
    codec="utf-8", exclude_categories=("C", "Z"), include_characters=" ", exclude_characters="|=;"
)
names = st.text(letters, min_size=1, max_size=8).filter(is_name)
nodes_written = st.lists(
    st.tuples(names, st.integers(1, 8), st.one_of(st.none(), st.integers(0, 10**9))),
    min_size=1,
    max_size=5,
    unique_by=lambda node: node[0],
)
runs_written = st.lists(
    st.tuples(names, st.integers(0, 10**8), st.integers(0, 1000)), max_size=8, unique_by=lambda run: run[0]
)


@settings(max_examples=60, deadline=None)
@given(nodes=nodes_written, runs=runs_written)
def test_what_is_written_is_read_back(
    nodes: list[tuple[str, int, int | None]], runs: list[tuple[str, int, int]]
) -> None:
    bays = tuple(
        Bay(node_id=name, model="A", devices=count, cpu_milli=cpu, leaf="l") for name, count, cpu in nodes
    )
    hall = Hall(bays)
    assert Hall(bays_of(list(cluster_lines(bays)), "c")).bays == hall.bays
    submissions = tuple(
        Submission(
            gang=Gang(
                run_id=name, number=number, shape=Shape(milli=milli), submit_s=micros / 1e6, group=name
            ),
            duration_s=micros / 1e6,
            by_model={},
        )
        for number, (name, micros, milli) in enumerate(sorted(runs, key=lambda run: run[1]))
    )
    assert submissions_of(list(workload_lines(submissions)), "w", hall, with_durations=True) == submissions
