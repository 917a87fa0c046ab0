"""Log files of a session: `ipython_logger.log` (what the package reports) and `ipython_console.log` (what is typed).

The console shows `I Wed-00:14:03 - text`; the file shows
`|2021-03-03 00:14:07.966|INFO|128775|bluesky-session|module|13|MainThread| - text`. Both formats are stdlogpj's.
"""

from __future__ import annotations

import logging
import logging.handlers
import os
from pathlib import Path
from typing import TYPE_CHECKING

from instrument.config.errors import UserError
from instrument.config.names import LOGGER_NAME

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

LOGGER_FILE = "ipython_logger"
CONSOLE_FILE = "ipython_console.log"

# Their tracebacks belong in the file: the prompt shows one line of each error.
LIBRARY_LOGGERS = ("bluesky", "ophyd", "databroker", "apstools", "intake", "epics", "py.warnings", "virtual_beamline")

logger = logging.getLogger(LOGGER_NAME)


def start_logging(
    directory: Path,
    *,
    console: str = "INFO",
    file: str = "DEBUG",
    max_bytes: int = 1_000_000,
    backups: int = 9,
) -> Path:
    """Open the logger's file and console; a second call in one process changes nothing.

    Args:
        directory: Where the files go; made if it does not exist.
        console: Least level that is printed.
        file: Least level that is written to the file.
        max_bytes: Size (bytes) at which the file is rotated.
        backups: How many rotated files are kept.

    Returns:
        The path of the logger's file.

    Raises:
        UserError: The directory can't be written.
    """
    path = directory / f"{LOGGER_FILE}.log"
    if logger.handlers:
        return path
    try:
        directory.mkdir(parents=True, exist_ok=True)
        path.open("a").close()
    except OSError as error:
        raise UserError(
            f"can't write log files in {directory} ({error.strerror}): start in a directory that you may write, "
            "or set `directories: logs:` in iconfig.yml"
        ) from error

    from stdlogpj import standard_logging_setup

    standard_logging_setup(
        LOGGER_NAME,
        LOGGER_FILE,
        log_path=os.fspath(directory),
        level=logging.DEBUG,
        maxBytes=max_bytes,
        backupCount=backups,
    )
    logger.propagate = False
    (to_file,) = (h for h in logger.handlers if isinstance(h, logging.handlers.RotatingFileHandler))
    for handler in logger.handlers:
        handler.setLevel((file if handler is to_file else console).upper())
    for name in LIBRARY_LOGGERS:
        library = logging.getLogger(name)
        library.addHandler(to_file)
        library.propagate = False
        if library.level == logging.NOTSET:
            library.setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)

    logger.info("%s startup", "#" * 60)
    logger.info("logging started")
    logger.info("logging level = %d", logger.level)
    return path


def start_console_log(shell: InteractiveShell, directory: Path) -> None:
    """Record what is typed, and its output, in `ipython_console.log`; files of earlier sessions are renumbered.

    Args:
        shell: The running IPython shell.
        directory: Where the file goes.
    """
    if shell.logger.log_active:
        return
    shell.run_line_magic("logstart", f"-o -t {directory / CONSOLE_FILE} rotate")
