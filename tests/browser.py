"""A real browser, asked over its DevTools protocol what it shows (chromedevtools.github.io/devtools-protocol)."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from websockets.sync.client import ClientConnection, connect

COMMAND = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
COMMAND += ["--disable-component-update", "--disable-sync", "--no-first-run", "--disable-quic"]
# Long pages draw only what is in the window: this one holds them whole.
COMMAND += ["--window-size=1280,30000"]
PATIENCE = 60.0


class Page:
    """One tab."""

    def __init__(self, wire: ClientConnection) -> None:
        self._wire = wire
        self._asked = 0

    def evaluate(self, expression: str) -> object:
        """The value of an expression in the page."""
        self._asked += 1
        parameters = {"expression": expression, "returnByValue": True, "awaitPromise": True}
        self._wire.send(json.dumps({"id": self._asked, "method": "Runtime.evaluate", "params": parameters}))
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            told = json.loads(self._wire.recv(timeout=PATIENCE))
            if told.get("id") == self._asked:
                value: object = told["result"]["result"].get("value")
                return value
        raise TimeoutError(f"the browser did not answer {expression!r} within {PATIENCE:.0f} s")

    def html_with(self, text: str) -> str:
        """The page's elements once they hold this text, or as they are after a minute."""
        deadline = time.monotonic() + PATIENCE
        html = ""
        while text not in html and time.monotonic() < deadline:
            html = str(self.evaluate("document.documentElement.outerHTML"))
            time.sleep(0.1)
        return html


@contextmanager
def open_page(address: str, profile: Path) -> Iterator[Page]:
    """A page in a browser of its own, which ends with it."""
    options = [f"--user-data-dir={profile}", "--remote-debugging-port=0"]
    browser = subprocess.Popen([*COMMAND, *options, address], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        with connect(_debugger(profile / "DevToolsActivePort", address), max_size=1 << 26) as wire:
            yield Page(wire)
    finally:
        browser.terminate()
        browser.wait(timeout=30)


def _debugger(told: Path, address: str) -> str:
    """Where the page of this address is listened to: the browser writes its port down, and lists its pages there."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if told.exists() and (lines := told.read_text().splitlines()):
            for page in httpx.get(f"http://127.0.0.1:{lines[0]}/json/list", timeout=PATIENCE).json():
                if page["url"].startswith(address):
                    return str(page["webSocketDebuggerUrl"])
        time.sleep(0.1)
    raise TimeoutError("the browser did not open the page")
