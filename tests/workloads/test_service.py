"""What a spec of a service means, and what somebody who wrote a wrong one is told."""

import json
from pathlib import Path
from typing import Any

import pytest

from baseai.workloads.model import ModelSource, model_source_of
from baseai.workloads.service import Batching, CacheTerms, RateLimit, Rollout, Scaling, Service
from baseai.workloads.service_keys import KEYS, SPOKEN
from baseai.workloads.sheet import BadSpec
from baseai.workloads.spec import Retry, RunSpec, spec_of

MAGIKA = "model: pkg:magika:models/standard_v3_3/model.onnx\n"
ONNX, COMMAND, CALLABLE = MAGIKA, "commands: [python serve.py]\n", "model: python:app.py:answer\n"
CHAT = "model: run:gpt\n"


FILES = "\nfiles: [nets, app.py, app]\n"


def read(text: str) -> RunSpec:
    """The spec, with every model of these tests among its files."""
    if "files:" not in text:
        text += FILES
    return spec_of(text, "shop.yaml", lambda recipe, config: None)


def service(text: str) -> Service:
    work = read("type: service\n" + text).work
    assert isinstance(work, Service)
    return work


def told(text: str) -> list[str]:
    """The errors of a service whose third line begins what is wrong, after `shop.yaml:3:`."""
    with pytest.raises(BadSpec) as caught:
        read("type: service\n" + text)
    return [str(error).removeprefix("shop.yaml:3:") for error in caught.value.errors]


def test_a_service_with_nothing_but_a_model() -> None:
    spec = read("type: service\n" + MAGIKA)
    assert (spec.type, spec.name, spec.nodes, spec.max_duration_s) == ("service", "shop", 1, 30 * 86_400)
    assert spec.retry == Retry(on_events=("error", "interruption"), max_attempts=3, duration_s=None)
    assert spec.work == Service(
        engine="onnx",
        model="pkg:magika:models/standard_v3_3/model.onnx",
        model_name="shop",
        protocol="oip",
        cache=CacheTerms(),
    )


@pytest.mark.parametrize(
    ("text", "engine", "protocol"),
    [
        pytest.param("model: nets/resnet.onnx", "onnx", "oip", id="an ONNX file"),
        pytest.param("model: s3://models/resnet.onnx", "onnx", "oip", id="an ONNX file of a bucket"),
        pytest.param("model: run:gpt", "chat", "openai", id="a training run"),
        pytest.param("model: run:export:a.onnx", "onnx", "oip", id="an ONNX file that a run made"),
        pytest.param("model: hf:org/name", "chat", "openai", id="a repository, on the CPU"),
        pytest.param("model: hf:org/name\nresources: {gpu: H100}", "vllm", "openai", id="on an accelerator"),
        pytest.param(
            "model: hf:org/name\nresources: {gpu: cpu-slot:4}", "chat", "openai", id="slots are CPU"
        ),
        pytest.param("model: /models/bert\nengine: embeddings", "embeddings", "openai", id="as written"),
        pytest.param("model: python:app.py:Answer", "callable", "json", id="a callable"),
        pytest.param("commands: [python serve.py]", "command", "json", id="commands"),
        pytest.param("commands: [vllm serve x]\nprotocol: openai", "command", "openai", id="another server"),
        pytest.param("runtime: ray\nmodel: python:app.py:app", "ray", "json", id="Ray Serve"),
        pytest.param("engine: ray\ncommands: [serve run app:app]", "ray", "json", id="Ray Serve by itself"),
    ],
)
def test_model_and_commands_say_which_engine_answers(text: str, engine: str, protocol: str) -> None:
    found = service(text)
    assert (found.engine, found.protocol) == (engine, protocol)


WHOLE = """
engine: callable
model: python:app.py:answer
model_name: answers
license: Apache-2.0
replicas: 0..4
scaling: {metric: requests, target: 20, stable_window: 2m, panic_window: 12s, to_zero_after: 5m,
          scale_down_delay: 30s, warm: 1}
concurrency: 32
batching: {most: 8, wait_ms: 5}
slo: {p99_ms: 100}
cache: {max_age: 1h, size: 128MB}
auth: false
rate_limits: [{per: service, requests: 600, every: 1m}]
balance: session
timeout: 10s
queue_most: 0
max_body: 64KB
rollout: {shares: [0.2, 1], bake: 1m, most_error_ratio: 0, burn: 3}
working_dir: app
"""


def test_every_key_takes_effect() -> None:
    assert service(WHOLE) == Service(
        engine="callable",
        model="python:app.py:answer",
        model_name="answers",
        protocol="json",
        license="Apache-2.0",
        scaling=Scaling(
            least=0, most=4, metric="requests", target=20.0, stable_window_s=120.0, panic_window_s=12.0,
            to_zero_after_s=300.0, scale_down_delay_s=30.0, warm=1,
        ),
        concurrency=32,
        batching=Batching(most=8, wait_ms=5.0),
        p99_ms=100.0,
        cache=CacheTerms(max_age_s=3600.0, most_bytes=128 << 20),
        auth=False,
        rate_limits=(RateLimit(per="service", every_s=60.0, requests=600),),
        balance="session",
        timeout_s=10.0,
        queue_most=0,
        most_body_bytes=64 << 10,
        rollout=Rollout(shares=(0.2, 1.0), bake_s=60.0, most_error_ratio=0.0, burn=3.0),
    )  # fmt: skip
    command = service("commands: [./serve]\nport: 9000\nprobes: {ready: /health}\n")
    assert (command.port, command.ready_path) == (9000, "/health")
    chat = service(CHAT + "max_tokens: 512\ncache: {semantic: 0.95}\nrate_limits: [{tokens: 9, every: 1h}]\n")
    assert (chat.most_tokens, chat.cache) == (512, CacheTerms(semantic=0.95))
    assert chat.rate_limits == (RateLimit(per="key", every_s=3600.0, tokens=9),)


@pytest.mark.parametrize("text", [WHOLE, MAGIKA, COMMAND + "auth: no\n", CHAT + "cache: true\n"])
def test_a_stored_service_is_the_same_service(text: str) -> None:
    spec = read("type: service\n" + text)
    stored = json.loads(json.dumps(spec.to_json()))
    assert RunSpec.from_json(stored) == spec
    stored["work"]["scaling"]["of_a_later_version"] = 1
    assert RunSpec.from_json(stored) == spec


@pytest.mark.parametrize(
    ("replicas", "least", "most"),
    [pytest.param("2", 2, 2, id="a number"), pytest.param("0..4", 0, 4, id="a range"), ("1..1", 1, 1)],
)
def test_replicas(replicas: str, least: int, most: int) -> None:
    scaling = service(f"{MAGIKA}replicas: {replicas}").scaling
    assert (scaling.least, scaling.most) == (least, most)


def test_a_quarter_of_what_a_replica_takes_is_the_target() -> None:
    assert service(MAGIKA + "concurrency: 64").scaling.target == 16.0
    assert service(MAGIKA + "concurrency: 1").scaling.target == 1.0


@pytest.mark.parametrize(
    ("text", "cached"),
    [(ONNX, True), ("model: /bert\nengine: embeddings\n", True), (CHAT, False), (COMMAND, False), (CALLABLE, False)],
)  # fmt: skip
def test_only_answers_that_are_always_the_same_are_kept_unasked(text: str, cached: bool) -> None:
    assert (service(text).cache is not None) == cached
    assert service(text + "cache: true").cache == CacheTerms()
    assert service(text + "cache: false").cache is None


@pytest.mark.parametrize(
    ("lines", "error"),
    [
        pytest.param(ONNX + "nodes: 2", "8: nodes: a replica stands on one node", id="nodes"),
        pytest.param(ONNX + "replicas: 0", "11: replicas: `0` never has a replica", id="no replica ever"),
        pytest.param(ONNX + "replicas: 4..1", "11: replicas: `4..1` is the wrong way round", id="backwards"),
        pytest.param(ONNX + "replicas: many", "11: replicas: `many` is no number of replicas", id="a word"),
        pytest.param(ONNX + "scaling: {}", "10: scaling: decides nothing", id="scaling of a fixed number"),
        pytest.param(ONNX + "port: 80", "7: port: belongs to a service of your own", id="a port of ours"),
        pytest.param(ONNX + "protocol: openai", "11: protocol: there is no protocol `openai` of `engine: onnx`; write "
                     "`oip`", id="a protocol it does not speak"),
        pytest.param(ONNX + "engine: tgi", "9: engine: there is no engine `tgi`", id="an engine nobody has"),
        pytest.param(ONNX + "engine: chat", "", id="an ONNX file for chat"),
        pytest.param("engine: onnx\n" + COMMAND, "11: commands: are not run by `engine: onnx`", id="two things"),
        pytest.param(COMMAND + "batching: {most: 4}", "11: batching: is not for `command`", id="batching"),
        pytest.param(ONNX + "max_tokens: 5", "13: max_tokens: `onnx` counts no tokens", id="tokens of tensors"),
        pytest.param(ONNX + "balance: prefix", "10: balance: `prefix` follows prompts", id="prefixes of tensors"),
        pytest.param(ONNX + "cache: {semantic: 0.9}", "19: cache.semantic: compares texts", id="texts of tensors"),
        pytest.param(ONNX + "cache: {size: 0}", "15: cache.size: keeps nothing", id="an empty cache"),
        pytest.param(ONNX + "model_name: a/b", "13: model_name: `a/b` has a slash", id="a slash in a path"),
        pytest.param(ONNX + "slo: {}", "6: slo: promises nothing", id="an empty promise"),
        pytest.param(ONNX + "auth: maybe", "7: auth: is neither true nor false", id="neither"),
        pytest.param(ONNX + "timeout: 2h", "10: timeout: `2h` is not between 1 and 3600 seconds", id="for hours"),
        pytest.param(ONNX + "max_body: 3", "11: max_body: `3` is not between 1 KB and 1 GB", id="three bytes"),
        pytest.param(ONNX + "max_body: big", "11: max_body: 'big' is not a size", id="no size"),
        pytest.param(ONNX + "rate_limits: 5", "14: rate_limits: needs a list of limits", id="no list"),
        pytest.param(ONNX + "rate_limits: [{per: key}]", "15: rate_limits[0]: needs one of", id="no amount"),
        pytest.param(ONNX + "rate_limits: [{tokens: 4}]", "24: rate_limits[0].tokens: `oip` counts no", id="no tokens"),
        pytest.param(ONNX + "rate_limits: [{requests: 4}, {requests: 5}]", "30: rate_limits[1]: limits what another",
                     id="twice the same"),
        pytest.param(ONNX + "rollout: {shares: [0.5, 0.1, 1]}", "19: rollout.shares: do not rise", id="falling"),
        pytest.param(ONNX + "rollout: {shares: [0.5]}", "19: rollout.shares: do not rise to all", id="half for ever"),
        pytest.param(ONNX + "deadline: 3h", "1: deadline: has no meaning for a service", id="a deadline"),
        pytest.param(ONNX + "recipe: gpt", "1: recipe: belongs to `type: train`", id="a recipe"),
        pytest.param(ONNX + "replics: 2", "1: replics: unknown key; did you mean `replicas`?", id="a slip"),
        pytest.param(COMMAND + "port: 80\nreplicas: 2", "7: port: up to 2 replicas may stand on one", id="one port"),
        pytest.param(COMMAND + "probes: {ready: health}", "17: probes.ready: `health` is no path", id="no path"),
        pytest.param(COMMAND + "env: {PORT: 80}", "6: env: PORT is given to each replica", id="a port of its own"),
        pytest.param("commands: []\n\nport: 1", "", id="no command"),
    ],
)  # fmt: skip
def test_an_error_names_its_place_and_the_fix(lines: str, error: str) -> None:
    errors = told(lines)
    assert any(each.startswith(error) for each in errors)
    assert all("; " in each for each in errors)


@pytest.mark.parametrize(
    ("scaling", "error"),
    [
        pytest.param("to_zero_after: 5m", "has no effect where a replica always stays", id="never at rest"),
        pytest.param("target: 20", "is never reached: a replica is given at most 16", id="beyond concurrency"),
        pytest.param("metric: rps", "there is no metric `rps` to scale by; write `concurrency`", id="rps"),
        pytest.param("metric: requests", "needs a target", id="how many requests"),
        pytest.param("panic_window: 2m", "is longer than the stable window of 60 s", id="windows"),
        pytest.param("warm: 9", "is more than the 4 replicas there may be", id="more warm than may be"),
        pytest.param("target: 0", "`0` is not a number from above 0", id="a target of nothing"),
    ],
)  # fmt: skip
def test_scaling_that_could_not_be_meant(scaling: str, error: str) -> None:
    (only,) = told(f"{MAGIKA}replicas: 1..4\nscaling: {{{scaling}}}")
    assert error in only


def test_without_keys_nothing_is_limited_by_key() -> None:
    (error,) = told(ONNX + "auth: no\nrate_limits: [{per: key, requests: 5}]")
    assert "there are no keys where `auth` is false; write `per: service`" in error


def test_something_must_answer() -> None:
    (error,) = told("name: nothing\n")
    assert error.endswith(
        "model: a service needs something that answers; write `model: …`, or `commands:` that open a port at $PORT"
    )


@pytest.mark.parametrize(
    ("text", "error"),
    [
        pytest.param("model: a.onnx\nfiles: [b.onnx]", "`a.onnx` is not among `files`; bring it", id="not"),
        pytest.param("model: nets/a.onnx\nfiles: [nets]", None, id="in a folder"),
        pytest.param("model: bert\nengine: chat\nfiles: [bert/config.json]", None, id="a folder in parts"),
        pytest.param("model: python:app.py:f\nfiles: [app.py]\nworking_dir: src", "`src/app.py` is not", id="else"),
        pytest.param("model: python:app.py:f\nfiles: [app.py:src/app.py]\nworking_dir: src", None, id="there"),
        pytest.param("model: /srv/a.onnx\nfiles: [b]", None, id="on the node already"),
    ],
)  # fmt: skip
def test_a_model_in_the_run_s_folder_must_be_brought_there(text: str, error: str | None) -> None:
    if error is None:
        read("type: service\n" + text)
        return
    (only,) = told(text)
    assert error in only


def test_a_wrong_model_hides_no_other_error() -> None:
    assert len(told("model: torch://x\nreplicas: 0\nauth: perhaps\ntimeout: never\n")) == 4


@pytest.mark.parametrize(
    ("written", "source"),
    [
        ("run:gpt", {"kind": "run", "place": "gpt"}),
        ("run:export:nets/a.onnx", {"kind": "run", "place": "export", "inside": "nets/a.onnx"}),
        ("models/a.onnx", {"kind": "path", "place": "models/a.onnx"}),
        ("/srv/models/a", {"kind": "path", "place": "/srv/models/a"}),
        ("s3://bucket/a/b.onnx", {"kind": "s3", "place": "s3://bucket/a/b.onnx"}),
        ("hf:org/name@v1.2", {"kind": "hf", "place": "org/name", "revision": "v1.2"}),
        ("pkg:magika:models/m.onnx", {"kind": "pkg", "place": "magika", "inside": "models/m.onnx"}),
        ("python:src/app.py:app.run", {"kind": "python", "place": "src/app.py", "inside": "app.run"}),
        (f"a.onnx#sha256={'0a' * 32}", {"kind": "path", "place": "a.onnx", "sha256": "0a" * 32}),
    ],
)
def test_a_model_says_where_it_comes_from(written: str, source: dict[str, Any]) -> None:
    assert model_source_of(written) == ModelSource(**source)
    assert model_source_of(written).written == written


@pytest.mark.parametrize(
    "written",
    ["", "run:", "run:a b", "run:a:../b", "hf:name", "hf:a/b/c", "pkg:magika", "pkg:magika:../x", "pkg:magika:/x",
     "python:app:f", "python:app.py:", "python:../app.py:f", "s3://bucket", "../model.onnx", "~/model.onnx",
     "gs://b/k", "model:latest",
     "a.onnx#sha256=12"],
)  # fmt: skip
def test_what_names_no_model_is_refused_with_what_to_write(written: str) -> None:
    with pytest.raises(ValueError, match="; "):
        model_source_of(written)


PAGE = Path(__file__).parents[2] / "docs" / "services.md"


@pytest.mark.parametrize("key", [*KEYS, *(f"scaling.{name}" for name in ("metric", "target", "warm"))])
def test_every_key_has_its_row_on_the_page(key: str) -> None:
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert any(row.startswith((f"| `{key}`", f"| `{key}.")) for row in rows)


def test_every_engine_and_every_form_of_a_model_is_on_the_page() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert all(f"`{engine}`" in page for engine in SPOKEN)
    assert all(f"`{form}" in page for form in ("run:", "s3://", "hf:", "pkg:", "python:"))


def test_what_the_page_says_of_keys_that_are_left_out_is_so() -> None:
    left_out = service(COMMAND)
    assert (left_out.scaling.stable_window_s, left_out.scaling.panic_window_s) == (60.0, 6.0)
    assert (left_out.scaling.to_zero_after_s, left_out.scaling.scale_down_delay_s) == (30.0, 0.0)
    assert (left_out.timeout_s, left_out.queue_most, left_out.most_body_bytes) == (60.0, 200, 8 << 20)
    assert left_out.rollout == Rollout(shares=(0.1, 0.5, 1.0), bake_s=30.0, most_error_ratio=0.02, burn=2.0)
    assert service(COMMAND + "cache: true").cache == CacheTerms(max_age_s=600.0, most_bytes=64 << 20)
    assert service(CALLABLE + "batching: true").batching == Batching(most=16, wait_ms=2.0)
