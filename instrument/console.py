"""The console session: IPython with the beamline in its namespace, at a terminal or fed by a pipe."""

from __future__ import annotations

import re
import sys
from threading import Event
from typing import TYPE_CHECKING, Any, TextIO

from instrument.framework.imports import without_garbage_collection
from instrument.session import current

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from IPython.core.inputtransformer2 import TransformerManager
    from IPython.core.interactiveshell import InteractiveShell

    from instrument.framework.prompt import LastError

# Begins a line that belongs to the block before it.
GOES_ON = re.compile(r"[\s#)\]}]|(else|elif|except|finally|case)\b")
START = "from instrument.collection import *"


def run(*, config: Path | str | None = None, began: float | None = None) -> int:
    """Start IPython on the beamline; what is piped in is run instead of asking a person.

    Args:
        config: Path of an iconfig.yml.
        began: When the start began, of `time.monotonic()`.

    Returns:
        The exit code: 1 if a piped cell raised, else 0.

    Raises:
        UserError: The session could not start.
    """
    with without_garbage_collection():
        session = current(config=config, began=began)  # the virtual beamline boots while bluesky is imported
        shell, app = _shell(at_terminal=sys.stdin.isatty())
        from instrument import collection  # noqa: F401  raises what went wrong in one line, before there is a prompt

        shell.run_cell(START, silent=True)  # nobody typed it: neither in the history nor in ipython_console.log
    if app is not None:
        app.start()
        session.close()  # now, not in an exit function: what is imported to write the last files can register its own
        return 0
    failed = _run_piped(shell, session.last_error)
    session.close()
    shell.logger.logstop()
    return 1 if failed else 0


def _run_piped(shell: InteractiveShell, last_error: LastError) -> bool:
    """Run what is piped in, to its end or to `exit`; tell whether anything raised."""
    left = Event()
    shell.ask_exit = left.set  # type: ignore[attr-defined]  what `exit` and `quit` call; only terminals have it
    failed = False
    for cell in cells(sys.stdin, shell):
        before = last_error.error
        succeeded = shell.run_cell(cell, store_history=True).success
        failed |= not succeeded or last_error.error is not before  # what %run raises is no failure to IPython
        if left.is_set():
            break
    return failed


def _shell(*, at_terminal: bool) -> tuple[InteractiveShell, Any]:
    from traitlets.config import Config

    settings = Config()
    settings.InteractiveShell.banner1 = ""
    settings.TerminalIPythonApp.display_banner = False
    if not at_terminal:
        from IPython.core.interactiveshell import InteractiveShell

        settings.InteractiveShell.colors = "nocolor"
        settings.HistoryManager.enabled = False
        return InteractiveShell.instance(config=settings), None
    from IPython.terminal.ipapp import TerminalIPythonApp

    # IPython's Ctrl-\ at the prompt sends SIGQUIT to the whole process group: it would end the session unasked.
    settings.TerminalInteractiveShell.shortcuts = [{"command": "IPython:shortcuts.quit", "new_keys": []}]
    settings.TerminalInteractiveShell.confirm_exit = False
    app = TerminalIPythonApp.instance(config=settings)
    app.initialize(argv=[])
    return app.shell, app


def cells(stream: TextIO, shell: InteractiveShell) -> Iterator[str]:
    """Complete cells of `stream`, each as soon as it is complete.

    Args:
        stream: Lines of input.
        shell: Knows when a cell is complete, magics included.
    """
    transformer: TransformerManager = shell.input_transformer_manager

    def is_complete(text: str) -> bool:
        return transformer.check_complete(text)[0] != "incomplete"

    pending = ""
    for line in stream:
        # A line that is not indented ends the block before it, as in a file; at a terminal an empty line does.
        if pending and not GOES_ON.match(line) and is_complete(f"{pending}\n"):
            yield pending
            pending = ""
        pending += line
        if not pending.strip():
            pending = ""
        elif is_complete(pending.removesuffix("\n")):
            yield pending
            pending = ""
    if pending.strip():
        yield pending
