"""A run's page in a real browser, served by a real server on loopback: it is drawn, and it comes alive."""

import re
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.web.chromium import BROWSER
from tests.web.platform import Platform, run
from tests.web.serving import served

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip

pytestmark = [
    pytest.mark.skipif(BROWSER is None, reason="needs Chromium to see the page as people do"),
    pytest.mark.slow,
]


class Ending(Platform):
    """A platform whose run ends as soon as somebody listens."""

    async def run_changes(self, run_id: str) -> AsyncIterator[None]:
        self.rows[0] = run(state="succeeded", reason="finished", result={"sample": "it lives"})
        yield


def browse(address: str, folder: Path, *flags: str) -> str:
    assert BROWSER is not None
    command = [BROWSER, *FLAGS, f"--user-data-dir={folder / 'profile'}", *flags, address]
    return subprocess.run(command, capture_output=True, text=True, timeout=90, check=True).stdout


def test_the_page_comes_alive(tmp_path: Path) -> None:
    with served(Ending()) as address:
        page = browse(address, tmp_path, "--virtual-time-budget=6000", "--dump-dom")
    assert "Terminou bem." in page  # the page said `rodando`; the stream told the end
    assert "it lives" in page
    assert re.search(r'<span role="status"[^>]*>Terminou: nada mais vai mudar<', page)


def test_the_page_is_drawn(tmp_path: Path) -> None:
    shot = tmp_path / "run.png"
    with served(Platform()) as address:
        browse(address, tmp_path, "--window-size=1280,1000", "--timeout=4000", f"--screenshot={shot}")
    picture = shot.read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 40_000  # an empty page of this size has 5 kB
