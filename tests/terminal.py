"""A real session at a real terminal (pty), for tests: what is typed, what is shown, which keys are pressed."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
from pathlib import Path

import pexpect

ROOT = Path(__file__).parent.parent
PROMPT = re.compile(r"In \[(\d+)\]: ")
COLUMNS = 200
DEADLINE = 60.0  # s, generous: the machine may be busy

# The CA environment of the test process is not the session's: each session starts a beamline of its own.
NOT_INHERITED = re.compile(r"EPICS_|VIRTUAL_BEAMLINE|INSTRUMENT_CONFIG|IPYTHON|PYTEST|QSERVER")


def clean_environment(directory: Path, **extra: str) -> dict[str, str]:
    """The environment of a newcomer: no CA settings, no IPython profile, a home directory of its own."""
    kept = {name: value for name, value in os.environ.items() if not NOT_INHERITED.match(name)}
    return {
        **kept,
        "HOME": str(directory),
        "IPYTHONDIR": str(directory / ".ipython"),
        "IPY_TEST_SIMPLE_PROMPT": "1",  # plain text instead of prompt_toolkit's cursor movements
        "MPLBACKEND": "Agg",
        "PYTHONPATH": os.pathsep.join((str(ROOT / "user"), str(ROOT))),
        "TERM": "dumb",
        **extra,
    }


def _with_default_interrupt() -> None:
    """Ctrl-C works, also where the tests run in the background of a shell, which has them ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Terminal:
    """`instrument session` at a pty.

    Args:
        directory: The working directory of the session.
        arguments: Further arguments, e.g. `("--config", "iconfig.yml")`.
        wrapper: A command that ends with `exec` of its arguments, e.g. `("unshare", "-m")`.
        env: Further environment variables.
        wait: Wait for the first prompt.
    """

    def __init__(
        self,
        directory: Path,
        *,
        arguments: tuple[str, ...] = (),
        wrapper: tuple[str, ...] = (),
        env: dict[str, str] | None = None,
        wait: bool = True,
    ) -> None:
        self.directory = directory
        command, *rest = [*wrapper, sys.executable, "-m", "instrument.cli", "session", *arguments]
        self.process = pexpect.spawn(
            command,
            rest,
            cwd=str(directory),
            env=clean_environment(directory, **(env or {})),
            dimensions=(50, COLUMNS),
            encoding="utf-8",
            preexec_fn=_with_default_interrupt,
            use_poll=True,  # select() can not have more than 1,024 files open in the process of the tests
            timeout=DEADLINE,
        )
        self.startup = self.until_prompt() if wait else ""

    def until_prompt(self, timeout: float = DEADLINE) -> str:
        """What is shown until the next prompt."""
        self.process.expect(PROMPT, timeout=timeout)
        return self._plain(self.process.before)

    def run(self, command: str, timeout: float = DEADLINE) -> str:
        """Type a command; return all that is shown until the next prompt, without the echo."""
        self.process.sendline(command)
        shown = self.until_prompt(timeout)
        return shown.replace(command, "", 1).strip("\n")

    def type(self, command: str) -> None:
        """Type a command without waiting for its end."""
        self.process.sendline(command)
        self.process.expect_exact(command)

    def wait_for(self, pattern: str, timeout: float = DEADLINE) -> str:
        """What is shown until a regular expression matches, the match included."""
        self.process.expect(pattern, timeout=timeout)
        return self._plain(self.process.before + self.process.after)

    def press(self, key: str) -> None:
        """Press a control key: "c" for Ctrl-C, "\\\\" for Ctrl-\\."""
        self.process.sendcontrol(key)

    def recover(self) -> None:
        """Back to the prompt, whatever a test that failed has left in its midst; what was shown is forgotten."""
        for _ in range(3):
            self.press("c")
            self.process.sendline("RE.state == 'paused' and RE.abort(); print('here' 'again')")
            with contextlib.suppress(pexpect.TIMEOUT):
                self.process.expect(r"hereagain\r\n", timeout=DEADLINE / 4)
                self.until_prompt()
                return

    def exit(self) -> int | None:
        """Leave the session; return its exit code."""
        if self.process.isalive():
            self.process.sendline("exit")
            self.process.expect(pexpect.EOF, timeout=DEADLINE)
            self.process.wait()
        self.process.close()
        return self.process.exitstatus

    def kill(self) -> None:
        """kill -9 of the session."""
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()

    @staticmethod
    def _plain(text: str) -> str:
        text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
        return text.replace("\r\n", "\n").replace("\r", "")

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_exc: object) -> None:
        if self.process.isalive():
            self.kill()  # pexpect's own way gives each signal a tenth of a second, too little on a busy machine
        self.process.close()
