"""An attachment is one file of this machine that a spec asks to have in the run's folder.

Invariant: nothing outside what the spec names is read: a symbolic link inside a folder must stay inside it.
Only the keys `files`, `name` and `type` are read here, safely; the server alone judges the spec.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from baseai.cli.column import bytes_text
from baseai.ground.fault import Fault, Refused

if TYPE_CHECKING:
    from baseai.api.schemas import FileRef

FILE_BYTES_MAX = 2 * 1024**3
ALL_BYTES_MAX = 8 * 1024**3
FILES_MAX = 10_000
SPEC_BYTES_MAX = 1024**2
READ_BYTES = 1024**2
LEFT_OUT = frozenset({".git", ".hg", ".svn", "__pycache__", ".DS_Store", ".venv"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """A file here, and the path it will have below the run's working folder."""

    source: Path
    path: str  # relative, with slashes, never upwards
    bytes: int
    mode: int


class BadAttachment(Fault):
    """An entry of `files` cannot be sent as it stands."""

    def __init__(self, file: str, line: int, column: int, message: str, fix: str) -> None:
        super().__init__(file, line, column, message, fix)
        self.file = file
        self.line = line
        self.column = column
        self.message = message
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column} files: {self.message} — {self.fix}"


def _root_of(text: str) -> Any:
    """The spec's top node if it is a mapping that can be read at all, else None: the server will say why."""
    import yaml

    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        return None
    return root if isinstance(root, yaml.MappingNode) else None


def _entry(root: Any, key: str) -> Any:
    return (
        next((value for name, value in root.value if name.value == key), None) if root is not None else None
    )


def named(text: str, name: str) -> str:
    """The spec with another name, every line where it was, so that messages still point to it."""
    import json

    root = _root_of(text)
    if root is None or root.flow_style:
        raise Refused("--name needs a spec of plain `key: value` lines; put the name into the file")
    quoted = json.dumps(name, ensure_ascii=False)
    value = _entry(root, "name")
    if value is None:
        return f"{text.rstrip()}\nname: {quoted}\n"
    rest = text[value.end_mark.index :]
    return f"{text[: value.start_mark.index]}{'' if text[value.start_mark.index - 1] == ' ' else ' '}{quoted}{rest}"


def kind_of(text: str) -> str | None:
    """What `type` says, as far as anybody can read it: where the spec goes."""
    value = _entry(_root_of(text), "type")
    return value.value if value is not None and isinstance(value.value, str) else None


def attachments(text: str, *, file: str, folder: Path) -> tuple[Attachment, ...]:
    """Every file that the spec's `files` names, folders walked, in the order of their paths.

    folder: what relative paths start from. Raises BadAttachment with the line of the entry at fault.
    An entry is a path, or `path:path in the run`; what is neither is left to the server's judgement.
    """
    entries = _entry(_root_of(text), "files")
    if entries is None or not isinstance(entries.value, list):
        return ()
    found: dict[str, Attachment] = {}
    for entry in entries.value:

        def bad(message: str, fix: str, entry: Any = entry) -> BadAttachment:
            mark = entry.start_mark
            return BadAttachment(file, mark.line + 1, mark.column + 1, message, fix)

        pair = _pair_of(entry)
        if pair is None:
            continue  # not a path at all: the server names the fault with all the others
        local, remote = pair
        source = Path(local).expanduser()
        source = source if source.is_absolute() else folder / source
        if not source.exists():
            raise bad(
                f"there is no {local} in {folder}", "correct the path; it counts from the spec's own folder"
            )
        below = _path_in_run(remote)
        if below is None:
            raise bad(f"{remote} lies outside the run's folder", "give a relative path without ..")
        for one in _files_below(source, below, bad):
            found[one.path] = one
            if len(found) > FILES_MAX:
                raise bad(f"more than {FILES_MAX:,} files", "send an archive, or fewer files")
    if sum(one.bytes for one in found.values()) > ALL_BYTES_MAX:
        total = bytes_text(sum(one.bytes for one in found.values()))
        mark = entries.start_mark
        raise BadAttachment(
            file,
            mark.line + 1,
            mark.column + 1,
            f"the files come to {total}; the most is {bytes_text(ALL_BYTES_MAX)}",
            "let the run fetch what is large",
        )
    return tuple(found[path] for path in sorted(found))


def digest_of(source: Path) -> str:
    """The file's sha256, in hexadecimal."""
    with source.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def reference(attachment: Attachment) -> "FileRef":
    """The attachment as the run will name it. Reads the whole file."""
    from baseai.api.schemas import FileRef

    return FileRef(
        path=attachment.path,
        digest=digest_of(attachment.source),
        bytes=attachment.source.stat().st_size,
        mode=attachment.mode,
    )


def content(source: Path, seen: Callable[[int], None]) -> Iterator[bytes]:
    """The file's bytes, piece by piece; `seen` is told the size of each piece that leaves."""
    with source.open("rb") as opened:
        while piece := opened.read(READ_BYTES):
            yield piece
            seen(len(piece))


def _pair_of(entry: Any) -> tuple[str, str] | None:
    """Where it is here and where it goes, or None for what is no such pair: the server says why."""
    if not isinstance(entry.value, str):
        return None
    local, colon, remote = entry.value.partition(":")
    outside = local.startswith(("/", "~")) or ".." in PurePosixPath(local).parts
    if not local or (colon and not remote) or (not colon and outside):
        return None
    return local, remote if colon else local


def _path_in_run(remote: str) -> str | None:
    """The path below the run's folder ("" is the folder itself), None when it leads outside."""
    path = PurePosixPath(remote)
    if path.is_absolute() or ".." in path.parts:
        return None
    return "" if str(path) == "." else str(path)


def _files_below(source: Path, path: str, bad: Callable[[str, str], BadAttachment]) -> Iterator[Attachment]:
    if not source.is_dir():
        yield _attachment(source, path or source.name, bad)
        return
    inside = source.resolve()
    for folder, folders, names in os.walk(source):
        folders[:] = sorted(name for name in folders if name not in LEFT_OUT)
        linked = [name for name in folders if (Path(folder) / name).is_symlink()]
        for name in [*linked, *sorted(names)]:
            one = Path(folder) / name
            if name in LEFT_OUT:
                continue
            if one.is_symlink() and not one.resolve().is_relative_to(inside):
                raise bad(
                    f"the link {one} points out of {source}", "name its target in `files`, or remove the link"
                )
            if one.is_dir():
                continue  # a link to a folder inside: what it points to is sent anyway
            yield _attachment(one, str(PurePosixPath(path, one.relative_to(source).as_posix())), bad)


def _attachment(source: Path, path: str, bad: Callable[[str, str], BadAttachment]) -> Attachment:
    if not source.is_file():
        raise bad(f"{source} is no plain file", "leave it out of `files`")
    if not os.access(source, os.R_OK):
        raise bad(f"{source} may not be read", "change its permissions or leave it out")
    facts = source.stat()
    if facts.st_size > FILE_BYTES_MAX:
        raise bad(
            f"{source} has {bytes_text(facts.st_size)}; the most is {bytes_text(FILE_BYTES_MAX)}",
            "let the run fetch what is large",
        )
    return Attachment(
        source=source, path=path, bytes=facts.st_size, mode=0o755 if facts.st_mode & 0o100 else 0o644
    )
