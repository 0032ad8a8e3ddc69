"""A real browser without a screen, driven over its debugging pipe: pages are opened, pointed at, typed into and seen.

Whatever a page writes as an error, or a script throws, is kept in `errors`: a page that is well leaves it empty.
"""

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--remote-debugging-pipe", "--force-device-scale-factor=1",
)  # fmt: skip
# A browser expects its pipe at 3 and 4, wherever it stands in us.
HAND_OVER = (
    "import os, sys; a, b = os.dup(int(sys.argv[1])), os.dup(int(sys.argv[2]));"
    " a, b = (os.dup(a) if a in (3, 4) else a), (os.dup(b) if b in (3, 4) else b);"
    " os.dup2(a, 3); os.dup2(b, 4); os.execv(sys.argv[3], sys.argv[3:])"
)
KEYS = {
    "ArrowRight": 39,
    "ArrowLeft": 37,
    "ArrowUp": 38,
    "ArrowDown": 40,
    "Enter": 13,
    "Tab": 9,
    "Escape": 27,
}


class Chromium:
    """One browser with one tab. Close it, or use it in a `with`."""

    def __init__(
        self, *, width: int = 1280, height: int = 1000, dark: bool = False, script: bool = True
    ) -> None:
        assert BROWSER is not None
        self.errors: list[str] = []
        self._folder = tempfile.TemporaryDirectory(prefix="baseai-chromium-", ignore_cleanup_errors=True)
        self._theirs_in, self._out = os.pipe()
        self._in, self._theirs_out = os.pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-c", HAND_OVER, str(self._theirs_in), str(self._theirs_out), BROWSER, *FLAGS,
             f"--user-data-dir={self._folder.name}", "about:blank"],
            pass_fds=(self._theirs_in, self._theirs_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(self._theirs_in)
        os.close(self._theirs_out)
        self._asked = 0
        self._waiting = b""
        self._session: str | None = None
        try:
            self._prepare(width, height, dark=dark, script=script)
        except BaseException:
            self.close()
            raise

    def _prepare(self, width: int, height: int, *, dark: bool, script: bool) -> None:
        targets = self.ask("Target.getTargets")["targetInfos"]
        page = next(each["targetId"] for each in targets if each["type"] == "page")
        self._session = self.ask("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 500,
        )
        self.ask("Emulation.setScriptExecutionDisabled", value=not script)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])

    def __enter__(self) -> "Chromium":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, wrong: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
        os.close(self._out)
        os.close(self._in)
        self._folder.cleanup()

    # ---- the protocol

    def ask(self, method: str, **facts: Any) -> dict[str, Any]:
        """One question, and its answer; what happens meanwhile is taken in."""
        self._asked += 1
        own = self._asked
        message: dict[str, Any] = {"id": own, "method": method, "params": facts}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            told = self._hear()
            if told.get("id") == own:
                if "error" in told:
                    raise RuntimeError(f"{method}: {told['error']}")
                answer: dict[str, Any] = told["result"]
                return answer
            self._take(told)

    def _hear(self) -> dict[str, Any]:
        while b"\0" not in self._waiting:
            more = os.read(self._in, 1 << 20)
            if not more:
                raise RuntimeError("the browser is gone")
            self._waiting += more
        text, _, self._waiting = self._waiting.partition(b"\0")
        told: dict[str, Any] = json.loads(text)
        return told

    def _take(self, told: dict[str, Any]) -> None:
        facts = told.get("params", {})
        if told.get("method") == "Runtime.exceptionThrown":
            detail = facts["exceptionDetails"]
            self.errors.append(detail.get("exception", {}).get("description") or detail["text"])
        elif told.get("method") == "Runtime.consoleAPICalled" and facts["type"] in ("error", "assert"):
            self.errors.append(" ".join(str(each.get("value")) for each in facts["args"]))
        elif told.get("method") == "Log.entryAdded" and facts["entry"]["level"] == "error":
            self.errors.append(f"{facts['entry']['text']} {facts['entry'].get('url', '')}")

    # ---- what a person does

    def open(self, url: str) -> None:
        self.ask("Page.navigate", url=url)
        self.wait_for("document.readyState === 'complete' && location.href !== 'about:blank'")

    def evaluate(self, script: str) -> Any:
        """The value of an expression in the page."""
        found = self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(f"{script}: {found['exceptionDetails']}")
        return found["result"].get("value")

    def wait_for(self, script: str, within_s: float = 30.0) -> Any:
        """The value of an expression once it is true; fails with what it last was."""
        until = time.monotonic() + within_s
        while True:
            try:
                last = self.evaluate(script)
            except RuntimeError as wrong:  # the page is being exchanged for another
                last = wrong
            if last and not isinstance(last, RuntimeError):
                return last
            if time.monotonic() > until:
                raise AssertionError(f"after {within_s:g} s {script} is {last!r}; errors: {self.errors}")
            time.sleep(0.02)

    def point(self, x: float, y: float) -> None:
        self.ask("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def click(self, x: float, y: float) -> None:
        for kind in ("mousePressed", "mouseReleased"):
            self.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            self.ask("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=KEYS[key])

    def picture(self, file: Path, *, whole: bool = False) -> None:
        shot = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        file.write_bytes(base64.b64decode(shot["data"]))
