"""Bad days of an operator: each ends in one clear sentence and a status that is not 0, and nothing is harmed."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import psutil
import pytest

from tests.scenarios.platform import ENVIRONMENT, Platform, end, start

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

SLEEPER = """
type: task
name: {name}
commands:
  - echo begun >> {marks}
  - sleep {seconds}
  - echo done >> {marks}
"""


def baseai(*words: str, within_s: float = 60, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "baseai", *words], env=ENVIRONMENT | environ, capture_output=True, text=True,
        check=False, timeout=within_s, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def refused(*words: str, **environ: str) -> str:
    """The one sentence that the command ends with."""
    ended = baseai(*words, **environ)
    assert ended.returncode not in (0, -9), ended.stdout
    told = ended.stderr.strip()
    assert "Traceback" not in told
    assert "this is a bug" not in told
    assert told.splitlines()[-1].startswith("baseai: "), told
    return told.splitlines()[-1]


def processes_on(folder: Path) -> list[str]:
    """The command lines of everything that has to do with the folder."""
    found = []
    for process in psutil.process_iter(["cmdline", "environ", "cwd"]):
        words = process.info["cmdline"] or []
        surroundings = process.info["environ"] or {}
        about = [*words, process.info["cwd"] or "", surroundings.get("BASEAI_CHILD", "")]
        if process.pid != os.getpid() and words and any(str(folder) in text for text in about):
            found.append(f"{process.pid} {' '.join(words)}")
    return found


def nothing_runs_on(folder: Path, within_s: float = 10.0) -> None:
    deadline = time.monotonic() + within_s
    while found := processes_on(folder):
        assert time.monotonic() < deadline, found
        time.sleep(0.1)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that PostgreSQL's account can reach."""
    made = Path(tempfile.mkdtemp(prefix="baseai-bad-", dir="/tmp"))
    os.chmod(made, 0o755)
    yield made
    shutil.rmtree(made, ignore_errors=True)


def mount(where: Path, options: str) -> bool:
    """Whether a tiny file system in memory now lies at `where`."""
    where.mkdir(exist_ok=True)
    if shutil.which("mount") is None:
        return False
    words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(where)]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


@contextlib.contextmanager
def mounted(where: Path, options: str) -> Iterator[Path]:
    """That file system for a while; the test is skipped where none may be mounted."""
    if not mount(where, options):
        pytest.skip("mounting a file system is not permitted here")
    try:
        yield where
    finally:
        subprocess.run(["umount", "-l", str(where)], check=False)


@pytest.fixture(scope="module")
def home() -> Iterator[Platform]:
    """A platform on a disk of its own, where one may be mounted."""
    folder = Path(tempfile.mkdtemp(prefix="baseai-home-", dir="/tmp"))
    os.chmod(folder, 0o755)
    own_disk = mount(folder / "disk", "size=300m,mode=755")
    running = start(folder / "disk" / "data", "--cpu-slots", "1")
    try:
        yield running
    finally:
        end(running)
        if own_disk:
            subprocess.run(["umount", "-l", str(folder / "disk")], check=False)
        shutil.rmtree(folder, ignore_errors=True)


# ---- words that are refused before anything starts


def test_the_server_does_not_listen_beyond_this_machine_without_a_certificate(folder: Path) -> None:
    told = refused("up", "--data", str(folder / "data"), "--listen", "0.0.0.0")
    assert told.endswith(
        "the server listens beyond this machine (0.0.0.0) only with --tls-cert and --tls-key"
    )
    assert not (folder / "data").exists()


def test_an_unknown_setting_is_refused_with_the_nearest(folder: Path) -> None:
    assert refused("ps", BASEAI_DATTA="x").endswith(
        "BASEAI_DATTA is not a setting; did you mean BASEAI_DATA?"
    )


def test_a_data_folder_that_cannot_be_written(folder: Path) -> None:
    with mounted(folder / "fixed", "ro,mode=755") as fixed:
        told = refused("up", "--data", str(fixed / "data"), "--port", "0")
        assert f"the data folder {fixed / 'data'} cannot be used: Read-only file system" in told


def test_a_data_folder_that_is_a_file(folder: Path) -> None:
    (folder / "data").write_text("mine")
    assert "cannot be used" in refused("up", "--data", str(folder / "data"), "--port", "0")
    assert (folder / "data").read_text() == "mine"


def test_a_full_disk_on_the_first_day(folder: Path) -> None:
    with mounted(folder / "small", "size=12m,mode=755") as small:
        told = refused("up", "--data", str(small / "data"), "--port", "0")
        assert "No space left on device" in told
        nothing_runs_on(small)


def test_a_database_that_does_not_answer(folder: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    told = refused(
        "up",
        "--data",
        str(folder / "data"),
        "--database",
        f"postgresql://x@127.0.0.1:{port}/x",
        "--port",
        "0",
    )
    assert "the database cannot be used" in told
    assert "Connection refused" in told
    nothing_runs_on(folder)


def test_a_broken_database_folder_is_quoted(folder: Path) -> None:
    (folder / "data" / "postgres").mkdir(parents=True)
    (folder / "data" / "postgres" / "PG_VERSION").write_text("18\n")
    told = refused("up", "--data", str(folder / "data"), "--port", "0")
    assert "PostgreSQL ended as it started: " in told
    assert "log is missing" not in told
    nothing_runs_on(folder)


# ---- beside a platform that runs


def test_a_second_up_on_the_same_folder(home: Platform) -> None:
    for more in ((), ("--detach",)):
        told = refused("up", "--data", str(home.data), "--port", "0", *more)
        assert told == (
            f"baseai: a platform runs on {home.data} already (pid {home.process.pid}):"
            " end it with `baseai down`, or choose another --data"
        )
    assert home.ask("GET", "/health")["status"] == "ok"


def test_a_port_in_use(home: Platform, folder: Path) -> None:
    port = home.connect["url"].rpartition(":")[2]
    told = refused("up", "--data", str(folder / "data"), "--port", port)
    assert (
        f"the server cannot listen on 127.0.0.1:{port} (Address already in use): choose another --port"
        in told
    )
    nothing_runs_on(folder)


def test_a_damaged_record_of_the_platform(home: Platform) -> None:
    record = home.data / "connect.json"
    good = record.read_text()
    try:
        for bad in ("{", "[]", '{"url": 1, "key": 2}', ""):
            record.write_text(bad)
            assert refused("ps", "--data", str(home.data)).endswith("is damaged; `baseai up` writes it anew")
    finally:
        record.write_text(good)


def test_a_key_that_is_wrong(home: Platform) -> None:
    told = refused("ps", "--url", home.connect["url"], "--key", "bai_wrong")
    assert "the key is not accepted" in told


def test_a_disk_that_fills_up_under_a_running_platform(home: Platform) -> None:
    disk = home.data.parent
    if not os.path.ismount(disk):
        pytest.skip("mounting a file system is not permitted here")
    before = home.submit(SLEEPER.format(name="before", marks=disk.parent / "marks", seconds=4))
    home.wait(before, lambda run: run["state"] == "running", 30)
    children = {name: home.pid(name) for name in ("server", "controller", "agent")}
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as filling, contextlib.suppress(OSError):
        while True:
            filling.write(bytes(1 << 16))
    try:
        (disk.parent / "big").write_bytes(os.urandom(300_000))
        (disk.parent / "full.yaml").write_text("type: task\ncommands: [cat big]\nfiles: [big]\n")
        told = refused("apply", "-f", str(disk.parent / "full.yaml"), "--data", str(home.data))
        assert "No space left on device" in told
    finally:
        filler.unlink()
    assert home.wait_ended(before, 30)["run"]["state"] == "succeeded"
    assert {name: home.pid(name) for name in children} == children, "nothing died of it"
    done = baseai("apply", "-f", str(disk.parent / "full.yaml"), "--follow", "--data", str(home.data))
    assert done.returncode == 0, done.stderr
    home.check_metered(before)
    home.check_books()


# ---- other databases, other listeners


def test_a_postgresql_of_ones_own(dsn: str, folder: Path) -> None:
    host, user, name = (part.partition("=")[2] for part in dsn.split())
    url = f"postgresql://{user}@/{name}?host={host}"
    own = start(folder / "data", "--database", url, "--cpu-slots", "1")
    try:
        run_id = own.submit("type: task\nname: hello\ncommands: [echo hello]\n")
        assert own.wait_ended(run_id, 30)["run"]["state"] == "succeeded"
        assert not (own.data / "postgres").exists()
        told = refused("up", "--data", str(folder / "other"), "--database", url, "--port", "0", "--no-agent")
        assert "was set up by a platform with other keys" in told
        assert own.ask("GET", "/health")["status"] == "ok"
    finally:
        end(own)
    nothing_runs_on(folder)


def test_tls_from_end_to_end(folder: Path) -> None:
    certificate, key = self_signed(folder)
    with (folder / "up.log").open("wb") as log:
        up = subprocess.Popen(
            [sys.executable, "-m", "baseai", "up", "--data", str(folder / "data"), "--port", "0", "--cpu-slots", "1",
             "--listen", "0.0.0.0", "--tls-cert", str(certificate), "--tls-key", str(key)],
            stdout=log, stderr=log, env=ENVIRONMENT, start_new_session=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 40
        while b"sign in, once" not in (folder / "up.log").read_bytes():
            assert up.poll() is None, (folder / "up.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        connect = json.loads((folder / "data" / "connect.json").read_text())
        assert connect["url"].startswith("https://127.0.0.1:")
        (folder / "hello.yaml").write_text("type: task\ncommands: [echo hello]\n")
        while True:  # the agent joins over TLS as well
            done = baseai(
                "apply", "-f", str(folder / "hello.yaml"), "--follow", "--data", str(folder / "data")
            )
            if done.returncode == 0 or "never start here" not in done.stderr:
                break
            assert time.monotonic() < deadline
        assert done.returncode == 0, done.stderr
        assert "hello" in done.stdout
        stranger = refused("ps", "--url", connect["url"], "--key", connect["key"])
        assert "certificate" in stranger.lower()
        plain = connect["url"].replace("https", "http")
        assert "no platform answers" in refused("ps", "--url", plain, "--key", connect["key"])
    finally:
        up.send_signal(signal.SIGTERM)
        up.wait(60)
    nothing_runs_on(folder)


# ---- ending, and coming back


def test_down_ends_everything_and_up_goes_on(folder: Path) -> None:
    first = start(folder / "data", "--cpu-slots", "1")
    marks = folder / "marks"
    busy = first.submit(SLEEPER.format(name="busy", marks=marks, seconds=2))
    first.wait(busy, lambda run: run["state"] == "running", 30)
    queued = first.submit("type: task\nname: queued\ncommands: [echo hello]\n")
    assert processes_on(folder)
    done = baseai("down", "--data", str(first.data))
    assert (done.returncode, done.stdout) == (0, "ended\n")
    assert first.process.wait(5) == 0
    nothing_runs_on(folder, 2)
    assert refused("down", "--data", str(first.data)) == f"baseai: no platform runs on {first.data}"
    assert "no platform answers" in refused("ps", "--data", str(first.data))

    again = start(folder / "data", "--cpu-slots", "1")
    try:
        assert again.wait_ended(busy, 30)["run"]["state"] == "succeeded"
        assert again.wait_ended(queued, 30)["run"]["state"] == "succeeded"
        assert marks.read_text().split() == ["begun", "begun", "done"], "what was stopped begins again, once"
        again.check_books()
    finally:
        end(again)


@pytest.mark.skipif(
    sys.platform != "linux", reason="elsewhere children outlive a killed supervisor until the next start"
)
def test_a_killed_supervisor_takes_its_children_along_and_leaves_the_run(folder: Path) -> None:
    first = start(folder / "data", "--cpu-slots", "1")
    marks = folder / "marks"
    run_id = first.submit(SLEEPER.format(name="hardy", marks=marks, seconds=7))
    first.wait(run_id, lambda run: run["state"] == "running", 30)
    children = [first.pid(name) for name in ("server", "controller", "agent", "postgres")]
    [shim] = first.shims(run_id)
    first.process.kill()
    first.process.wait(5)
    deadline = time.monotonic() + 10
    while left := [
        pid for pid in children if psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie"
    ]:
        assert time.monotonic() < deadline, [psutil.Process(pid).cmdline() for pid in left]
        time.sleep(0.05)
    assert psutil.pid_exists(shim), "the run goes on by itself"
    again = start(folder / "data", "--cpu-slots", "1")
    try:
        detail = again.wait_ended(run_id, 30)
        assert (detail["run"]["state"], detail["run"]["attempt_no"]) == ("succeeded", 1)
        assert marks.read_text().split() == ["begun", "done"], "it was started once"
        assert len(detail["leases"]) == 1
        again.check_metered(run_id)
        again.check_books()
    finally:
        end(again)
    nothing_runs_on(folder)


def self_signed(folder: Path) -> tuple[Path, Path]:
    """A certificate for this machine's loopback, and its key, as files."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "baseai.test")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return folder / "cert.pem", folder / "key.pem"
