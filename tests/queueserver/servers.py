"""Real queue servers in processes of their own, for tests."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

from instrument.queueserver import connect
from instrument.queueserver.places import QueueDirectory
from tests.terminal import ROOT, clean_environment

DEADLINE = 120.0  # s


class Server:
    """`instrument qserver` in a working directory."""

    def __init__(self, directory, *arguments):
        self.directory = directory
        self.files = QueueDirectory(directory / ".data" / "queue")
        self.environment = clean_environment(directory, PYTHONPATH=str(ROOT))
        command = [sys.executable, "-m", "instrument.cli", "qserver", "--port", "0", "--info-port", "0", *arguments]
        self.process = subprocess.Popen(
            command, cwd=directory, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.lines = []
        self._ready = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            if line.startswith("ready in "):
                self._ready.set()
        self._ready.set()

    def wait_ready(self):
        assert self._ready.wait(DEADLINE), self.lines
        assert any(line.startswith("ready in ") for line in self.lines), self.lines
        return self

    def connect(self):
        return connect(self.directory / ".data")

    def instrument(self, *arguments):
        """Exit code and output of `instrument ...` there."""
        done = subprocess.run(
            [sys.executable, "-m", "instrument.cli", *arguments],
            cwd=self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=DEADLINE,
        )
        return done.returncode, (done.stdout + done.stderr).strip()

    def end(self, number=signal.SIGTERM):
        """The exit code, after a signal."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)
        code = self.process.wait(DEADLINE)
        self._reader.join(10)  # what it told last; of a server that was killed, others may hold the pipe for a while
        return code


@contextlib.contextmanager
def serving(directory, *arguments):
    server = Server(directory, *arguments)
    try:
        yield server.wait_ready()
    finally:
        if server.process.poll() is None:
            server.end()


def until(condition, what):
    """Wait until a condition holds."""
    end = time.monotonic() + DEADLINE
    while not (found := condition()):
        assert time.monotonic() < end, f"waited until {what}"
        time.sleep(0.05)
    return found


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
