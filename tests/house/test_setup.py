"""`make setup` says in one clear sentence what a machine lacks, and leaves nothing behind."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.source import ROOT

SETUP = ROOT / "tools" / "setup.sh"


def python_that(folder: Path, *, changes: str) -> Path:
    """An interpreter that is this one after `changes`, as a machine would have it installed."""
    script = folder / "python3"
    script.write_text(
        f'#!/bin/sh\nexec "{sys.executable}" -c "import sys; {changes}; exec(sys.argv[2])" "$@"\n'
    )
    script.chmod(0o755)
    return script


def set_up(folder: Path, python: str, extras: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHON": python, "VENV": str(folder / "venv")}
    return subprocess.run(
        ["sh", str(SETUP), extras], env=environment, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        pytest.param(
            "sys.version_info = (3, 10, 13)",
            "Python 3.11 or newer is needed and {python} is Python 3.10",
            id="too old",
        ),
        pytest.param(
            "sys.modules['ensurepip'] = None",
            "install python3-venv (apt install python3-venv) and run again",
            id="without venv",
        ),
    ],
)
def test_a_python_that_will_not_do(tmp_path: Path, changes: str, sentence: str) -> None:
    python = python_that(tmp_path, changes=changes)
    done = set_up(tmp_path, str(python))
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert sentence.format(python=python) in done.stderr
    assert not (tmp_path / "venv").exists()


def test_a_python_that_is_not_there(tmp_path: Path) -> None:
    done = set_up(tmp_path, str(tmp_path / "nowhere"))
    assert (done.returncode, done.stdout) == (1, "")
    assert (
        done.stderr
        == f"baseai: PYTHON={tmp_path}/nowhere does not run: name a Python 3.11 or newer and run again.\n"
    )


def test_a_folder_that_is_no_environment_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv" / "thesis.txt").write_text("mine")
    done = set_up(tmp_path, sys.executable)
    assert done.returncode == 1
    assert "is no virtual environment" in done.stderr
    assert (tmp_path / "venv" / "thesis.txt").read_text() == "mine"


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_alone_lists_the_targets() -> None:
    shown = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True).stdout
    for target in ("make demo", "make test", "make setup", "make check", "make bench", "make lock"):
        assert f"{target} " in shown
