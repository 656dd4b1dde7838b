"""A headless Chromium, spoken to as its developer tools are: to see a page as a person would."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any, Final

from websockets.sync.client import connect

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from websockets.sync.client import ClientConnection

PROGRAM: Final = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_ANSWER_SECONDS: Final = 20.0
_LISTENING: Final = re.compile(r"DevTools listening on (ws://\S+)")
_PAGE_MAX_BYTES: Final = 64 * 1024 * 1024


class Page:
    """One tab."""

    def __init__(self, socket: ClientConnection, session: str) -> None:
        self._socket, self._session, self._number = socket, session, 0
        self.complaints: list[str] = []
        """What the browser wrote into its console: blocked by policy, not found, and the like."""

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters, "sessionId": self._session}
        self._socket.send(json.dumps(message))
        while (answer := self._next()).get("id") != self._number:
            pass
        assert "error" not in answer, answer
        return dict(answer["result"])

    def open(self, url: str, width: int, *, is_dark: bool = False) -> None:
        """Show a page at a width, as a telephone if it is narrow, and wait until it is there."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        for domain in ("Page", "Log", "Runtime"):
            self.call(f"{domain}.enable")
        self.call("Page.navigate", url=url)
        while self._next().get("method") != "Page.loadEventFired":
            pass

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression in the page."""
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def screenshot(self, path: Path, height: int | None = None) -> None:
        """Write what is seen as PNG."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": height or size["height"], "scale": 1}
        shot = self.call("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def _next(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self._socket.recv(_ANSWER_SECONDS))
        if message.get("method") == "Log.entryAdded":
            self.complaints.append(message["params"]["entry"]["text"])
        return message


@contextlib.contextmanager
def running_browser(folder: Path) -> Iterator[Page]:
    """Start the browser with a profile in a folder, and give a tab of it."""
    assert PROGRAM
    argv = [
        PROGRAM,
        "--headless",
        "--disable-gpu",
        "--no-first-run",
        "--remote-debugging-port=0",
        "--disable-dev-shm-usage",
    ]
    argv += ["--hide-scrollbars", f"--user-data-dir={folder}", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with (folder / "stderr").open("w+") as log, subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as process:
        try:
            with connect(_address(process, log), max_size=_PAGE_MAX_BYTES) as socket:
                yield _tab(socket)
        finally:
            process.terminate()
            process.wait(10)


def _address(process: subprocess.Popen[str], log: Any) -> str:
    assert process.stderr
    for line in process.stderr:
        log.write(line)
        if found := _LISTENING.search(line):
            return found[1]
    raise AssertionError(f"{PROGRAM} did not start: {process.wait(10)}")


def _tab(socket: ClientConnection) -> Page:
    def call(number: int, method: str, **parameters: Any) -> dict[str, Any]:
        socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while (answer := json.loads(socket.recv(_ANSWER_SECONDS))).get("id") != number:
            pass
        return dict(answer["result"])

    target = call(-1, "Target.createTarget", url="about:blank")["targetId"]
    return Page(socket, call(-2, "Target.attachToTarget", targetId=target, flatten=True)["sessionId"])
