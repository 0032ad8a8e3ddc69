"""A prefix is where a peer's programs stand: a folder below a cache, made when a bench first needs it.

Invariant: nothing of a peer becomes a dependency of ours, and nothing is installed into the system: Python peers get a
virtual environment each, from the package index that this machine uses; programs come from the system where it has
them, and else from Debian's packages, unpacked into the cache without being installed.

The cache is `~/.cache/baseai-bench`, or what BENCH_CACHE names. Removing it costs the next run some minutes.
"""

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.serving.front import Absent

LIBRARIES = "usr/lib/x86_64-linux-gnu"


def cache() -> Path:
    told = os.environ.get("BENCH_CACHE")
    folder = Path(told) if told else Path.home() / ".cache" / "baseai-bench"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def _alone(name: str) -> Iterator[None]:
    """Two benches at once make a prefix once."""
    with (cache() / f".{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def python(name: str, requirements: Sequence[str], *, probe: str) -> Path:
    """The interpreter of a virtual environment that has the requirements.

    probe: a module that must be importable; an environment left half made is made again.
    """
    folder = cache() / name
    interpreter = folder / "bin" / "python"
    told = folder / "requirements"
    wanted = "\n".join(requirements)
    with _alone(name):
        if told.exists() and told.read_text() == wanted:
            return interpreter
        shutil.rmtree(folder, ignore_errors=True)
        print(f"making {folder}, with {', '.join(requirements)}", flush=True)
        for words in (
            [sys.executable, "-m", "venv", str(folder)],
            [str(interpreter), "-m", "pip", "install", "--quiet", *requirements],
            [str(interpreter), "-c", f"import {probe}"],
        ):
            try:
                done = subprocess.run(words, capture_output=True, text=True, timeout=900)
            except subprocess.TimeoutExpired:
                raise Absent(f"{name}: not installed within 15 minutes") from None
            if done.returncode:
                said = [line for line in done.stderr.splitlines() if not line.startswith("WARNING")]
                raise Absent(f"{name}: {' '.join(said[-2:])[-300:]}")
        told.write_text(wanted)
    return interpreter


def program(name: str, packages: Sequence[str]) -> tuple[Path, dict[str, str]]:
    """A program of the system, or of Debian's packages unpacked; and the environment that it needs.

    packages: the program's own first, then those of libraries that a bare system may lack.
    """
    if found := shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin"):
        return Path(found), {}
    folder = cache() / "debian" / name
    file = folder / "usr" / "sbin" / name
    with _alone(name):
        if not file.exists():
            _unpack(folder, packages)
    if not file.exists():
        raise Absent(f"{name}: {packages[0]} does not hold it")
    return file, {"LD_LIBRARY_PATH": str(folder / LIBRARIES)}


def _unpack(folder: Path, packages: Sequence[str]) -> None:
    for needed in ("apt-get", "dpkg"):
        if not shutil.which(needed):
            raise Absent(f"{packages[0]}: neither here nor to be had, there is no {needed}")
    with tempfile.TemporaryDirectory() as downloads:
        done = subprocess.run(
            ["apt-get", "download", *packages], cwd=downloads, capture_output=True, text=True, timeout=120
        )
        if done.returncode:
            raise Absent(f"{packages[0]}: {done.stderr.strip()[-300:]}")
        folder.mkdir(parents=True, exist_ok=True)
        for package in Path(downloads).glob("*.deb"):
            subprocess.run(["dpkg", "-x", str(package), str(folder)], check=True, timeout=60)
