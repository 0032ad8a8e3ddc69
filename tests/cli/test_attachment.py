"""What a spec names is sent, nothing else, and each to its place in the run."""

from pathlib import Path

import pytest

from baseai.cli.attachment import BadAttachment, attachments, kind_of, named, reference
from baseai.ground.fault import Refused


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project with a folder, a program, and things nobody wants to send."""
    for path, text in {
        "train.py": "print()",
        "src/a.py": "a",
        "src/deep/b.py": "b",
        "src/__pycache__/a.pyc": "x",
        "src/.git/HEAD": "x",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    (tmp_path / "train.py").chmod(0o755)
    return tmp_path


@pytest.mark.parametrize(
    ("entry", "paths"),
    [
        pytest.param("train.py", ["train.py"], id="a file keeps its path"),
        pytest.param("./src/a.py", ["src/a.py"], id="a path is tidied"),
        pytest.param("train.py:run/main.py", ["run/main.py"], id="a file goes where it is told"),
        pytest.param("src", ["src/a.py", "src/deep/b.py"], id="a folder is walked, caches left out"),
        pytest.param("src:code", ["code/a.py", "code/deep/b.py"], id="a folder goes where it is told"),
        pytest.param("src:.", ["a.py", "deep/b.py"], id="a folder's content becomes the run's folder"),
        pytest.param("{a: b}", [], id="what is no path is left to the server"),
        pytest.param("/etc/hostname", [], id="a path outside that names no place is left to the server"),
    ],
)
def test_attachments(entry: str, paths: list[str], folder: Path) -> None:
    spec = f"type: task\nfiles:\n  - {entry}\n"
    assert [one.path for one in attachments(spec, file="spec.yaml", folder=folder)] == paths


def test_a_reference_has_digest_size_and_mode(folder: Path) -> None:
    [one] = attachments("files: [train.py]", file="spec.yaml", folder=folder)
    sent = reference(one)
    assert (sent.bytes, sent.mode) == (7, 0o755)
    assert sent.digest == "525d513313416cf187f44fa87e1753ee6d11552c22097537ddc32b4ed34fa68f"


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        pytest.param(
            "gone.py", r"spec.yaml:3:5 files: there is no gone.py in .* — correct the path", id="missing"
        ),
        pytest.param("train.py:../up.py", r"spec.yaml:3:5 files: ../up.py lies outside", id="upwards"),
        pytest.param("train.py:/etc/x", r"lies outside the run's folder", id="absolute"),
        pytest.param("src", r"the link .*/src/key points out of", id="a link that leaves the folder"),
    ],
)
def test_what_cannot_be_sent_is_named_by_its_line(entry: str, sentence: str, folder: Path) -> None:
    (folder / "src" / "key").symlink_to("/etc/hostname")
    with pytest.raises(BadAttachment, match=sentence):
        attachments(f"type: task\nfiles:\n  - {entry}\n", file="spec.yaml", folder=folder)


def test_too_many_bytes_are_named_with_the_limit(folder: Path) -> None:
    with (folder / "huge").open("wb") as huge:
        huge.truncate(3 * 1024**3)
    with pytest.raises(BadAttachment, match="has 3 GiB; the most is 2 GiB"):
        attachments("files: [huge]", file="spec.yaml", folder=folder)


@pytest.mark.parametrize("text", ["files: [", "- a\n", "files: 3\n", "x: &a [*a]\n", ""])
def test_a_broken_spec_is_left_to_the_server(text: str, tmp_path: Path) -> None:
    assert attachments(text, file="spec.yaml", folder=tmp_path) == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("name: a\ntype: task\n", 'name: "b"\ntype: task\n', id="in its place"),
        pytest.param("type: task\nname: 'a' # why\n", 'type: task\nname: "b" # why\n', id="comment kept"),
        pytest.param("type: task\n", 'type: task\nname: "b"\n', id="at the end, so that lines stay"),
    ],
)
def test_named(text: str, expected: str) -> None:
    assert named(text, "b") == expected


def test_a_flow_mapping_is_not_renamed() -> None:
    with pytest.raises(Refused):
        named("{type: task}", "b")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("type: service\nname: x\n", "service"),
        ("{type: service}", "service"),
        ("name: x\n", None),
        ("type: [service]\n", None),
        ("type: [", None),
        ("- type: service\n", None),
    ],
)
def test_the_type_says_where_a_spec_goes_as_far_as_anybody_can_read_it(text: str, kind: str | None) -> None:
    assert kind_of(text) == kind
