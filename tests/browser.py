"""Headless Chromium, controlled by its DevTools protocol over a pipe; needs nothing but the browser.

https://chromedevtools.github.io/devtools-protocol/ describes methods and events.
"""

import base64
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from io import BytesIO
from pathlib import Path
from typing import Any, Self

import numpy as np
from PIL import Image

CHROMIUM = next(
    filter(
        None,
        map(
            shutil.which, ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
        ),
    ),
    None,
)
OPTIONS = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-first-run",
    "--no-sandbox",  # which root, and containers, cannot have; the pages are our own
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
)
LONGEST_WAIT_S = 120
SHIFT = 8  # of the protocol's modifiers
KEY_CODES = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Home": 36, "End": 35}


class Browser:
    """One tab. `errors` holds its error messages, `requests` the addresses that it loads."""

    def __init__(self, *, ratio: float = 1) -> None:
        """Start it.

        Args:
            ratio: the screen's pixels for each CSS pixel. As the protocol emulates it, see `size`, elements
                still lie on whole CSS pixels; on a screen that has it they lie on those of the screen.
        """
        assert CHROMIUM is not None
        self.errors: list[str] = []
        self.requests: list[str] = []
        self._number = 0
        self._profile = tempfile.mkdtemp(prefix="srup-browser-")
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        scale = f"--force-device-scale-factor={ratio}"
        # The browser reads from descriptor 3 and writes to 4; the shell puts the pipes there.
        script = f'exec "$0" "$@" 3<&{theirs_in} 4>&{theirs_out}'
        self._process = subprocess.Popen(
            [
                "bash",
                "-c",
                script,
                CHROMIUM,
                *OPTIONS,
                scale,
                f"--user-data-dir={self._profile}",
                "about:blank",
            ],
            pass_fds=(theirs_in, theirs_out),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._received = b""
        self._session: str | None = None
        # A browser that hangs is ended, and reading from it then says so.
        self._guard = threading.Timer(LONGEST_WAIT_S, self._process.kill)
        self._guard.start()
        try:
            targets = self._wait_for_page()
            attached = self.call("Target.attachToTarget", targetId=targets, flatten=True)
            self._session = attached["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                self.call(f"{domain}.enable")
        except BaseException:
            self.close()
            raise

    def _wait_for_page(self) -> str:
        while True:
            infos = self.call("Target.getTargets")["targetInfos"]
            if pages := [info["targetId"] for info in infos if info["type"] == "page"]:
                return pages[0]
            time.sleep(0.1)

    def call(self, method: str, **params: Any) -> Any:
        """Send a command and return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            self._note(answer)

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._received:
            part = os.read(self._in, 1 << 20)
            assert part, "the browser has ended"
            self._received += part
        message, _, self._received = self._received.partition(b"\0")
        return json.loads(message)

    def _note(self, event: dict[str, Any]) -> None:
        params = event.get("params", {})
        match event.get("method"):
            case "Runtime.exceptionThrown":
                self.errors.append(str(params["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "warning", "assert"):
                self.errors.append(str(params["args"]))
            case "Log.entryAdded" if params["entry"]["level"] in ("error", "warning"):
                self.errors.append(str(params["entry"]))
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"][:200])

    def size(self, *, width: int, height: int, ratio: float = 0, mobile: bool = False) -> None:
        """Set the size of the window in CSS pixels; emulate another ratio of pixels unless it is 0."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=ratio,
            mobile=mobile,
        )

    def scheme(self, name: str) -> None:
        """Prefer "light" or "dark"."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def open(self, page: Path) -> None:
        """Load a page from disk, with all its images."""
        self.call("Page.navigate", url=page.resolve().as_uri())
        while self.run("document.readyState") != "complete":
            time.sleep(0.05)
        self.settle()

    def run(self, script: str) -> Any:
        """Evaluate an expression, wait for it if it is a promise, and return its value."""
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def settle(self) -> None:
        """Wait until two frames have been drawn."""
        self.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done())))")

    def key(self, key: str, *, shift: bool = False) -> None:
        """Press and release a key."""
        text = {"text": key} if len(key) == 1 else {"windowsVirtualKeyCode": KEY_CODES.get(key, 0)}
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, modifiers=SHIFT if shift else 0, **text)
        self.settle()

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Press the mouse at one place, move it, and release it at another."""
        middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)
        steps = (("mousePressed", start), ("mouseMoved", middle), ("mouseMoved", end), ("mouseReleased", end))
        for kind, (x, y) in steps:
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)
        self.settle()

    def click(self, selector: str) -> None:
        """Click an element in its middle, which must be visible there."""
        x, y = self.run(
            f"(() => {{ const r = document.querySelector({json.dumps(selector)}).getBoundingClientRect();"
            "return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        self.drag((x, y), (x, y))

    def wheel(self, x: float, y: float, turn: float) -> None:
        """Turn the wheel; away from the user is negative."""
        self.call("Input.dispatchMouseEvent", type="mouseWheel", x=x, y=y, deltaX=0, deltaY=turn)
        self.settle()

    def screenshot(self) -> np.ndarray:
        """Return a screenshot, uint8 (H, W, 3)."""
        data = self.call("Page.captureScreenshot", format="png")["data"]
        with Image.open(BytesIO(base64.b64decode(data))) as image:
            return np.asarray(image.convert("RGB"))

    def close(self) -> None:
        """End the browser."""
        self._guard.cancel()
        self._process.kill()
        self._process.wait()
        os.close(self._out)
        os.close(self._in)
        shutil.rmtree(self._profile, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
