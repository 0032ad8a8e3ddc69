"""What a child is told survives the way through its environment, and goes no further."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from baseai.settings import PlatformSettings
from baseai.wiring.child import VARIABLE, Errand

SETTINGS = PlatformSettings(
    data=Path("/d"),
    tls_cert=Path("/c"),
    tls_key=Path("/k"),
    cpu_slots=3,
    rack="r1",
    node_name="one",
    demo=True,
    durable=False,
)


@pytest.mark.parametrize("settings", [SETTINGS, PlatformSettings(data=Path("/d"))])
def test_an_errand_reads_back_as_itself(settings: PlatformSettings) -> None:
    errand = Errand(
        role="server",
        settings=settings,
        dsn="host=/s",
        metrics=Path("/s/metrics.sock"),
        listening_fd=7,
        url="http://h",
        token="join_x",
    )
    assert Errand.from_text(errand.to_text()) == errand


def test_what_goes_wrong_in_a_child_ends_with_a_sentence(tmp_path: Path) -> None:
    errand = Errand(
        role="server",
        settings=PlatformSettings(data=tmp_path),
        dsn="nonsense=1",
        metrics=tmp_path / "metrics.sock",
        listening_fd=0,
    )
    ended = subprocess.run(
        [sys.executable, "-m", "baseai.wiring.child"],
        env={**os.environ, VARIABLE: errand.to_text()}, capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    assert ended.returncode == 1
    assert ended.stderr.strip().splitlines()[-1].startswith("baseai server: ")
    json.loads(errand.to_text())
