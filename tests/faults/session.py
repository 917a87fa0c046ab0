"""A session with which something goes wrong: what it shows, masked, and what its IOC tells a second CA client."""

from __future__ import annotations

import ast
import os
import re
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pexpect
import psutil

from tests.terminal import PROMPT, ROOT, Terminal
from virtual_beamline import supervisor
from virtual_beamline.client import read_text
from virtual_beamline.supervisor import RunningBeamline

DEADLINE = 60.0  # s, generous: the machine may be busy

# What differs from run to run. All else is compared as it is shown, empty lines aside.
MASKS = (
    (r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", "<uid>"),
    (r"(?<=\[')[0-9a-f]{8}(?='\])", "<uid>"),
    (r"(?<=run )(\d+) \([0-9a-f]{8}\)", r"\1 (<uid>)"),
    (r"(?<=stop document of run )[0-9a-f]{8}", "<uid>"),
    (r"(?<=success )[0-9a-f]{7}|(?<=fail    )[0-9a-f]{7}|(?<=abort   )[0-9a-f]{7}", "<uid>"),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d(:\d\d)?", "<time>"),
    (r"\b[A-Z][a-z]{2}-\d\d:\d\d:\d\d", "<time>"),
    (r"\d{8}-\d{6}\.dat", "<time>.dat"),
    (r"pid \d+", "pid <pid>"),
    (r"pid <pid> on [\w.-]+", "pid <pid> on <host>"),
    (r"Out\[\d+\]: ?\n?", "Out: "),
    (r"\d+\.\d s\b", "<seconds> s"),
    (r"ipython-input-\d+-\w+", "ipython-input"),
    (r"(?m)^\+[-+]+\+$", "+---+"),
    (r"(?m)^m\d+: .*%\|.*\n", ""),  # a progress bar
)
POSITIONS = {"seq_num", *(f"m{number}" for number in range(1, 17))}  # columns of a table that are compared


def masked(text: str, directory: Path | None = None) -> str:
    """`text` without what differs from run to run, without empty lines, and with the cells of live tables trimmed."""
    if directory is not None:
        text = text.replace(str(directory), "<directory>")
    for pattern, replacement in MASKS:
        text = re.sub(pattern, replacement, text)
    columns: list[str] = []
    lines = []
    for line in filter(None, (line.rstrip() for line in text.splitlines())):
        if line.startswith("|") and line.endswith("|"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if cells[0] == "seq_num":
                columns = cells
            else:
                cells = [cell if name in POSITIONS else f"<{name}>" for name, cell in zip(columns, cells, strict=False)]
            lines.append(f"| {' | '.join(cells)} |")
        else:
            lines.append(line)
    return "\n".join(lines)


def run_shown(
    number: int, plan: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *after: str, complete: bool = True
) -> str:
    """What a run shows, masked.

    Args:
        number: Its scan number.
        plan: Its plan's name.
        columns: The table's columns after `seq_num` and `time`.
        rows: For each point what is shown of the motors.
        after: The lines that follow.
        complete: The table has an end; a run that stops before its first point has none.
    """
    table = [
        "New stream: 'primary'",
        "+---+",
        f"| seq_num | time | {' | '.join(columns)} |",
        "+---+",
        *(
            f"| {' | '.join([str(point), '<time>', *row, *(f'<{name}>' for name in columns[len(row) :])])} |"
            for point, row in enumerate(rows, 1)
        ),
    ]
    end = ["+---+", f"generator {plan} ['<uid>'] (scan num: {number})"]
    return "\n".join(
        [
            f"Transient Scan ID: {number}     Time: <time>",
            "Persistent Unique Scan ID: '<uid>'",
            "New stream: 'baseline'",
            *(table if rows else ()),
            *(end if rows and complete else ()),
            *after,
        ]
    )


RETURNED = "Out: ('<uid>',)"
CTRL_C = "^C\nCtrl-C: ending the run in good order; Ctrl-C again ends it at once."


def until(condition: Callable[[], object], what: str = "the condition", timeout: float = DEADLINE) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come true within {timeout} s"
        time.sleep(0.01)


class Session(Terminal):
    """A session at a pty, and its IOC as a second client sees it."""

    @property
    def beamline(self) -> RunningBeamline:
        """The virtual beamline that this session started."""
        return next(beamline for beamline in supervisor.running() if self._is_child(beamline.pid))

    def _is_child(self, pid: int) -> bool:
        try:
            return psutil.Process(pid).ppid() == self.process.pid
        except psutil.NoSuchProcess:
            return False

    def pv(self, name: str) -> str:
        """The value of a PV as text, read by a client of our own."""
        return read_text(name, self.beamline.environment.ca_address, timeout=10)

    def until_pv(self, name: str, value: str) -> None:
        """Wait until a PV has a value."""
        until(lambda: self.pv(name) == value, f"{name} = {value}")

    def until_moving(self, motor: str = "m2", beyond: float = 0.3) -> None:
        """Wait until a motor is well on its way."""
        until(
            lambda: float(self.pv(f"gp:{motor}.RBV")) > beyond and self.pv(f"gp:{motor}.DMOV") == "0",
            f"{motor} moves beyond {beyond}",
        )

    def kill_ioc(self) -> None:
        """kill -9 of this session's IOC."""
        beamline = self.beamline
        os.kill(beamline.pid, signal.SIGKILL)

    def shows(self, command: str, timeout: float = DEADLINE) -> str:
        """Type a command; all that is shown until the next prompt, masked."""
        return masked(self.run(command, timeout), self.directory)

    def shows_until(self, *conditions: str | Callable[[str], bool], timeout: float = DEADLINE) -> str:
        """All that is shown until each regular expression was seen and each function is true, masked, without prompts.

        Threads tell their lines when they know them: what comes first is not ours to say.
        """
        shown, self.process.buffer = self.process.buffer, ""
        deadline = time.monotonic() + timeout
        while not all(re.search(it, shown) if isinstance(it, str) else it(shown) for it in conditions):
            assert time.monotonic() < deadline, f"not seen: {conditions} in {shown!r}"
            shown += self.process.read_nonblocking(4096, timeout=timeout)
        return masked(PROMPT.sub("", self._plain(shown)), self.directory)

    def until_end(self, timeout: float = DEADLINE) -> str:
        """All that is shown until the session's process has ended."""
        self.process.expect(pexpect.EOF, timeout=timeout)
        shown = self._plain(self.process.before)
        self.process.close()
        return shown

    def value(self, expression: str) -> object:
        """The value of an expression in the session."""
        return self.printed(f"repr({expression})")

    def printed(self, expression: str) -> object:
        """What an expression prints, as a value, whatever another thread tells before or after it."""
        shown = self.run(f"print('VALUE', {expression})")
        return ast.literal_eval(shown.rpartition("VALUE ")[2].partition("\n")[0].strip())

    @property
    def scan_id(self) -> int:
        """The number of the last run."""
        found = self.value("RE.md.get('scan_id', 0)")
        assert isinstance(found, int)
        return found

    def last_run(self) -> tuple[object, ...]:
        """Of the newest run in the catalog: scan number, exit status, reason, number of points in primary."""
        found = self.value(
            "(lambda run: (run.metadata['start']['scan_id'], run.metadata['stop']['exit_status'], "
            "run.metadata['stop'].get('reason', ''), "
            "len(run.primary.read()['time']) if 'primary' in list(run) else 0))(cat[-1])"
        )
        assert isinstance(found, tuple)
        return found

    def check_next_scan(self, motor: str = "m2", number: int | None = None) -> None:
        """The next scan works: shown as ever, recorded under the next number, the motor where it was sent."""
        number = number or self.scan_id + 1
        shown = self.shows(f"RE(bp.scan([noisy], {motor}, 0, 0.02, 3))")
        rows = [["0.00000"], ["0.01000"], ["0.02000"]]
        assert shown == run_shown(number, "scan", [motor, "noisy"], rows, RETURNED)
        assert self.last_run() == (number, "success", "", 3)
        assert self.pv(f"gp:{motor}.RBV") == "0.02000"
        assert self.pv(f"gp:{motor}.DMOV") == "1"


def write_config(directory: Path, text: str = "", devices: str = "") -> Path:
    """An iconfig.yml in `directory`, with the usual devices and those of `devices` (the text of a devices.yml)."""
    files = [str(ROOT / "instrument/config/devices.yml")]
    if devices:
        (directory / "more.yml").write_text(devices)
        files.append("more.yml")
    path = directory / "iconfig.yml"
    path.write_text(f"devices: [{', '.join(files)}]\n{text}")
    return path
