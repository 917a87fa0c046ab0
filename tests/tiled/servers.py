"""Real Tiled servers in processes of their own, for tests."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import requests

from instrument.tiled.places import TiledDirectory, read_key
from tests.terminal import ROOT, clean_environment

DEADLINE = 90.0  # s


class Server:
    """`instrument tiled serve` in a working directory."""

    def __init__(self, directory, *arguments, config=None):
        self.directory = directory
        self.files = TiledDirectory(directory / ".data" / "tiled")
        command = [sys.executable, "-m", "instrument.cli", "tiled", "serve", "--port", "0", *map(str, arguments)]
        if config is not None:
            command += ["--config", str(config)]
        self.process = subprocess.Popen(
            command,
            cwd=directory,
            env=clean_environment(directory, PYTHONPATH=str(ROOT)),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines = []
        self._ready = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            if "web page:" in line:
                self._ready.set()
        self._ready.set()

    def wait_ready(self):
        assert self._ready.wait(DEADLINE), self.lines
        assert any("web page:" in line for line in self.lines), self.lines
        self.url = self.lines[0].split()[3]
        self.write_key, self.read_key = read_key(self.files.write_key), read_key(self.files.read_key)
        return self

    def request(self, method, path, key=None, **kwargs):
        headers = {"Authorization": f"Apikey {key}"} if key else {}
        return requests.request(method, f"{self.url}/api/v1/{path}", headers=headers, timeout=30, **kwargs)

    def get(self, path, key=None, **kwargs):
        return self.request("GET", path, key, **kwargs)

    def search(self, catalog, *filters):
        """The keys of what a catalog holds, by plain HTTP; `filters` are pairs."""
        answer = self.get(f"search/{catalog}", self.read_key, params=[("page[limit]", "300"), *filters])
        assert answer.status_code == 200, answer.text
        return [item["id"] for item in answer.json()["data"]]

    def end(self, number=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(number)
            try:
                self.process.wait(DEADLINE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        return self.process.returncode


@contextlib.contextmanager
def serving(directory, *arguments, config=None):
    """A server that is ready; ended afterwards."""
    directory.mkdir(parents=True, exist_ok=True)
    server = Server(directory, *arguments, config=config)
    try:
        yield server.wait_ready()
    finally:
        server.end()


def postgres_pids(directory):
    """The processes of an embedded PostgreSQL."""
    pid_file = Path(directory) / "postmaster.pid"
    if not pid_file.exists():
        return []
    pid = int(pid_file.read_text().split()[0])
    return [pid] if Path(f"/proc/{pid}").exists() else []


def until(condition, what, deadline=DEADLINE):
    """Wait for a condition."""
    end = time.monotonic() + deadline
    while not (found := condition()):
        assert time.monotonic() < end, f"no {what} after {deadline} s"
        time.sleep(0.02)
    return found


def mode(path):
    return os.stat(path).st_mode & 0o777
