"""A real session at the prompt that people see (prompt_toolkit's), started by `make session`, through tmux."""

import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path

import psutil

from tests.faults.session import until
from tests.terminal import ROOT, clean_environment
from virtual_beamline import supervisor
from virtual_beamline.client import read_text


class Tmux:
    """`make session` in a window of 200 x 60.

    Args:
        directory: Where it is started.
        variables: What else its environment has.
    """

    def __init__(self, directory: Path, **variables: str) -> None:
        # a directory of its own that looks like the clone: the session writes to where it is started
        for name in ("Makefile", "pyproject.toml", "constraints.txt"):
            (directory / name).symlink_to(ROOT / name)
        environment = clean_environment(directory, TERM="screen", SHELL="/bin/sh", **variables)
        environment.pop("IPY_TEST_SIMPLE_PROMPT")
        self._environment = environment
        self._tmux = ["tmux", "-S", str(directory / "tmux.socket"), "-f", os.devnull]
        venv = Path(sys.prefix)
        make = f"exec make -o {venv}/.installed VENV={venv} session"
        self.run("new-session", "-d", "-x", "200", "-y", "60", "-c", str(directory), make)
        self.pid = int(self.run("display-message", "-p", "#{pane_pid}"))

    def run(self, *command):
        """A command of tmux; its output."""
        done = subprocess.run(
            [*self._tmux, *command], env=self._environment, check=True, capture_output=True, text=True
        )
        return done.stdout

    def shown(self):
        """The screen and what has scrolled off it, without the empty lines."""
        text = self.run("capture-pane", "-p", "-S", "-", "-J")
        return [line.rstrip() for line in text.splitlines() if line.strip()]

    def press(self, *keys):
        self.run("send-keys", *keys)

    def prompt(self, number):
        """Wait for the prompt of that number, whatever the session tells in front of it."""
        wanted = re.compile(rf"(\[[\w! ]+\] )?In \[{number}\]:")
        until(lambda: wanted.fullmatch((self.shown() or [""])[-1]), f"In [{number}]", timeout=240)

    def answer(self, number, command):
        """Type a command; what is shown of it."""
        self.prompt(number)
        self.type(command)
        self.prompt(number + 1)
        return self.after(f"In [{number}]: {command}")

    def type(self, line):
        """Type a line and Enter."""
        self.run("send-keys", "-l", line)
        self.press("Enter")

    def after(self, line):
        """What is shown after a line that ends like this, without the last prompt."""
        lines = self.shown()
        return lines[max(number for number, shown in enumerate(lines) if shown.endswith(line)) + 1 : -1]

    def beamline(self):
        children = {child.pid for child in psutil.Process(self.pid).children(recursive=True)}
        return next(beamline for beamline in supervisor.running() if beamline.pid in children)

    def pv(self, name):
        return read_text(name, self.beamline().environment.ca_address, timeout=10)

    def leave(self):
        """Ctrl-D, and wait for the end of the session."""
        self.press("C-d")
        until(lambda: not psutil.pid_exists(self.pid), "the end of the session")

    def close(self):
        """End it, whatever it does."""
        with contextlib.suppress(subprocess.CalledProcessError):
            self.run("kill-server")
