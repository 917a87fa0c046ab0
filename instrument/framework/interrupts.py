r"""Ctrl-C and Ctrl-\ while a plan runs.

Stock bluesky answers one Ctrl-C with a deferred pause: a plan without checkpoints runs to its end and is called a
success. Here:

- Ctrl-C: the plan ends in good order. Its own clean-up runs, motors stop, files are completed; the run is recorded
  with `exit_status="abort"`, `reason="Ctrl-C"`.
- Ctrl-C twice: at once. The plan's clean-up is skipped; motors are stopped and the run is closed.
- Ctrl-C three times: the prompt comes back even when the plan hangs in a call that nobody can interrupt; the
  RunEngine is lost with it.
- Ctrl-\: pause, for `RE.resume()`, `RE.stop()`, `RE.abort()`, `RE.halt()`.

A Ctrl-C that comes too late to end the plan is a KeyboardInterrupt after it: a loop of plans ends there.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Self

from instrument.framework import screen

if TYPE_CHECKING:
    from types import FrameType

    from instrument.framework.engine import RunEngine

REASON = "Ctrl-C"
SAME_KEYSTROKE = 0.1  # s; a terminal and a process group can deliver one keystroke twice
NOT_YET_RUNNING = 0.02  # s; how soon to look again at an engine that has not begun the plan


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class InterruptKeys:
    """Context manager that the RunEngine enters while it runs; in a thread other than the main one it does nothing.

    Args:
        engine: The RunEngine whose plan the keys act on.
    """

    def __init__(self, engine: RunEngine) -> None:
        self._engine = engine
        self._presses = 0
        self._last_press = -SAME_KEYSTROKE
        self._restore: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number, handler in ((signal.SIGINT, self._on_interrupt), (signal.SIGQUIT, self._on_quit)):
                self._restore[number] = signal.signal(number, handler)
        return self

    def __exit__(self, raised: type[BaseException] | None, *_exc: object) -> None:
        # Ctrl-C last: the moment it is the prompt's again, it may raise KeyboardInterrupt here.
        handlers, self._restore = self._restore, {}
        for number in reversed(handlers):
            signal.signal(number, handlers[number])
        if self._presses and raised is None and not self._engine.interrupted:
            raise KeyboardInterrupt

    def _on_interrupt(self, _number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if now - self._last_press < SAME_KEYSTROKE:
            return
        self._last_press = now
        self._presses += 1
        screen.clear_bar()
        if self._presses == 1:
            _say("\nCtrl-C: ending the run in good order; Ctrl-C again ends it at once.")
            self._engine.loop.call_soon_threadsafe(self._on_loop, self._engine.begin_abort)
        elif self._presses == 2:
            _say("\nCtrl-C twice: ending at once, without the plan's clean-up.")
            self._engine.loop.call_soon_threadsafe(self._on_loop, self._engine.begin_halt)
        else:
            _say("\nCtrl-C three times: giving up on a plan that does not answer; leave the session, start it again.")
            raise KeyboardInterrupt

    def _on_quit(self, _number: int, _frame: FrameType | None) -> None:
        screen.clear_bar()
        self._engine.loop.call_soon_threadsafe(self._on_loop, self._engine.begin_pause)

    def _on_loop(self, begin: Any) -> None:
        """Call `begin(reason)` on the engine's event loop, as soon as the engine is busy with the plan."""
        if not self._restore:
            return
        if self._engine.state == "idle":
            self._engine.loop.call_later(NOT_YET_RUNNING, self._on_loop, begin)
            return
        begin(REASON)
