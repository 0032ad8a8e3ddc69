"""Every spec of examples/ is taken by a real platform of two nodes, as the README types it."""

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.scenarios.platform import ENVIRONMENT, ROOT, Platform, platform

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with platform("--cpu-slots", "2", "--node-name", "one", "--leaf", "l1", "--pod", "p1") as running:
        join = running.ask("POST", "/join-tokens", {})["join_command"].split()[1:]
        folder = tmp_path_factory.mktemp("two")
        words = ["--data", str(folder), "--name", "two", "--cpu-slots", "1", "--leaf", "l2", "--pod", "p1"]
        with (folder / "agent.log").open("wb") as log:
            agent = subprocess.Popen(
                [sys.executable, "-P", "-m", "baseai", *join, *words],
                cwd=folder, stdout=log, stderr=log, env=ENVIRONMENT,
            )  # fmt: skip
        try:
            deadline = time.monotonic() + 30
            while (
                len([node for node in running.ask("GET", "/nodes")["items"] if node["state"] == "ready"]) < 2
            ):
                assert time.monotonic() < deadline, (folder / "agent.log").read_text()
                time.sleep(0.1)
            yield running
        finally:
            agent.terminate()
            agent.wait(60)


def typed(home: Platform, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "baseai", "--data", str(home.data), *words],
        cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_it_would_be_created(home: Platform, example: Path) -> None:
    for line in example.read_text().splitlines():
        if line.startswith("#   baseai "):  # what it says must be done before
            typed(home, *line.removeprefix("#   baseai ").split())
    name = yaml.safe_load(example.read_text())["name"]
    said = typed(home, "apply", "-f", str(example), "--dry-run")
    assert re.match(rf"{name} would be created( or changed)?; nothing was\n", said), said
