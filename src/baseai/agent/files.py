"""Files of a run come by digest: fetched once into the node's cache, then copied into each run's work folder.

Invariant: what lies in the cache under a digest has that digest; nothing is ever written outside the work folder;
a run gets copies, so that it cannot change what the next run finds.
"""

import contextlib
import errno
import hashlib
import os
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path, PurePosixPath

from baseai.api.schemas import FileRef
from baseai.ground.fault import Fault
from baseai.ground.identity import mint

Fetch = Callable[[str], AsyncIterator[bytes]]


class FileUnfit(Fault):
    """A file of the run cannot be laid where the run wants it."""

    def __init__(self, path: str, sentence: str) -> None:
        super().__init__(path, sentence)
        self.path = path
        self.sentence = sentence

    def __str__(self) -> str:
        return f"file {self.path}: {self.sentence}"


def place_below(folder: Path, path: str) -> Path:
    """Where `path` lies below `folder`. Raises FileUnfit when it would lie elsewhere, also through a link."""
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or not pure.parts or "\0" in path:
        raise FileUnfit(path, "its path must stay inside the run's folder")
    place = folder.joinpath(*pure.parts)
    if not place.resolve().is_relative_to(folder.resolve()):
        raise FileUnfit(path, "its path leaves the run's folder through a link")
    return place


async def fetch_into_cache(cache: Path, file: FileRef, fetch: Fetch) -> Path:
    """The cached copy of a file, fetched if it is not there. Raises FileUnfit when the digest does not fit."""
    if len(file.digest) != 64 or not all(letter in "0123456789abcdef" for letter in file.digest):
        raise FileUnfit(file.path, f"{file.digest!r} is not a SHA-256 digest")
    cached = cache / file.digest
    if cached.exists():
        return cached
    fresh = cache / f".{file.digest}.{mint('part')}"
    digest = hashlib.sha256()
    try:
        with fresh.open("wb") as out:
            async for chunk in fetch(file.digest):
                digest.update(chunk)
                out.write(chunk)
            out.flush()
            os.fsync(out.fileno())
        if digest.hexdigest() != file.digest:
            raise FileUnfit(file.path, f"its content has the digest {digest.hexdigest()}, not {file.digest}")
        fresh.chmod(0o444)
        fresh.replace(cached)
    finally:
        with contextlib.suppress(FileNotFoundError):
            fresh.unlink()
    return cached


def lay(cached: Path, work: Path, file: FileRef) -> None:
    """Copy a cached file to its place; the copy shares blocks where the file system can."""
    place = place_below(work, file.path)
    place.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        place.unlink()
    shutil.copyfile(cached, place)
    place.chmod(file.mode & 0o777)


def is_disk_full(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
