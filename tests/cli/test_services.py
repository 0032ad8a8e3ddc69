"""Services on the terminal: applied like runs, listed, explained, steered, and called through the gateway."""

import json
import re
from pathlib import Path

import pytest

from baseai.cli.calling import spoken_of
from baseai.cli.serving import outcome_of, progress_lines
from tests.cli.conftest import Baseai
from tests.cli.loopback import Loopback, run_of
from tests.cli.serving import detail_of, replica_of, service_of, version_of

SPEC = "type: service\nname: chat\nmodel: run:train-gpt\nengine: chat\n"


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "chat.yaml"
    path.write_text(SPEC)
    return path


def cells(line: str) -> list[str]:
    return re.split(r" {2,}", line.strip())


# ---- apply


def test_one_apply_takes_a_service_as_it_takes_a_run(platform: Loopback, baseai: Baseai, spec: Path) -> None:
    done = baseai("apply", "-f", str(spec))
    assert done.status == 0
    assert (platform.state.serving.specs, platform.state.runs) == (["chat"], {})
    assert done.out.splitlines() == [
        "chat was created (svc_chat)",
        "kind      service",
        "engine    chat, openai",
        "model     run:train-gpt, called chat",
        "replicas  0..4, each cpu-slot:1",
        "price     USD 0.0408 an hour at list price for each replica",
        "address   http://127.0.0.1:1/s/svc_chat",
        f"page      {platform.url}/services/svc_chat",
        "",
        "call it with a key in BASEAI_KEY:",
        "  curl x",
    ]


def test_a_dry_run_of_a_service_makes_nothing(platform: Loopback, baseai: Baseai, spec: Path) -> None:
    done = baseai("apply", "-f", str(spec), "--dry-run")
    assert done.out.startswith("chat would be created or changed; nothing was\n")
    assert platform.state.serving.specs == []


@pytest.mark.parametrize(
    ("facts", "sentence"),
    [
        (
            {"made": False, "rolling": True, "version_no": 2},
            "chat: version 2 takes over from version 1, step by step",
        ),
        ({"made": False}, "chat: nothing changed, version 1 is what the spec says"),
    ],
)
def test_a_spec_of_a_service_that_is_there_says_what_it_came_to(
    facts: dict[str, object], sentence: str, platform: Loopback, baseai: Baseai, spec: Path
) -> None:
    serving = platform.state.serving
    serving.applied = serving.applied.model_copy(update=facts)
    assert baseai("apply", "-f", str(spec)).out.splitlines()[0] == sentence


def test_a_service_is_followed_until_it_serves(platform: Loopback, baseai: Baseai, spec: Path) -> None:
    starting = service_of(state="starting", wanted=1, ready=0)
    queued = replica_of(
        state="starting", run_state="queued", waits="first in the queue, waits for 1 accelerator"
    )
    platform.state.serving.coming = [
        detail_of(service_of(state="idle", wanted=0, ready=0, least=1), replicas=[]),
        detail_of(starting, replicas=[queued]),
        detail_of(starting, replicas=[replica_of(state="starting")]),
        detail_of(service_of(wanted=1, ready=1)),
    ]
    done = baseai("apply", "-f", str(spec), "--follow")
    assert done.status == 0
    assert done.err.splitlines() == [
        "chat: idle, 0 of 0 ready (it rests until the first request)",
        "chat: starting, 0 of 1 ready",
        "chat-1: waits in the queue: first in the queue, waits for 1 accelerator",
        "chat-1: gets ready on n1",
        "chat: serving, 1 of 1 ready",
    ]


def test_following_ends_badly_where_no_replica_comes_up(
    platform: Loopback, baseai: Baseai, spec: Path
) -> None:
    failing = service_of(state="failing", ready=0, sentence="the model has no file model.onnx")
    platform.state.serving.coming = [detail_of(failing)]
    done = baseai("apply", "-f", str(spec), "--follow", "--json")
    assert done.status == 1
    assert json.loads(done.out)["service"]["state"] == "failing"
    assert "the model has no file model.onnx" in done.err


@pytest.mark.parametrize(
    ("service", "states", "outcome"),
    [
        pytest.param({}, ("current", "retired"), 0, id="it has taken over"),
        pytest.param({}, ("candidate", "current"), None, id="it is on its way"),
        pytest.param({}, ("rolled_back", "current"), 1, id="it was taken back"),
        pytest.param({"ready": 1}, ("current", "retired"), None, id="one replica is missing"),
        pytest.param({"state": "idle", "wanted": 0, "ready": 0}, ("current", "retired"), 0, id="it rests"),
        pytest.param(
            {"state": "idle", "wanted": 0, "ready": 0, "least": 1},
            ("current", "retired"),
            None,
            id="it will wake",
        ),
        pytest.param({"state": "stopped"}, ("current", "retired"), 1, id="somebody stopped it"),
    ],
)
def test_what_following_ends_with(
    service: dict[str, object], states: tuple[str, str], outcome: int | None
) -> None:
    versions = [version_of(number, state=state) for number, state in zip((2, 1), states, strict=True)]
    assert outcome_of(detail_of(service_of(**service), versions=versions), 2) == outcome


def test_a_version_that_was_taken_back_says_why() -> None:
    versions = [version_of(2, state="rolled_back", sentence="12% of requests failed"), version_of()]
    assert "chat: version 2 was taken back: 12% of requests failed" in list(
        progress_lines(detail_of(versions=versions))
    )


# ---- looking


def test_services_are_listed_with_replicas_and_load(platform: Loopback, baseai: Baseai) -> None:
    platform.state.serving.services = [
        service_of(candidate_no=2, candidate_share=0.1),
        service_of("magika", state="idle", ready=0, wanted=0, least=2, most=2, error_ratio=None),
    ]
    done = baseai("service", "ls")
    head, first, second = done.out.splitlines()
    assert cells(head) == [
        "NAME", "STATE", "VERSION", "READY", "BOUNDS", "REQUESTS/S", "ERRORS", "ENGINE", "AGE", "URL",
    ]  # fmt: skip
    assert cells(first)[:8] == ["chat", "serving", "1→2 10%", "2/2", "0..4", "12.5", "0.10%", "chat"]
    assert cells(second)[:7] == ["magika", "idle", "1", "0/0", "2", "12.5", "-"]
    assert len(json.loads(baseai("service", "ls", "--json").out)["items"]) == 2
    platform.state.serving.services = []
    assert baseai("service", "ls").err == "no services; --all shows those that were stopped\n"


def test_a_service_is_shown_with_why_it_has_as_many_replicas(platform: Loopback, baseai: Baseai) -> None:
    shown = baseai("service", "show", "chat").out
    assert "replicas  2 of 2 ready; between 0 and 4\n" in shown
    assert "why       6.0 requests under way, 4 a replica\n" in shown
    assert (
        "p99 below 100 ms: kept over the last hour, p99 81.2 ms, 0.4 times the slow ones that are allowed"
        in shown
    )
    assert re.search(r"chat-1 +run_1 +1 +ready +n1 +127\.0\.0\.1:9001 +4\.25 +60\n", shown)
    assert re.search(r"03:04:05Z +1 +2 \(panic\) +6 +6 under way", shown)
    assert "  curl /v1/chat/completions\n" in shown


def test_traffic_shows_steps_in_which_something_was_asked(platform: Loopback, baseai: Baseai) -> None:
    lines = baseai("service", "traffic", "chat", "--window", "1h").out.splitlines()
    assert cells(lines[1]) == ["03:04:05Z", "12.5", "4.1", "20", "80", "0.80%", "-", "-", "3.5", "2", "1"]
    assert cells(lines[2])[:5] == ["all of 1h", "12.5", "4.1", "20", "80"]
    assert "wrong     1 failed, 0 of them lost; 0 refused" in lines
    assert any("window=1h" in asked for asked in platform.state.asked)


def test_a_cost_is_told_by_request_and_marked_while_it_is_open(platform: Loopback, baseai: Baseai) -> None:
    shown = baseai("service", "cost", "chat").out
    assert re.search(r"revenue per 1,000 requests +USD ~0\.040\n", shown)
    assert re.search(r"cost per 1,000 requests +USD ~0\.008\n", shown)
    assert "per million tokens" not in shown
    platform.state.serving.items = []
    assert baseai("service", "cost", "chat").err == "no replica ran in this time\n"


def test_models_are_listed_with_where_they_come_from(platform: Loopback, baseai: Baseai) -> None:
    _, line = baseai("models").out.splitlines()
    assert cells(line)[:8] == [
        "chat", "d" * 12, "chat", "39.29 MiB", "-", "run train-gpt", "bits_per_byte 1.82", "chat",
    ]  # fmt: skip


def test_ps_says_of_a_replica_whose_it_is(platform: Loopback, baseai: Baseai) -> None:
    platform.state.add(run_of("chat-1", kind="service", service="chat", service_id="svc_chat", version_no=3))
    assert "service chat v3" in baseai("ps").out


# ---- steering


def test_steering_says_what_is_typed(platform: Loopback, baseai: Baseai) -> None:
    assert baseai("service", "scale", "chat", "--min", "1").status == 0
    assert baseai("service", "promote", "chat").status == 0
    assert baseai("service", "rollback", "chat").status == 0
    assert baseai("service", "stop", "chat").out == "chat is stopped\n"
    assert platform.state.serving.steered == [
        ("scale", {"least": 1}),
        ("promote", {}),
        ("rollback", {}),
        ("stop", {}),
    ]


def test_bounds_that_say_nothing_are_refused_here(platform: Loopback, baseai: Baseai) -> None:
    wrong = baseai("service", "scale", "chat")
    assert (wrong.status, wrong.err) == (2, "baseai: say --min, --max or both\n")
    assert platform.state.serving.steered == []


# ---- calling


def test_a_call_prints_the_answer_and_how_it_went(platform: Loopback, baseai: Baseai) -> None:
    done = baseai("service", "call", "chat", "--text", "Diga olá")
    assert (done.status, done.out) == (0, "Olá\n")
    assert platform.state.serving.called == [
        {"model": "chat", "messages": [{"role": "user", "content": "Diga olá"}]}
    ]
    assert re.fullmatch(r"200 in [\d.]+ ms, cache baseai; fwd=miss, replica run_1, version 1\n", done.err)


def test_a_call_streams_what_is_said_as_it_comes(platform: Loopback, baseai: Baseai) -> None:
    done = baseai("service", "call", "chat", "--stream")
    assert done.out == "Olá, mundo\n"
    assert platform.state.serving.called[0]["stream"]
    assert "first words after" in done.err


@pytest.mark.parametrize("how", ["argument", "file", "stdin"])
def test_a_request_may_be_written_out(how: str, platform: Loopback, baseai: Baseai, tmp_path: Path) -> None:
    request = json.dumps({"model": "chat", "messages": [], "n": 1})
    (tmp_path / "r.json").write_text(request)
    said = {"argument": request, "file": f"@{tmp_path / 'r.json'}", "stdin": "-"}[how]
    assert baseai("service", "call", "chat", said, stdin=request).status == 0
    assert platform.state.serving.called == [json.loads(request)]


def test_a_service_that_takes_bytes_is_sent_a_file_as_it_is(
    platform: Loopback, baseai: Baseai, tmp_path: Path
) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff")
    done = baseai("service", "call", "chat", f"@{tmp_path / 'photo.jpg'}", "--as", "json")
    assert (done.status, json.loads(done.out)) == (0, {"bytes": 3, "type": "application/octet-stream"})


def test_an_answer_that_says_no_is_shown_and_ends_badly(platform: Loopback, baseai: Baseai) -> None:
    done = baseai("service", "call", "chat", '{"model": "chat"}', "--json")
    assert done.status == 1
    assert json.loads(done.out)["error"]["message"] == "messages: is missing"
    assert done.err.startswith("400 in ")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("{",), "the request is no JSON"),
        (("@gone.json",), "gone.json cannot be read: No such file or directory"),
        (("{}", "--text", "x"), "--text is for a request that takes a text and that is not written out"),
        (("--as", "infer"), "--as infer: chat answers to chat, json, models"),
        (("--as", "models", "--text", "x"), "--text is for a request that takes a text"),
    ],
)
def test_a_call_that_makes_no_sense_is_not_sent(
    words: tuple[str, ...], sentence: str, platform: Loopback, baseai: Baseai
) -> None:
    wrong = baseai("service", "call", "chat", *words)
    assert wrong.status == 2
    assert sentence in wrong.err
    assert platform.state.serving.called == []


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ({"choices": [{"message": {"content": "Olá"}}]}, "Olá"),
        ({"choices": [{"delta": {"role": "assistant"}}]}, ""),
        ({"choices": [{"text": " vez"}]}, " vez"),
        ({"text_output": "Era uma vez"}, "Era uma vez"),
        ({"choices": []}, None),
        ({"data": [1.0]}, None),
        ([1, 2], None),
    ],
)
def test_what_a_language_model_said_is_shown_as_text(document: object, text: str | None) -> None:
    assert spoken_of(document) == text
