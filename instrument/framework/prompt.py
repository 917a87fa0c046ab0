"""What IPython does for a session: plans that run, one-line errors, bluesky's magics, messages from threads."""

from __future__ import annotations

import _thread
import builtins
import contextlib
import difflib
import logging
import re
import signal
import sys
import sysconfig
import threading
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType, GeneratorType, TracebackType
from typing import TYPE_CHECKING, Any

from instrument.config.errors import UserError
from instrument.config.names import LOGGER_NAME
from instrument.framework import screen, statements
from instrument.framework.positioners import is_positioner

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

logger = logging.getLogger(LOGGER_NAME)

PACKAGE = Path(__file__).parents[1]
TYPED = re.compile("ipython-input|ipykernel_")  # in what IPython and Jupyter call the file of a cell


class LastError:
    """The most recent error of the prompt; calling it prints the whole traceback."""

    def __init__(self) -> None:
        self.error: BaseException | None = None

    def keep(self, error: BaseException) -> None:
        """Remember `error`, and write its traceback to the log file."""
        self.error = error
        logger.debug("%s", "".join(traceback.format_exception(error)).rstrip())

    def __call__(self) -> None:
        """Print the traceback of the last error that the prompt showed in one line."""
        if self.error is None:
            print("no error in this session")
        else:
            print("".join(traceback.format_exception(self.error)).rstrip())

    def __repr__(self) -> str:
        return "last_error() prints the traceback of the last error"


def one_line(error: BaseException, names: Callable[[], list[str]] = list) -> str:
    """What a person needs to know of `error`: a UserError's own words, or its type and message.

    Args:
        error: What was raised. A failed status of ophyd is told by its cause.
        names: The names that a misspelt one is compared with; the nearest is told.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UserError):
            return str(cause)
        cause = cause.__cause__
    if type(error).__name__ == "FailedStatus" and error.__cause__ is not None:
        error = error.__cause__
    message = " ".join(str(error).split())
    if isinstance(error, AttributeError) and error.name and message == error.name:  # all that ophyd says
        owner = getattr(error.obj, "name", None) or f"{type(error.obj).__name__!r} object"
        message = f"{owner} has no attribute {error.name!r}"
    hint = _nearest(error, message, names)
    return f"{type(error).__name__}: {message}{hint}" if message else type(error).__name__


def _place(error: BaseException) -> str:
    """Where in a user's own file an error came from: the file and line of the last frame that is no library's."""
    libraries = (*map(sysconfig.get_path, ("stdlib", "platstdlib", "purelib", "platlib")), str(PACKAGE))
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_file()]
    own = [frame for frame in frames if not frame.filename.startswith(libraries)]
    return f" ({Path(own[-1].filename).name}:{own[-1].lineno})" if own else ""


def no_python(error: SyntaxError, lines: statements.SpecLines) -> str:
    """What a person needs to know of a line that was typed and is no Python."""
    text = (error.text or "").strip()
    meant = statements.right_form(error, lines)
    return f"SyntaxError: {error.msg}: {text}" if meant is None else f"{text} is no Python; did you mean {meant}?"


def _nearest(error: BaseException, message: str, names: Callable[[], list[str]]) -> str:
    if isinstance(error, NameError) and error.name:
        wrong, known = error.name, [*names(), *dir(builtins)]
    elif isinstance(error, AttributeError) and error.name:
        wrong, known = error.name, [name for name in dir(error.obj) if not name.startswith("_")]
    elif isinstance(error, TypeError) and (
        found := re.search(r"(\w+)\(\) got an unexpected keyword argument '(\w+)'", message)
    ):
        wrong, known = found[2], _keywords(error, found[1])
    else:
        return ""
    close = difflib.get_close_matches(wrong, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _keywords(error: BaseException, function: str) -> list[str]:
    """The keywords of the function that a TypeError complains about, if a frame of its traceback can see it."""
    import inspect

    trace = error.__traceback__
    while trace is not None:
        for namespace in (trace.tb_frame.f_locals, trace.tb_frame.f_globals):
            for value in list(namespace.values()):
                candidate = getattr(value, function, value) if inspect.ismodule(value) else value
                if getattr(candidate, "__name__", None) == function and callable(candidate):
                    try:
                        return list(inspect.signature(candidate).parameters)
                    except (TypeError, ValueError):
                        continue
        trace = trace.tb_next
    return []


def plan_hint(plan: Any) -> str:
    """The line that is shown for a plan which was made and not run."""
    generator = getattr(plan, "_iter", plan)
    name = getattr(generator, "__name__", type(plan).__name__)
    return f"{name} is a plan that has not run; run it with RE({name}(...))"


def install(
    shell: InteractiveShell,
    last_error: LastError,
    engine: Any,
    magics_engine: Any,
    commands: Mapping[str, Callable[..., Any]],
    before_prompt: Callable[[], str] = str,
    before_cell: Callable[[str], object] = str,
) -> None:
    """Prepare a shell: plans run, one-line errors, bluesky's magics. Doing it again changes nothing.

    Args:
        shell: The running IPython shell (terminal or kernel).
        last_error: Keeps the error whose one line is shown.
        engine: The RunEngine of the session.
        magics_engine: The RunEngine of `%mov`, `%ct` and the like, whose documents nobody keeps.
        commands: What a person types without parentheses, by name.
        before_prompt: What is shown at the left of each prompt, if anything.
        before_cell: Called with what was typed, before it is run.
    """
    from bluesky import magics
    from bluesky.run_engine import set_bluesky_event_loop
    from bluesky.utils import Plan

    def names() -> list[str]:
        return [name for name in shell.user_ns if not name.startswith("_")]

    def show(
        shell: InteractiveShell,
        _type: type[BaseException],
        error: BaseException,
        _traceback: TracebackType | None,
        tb_offset: int | None = None,
    ) -> list[str]:
        last_error.keep(error)
        if isinstance(error, SyntaxError) and TYPED.search(str(error.filename)):
            lines = [no_python(error, spec_lines)]
        else:
            lines = [one_line(error, names)]
        shell._showtraceback(type(error), error, lines)  # noqa: SLF001  what IPython's own handlers call
        return lines

    def show_of_file(*args: Any, **options: Any) -> None:
        """What IPython calls for what a file raises that `%run` runs, which its handlers of exceptions do not see."""
        error = sys.exc_info()[1]
        if isinstance(error, Exception) and not args and options.keys() <= {"tb_offset"}:
            last_error.keep(error)
            if not isinstance(error, SyntaxError):  # whose place IPython shows
                lines = [f"{one_line(error, names)}{_place(error)}"]
                shell._showtraceback(type(error), error, lines)  # noqa: SLF001  as above
                return
        type(shell).showtraceback(shell, *args, **options)

    spec_lines = statements.install(shell, engine.result_of, commands, tell)
    _call_before_cells(shell, before_cell)
    if hasattr(shell, "prompts"):
        _extend_prompt(shell, before_prompt)
    shell.set_custom_exc((Exception,), show)
    shell.showtraceback = show_of_file
    shell.InteractiveTB.set_mode(mode="Minimal")

    magics.BlueskyMagics.RE = magics_engine
    magics.is_positioner = is_positioner  # %wa would show nothing at all because of one device that is offline
    set_bluesky_event_loop(engine.loop)  # the engine that was made last, which is bluesky.magics' own, had taken it
    shell.register_magics(magics.BlueskyMagics)

    if sys.unraisablehook is not _interrupt_again:
        sys.unraisablehook = _interrupt_again
    if threading.current_thread() is threading.main_thread() and sys.stdin.isatty():
        signal.signal(signal.SIGQUIT, _nothing_to_pause)  # its default is to end the process, with a core dump

    formatter = shell.display_formatter
    plain = formatter.formatters["text/plain"] if formatter is not None else None
    for kind in (Plan, GeneratorType):
        if plain is not None:
            plain.for_type(kind, _show_plan)


def _interrupt_again(unraisable: Any) -> None:
    """What Python does with an exception in a destructor, but for a Ctrl-C that fell into one: that is not lost."""
    if unraisable.exc_type is KeyboardInterrupt:
        _thread.start_new_thread(_thread.interrupt_main, ())  # from here it would be raised here, and lost again
    else:
        sys.__unraisablehook__(unraisable)


class _BeforeCell:
    """Called by IPython before each cell."""

    def __init__(self, action: Callable[[str], object]) -> None:
        self._action = action

    def __call__(self, info: Any) -> None:
        with contextlib.suppress(KeyboardInterrupt):  # enough of it: the cell is run now
            self._action(info.raw_cell)


def _call_before_cells(shell: InteractiveShell, action: Callable[[str], object]) -> None:
    for callback in list(shell.events.callbacks["pre_run_cell"]):
        if isinstance(callback, _BeforeCell):
            shell.events.unregister("pre_run_cell", callback)
    shell.events.register("pre_run_cell", _BeforeCell(action))


def _extend_prompt(shell: Any, before_prompt: Callable[[], str]) -> None:
    from IPython.terminal.prompts import Prompts
    from pygments.token import Token

    class SessionPrompts(Prompts):
        """IPython's prompts, after what the session has to tell."""

        def in_prompt_tokens(self) -> list[tuple[Any, str]]:
            told = before_prompt()
            return [*([(Token.Prompt, f"[{told}] ")] if told else []), *super().in_prompt_tokens()]

    shell.prompts = SessionPrompts(shell)


def once_shown(shell: Any, function: Callable[[], object]) -> None:
    """Call a function when the first prompt is on the screen; at once in a shell that draws none (a kernel, a pipe)."""
    application = getattr(getattr(shell, "pt_app", None), "app", None)
    if application is None:
        function()
        return

    def shown(_application: Any) -> None:
        application.after_render -= shown
        function()

    application.after_render += shown


def _show_plan(value: Any, printer: Any, _cycle: bool) -> None:
    printer.text(plan_hint(value) if statements.is_plan(value) else object.__repr__(value))


def _nothing_to_pause(_number: int, _frame: FrameType | None) -> None:
    print("\nCtrl-\\ pauses a plan, and none runs; Ctrl-C ends what runs here.", file=sys.stderr, flush=True)


def tell(line: str) -> None:
    """Print a line from any thread, above the prompt if one is being edited."""
    application = None
    if "prompt_toolkit" in sys.modules:
        from IPython.core.getipython import get_ipython

        pt_app = getattr(get_ipython(), "pt_app", None)
        application = getattr(pt_app, "app", None)
    loop = getattr(application, "loop", None)
    if application is None or loop is None or not application.is_running:
        screen.tell(line)
        sys.stdout.flush()
        return
    from prompt_toolkit.application import run_in_terminal
    from prompt_toolkit.application.current import set_app

    def above() -> None:
        with set_app(application):
            run_in_terminal(lambda: print(line, flush=True))

    loop.call_soon_threadsafe(above)
