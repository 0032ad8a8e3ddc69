"""Takes the pictures of the README: pages of a running platform, in a real browser, signed in.

`python tools/pictures.py --data FOLDER` writes docs/pictures/. It needs Chromium. The map of a large fleet is taken of
a fleet that does not exist, served here beside the platform: its page says on every figure that it is simulated.
"""

import argparse
import json
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT)]

from baseai.telemetry.field import ACCELERATOR  # noqa: E402 - found by the line above
from tests.web.chromium import BROWSER, Chromium  # noqa: E402
from tests.web.fleet import Asked, installed, now_ms, places, tick  # noqa: E402
from tests.web.platform import Platform, node  # noqa: E402
from tests.web.serving import served  # noqa: E402

WIDTH = 1180
NODES, PER_NODE = 1250, 8  # of the simulated fleet
# A page is ready once what its scripts draw is drawn; one that draws nothing is ready at once.
READY = (
    "(!document.getElementById('plots')?.dataset.series || document.getElementById('plots').dataset.drawn)"
    " && (!document.getElementById('map') || document.getElementById('map').dataset.painted)"
)


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


def ask(url: str, key: str, method: str = "GET") -> dict[str, object]:
    request = urllib.request.Request(url, method=method, headers={"Authorization": f"Bearer {key}"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        found: dict[str, object] = json.loads(answer.read())
        return found


def session_of(link: str) -> tuple[str, str]:
    """Name and value of the cookie that a sign-in link is exchanged for."""
    try:
        urllib.request.build_opener(NoRedirect).open(link, timeout=10)
    except urllib.error.HTTPError as moved:
        name, _, value = moved.headers["Set-Cookie"].partition(";")[0].partition("=")
        return name, value
    raise SystemExit("the link did not sign in")


def take(browser: Chromium, url: str, language: str, height: int, file: Path) -> None:
    """One picture of one page, once all of it is drawn."""
    browser.ask(
        "Emulation.setDeviceMetricsOverride", width=WIDTH, height=height, deviceScaleFactor=1, mobile=False
    )
    browser.open(f"{url}{'&' if '?' in url else '?'}lang={language}")
    browser.wait_for(READY)
    time.sleep(0.5)  # what was drawn is shown
    browser.picture(file)
    print(file)


def of_platform(asked: argparse.Namespace) -> None:
    connect = json.loads((asked.data / "connect.json").read_text())
    url, key = connect["url"], connect["key"]
    runs = ask(f"{url}/api/v1/runs?all=true", key)["items"]
    run = asked.run or next(one["run_id"] for one in runs if one["kind"] == "train")  # type: ignore[index,union-attr]
    nodes: Sequence[dict[str, str]] = ask(f"{url}/api/v1/nodes", key)["items"]  # type: ignore[assignment]
    services: Sequence[dict[str, str]] = ask(f"{url}/api/v1/services", key)["items"]  # type: ignore[assignment]
    name, value = session_of(str(ask(f"{url}/api/v1/sign-in-links", key, "POST")["url"]))
    pictures = (
        ("run", f"/runs/{run}", "en", 1800), ("run.pt-BR", f"/runs/{run}", "pt-BR", 1800),
        ("fleet", "/fleet", "en", 900), ("node", f"/nodes/{nodes[0]['name']}", "en", 1300),
        ("queue", "/queue", "en", 620), ("books", "/books", "en", 1000),
        *(("service", f"/services/{one['service_id']}", "en", 1500) for one in services[:1]),  # type: ignore[index]
    )  # fmt: skip
    with Chromium() as browser:
        browser.ask("Network.setCookie", name=name, value=value, url=url, httpOnly=True)
        for picture, path, language, height in pictures:
            take(browser, url + path, language, height, asked.into / f"{picture}.png")


def of_recorded_month(data: Path, month: str, into: Path) -> None:
    """The month at a glance of a platform that holds the recorded month of the tests, on simulated nodes."""
    connect = json.loads((data / "connect.json").read_text())
    url, key = connect["url"], connect["key"]
    name, value = session_of(str(ask(f"{url}/api/v1/sign-in-links", key, "POST")["url"]))
    with Chromium() as browser:
        browser.ask("Network.setCookie", name=name, value=value, url=url, httpOnly=True)
        for picture, language in (("month", "en"), ("month.pt-BR", "pt-BR")):
            take(browser, f"{url}/books?month={month}&simulated=1", language, 1180, into / f"{picture}.png")


def of_simulated_fleet(into: Path) -> None:
    cells, eyes = installed(NODES, PER_NODE), Asked()
    eyes.store.place(ACCELERATOR, places(cells))
    eyes.append(tick(cells, now_ms()))
    rows = [
        node(
            f"node-{number:04d}", node_id=f"nod_{number:04d}", site=cells[number * PER_NODE]["site"],
            models={"h100-sxm-80": PER_NODE}, free={"h100-sxm-80": PER_NODE if number % 3 == 1 else 0},
            simulated=True, runs=[],
        )
        for number in range(NODES)
    ]  # fmt: skip
    with served(Platform(eyes=eyes, cells=cells, node_rows=rows)) as enter, Chromium() as browser:
        browser.open(enter)
        home = enter.removesuffix("/enter")
        take(browser, f"{home}/fleet", "en", 900, into / "map.png")
        take(browser, f"{home}/fleet?aspect=temp_c", "pt-BR", 900, into / "map.pt-BR.png")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument(
        "--data", type=Path, help="data folder of the running platform; without it only the map"
    )
    options.add_argument(
        "--recorded", type=Path, help="data folder of a platform that holds the recorded month of the tests"
    )
    options.add_argument("--month", default="2026-10", help="that month")
    options.add_argument("--run", help="run to show; the newest train by default")
    options.add_argument("--into", type=Path, default=ROOT / "docs" / "pictures")
    asked = options.parse_args()
    if BROWSER is None:
        sys.exit("no Chromium here: install it (apt install chromium)")
    asked.into.mkdir(parents=True, exist_ok=True)
    of_simulated_fleet(asked.into)
    if asked.recorded:
        of_recorded_month(asked.recorded, asked.month, asked.into)
    if asked.data:
        of_platform(asked)


if __name__ == "__main__":
    main()
