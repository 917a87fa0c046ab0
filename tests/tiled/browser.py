"""A real Chromium without a screen, spoken to in the DevTools protocol."""

import base64
import contextlib
import itertools
import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

from websockets.sync.client import connect

from .servers import DEADLINE, until

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --remote-debugging-port=0 --window-size=1300,900"
).split()


class Browser:
    """One page."""

    def __init__(self, socket):
        self._socket = socket
        self._numbers = itertools.count(1)

    def call(self, method, **parameters):
        answer = self.ask(method, **parameters)
        assert "error" not in answer, answer
        return answer["result"]

    def ask(self, method, **parameters):
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        end = time.monotonic() + DEADLINE
        while time.monotonic() < end:
            answer = json.loads(self._socket.recv(timeout=DEADLINE))
            if answer.get("id") == number:
                return answer
        raise AssertionError(method)

    def open(self, url):
        self.call("Page.navigate", url=url)

    def evaluate(self, script):
        """What a script gives; None while the page is on its way to another."""
        return self.ask("Runtime.evaluate", expression=script).get("result", {}).get("result", {}).get("value")

    def shows(self, *texts):
        """Wait until the page shows all of these."""
        seen = ""

        def look():
            nonlocal seen
            seen = self.evaluate("document.body.innerText") or ""
            return all(text in seen for text in texts)

        try:
            until(look, "page")
        except AssertionError:
            raise AssertionError(f"none of {texts} in {seen!r}") from None
        return seen

    def screenshot(self, path=None):
        picture = base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
        if path is not None:
            Path(path).write_bytes(picture)
        return picture


def first_page(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=DEADLINE) as answer:
        return next((page for page in json.load(answer) if page["type"] == "page"), None)


@contextlib.contextmanager
def browsing():
    """A browser; ended afterwards."""
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            told = Path(profile) / "DevToolsActivePort"
            port = until(lambda: told.exists() and told.read_text().split()[:1], "browser")[0]
            page = until(lambda: first_page(port), "page")
            with connect(page["webSocketDebuggerUrl"], max_size=2**26, proxy=None) as socket:
                yield Browser(socket)
        finally:
            process.terminate()
            process.wait(DEADLINE)
