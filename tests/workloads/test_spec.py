"""What a spec means, and what somebody who wrote a wrong one is told."""

import contextlib
import json
import pickle
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baseai.ground.identity import NodeId
from baseai.workloads.burn import BurnIn
from baseai.workloads.sheet import BYTES_MOST, BadSpec
from baseai.workloads.spec import (
    KINDS_LATER,
    REFUSED,
    TASK_KEYS,
    AcceleratorAsk,
    Cores,
    FileMount,
    Retry,
    RunSpec,
    accelerator_ask,
    burn_in_spec,
    spec_of,
)
from baseai.workloads.task import Task
from baseai.workloads.train import Train


class Objection(ValueError):
    """What a recipe says of a config it does not take."""

    def __init__(self, key: str | None, problem: str) -> None:
        super().__init__(f"{problem}; write it like the others")
        self.key = key


def layers_and_steps(recipe: str, config: Mapping[str, Any]) -> None:
    """A recipe `gpt` with whole `layers` and `steps`."""
    if recipe != "gpt":
        raise Objection(None, f"there is no recipe {recipe}")
    for key, value in config.items():
        if key not in ("layers", "steps"):
            raise Objection(key, "unknown key")
        if not isinstance(value, int):
            raise Objection(key, f"{value!r} is not whole")


def read(text: str, file: str = "run.yaml") -> RunSpec:
    return spec_of(text, file, layers_and_steps)


def task(lines: str = "") -> RunSpec:
    return read(f"type: task\ncommands: [python main.py]\n{lines}")


def told(text: str) -> list[str]:
    with pytest.raises(BadSpec) as caught:
        read(text)
    return [str(error) for error in caught.value.errors]


def told_of_task(lines: str) -> list[str]:
    """The errors of a task whose third line begins `lines`."""
    return told(f"type: task\ncommands: [python main.py]\n{lines}\n")


def test_a_python_that_nobody_would_start_is_refused() -> None:
    [error] = told_of_task('python: "3.12"')
    assert error.startswith(
        "run.yaml:3:1: python: is not offered by this version, which starts what the node has"
    )


def test_a_task_with_nothing_but_a_command() -> None:
    spec = task()
    assert spec.name == "run"
    assert spec.work == Task(commands=("python main.py",))
    assert (spec.nodes, spec.priority, spec.max_duration_s, spec.queue) == (1, 50, 86_400, "default")
    assert spec.retry == Retry(on_events=("interruption",), max_attempts=1, duration_s=None)
    assert spec.image is None


def test_a_train_with_nothing_but_its_type() -> None:
    spec = read("type: train\n", "examples/Train GPT.yaml")
    assert spec.name == "train-gpt"
    assert spec.work == Train(recipe="gpt", config={}, workers=None, parallel="ddp", checkpoint_every="auto")
    assert spec.retry == Retry(on_events=("error", "interruption"), max_attempts=3, duration_s=None)


WHOLE_TASK = """
type: task
name: everything
nodes: 2
commands:
  - pip install -r requirements.txt
  - python main.py --lr 1e-3
env: {DEBUG: on, VERSION: 3.10, EMPTY: ""}
files: [main.py, "../shared/data:data"]
secrets: [HF_TOKEN]
working_dir: src
image: pytorch/pytorch:2.9.0
resources: {gpu: ["H100:80GB:4..8", "A100:8"], cpu: 16, memory: 128GB.., disk: 1TB}
queue: default
priority: 80
max_duration: 2d
min_runtime: 10m
retry: {on_events: [error], max_attempts: 5, duration: 12h}
cost_center: research/llm
data_residency: [br, SP4]
site: SP4
"""

WHOLE_TRAIN = """
type: train
recipe: gpt
config: {steps: 300, layers: 4}
resources: {gpu: {name: H100, memory: 80GB, count: 8}}
workers: 4
parallel: fsdp2
checkpoint_every: {steps: 100}
retry: false
"""


def test_every_key_of_a_task_takes_effect() -> None:
    spec = read(WHOLE_TASK)
    assert spec.env == (("DEBUG", "on"), ("VERSION", "3.10"), ("EMPTY", ""))
    assert spec.files == (
        FileMount(local="main.py", remote="main.py"),
        FileMount(local="../shared/data", remote="data"),
    )
    assert spec.secrets == ("HF_TOKEN",)
    assert (spec.working_dir, spec.image) == ("src", "pytorch/pytorch:2.9.0")
    assert [(ask.name, ask.count_least, ask.count_most) for ask in spec.resources.gpu] == [
        ("H100", 4, 8),
        ("A100", 8, 8),
    ]
    assert spec.resources.cpu == Cores(least=16, most=16)
    assert (spec.resources.memory_mib, spec.resources.disk_mib) == (128 << 10, 1 << 20)
    assert (spec.nodes, spec.priority, spec.max_duration_s, spec.min_runtime_s) == (2, 80, 172_800, 600)
    assert spec.retry == Retry(on_events=("error",), max_attempts=5, duration_s=43_200)
    assert (spec.cost_center, spec.data_residency, spec.site) == ("research/llm", ("BR", "SP4"), "SP4")


def test_every_key_of_a_train_takes_effect() -> None:
    spec = read(WHOLE_TRAIN)
    assert spec.work == Train(
        recipe="gpt",
        config={"steps": 300, "layers": 4},
        workers=4,
        parallel="fsdp2",
        checkpoint_every=("steps", 100),
    )
    assert spec.retry == Retry(on_events=(), max_attempts=1, duration_s=None)


@pytest.mark.parametrize("text", [WHOLE_TASK, WHOLE_TRAIN, "type: train\ncheckpoint_every: 5m\n"])
def test_what_is_stored_comes_back_equal(text: str) -> None:
    spec = read(text)
    assert RunSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_the_config_a_recipe_completes_is_what_is_kept() -> None:
    spec = spec_of(
        "type: train\nconfig: {steps: 3}\n", "t.yaml", lambda recipe, config: {**config, "layers": 4}
    )
    assert isinstance(spec.work, Train)
    assert spec.work.config == {"steps": 3, "layers": 4}


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("H100:80GB:8", ("H100", 80, 80, 8, 8)),
        ("8:H100", ("H100", None, None, 8, 8)),
        ("24GB..:2", (None, 24, None, 2, 2)),
        ("..48GB", (None, None, 48, 1, 1)),
        ("40GB..80GB:1..4", (None, 40, 80, 1, 4)),
        ("A100", ("A100", None, None, 1, 1)),
        ("cpu-slot:2", ("cpu-slot", None, None, 2, 2)),
    ],
)
def test_gpu_shorthand(written: str, expected: tuple[str | None, int | None, int | None, int, int]) -> None:
    name, least_gib, most_gib, least, most = expected
    assert accelerator_ask(written) == AcceleratorAsk(
        text=written,
        name=name,
        memory_gib_least=least_gib,
        memory_gib_most=most_gib,
        count_least=least,
        count_most=most,
    )


@pytest.mark.parametrize(
    "written",
    [
        "",
        ":",
        "H100:A100",
        "H100:2:3",
        "H100:0",
        "H100:8..2",
        "H100:2..",
        "H100:80GB:40GB",
        "cpu-slot:16GB",
        "80GB..40GB",
        "H100:x y:!",
    ],
)
def test_gpu_shorthand_that_means_nothing(written: str) -> None:
    with pytest.raises(ValueError, match=";"):
        accelerator_ask(written)


@pytest.mark.parametrize(
    ("lines", "error"),
    [
        ("comands: [x]", "run.yaml:3:1: comands: unknown key; did you mean `commands`?"),
        ("resources: {gpus: 1}", "run.yaml:3:13: resources.gpus: unknown key; did you mean `gpu`?"),
        (
            "retry: {on_event: [error]}",
            "run.yaml:3:9: retry.on_event: unknown key; did you mean `on_events`?",
        ),
        (
            "priority: 101",
            "run.yaml:3:11: priority: 101 is not a whole number from 0 to 100; write `priority: 100`",
        ),
        ("nodes: two", "run.yaml:3:8: nodes: 'two' is not a whole number from 1 to 4096; write `nodes: 1`"),
        ("nodes: 1\nnodes: 2", "run.yaml:4:1: nodes: stands twice, first on line 3; keep one of them"),
        (
            "resources: {memory: lots}",
            "run.yaml:3:21: resources.memory: 'lots' is not an amount of memory; write it like 16GB or 512MB",
        ),
        (
            "resources: {memory: 1GB..2GB}",
            "run.yaml:3:21: resources.memory: `1GB..2GB` has an upper bound, which has no meaning here; write `1GB`",
        ),
        (
            "max_duration: soon",
            "run.yaml:3:15: max_duration: 'soon' is not a duration; write it like 30m, 1h30m or 2d",
        ),
        (
            "name: My_Run",
            "run.yaml:3:7: name: `My_Run` is not a name; use 1 to 63 of a-z, 0-9 and -, no - at the ends",
        ),
        (
            "queue: Fast_One",
            "run.yaml:3:8: queue: `Fast_One` is not a name; use 1 to 63 of a-z, 0-9 and -, no - at the ends",
        ),
        ("spot: often", "run.yaml:3:7: spot: is neither true nor false; write `spot: true`, or leave it out"),
        (
            "deadline: tomorrow",
            "run.yaml:3:11: deadline: `tomorrow` is no duration and no instant; write 12h or 2026-12-01T18:00-03:00",
        ),
        (
            "topology: {required: rack}",
            "run.yaml:3:22: topology.required: `rack` is no reach of the network; write leaf, pod or site",
        ),
        (
            "topology: {required: leaf, preferred: pod}",
            "run.yaml:3:39: topology.preferred: `pod` is no narrower than `required: leaf`; leave it out",
        ),
        ("env: [A]", "run.yaml:3:7: env: `A` gives no value; write `A=…`, or name it in `secrets`"),
        (
            "env: {CUDA_VISIBLE_DEVICES: 0}",
            "run.yaml:3:29: env.CUDA_VISIBLE_DEVICES: is set by the platform; leave it out",
        ),
        (
            "env: {TOKEN: x}\nsecrets: [TOKEN]",
            "run.yaml:4:11: secrets.TOKEN: is given already; keep one of them",
        ),
        (
            "secrets: [TOKEN=abc]",
            "run.yaml:3:11: secrets: is not the name of a secret; write only its name here; `baseai secret set` takes the value",  # noqa: E501
        ),
        (
            "files: [/etc/passwd]",
            "run.yaml:3:9: files: `/etc/passwd` does not say where it goes; write `/etc/passwd:passwd`",
        ),
        (
            "files: ['a:../b']",
            "run.yaml:3:9: files: `../b` lies outside the run's folder; write a path relative to it",
        ),
        (
            "files: ['a:x', 'b:x']",
            "run.yaml:3:16: files: two files go to `x`; write `local:remote` with another remote",
        ),
        (
            "recipe: gpt",
            "run.yaml:3:1: recipe: belongs to `type: train`; leave it out, or write `type: train`",
        ),
        (
            "replicas: 2",
            "run.yaml:3:1: replicas: belongs to `type: service`; leave it out, or write `type: service`",
        ),
        ("<<: {a: b}", "run.yaml:3:1: <<: merge keys are not taken; write the keys out"),
        ("site:", "run.yaml:3:6: site: needs one value; write `site: …`"),
        (
            "resources: {cpu: 2, gpu: cpu-slot:2}",
            "run.yaml:3:18: resources.cpu: CPU slots are the cores; ask for them in `cpu` or in `gpu`, not in both",
        ),
    ],
)
def test_an_error_names_file_line_key_and_fix(lines: str, error: str) -> None:
    assert told_of_task(lines) == [error]


def test_an_unknown_key_near_one_that_is_refused_says_both() -> None:
    (error,) = told_of_task("shedule: daily")
    assert error == (
        "run.yaml:3:1: shedule: unknown key; did you mean `schedule`? It is not offered by this version; leave it out "
        "and submit the run when it shall start"
    )


@pytest.mark.parametrize("key", sorted(REFUSED))
def test_no_known_key_is_silently_left_aside(key: str) -> None:
    assert key not in TASK_KEYS
    (error,) = told_of_task(f"{key}: 1")
    assert error.startswith(f"run.yaml:3:1: {key}: ")
    assert "; " in error


@pytest.mark.parametrize("kind", KINDS_LATER)
def test_a_type_that_comes_later_is_said_to(kind: str) -> None:
    (error,) = told(f"type: {kind}\n")
    assert error.startswith(
        f"run.yaml:1:7: type: `{kind}` is not yet offered by this version; write `type: task` or "
    )


def test_all_errors_are_found_in_the_order_of_the_file() -> None:
    text = "type: train\nconfig: {stps: 3, layers: many, steps: 4}\npriority: high\nresources:\n  gpu: H100:lots!\n"
    assert [error.split(" ")[0] for error in told(text)] == [
        "run.yaml:2:10:",
        "run.yaml:2:19:",
        "run.yaml:3:11:",
        "run.yaml:5:8:",
    ]


def test_an_unknown_recipe_is_told_where_it_stands() -> None:
    assert told("type: train\nrecipe: gpd\n") == [
        "run.yaml:2:9: recipe: there is no recipe gpd; write it like the others"
    ]


def test_a_worker_needs_an_accelerator() -> None:
    (error,) = told("type: train\nresources: {gpu: cpu-slot:2}\nworkers: 4\n")
    assert error.startswith(
        "run.yaml:3:10: workers: 4 workers need an accelerator each, and a node may have 2"
    )


def test_a_bug_in_a_recipe_does_not_pass_for_a_wrong_spec() -> None:
    def broken(recipe: str, config: Mapping[str, Any]) -> None:
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        spec_of("type: train\n", "t.yaml", broken)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("", "is not a spec", id="empty"),
        pytest.param("- a\n- b\n", "is not a spec", id="a list"),
        pytest.param("type: [task\n", "is not YAML", id="unclosed"),
        pytest.param("type: task\n---\ntype: task\n", "is not YAML", id="two documents"),
        pytest.param("type: task\x00", "is not YAML", id="a control character"),
        pytest.param("x: " + "[" * 40 + "]" * 40, "is nested more than", id="deep"),
        pytest.param("x: " + "[" * 200_000, "is nested more than", id="very deep"),
        pytest.param("#" * (BYTES_MOST + 1), "is larger than 1 MiB", id="large"),
        pytest.param(
            "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n"
            + "".join(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10)),
            "holds more than",
            id="a billion laughs",
        ),
        pytest.param("a: &a [*a]\n", "holds more than", id="a list in itself"),
    ],
)
def test_what_is_no_spec_at_all_is_refused_at_once(text: str, says: str) -> None:
    (error,) = told(text)
    assert says in error


def test_aliases_in_reason_are_taken() -> None:
    assert task("env: {A: &a one, B: *a}").env == (("A", "one"), ("B", "one"))


def test_tags_build_nothing() -> None:
    (error,) = told_of_task("env: {A: !!python/object/apply:os.system [exit]}")
    assert error == "run.yaml:3:10: env.A: needs one value; write `A: …`"


def test_errors_survive_pickling() -> None:
    with pytest.raises(BadSpec) as caught:
        read("type: nothing\nnodes: 0\n")
    assert pickle.loads(pickle.dumps(caught.value)).errors == caught.value.errors


YAML_ISH = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=8), below, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from([*TASK_KEYS, "recipe", "config", "workers", "checkpoint_every"]), YAML_ISH
    )
)
def test_whatever_stands_there_is_taken_or_refused_never_a_bug(values: dict[str, Any]) -> None:
    for kind in ("task", "train"):
        with contextlib.suppress(BadSpec):
            read(json.dumps({"commands": ["true"], **values, "type": kind}))


def test_a_stored_spec_with_keys_of_another_version_stays_readable() -> None:
    spec = spec_of("type: task\ncommands: [ls]\n", "old.yaml", lambda recipe, config: None)
    assert RunSpec.from_json({**spec.to_json(), "of_another_version": 1}) == spec


def test_a_burn_in_is_the_platform_s_own_and_cannot_be_written() -> None:
    with pytest.raises(BadSpec, match="there is no type `burn_in`"):
        spec_of("type: burn_in\nname: mine\n", "spec.yaml", layers_and_steps)


def test_a_burn_in_comes_back_from_what_is_stored() -> None:
    work = BurnIn(node_id=NodeId("nod_1"), model="H100-SXM", accelerators=8, profile="soak")
    spec = burn_in_spec("burn-in-gpu-07", work, max_duration_s=600)
    assert RunSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    assert (spec.type, spec.asked_text, spec.priority) == ("burn_in", "H100-SXM:8", 0)
