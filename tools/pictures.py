"""Takes the pictures of the README: pages of a running platform, in a real browser, signed in.

`python tools/pictures.py --data FOLDER` writes docs/pictures/. It needs Chromium. A browser without a screen keeps no
session from one picture to the next, so a small proxy on loopback adds the session to what the browser asks for.
"""

import argparse
import http.server
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--force-device-scale-factor=1",
)  # fmt: skip


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


def ask(url: str, key: str, method: str = "GET") -> dict[str, object]:
    request = urllib.request.Request(url, method=method, headers={"Authorization": f"Bearer {key}"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        found: dict[str, object] = json.loads(answer.read())
        return found


def session_of(link: str) -> str:
    """The cookie that a sign-in link is exchanged for."""
    try:
        urllib.request.build_opener(NoRedirect).open(link, timeout=10)
    except urllib.error.HTTPError as moved:
        return moved.headers["Set-Cookie"].partition(";")[0]
    raise SystemExit("the link did not sign in")


def proxy(url: str, cookie: str, language: str) -> http.server.ThreadingHTTPServer:
    class Forward(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.endswith("/live"):  # open, and silent: a picture shows one instant
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.end_headers()
                time.sleep(15)
                return
            headers = {"Cookie": cookie, "Accept-Language": language}
            try:
                answer = urllib.request.urlopen(
                    urllib.request.Request(url + self.path, headers=headers), timeout=10
                )
            except urllib.error.HTTPError as wrong:
                answer = wrong
            self.send_response(answer.status)
            for name in ("Content-Type", "Content-Security-Policy"):
                if answer.headers[name]:
                    self.send_header(name, answer.headers[name])
            self.end_headers()
            self.wfile.write(answer.read())

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Forward)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--data", type=Path, required=True, help="data folder of the running platform")
    options.add_argument("--run", help="run to show; the newest train by default")
    options.add_argument("--into", type=Path, default=ROOT / "docs" / "pictures")
    asked = options.parse_args()
    browser = next((path for name in NAMES if (path := shutil.which(name))), None)
    if browser is None:
        sys.exit("no Chromium here: install it (apt install chromium)")
    connect = json.loads((asked.data / "connect.json").read_text())
    url, key = connect["url"], connect["key"]
    runs = ask(f"{url}/api/v1/runs?all=true", key)["items"]
    run = asked.run or next(one["run_id"] for one in runs if one["kind"] == "train")  # type: ignore[index,union-attr]
    asked.into.mkdir(parents=True, exist_ok=True)
    pictures = (
        ("run", f"/runs/{run}", "en", 1800), ("run.pt-BR", f"/runs/{run}", "pt-BR", 1800),
        ("fleet", "/fleet", "en", 620), ("queue", "/queue", "en", 620), ("books", "/books", "en", 900),
    )  # fmt: skip
    cookie = session_of(str(ask(f"{url}/api/v1/sign-in-links", key, "POST")["url"]))
    for name, path, language, height in pictures:
        server = proxy(url, cookie, language)
        with tempfile.TemporaryDirectory() as profile:
            subprocess.run(
                [browser, *FLAGS, f"--user-data-dir={profile}", f"--window-size=1180,{height}", "--timeout=4000",
                 f"--screenshot={asked.into / name}.png", f"http://127.0.0.1:{server.server_port}{path}"],
                check=True, capture_output=True,
            )  # fmt: skip
        server.shutdown()
        print(asked.into / f"{name}.png")


if __name__ == "__main__":
    main()
