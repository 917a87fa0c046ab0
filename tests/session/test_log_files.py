"""Log files: their formats, when they are rotated, and how those of earlier sessions are numbered."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from instrument.config.errors import UserError
from instrument.framework.logs import start_logging
from tests.terminal import clean_environment

CONSOLE_LINE = re.compile(r"[DIWEC] (?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)-\d\d:\d\d:\d\d - .*")
FILE_LINE = re.compile(
    r"\|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}\|(DEBUG|INFO|WARNING|ERROR)\|\d+\|bluesky-session\|[^|]+\|\d+\|\w+\| - .*"
)


def python(directory: Path, code: str) -> str:
    """What a Python process of its own shows: logging is set up once per process."""
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=directory,
        env=clean_environment(directory),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
        timeout=120,
    ).stdout


def test_console_and_file_have_the_formats_and_levels_that_are_configured(tmp_path):
    shown = python(
        tmp_path,
        """if True:
        import logging, pathlib
        from instrument.framework.logs import start_logging
        start_logging(pathlib.Path(".logs"), console="WARNING", file="INFO")
        logger = logging.getLogger("bluesky-session")
        for level in ("debug", "info", "warning", "error"):
            getattr(logger, level)("at %s", level)
        """,
    )
    written = (tmp_path / ".logs" / "ipython_logger.log").read_text().splitlines()
    assert all(CONSOLE_LINE.fullmatch(line) for line in shown.splitlines())
    assert [line.partition(" - ")[2] for line in shown.splitlines()] == ["at warning", "at error"]
    assert [line[0] for line in shown.splitlines()] == ["W", "E"]
    assert all(FILE_LINE.fullmatch(line) for line in written)
    assert [line.partition(" - ")[2] for line in written][3:] == ["at info", "at warning", "at error"]


def test_logger_file_is_rotated_at_its_size_with_nine_backups(tmp_path):
    size = 2000
    python(
        tmp_path,
        f"""if True:
        import logging, pathlib
        from instrument.framework.logs import start_logging
        start_logging(pathlib.Path(".logs"), console="ERROR", max_bytes={size}, backups=9)
        for n in range(1000):
            logging.getLogger("bluesky-session").info("line %d", n)
        """,
    )
    logs = tmp_path / ".logs"
    names = ["ipython_logger.log", *(f"ipython_logger.log.{n}" for n in range(1, 10))]
    assert sorted(path.name for path in logs.iterdir()) == names
    assert all(0 < (logs / name).stat().st_size <= size for name in names)
    # "Higher numbers are older": read from the oldest on, the lines follow each other up to the last.
    lines = [line for name in reversed(names) for line in (logs / name).read_text().splitlines()]
    numbers = [int(line.rpartition(" ")[2]) for line in lines]
    assert numbers == list(range(numbers[0], 1000))


def test_the_configuration_has_the_sizes_of_the_reference():
    """ "until the file reaches ca. 1 MB", "at most, 9 numbered files are retained"."""
    from instrument.config import load

    logs = load().logging
    assert (logs.max_bytes, logs.backups, logs.console, logs.file) == (1_000_000, 9, "INFO", "DEBUG")


def test_each_session_has_its_console_log_and_earlier_ones_are_numbered(tmp_path):
    """ "The older log files are numbered, higher number is older (each new session shifts these numbers by 1)."."""
    for session in ("first", "second", "third"):
        python(
            tmp_path,
            f"""if True:
            import pathlib
            from IPython.core.interactiveshell import InteractiveShell
            from instrument.framework.logs import start_console_log
            shell = InteractiveShell.instance()
            directory = pathlib.Path(".logs")
            directory.mkdir(exist_ok=True)
            start_console_log(shell, directory)
            start_console_log(shell, directory)  # of the same session: changes nothing
            shell.run_cell("session = '{session}'")
            shell.run_cell("session")
            shell.run_cell("print('not' + 'recorded')")
            """,
        )
    logs = tmp_path / ".logs"
    assert {path.name: re.findall(r"session = '(\w+)'", path.read_text()) for path in logs.iterdir()} == {
        "ipython_console.log": ["third"],
        "ipython_console.log.001~": ["second"],
        "ipython_console.log.002~": ["first"],
    }
    stamp = r"# [A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d\n"
    assert re.fullmatch(
        rf"# IPython log file\n\n{stamp}session = 'third'\n{stamp}session\n#\[Out\]# 'third'\n"
        rf"{stamp}print\('not' \+ 'recorded'\)\n",
        (logs / "ipython_console.log").read_text(),
    )


@pytest.mark.skipif("not hasattr(__import__('os'), 'geteuid')")
def test_a_directory_that_cannot_be_written_is_named_with_what_to_do(tmp_path):
    (tmp_path / "logs").write_text("a file where the directory should be")
    with pytest.raises(UserError, match=rf"^can't write log files in {tmp_path}/logs \(.*\): start in a directory"):
        start_logging(tmp_path / "logs")
