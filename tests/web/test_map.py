"""The map and the charts in a real browser: painted, alive, pointed at, typed into, and without an error."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from baseai.telemetry.field import ACCELERATOR, Origin
from tests.web.chromium import BROWSER, Chromium
from tests.web.fleet import Asked, batch, installed, laptop, now_ms, places, tick
from tests.web.platform import Platform
from tests.web.serving import served

pytestmark = [
    pytest.mark.skipif(BROWSER is None, reason="needs Chromium to see the page as people do"),
    pytest.mark.slow,
]
PAINTED = "document.getElementById('map')?.dataset.painted"
DRAWN = "document.getElementById('plots')?.dataset.drawn"


def fleet(nodes: int, **facts: Any) -> Platform:
    cells, eyes = installed(nodes, 8), Asked()
    eyes.store.place(ACCELERATOR, places(cells))
    eyes.append(tick(cells, now_ms()))
    return Platform(eyes=eyes, cells=cells, **facts)


@contextmanager
def seen(platform: Platform, path: str, **how: Any) -> Iterator[Chromium]:
    """A browser that is signed in and has opened `path`."""
    with served(platform) as enter, Chromium(**how) as browser:
        browser.open(enter)
        browser.open(enter.removesuffix("/enter") + path)
        yield browser


def painted_colours(browser: Chromium) -> int:
    """How many different colours stand on the map."""
    return int(
        browser.evaluate(
            "(() => { const c = document.querySelector('#map canvas[role]');"
            " const d = new Uint32Array(c.getContext('2d').getImageData(0, 0, c.width, c.height).data.buffer);"
            " return new Set(d).size; })()"
        )
    )


@pytest.mark.parametrize(("language", "word"), [("pt-BR", "em branco"), ("en", "blank")])
def test_ten_thousand_cells_are_painted(language: str, word: str, tmp_path: Path) -> None:
    with seen(fleet(1250), f"/fleet?lang={language}", height=1000) as browser:
        browser.wait_for(PAINTED)
        assert painted_colours(browser) > 20
        assert word in browser.evaluate("document.querySelector('.map-legend').textContent")
        bottom = browser.evaluate("document.getElementById('map').getBoundingClientRect().bottom")
        browser.picture(tmp_path / "map.png")
        assert browser.errors == []
    assert bottom <= 1000  # all of it on one screen
    assert (tmp_path / "map.png").stat().st_size > 60_000


def test_what_is_measured_now_is_painted_within_a_moment() -> None:
    platform = fleet(6)
    assert platform.eyes is not None
    assert platform.cells is not None
    with seen(platform, "/fleet?lang=en") as browser:
        browser.wait_for(PAINTED)
        browser.wait_for("document.getElementById('map').dataset.updates >= 1")
        hot = [platform.cells[0]["serial"]]
        for key in ("Tab",) * 30:
            if browser.evaluate("document.activeElement?.tagName") == "CANVAS":
                break
            browser.press(key)
        platform.eyes.append(
            batch(
                ACCELERATOR, hot, now_ms() + 1, {"util_pct": np.array([12.5])}, batch_id="hot", origin=Origin.MEASURED
            )
        )  # fmt: skip
        browser.wait_for("document.getElementById('map').dataset.updates >= 2", within_s=20)
        # Arrow keys go from cell to cell, and what is spoken is what stands there now.
        for _ in range(48):
            if hot[0] in browser.evaluate("document.querySelector('#map [role=status]').textContent"):
                break
            browser.press("ArrowRight")
        assert "Utilisation: 12.5 %" in browser.evaluate(
            "document.querySelector('#map [role=status]').textContent"
        )
        browser.press("Enter")
        browser.wait_for(f"location.pathname === '/accelerators/{hot[0]}'")
        assert browser.errors == []


def test_pointing_at_a_cell_tells_serial_node_value_and_who_uses_it() -> None:
    with seen(fleet(6), "/fleet?lang=pt-BR") as browser:
        browser.wait_for(PAINTED)
        box = browser.evaluate(
            "(({ left, top }) => [left, top])(document.querySelector('#map canvas[role]').getBoundingClientRect())"
        )
        browser.point(box[0] + 10, box[1] + 90)
        told = browser.wait_for(
            "!document.querySelector('.tip').hidden && document.querySelector('.tip').innerText"
        )
        assert "SIM-" in told
        assert "node-" in told
        assert "Utilização:" in told
        browser.click(box[0] + 10, box[1] + 90)
        browser.wait_for("location.pathname.startsWith('/accelerators/SIM-')")
        assert browser.errors == []


def test_another_aspect_is_shown_without_another_page() -> None:
    with seen(fleet(12), "/fleet?lang=en") as browser:
        browser.wait_for(PAINTED)
        browser.evaluate("window.same = true; document.querySelector('[data-aspect-name=holder]').click()")
        browser.wait_for("document.querySelector('.map-legend').textContent.includes('train-00')")
        assert browser.evaluate("window.same")
        assert "aspect=holder" in browser.evaluate("location.search")
        browser.wait_for("document.querySelector('main').dataset.live.includes('aspect=holder')")
        assert browser.errors == []


def test_without_script_the_table_says_it_by_node() -> None:
    with seen(fleet(2), "/fleet?lang=en", script=False) as browser:
        tree = browser.ask("Accessibility.getFullAXTree")["nodes"]
        names = [node.get("name", {}).get("value", "") for node in tree if not node["ignored"]]
    assert any("°C" in name for name in names)
    assert not any("Map of the fleet" in name for name in names)


@pytest.mark.parametrize("width", [1280, 400])
def test_charts_are_drawn_and_grow_as_rows_come(width: int) -> None:
    eyes = Asked()
    laptop(eyes)
    platform = Platform(eyes=eyes)
    with seen(platform, "/accelerators/slot-7f3a-0?lang=pt-BR", width=width) as browser:
        browser.wait_for(DRAWN)
        before = browser.evaluate("document.getElementById('plots').dataset.newest")
        assert browser.evaluate("document.querySelectorAll('.plot canvas').length") == 3
        assert browser.evaluate("document.documentElement.scrollWidth") <= width  # nothing sticks out
        fresh = batch(
            ACCELERATOR, ["slot-7f3a-0"], now_ms() + 2000, {"util_pct": np.array([77.0])}, batch_id="fresh"
        )  # fmt: skip

        def append() -> None:
            time.sleep(0.3)
            eyes.append(fresh)

        threading.Thread(target=append).start()
        browser.wait_for(f"document.getElementById('plots').dataset.newest > {before}", within_s=20)
        browser.wait_for("document.querySelector('#plot-activity').textContent.includes('77 %')")
        assert browser.errors == []


def test_a_runs_charts_stay_while_its_tables_are_exchanged() -> None:
    eyes = Asked()
    laptop(eyes)
    platform = Platform(eyes=eyes)
    with seen(platform, "/nodes/node-a?lang=en") as browser:
        browser.wait_for(DRAWN)
        browser.evaluate("window.canvas = document.querySelector('.plot canvas')")
        eyes.ring()
        browser.wait_for("document.getElementById('readings').textContent.includes('cores in use')")
        assert browser.evaluate("window.canvas.isConnected")
        assert browser.errors == []
