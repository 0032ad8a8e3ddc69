"""Where a model comes from, which bytes it must be, and what is said where it cannot be had."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from baseai.workloads.inference import model_source
from baseai.workloads.inference.engine import ModelUnusable
from baseai.workloads.inference.model_source import Resolved, SourceAway, digest_of, resolve
from tests.workloads.inference.hosted import hosted

WEIGHTS = b"weights"
DIGEST = hashlib.sha256(WEIGHTS).hexdigest()


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    (folder / "nets").mkdir(parents=True)
    (folder / "nets" / "a.onnx").write_bytes(WEIGHTS)
    return folder


def found(work: Path, written: str, model_path: str | None = None) -> Resolved:
    return resolve(written, work_folder=work, model_path=model_path, downloads=work.parent / "model")


def refused(work: Path, written: str, model_path: str | None = None) -> str:
    with pytest.raises(ModelUnusable) as caught:
        found(work, written, model_path)
    return str(caught.value)


def test_a_file_of_the_run_with_its_digest_and_size(work: Path) -> None:
    path = work / "nets" / "a.onnx"
    for written in ("nets/a.onnx", str(path), f"nets/a.onnx#sha256={DIGEST.upper()}"):
        assert found(work, written) == Resolved(path=str(path), digest=DIGEST, size_bytes=7)


def test_other_bytes_than_were_asked_for_are_not_served(work: Path) -> None:
    sentence = refused(work, f"nets/a.onnx#sha256={'0' * 64}")
    assert f"has the digest {DIGEST}, which is another than was asked for; write" in sentence


def test_the_digest_of_a_folder_is_of_its_names_and_bytes_alone(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder / "sub").mkdir(parents=True)
        for name in ("b.bin", "a.bin", "sub/c.bin") if folder == "one" else ("sub/c.bin", "a.bin", "b.bin"):
            (tmp_path / folder / name).write_text(name)
    assert digest_of(tmp_path / "one") == digest_of(tmp_path / "two")
    (tmp_path / "two" / "a.bin").rename(tmp_path / "two" / "d.bin")
    assert digest_of(tmp_path / "one") != digest_of(tmp_path / "two")


def test_where_a_folder_lies_is_no_part_of_its_digest(tmp_path: Path) -> None:
    for place in ("plain", ".cache/hub"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "a.bin").write_bytes(WEIGHTS)
    (tmp_path / "plain" / ".cache").mkdir()
    (tmp_path / "plain" / ".cache" / "when.txt").write_text("of a tool that fetched it")
    assert digest_of(tmp_path / "plain") == digest_of(tmp_path / ".cache" / "hub")
    assert digest_of(tmp_path / "plain") != hashlib.sha256().hexdigest()


def test_a_file_of_a_package(work: Path) -> None:
    pytest.importorskip("magika")
    magika = found(work, "pkg:magika:models/standard_v3_3/model.onnx")
    assert Path(magika.path).is_file()
    assert magika.size_bytes == Path(magika.path).stat().st_size
    assert "no models/none.onnx in the package magika; the package has" in refused(
        work, "pkg:magika:models/none.onnx"
    )
    assert "this node has no Python package shoes; have" in refused(work, "pkg:shoes:a.onnx")
    assert "this node has no Python package shoes.laces" in refused(work, "pkg:shoes.laces:a.onnx")


def test_what_a_run_made(work: Path, tmp_path: Path) -> None:
    output = tmp_path / "run_1"
    output.mkdir()
    assert "the run job has made no model yet; name a run" in refused(work, "run:job")
    assert "is not on this node; files of runs must lie on storage" in refused(work, "run:job", str(output))
    (output / "net.onnx").write_bytes(WEIGHTS)
    assert found(work, "run:job:net.onnx", str(output)).digest == DIGEST
    assert found(work, "run:job", str(output)).path == str(output)
    assert "the run job made no other.onnx; it made net.onnx" in refused(
        work, "run:job:other.onnx", str(output)
    )


def test_a_bucket_is_fetched_once_and_whole(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over fsspec's own file system in memory: the same calls, without a store."""
    fsspec = pytest.importorskip("fsspec")
    store = fsspec.filesystem("memory")
    store.pipe("/bucket/nets/a.onnx", WEIGHTS)
    store.pipe("/bucket/folder/x/config.json", b"{}")
    monkeypatch.setattr(fsspec.core, "url_to_fs", lambda uri: (store, uri.removeprefix("s3://")))
    first = found(work, "s3://bucket/nets/a.onnx")
    assert (first.digest, Path(first.path).name) == (DIGEST, "a.onnx")
    store.pipe("/bucket/nets/a.onnx", b"other")
    assert found(work, "s3://bucket/nets/a.onnx") == first
    folder = found(work, "s3://bucket/folder/x")
    assert (Path(folder.path) / "config.json").read_text() == "{}"
    assert "there is no such object; see that the URI is right" in refused(work, "s3://bucket/none")
    assert not list((work.parent / "model").rglob("*.part"))


def test_a_node_that_cannot_read_buckets_says_what_to_install(work: Path) -> None:
    pytest.importorskip("fsspec")
    if model_source.importlib.util.find_spec("s3fs"):
        pytest.skip("this node reads buckets")
    assert "this node cannot read s3://; have the node's operator install s3fs" in refused(
        work, "s3://bucket/a.onnx"
    )


REVISION = "a" * 40
REPOSITORY = {"config.json": b"{}", "model.safetensors": WEIGHTS}


class Hub(BaseHTTPRequestHandler):
    """What the hub's own client asks for one repository, `org/name`."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.answer(*self.found())

    def do_GET(self) -> None:
        self.answer(*self.found())

    def found(self) -> tuple[int, bytes, dict[str, str]]:
        path = self.path.partition("?")[0]
        if path.startswith("/api/models/org/name/tree/"):
            tree = [
                {"type": "file", "path": name, "size": len(body), "oid": "b" * 40}
                for name, body in REPOSITORY.items()
            ]
            return 200, json.dumps(tree).encode(), {}
        if path.startswith("/api/models/org/name/revision/"):
            siblings = [{"rfilename": name} for name in REPOSITORY]
            return 200, json.dumps({"id": "org/name", "sha": REVISION, "siblings": siblings}).encode(), {}
        name = path.rpartition("/")[2]
        if path.startswith("/org/name/resolve/") and name in REPOSITORY:
            return 200, REPOSITORY[name], {"etag": f'"{name}"', "x-repo-commit": REVISION}
        return 404, b"{}", {"x-error-code": "RepoNotFound"}

    def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.mark.parametrize(
    ("model", "code", "line"),
    [
        pytest.param("hf:org/name", 3, "config.json model.safetensors", id="a repository"),
        pytest.param("hf:org/name@v1", 3, "config.json model.safetensors", id="a revision of it"),
        pytest.param(
            "hf:org/nothing", 64, "there is no such repository or revision; see its name", id="no such one"
        ),
    ],
)
def test_a_repository_of_a_hub(tmp_path: Path, model: str, code: int, line: str) -> None:
    pytest.importorskip("huggingface_hub")
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as hub:
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        env = {"HF_ENDPOINT": f"http://127.0.0.1:{hub.server_address[1]}", "HF_HOME": str(tmp_path / "home")}
        text = f"model: {model}\ncommands: ['echo $(ls $BASEAI_MODEL); exit 3']\n"
        with hosted(tmp_path, text, env=env) as replica:
            assert replica.ended() == code
            assert line in replica.last_line()
        hub.shutdown()


def test_a_hub_that_is_not_reachable_is_said_to_be(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        SourceAway, match=r"the hub cannot be reached .*; models of a hub can only be had where"
    ):
        found(work, "hf:org/name-that-is-nowhere")
