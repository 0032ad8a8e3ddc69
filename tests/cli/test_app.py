"""Every command answers in text and in JSON, and says in one sentence what went wrong."""

import json
import os
import re
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from baseai.api.schemas import FindingView
from baseai.catalog.catalog import load_catalog
from baseai.cli.app import build_app
from baseai.cli.reference import reference
from baseai.ground.fault import Conflict
from tests.cli.conftest import Baseai
from tests.cli.loopback import KEY, Loopback, run_of

SPEC = "type: task\nname: hello\ncommands:\n  - echo hi\n"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("node health", "nothing stands against any node"),
        ("node repairs", "no repair is open"),
    ],
)
def test_where_there_is_nothing_a_sentence_says_so_and_no_head_of_a_table(
    words: str, sentence: str, platform: Loopback, baseai: Baseai
) -> None:
    ended = baseai(*words.split())
    assert (ended.status, ended.out, ended.err) == (0, "", sentence + "\n")


def test_uses_are_shown_with_whether_they_add_up(platform: Loopback, baseai: Baseai) -> None:
    ended = baseai("telemetry", "use")
    assert re.search(r"hello +1 min 00 s +95 +81\.5 +1 GiB +1\.25 +measured +- ", ended.out), ended.out
    assert ended.err == (
        "24 closed hours add up to the accelerators' counters; the store's own sums say so of 23\n"
    )


@pytest.mark.parametrize(
    ("words", "path", "shown"),
    [
        pytest.param(
            "ps", "/runs?limit=100", r"hello +task +running +cpu-slot:2 +big +3/9 loss 2\.5 ", id="ps"
        ),
        pytest.param("show hello", "/runs/hello", r"contribution +USD 0\.009783", id="show"),
        pytest.param("show hello", "/runs/hello", r" 1  urgent +12\.5 +100 +101\n", id="show preemptions"),
        pytest.param("events", "/events?limit=100", r"queued → starting", id="events"),
        pytest.param(
            "node list", "/nodes?limit=100", r"big +local +ready +healthy +2/4 cpu-slot +16 GiB", id="nodes"
        ),
        pytest.param("node show big", "/nodes/big", r"2/4 cpu-slot(?s:.*)\n +0  cpu-slot  slot-0", id="node"),
        pytest.param(
            "node figures big",
            "/nodes/big/figures",
            r"run_9 +H100-SXM +re_entry +standard +succeeded +passed(?s:.*)"
            r"\nall +bus all_reduce +361 +GB/s +80%(?s:.*)"
            r"\nH100-SXM 0 +gemm bf16 +560,000 +GFLOP/s +57% +81% +80% +80% of its own median over 4 tests(?s:.*)"
            r"\nH100-SXM 0 +heat temp_c +- +°C +- +- +- +this device has no such sensor",
            id="figures",
        ),
        pytest.param(
            "telemetry collectors",
            "/telemetry/collectors",
            r"big +nvml +failing +10 s +\S+ +5,000 ms +3 +no answer in 5 s\nbig nvml: GPU-1 temp_c: 900 °C cannot be",
            id="collectors",
        ),
        pytest.param("tenant list", "/tenants?limit=100", r"acme +default", id="tenants"),
        pytest.param("key list", "/keys?limit=100", r"ID +NAME", id="keys"),
        pytest.param("secret list", "/secrets?limit=100", r"NAME +PROJECT", id="secrets"),
        pytest.param(
            "offers",
            "/offers",
            r"cpu-slot +local +2 +4 +- +- +0\.0408 +USD\nH100-SXM.* 3\.8500 ",
            id="offers",
        ),
        pytest.param(
            "books trial-balance", "/books/trial-balance", r"revenue +0\.00 +1\.50 +-1\.50 ", id="balance"
        ),
        pytest.param(
            "books balance revenue",
            "/books/balance?account=revenue",
            r"revenue +0\.00 +1\.50 +-1\.50 +USD",
            id="account",
        ),
        pytest.param("books time", "/time?by=bucket", r"reserved unused +4 +25\.0%", id="time"),
        pytest.param("books time --by site", "/time?by=site", r"SP4 +on demand +12 +75\.0%", id="time: site"),
        pytest.param("books periods", "/books/periods", r"2020-01 +closed .*ana +1,200 +abab", id="periods"),
        pytest.param("books transfers", "/books/transfers?limit=100", r" 0\.000417 +USD", id="transfers"),
        pytest.param(
            "cost", "/cost?by=run", r"hello +0\.25 +~0\.0102 +~0\.000417 +~0\.009783 +USD", id="cost"
        ),
        pytest.param("status", "/health", r"you +ana \(operator\)", id="status"),
    ],
)
def test_a_question_is_answered_in_text_and_in_the_apis_own_json(
    words: str, path: str, shown: str, platform: Loopback, baseai: Baseai
) -> None:
    import httpx

    platform.state.add(run_of(progress={"step": 3, "steps_total": 9, "loss": 2.5}))
    text = baseai(*words.split())
    assert (text.status, text.err) == (0, "") or text.err.startswith("cost: ")
    assert re.search(shown, text.out), text.out
    document = baseai(*words.split(), "--json")
    direct = httpx.get(
        f"{platform.url}/api/v1{path}", headers={"Authorization": f"Bearer {KEY}"}, trust_env=False
    )
    assert (document.status, document.err) == (0, "")
    assert document.out.rstrip("\n") == direct.text


def test_a_test_of_a_node_is_asked_for_with_its_profile(platform: Loopback, baseai: Baseai) -> None:
    asked = baseai("node", "test", "big", "--profile", "standard")
    assert asked.status == 0
    assert asked.out == "run_9 tests H100-SXM of big\n"
    assert platform.state.moves == [("big", "test", "standard")]


def test_what_changes_something_reaches_the_platform(platform: Loopback, baseai: Baseai) -> None:
    platform.state.add(run_of())
    assert baseai("stop", "hello").out == "hello is stopping\n"
    assert "drained" in baseai("node", "drain", "big", "--reason", "fan").out
    assert platform.state.moves == [("big", "drain", "fan")]
    assert baseai("node", "token").out == "baseai agent --join http://127.0.0.1:1 --token jt_1\n"
    assert "ten_ufmg" in baseai("tenant", "add", "ufmg").out
    assert baseai("tenant", "add-project", "ufmg", "vision").out == "vision was added to ufmg\n"
    assert platform.state.tenants["ufmg"] == ["default", "vision"]
    assert baseai("node", "declare-dead", "big").out == "big counts as dead; leases ended: 2\n"
    made = baseai("key", "add", "ana", "--role", "customer", "--tenant", "ufmg")
    assert made.out == "bk_once\n"
    assert "not shown again" in made.err
    assert baseai("key", "revoke", "key_1").out == "key_1 is revoked\n"
    assert platform.state.keys == []


def test_a_key_is_made_for_less(baseai: Baseai, platform: Loopback) -> None:
    words = "key add bot --role customer --tenant ufmg --expires 30d --scope call --scope service:chat"
    made = baseai(*words.split(), "--requests-per-minute", "600", "--tokens-per-minute", "100000")
    assert "it opens nothing after" in made.err
    [key] = platform.state.keys
    assert key.expires_at is not None
    assert (key.expires_at - key.created_at).days == 30
    assert (key.scopes, key.requests_per_minute, key.tokens_per_minute) == (
        ["call", "service:chat"],
        600,
        100_000,
    )
    assert "call,service:chat" in baseai("key", "list").out
    assert "is not a duration" in baseai("key", "add", "x", "--role", "viewer", "--expires", "soon").err


def test_a_secret_comes_from_standard_input_without_its_last_line_break(
    platform: Loopback, baseai: Baseai
) -> None:
    assert baseai("secret", "set", "TOKEN", stdin="a\nb\n").out == "TOKEN is set\n"
    assert platform.state.secrets == {"TOKEN": "a\nb"}
    assert "history" in baseai("secret", "set", "TOKEN", "--value", "x").err
    assert baseai("secret", "set", "TOKEN", stdin="\n").status == 2
    assert platform.state.secrets == {"TOKEN": "x"}
    baseai("secret", "rm", "TOKEN")
    assert platform.state.secrets == {}


def test_hours_that_are_withheld_end_with_a_status(platform: Loopback, baseai: Baseai) -> None:
    whole = baseai("books", "time")
    assert whole.status == 0
    assert "16 installed hours from" in whole.out
    platform.state.withheld = ["of 9 µs, 8 µs stand in buckets"]
    wrong = baseai("books", "time")
    assert wrong.status == 1
    for said in (
        "withheld: of 9 µs, 8 µs stand",
        "are not closed yet",
        "3 hours of accelerators were counted anew",
    ):
        assert said in wrong.err
    assert baseai("books", "time", "--json").status == 1
    refused = baseai("books", "time", "--by", "rack")
    assert refused.status == 2
    assert "bucket, site, model, node" in refused.err


def test_books_that_do_not_balance_end_with_a_status(platform: Loopback, baseai: Baseai) -> None:
    platform.state.difference = Decimal("0.000001")
    wrong = baseai("books", "trial-balance")
    assert wrong.status == 1
    assert "difference 0.000001" in wrong.out
    assert baseai("books", "trial-balance", "--json").status == 1


def test_a_month_is_closed_or_the_terminal_says_what_stands_against_it(
    platform: Loopback, baseai: Baseai
) -> None:
    done = baseai("books", "close", "2020-01")
    assert (done.status, done.out) == (0, f"2020-01 is closed: 1,200 transfers, sha256 {'ab' * 32}\n")
    platform.state.findings = [
        FindingView(check="posted", sentence="2020-01 has metered time that is not posted")
    ]
    refused = baseai("books", "close", "2020-01")
    assert refused.status == 1
    assert refused.out == "posted: 2020-01 has metered time that is not posted\n"
    assert "2020-01 is closing, not closed" in refused.err
    assert baseai("books", "close", "2020-01", "--json").status == 1


def test_a_check_of_the_books_ends_with_a_status(platform: Loopback, baseai: Baseai) -> None:
    sound = baseai("books", "check")
    assert (sound.status, sound.out) == (0, f"1,200 transfers in 0.25 s, sha256 {'ab' * 32}\n")
    platform.state.findings = [FindingView(check="checkpoint", sentence="2020-01 was closed otherwise")]
    wrong = baseai("books", "check")
    assert wrong.status == 1
    assert "checkpoint: 2020-01 was closed otherwise" in wrong.out
    assert "nothing is published" in wrong.err


def test_an_account_without_a_transfer_is_named(platform: Loopback, baseai: Baseai) -> None:
    asked = baseai("books", "balance", "revenu")
    assert asked.status == 1
    assert "no account with a transfer revenu" in asked.err


def test_ps_leaves_out_what_the_key_may_not_see(platform: Loopback, baseai: Baseai) -> None:
    platform.state.may_see_money = False
    platform.state.add(run_of())
    shown = baseai("ps")
    assert shown.status == 0
    assert "hello" in shown.out


def test_ps_shows_the_next_page_on_request(platform: Loopback, baseai: Baseai) -> None:
    for name in ("one", "two", "three"):
        platform.state.add(run_of(name))
    first = baseai("ps", "--limit", "2")
    assert first.err == "there is more: --cursor 2\n"
    assert "three" not in first.out
    assert "three" in baseai("ps", "--limit", "2", "--cursor", "2").out


def test_text_of_others_cannot_steer_the_terminal(platform: Loopback, baseai: Baseai) -> None:
    platform.state.add(run_of(state="failed", sentence="\x1b[2Jgone\nfor ever"))
    out = baseai("ps", "--all").out
    assert "\x1b" not in out
    assert "gone for ever" in out


# ---- what goes wrong ------------------------------------------------------------------------------------------


def test_an_unknown_run_is_named(baseai: Baseai) -> None:
    wrong = baseai("show", "nobody")
    assert (wrong.status, wrong.out, wrong.err) == (1, "", "baseai: no run nobody\n")
    document = baseai("show", "nobody", "--json")
    assert json.loads(document.out)["status"] == 404


def test_a_wrong_key_is_refused_without_a_hint(platform: Loopback, baseai: Baseai) -> None:
    wrong = baseai("ps", environ={"BASEAI_URL": platform.url, "BASEAI_KEY": "bk_wrong"})
    assert wrong.status == 1
    assert wrong.err.startswith(f"baseai: the key is not accepted by {platform.url}")
    assert "bk_wrong" not in wrong.err


def test_no_platform_is_one_sentence_with_what_to_do(
    platform: Loopback, baseai: Baseai, tmp_path: Path
) -> None:
    platform.stop()
    gone = baseai("ps")
    assert gone.status == 3
    assert gone.err.startswith(f"baseai: no platform answers at {platform.url} (")
    assert gone.err.endswith("start one with `baseai up`\n")
    assert gone.err.count("\n") == 1
    never = baseai("ps", "--data", str(tmp_path / "empty"), environ={"HOME": str(tmp_path)})
    assert never.status == 3
    assert f"no platform is recorded in {tmp_path / 'empty'}; start one with `baseai up`" in never.err


def test_a_server_behind_a_balancer_that_is_down_is_no_platform(platform: Loopback, baseai: Baseai) -> None:
    platform.state.health = {"status": "degraded", "database": "lost"}
    ails = baseai("status")
    assert ails.status == 1
    assert "lost" in ails.out


def test_the_data_folder_says_where_the_platform_is(
    platform: Loopback, baseai: Baseai, tmp_path: Path
) -> None:
    (tmp_path / "connect.json").write_text(json.dumps({"url": platform.url, "key": KEY, "ca_file": None}))
    assert baseai("ps", "--data", str(tmp_path), environ={}).status == 0
    assert baseai("--data", str(tmp_path), "ps", environ={}).status == 0
    assert baseai("ps", environ={"BASEAI_DATA": str(tmp_path)}).status == 0
    (tmp_path / "connect.json").write_text("{")
    damaged = baseai("ps", "--data", str(tmp_path), environ={})
    assert damaged.status == 2
    assert "is damaged" in damaged.err


def test_a_platform_command_joins_the_app_and_its_faults_become_sentences() -> None:
    def up(detach: bool = typer.Option(False, "--detach")) -> None:
        """Start the platform."""
        if detach:
            raise Conflict("a platform is already up on this folder")

    app = build_app({"up": up}, environ={})
    assert CliRunner().invoke(app, ["up"]).exit_code == 0
    refused = CliRunner().invoke(app, ["up", "--detach"])
    assert (refused.exit_code, refused.stderr) == (1, "baseai: a platform is already up on this folder\n")
    assert "Start the platform." in CliRunner().invoke(app, ["--help"]).stdout


def test_a_data_folder_named_before_a_platform_command_reaches_it() -> None:
    found: list[Path | None] = []

    def up(data: Path | None = typer.Option(None, "--data")) -> None:
        found.append(data)

    app = build_app({"up": up}, environ={})
    for words in (["--data", "/a", "up"], ["--data", "/a", "up", "--data", "/b"], ["up"]):
        assert CliRunner().invoke(app, words).exit_code == 0
    assert found == [Path("/a"), Path("/b"), None]


def test_a_bug_shows_its_traceback_only_on_request() -> None:
    def up() -> None:
        raise KeyError("lost")

    def ended(environ: dict[str, str]) -> str:
        return CliRunner().invoke(build_app({"up": up}, environ=environ), ["up"]).stderr

    assert "Traceback" not in ended({})
    assert "this is a bug" in ended({})
    assert "Traceback" in ended({"BASEAI_DEBUG": "1"})


# ---- the process ----------------------------------------------------------------------------------------------


def typed(*words: str, environ: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    code = "from baseai.cli.app import app; app(prog_name='baseai')"
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path), **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_as_a_process_it_writes_documents_out_and_sentences_beside(
    platform: Loopback, tmp_path: Path
) -> None:
    here = {
        "BASEAI_URL": platform.url,
        "BASEAI_KEY": KEY,
        "FORCE_COLOR": "1",
        "HTTP_PROXY": "http://127.0.0.1:9",
    }
    platform.state.add(run_of())
    done = typed("ps", environ=here)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    spec = tmp_path / "hello.yaml"
    spec.write_text(SPEC.replace("commands", "comands"))
    wrong = typed("apply", "-f", str(spec), environ=here)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.splitlines()[1:] == [f"{spec}:3:1 comands: is not a key — write `commands`"]
    assert platform.state.submitted == {}


def test_help_costs_no_heavy_import() -> None:
    code = (
        "import sys; from baseai.cli.app import app\n"
        "try: app(['--help'])\n"
        "finally: print('HEAVY', sorted({'httpx', 'pydantic', 'yaml', 'fastapi', 'rich', 'numpy'} & set(sys.modules)))"
    )
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.endswith("HEAVY []\n"), done.stdout + done.stderr


def test_the_reference_names_every_command_as_it_is() -> None:
    app = build_app({}, catalog=load_catalog, environ={})
    page = Path(__file__).resolve().parents[2] / "docs" / "cli.md"
    assert page.read_text(encoding="utf-8") == reference(app)
