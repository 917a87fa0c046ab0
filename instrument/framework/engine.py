"""The RunEngine of a session: bluesky's, with a journal first, Ctrl-C that stops, and offline devices named."""

from __future__ import annotations

import contextvars
import logging
import threading
import time
from collections import ChainMap
from collections.abc import Callable, Iterator
from typing import Any

import bluesky
from bluesky import Msg
from bluesky.utils import (
    DefaultDuringTask,
    DuringTask,
    Plan,
    PlanHalt,
    RunEngineInterrupted,
    single_gen,
)

from instrument.config.errors import UserError
from instrument.config.names import LOGGER_NAME
from instrument.framework.forgotten import forgotten_calls
from instrument.framework.interrupts import InterruptKeys

logger = logging.getLogger(LOGGER_NAME)

# Messages that act on a device, hence need it.
DEVICE_COMMANDS = (
    "stage",
    "read",
    "locate",
    "set",
    "trigger",
    "prepare",
    "kickoff",
    "complete",
    "collect",
    "monitor",
    "configure",
)
DRAW_INTERVAL = 0.05  # s; how often the main thread looks whether a plot wants drawing

Documents = Callable[[str, dict[str, Any]], object]  # what takes each document: name and content

PAUSED = "paused: RE.resume() goes on, RE.stop() or RE.abort('why') ends it in good order, RE.halt() at once"


class RunInterruptedError(RunEngineInterrupted, UserError):
    """A run ended before its plan did, because somebody asked for it."""


class MainThread(DefaultDuringTask):
    """Lend the main thread to drawing while the plan runs on the RunEngine's own thread.

    With a Qt backend bluesky's own task runs Qt's event loop, and a timer in it draws.

    Args:
        draw: Called about 20 times a second on the main thread, and at the end; limits its own rate.
    """

    def __init__(self, draw: Callable[[], object]) -> None:
        super().__init__()
        self._draw = draw
        self._failed = False
        self._application: Any = None

    def block(self, blocking_event: Any) -> None:
        """Wait until the plan is complete, drawing meanwhile; a plot that fails is reported once and left alone."""
        import matplotlib

        on_main_thread = threading.current_thread() is threading.main_thread()
        if on_main_thread and "qt" in matplotlib.get_backend().lower():
            self._block_in_qt(blocking_event)
        else:
            while not blocking_event.wait(DRAW_INTERVAL):
                self._draw_safely()
        self._draw_safely()

    def _block_in_qt(self, blocking_event: Any) -> None:
        from matplotlib.backends.qt_compat import QtCore, QtWidgets

        self._application = QtWidgets.QApplication.instance() or QtWidgets.QApplication(["bluesky"])
        timer = QtCore.QTimer()
        timer.timeout.connect(self._draw_safely)
        timer.start(int(DRAW_INTERVAL * 1000))
        try:
            super().block(blocking_event)
        finally:
            timer.stop()

    def _draw_safely(self) -> None:
        if not self._failed:
            try:
                self._draw()
            except Exception:
                self._failed = True
                logger.exception("live plot failed; the run goes on without it")


class RunEngine(bluesky.RunEngine):
    """bluesky's RunEngine, made safe for a beamline.

    Args:
        md: Persistent metadata of all runs.
        journal: Takes each document before any subscriber does, and fails the run if it can't.
        delivery: Takes each document after the subscribers, whatever they did; may not fail a run.
        check_message: Called with each message that acts on a device; raises if the device can't be used.
        options: What bluesky's RunEngine takes.
    """

    def __init__(
        self,
        md: Any = None,
        *,
        journal: Documents | None = None,
        delivery: Documents | None = None,
        check_message: Callable[[Msg], None] | None = None,
        **options: Any,
    ) -> None:
        self.journal = journal
        self.delivery = delivery
        self._pending: dict[Any, Any] = {}  # status object: device
        self._abandoned: set[Any] = set()  # status objects that an aborted, held or paused plan waited for
        self._resumer: contextvars.Context | None = None
        self.before_resume: Callable[[], Iterator[Msg]] | None = None  # what a paused plan goes on with, before its own
        options.setdefault("context_managers", [InterruptKeys])
        super().__init__(md, **options)
        self.pause_msg = PAUSED
        if check_message is not None:
            self.guard(check_message)

    def guard(self, check_message: Callable[[Msg], None]) -> None:
        """Have `check_message` see each message that acts on a device, before it does."""
        for command in DEVICE_COMMANDS:
            self.register_command(command, _guarded(self._command_registry[command], check_message))

    # --- documents: the journal first, deliveries last, whatever a subscriber does

    def emit_sync(self, name: Any, doc: dict[str, Any]) -> None:
        """Journal a document, hand it to the subscribers, then to the outbox."""
        if self.journal is not None:
            self.journal(name.name, doc)
        try:
            super().emit_sync(name, doc)
        finally:
            if self.delivery is not None:
                self.delivery(name.name, doc)

    # --- how a run ends

    @property
    def interrupted(self) -> bool:
        """Whether the plan was paused, or is ending before its end."""
        return self._interrupted

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Execute a plan; see `bluesky.RunEngine.__call__`. What it calls without `yield from` is told first.

        Raises:
            RunInterruptedError: The plan was interrupted; the message says whether it is paused or ended.
        """
        try:
            for line in forgotten_calls(args[0]) if args else ():
                logger.warning("%s", line)
        except Exception:  # a hint is no reason not to run
            logger.debug("the plan was not looked at for calls that do nothing", exc_info=True)
        return self._told_in_one_line(super().__call__, *args, **kwargs)

    def result_of(self, plan: Any, **metadata: Any) -> Any:
        """Execute a plan; return what it returned.

        Raises:
            RunInterruptedError: The plan was interrupted.
        """
        returns_result, self._call_returns_result = self._call_returns_result, True
        try:
            return self(plan, **metadata).plan_result
        finally:
            self._call_returns_result = returns_result

    def resume(self) -> Any:
        """Go on with a paused plan from its last checkpoint; see `bluesky.RunEngine.resume`."""
        self._resumer = contextvars.copy_context()
        return self._told_in_one_line(super().resume)

    def _resume_task(self, *, init_func: Callable[[], object] | None = None) -> Any:
        resumer, self._resumer = self._resumer, None

        def prepare() -> None:
            if init_func is not None:
                init_func()
            if resumer is None:
                return
            if self.before_resume is not None:
                self._plan_stack.append(self.before_resume())
                self._response_stack.append(None)
            self._plan_stack.append(_adopt(resumer))
            self._response_stack.append(None)

        return super()._resume_task(init_func=prepare)

    async def _request_pause_coro(self, defer: bool = False) -> None:
        if not defer:  # the moves under way are begun again, from the checkpoint
            self._abandoned = set(self._pending)
        await super()._request_pause_coro(defer)

    def _told_in_one_line(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            return method(*args, **kwargs)
        except RunEngineInterrupted as interrupted:
            if self.state == "paused":
                raise RunInterruptedError(PAUSED) from None
            if self.state == "panicked":
                raise RunInterruptedError("the RunEngine is lost: leave the session and start it again") from None
            what = f"{len(self._run_start_uids)} runs" if len(self._run_start_uids) > 1 else "the run"
            if not self._run_start_uids:
                what = "the plan"
            reason = f" ({self._reason})" if self._reason else ""
            raise RunInterruptedError(
                f"{what} was aborted{reason}; motors are told to stop, the data so far is kept"
            ) from interrupted

    async def _open_run(self, msg: Msg) -> Any:
        # A plan that bluesky wraps to notice that nobody ran it is a generator all the same.
        if isinstance(self._plan, Plan):
            msg = msg._replace(kwargs={"plan_type": "generator", **msg.kwargs})
        # bluesky asks for a scan number first: metadata that are refused would leave a gap in the numbers.
        self.md_validator(dict(ChainMap(self._metadata_per_call, msg.kwargs, self.md)))
        return await super()._open_run(msg)

    async def _close_run(self, msg: Msg) -> Any:
        # bluesky's run_wrapper closes an aborted run without the reason that the engine knows.
        if self._reason and msg.kwargs.get("exit_status") == "abort" and not msg.kwargs.get("reason"):
            msg = msg._replace(kwargs={**msg.kwargs, "reason": self._reason})
        return await super()._close_run(msg)

    def begin_abort(self, reason: str) -> None:
        """End the plan in good order. To be called on the event loop; `abort()` is for all other threads."""
        if self.state != "running":
            return
        self._interrupted = True
        self._reason = reason
        self._exit_status = "abort"
        self._state = "aborting"
        self._abandoned = set(self._pending)
        if self._task is not None:
            self._task.cancel()

    def begin_halt(self, reason: str) -> None:
        """End the plan at once, also in the midst of an abort. To be called on the event loop."""
        if self.state in ("idle", "paused", "panicked"):
            return
        with self._state_lock:
            self._interrupted = True
            self._exit_status = "abort"
            self._reason = reason
            self._exception = PlanHalt(reason)
        if self._task is not None:
            self._task.cancel()

    def suspend_until(self, wait: Callable[[], Any], reason: str) -> None:
        """Hold the plan: stop its motors, wait, and go on from its last checkpoint. To be called on the event loop.

        Args:
            wait: Coroutine function that returns when the plan may go on.
            reason: For the records.
        """
        if not self.resumable:
            logger.warning("the plan has no checkpoint to go on from: it is ended")
            self.begin_abort(reason)
            return
        self._plan_stack.append(single_gen(Msg("_start_suspender", None, None, None, reason, wait)))
        self._response_stack.append(None)
        if self._state != "paused" and self._task is not None:
            self._abandoned = set(self._pending)
            self._state = "suspending"
            self._task.cancel()

    def begin_pause(self, _reason: str = "") -> None:
        """Pause at once. To be called on the event loop; `request_pause()` is for all other threads."""
        if self.state == "running":
            self._loop.create_task(self._request_pause_coro(defer=False))

    # --- devices that stop answering, and detectors that are left counting

    def _add_status_to_group(self, obj: Any, status_object: Any, group: Any, action: str) -> None:
        if not status_object.done:
            self._pending[status_object] = obj
            status_object.add_callback(self._forget)
        super()._add_status_to_group(obj, status_object, group, action)

    def _forget(self, status_object: Any) -> None:
        self._pending.pop(status_object, None)

    def _status_object_completed(self, ret: Any, fut: Any, pardon_failures: Any) -> None:
        if ret in self._abandoned:  # the plan's clean-up moves the motor elsewhere: that is no fault of the clean-up
            fut.set_result(None)
            return
        # A fault that is told in one line is passed on as it is, not wrapped into FailedStatus.
        error = ret.exception(timeout=0) if ret.done and not ret.success else None
        if isinstance(error, UserError) and not pardon_failures.is_set():
            with self._state_lock:
                self._exception = error
            fut.set_exception(error)
            fut.exception()
            return
        super()._status_object_completed(ret, fut, pardon_failures)

    def fail_pending(self, device: Any, error: Exception) -> None:
        """Fail what the plan waits for on `device`, which stopped answering.

        Args:
            device: An ophyd object; what waits on its components counts.
            error: What the plan gets.
        """
        for status, obj in list(self._pending.items()):
            if _root(obj) is _root(device) and not status.done:
                try:
                    status.set_exception(error)
                except Exception:  # it ended meanwhile
                    logger.debug("%r ended by itself", status)

    async def _stop_movable_objects(self, *, success: bool = True) -> None:
        # bluesky stops what was set; a scaler that was triggered and still counts is to be stopped too.
        for obj in set(self._pending.values()) - self._movable_objs_touched:
            if callable(getattr(obj, "stop", None)):
                self._movable_objs_touched.add(obj)
        await super()._stop_movable_objects(success=success)

    def _clear_call_cache(self) -> None:
        self._pending.clear()
        self._abandoned.clear()
        self._run_tracing_spans.clear()
        super()._clear_call_cache()


def _root(obj: Any) -> Any:
    return getattr(obj, "root", obj)


def _guarded(command: Callable[[Msg], Any], check_message: Callable[[Msg], None]) -> Callable[[Msg], Any]:
    async def guarded(msg: Msg) -> Any:
        check_message(msg)
        return await command(msg)

    return guarded


def _adopt(context: contextvars.Context) -> Iterator[Msg]:
    """A plan without messages: what follows it belongs to where `resume` was called.

    A task keeps the context in which it began. In a notebook that is the paused cell: table and trace went there.
    """
    for variable, value in context.items():
        variable.set(value)
    yield from ()


class TraceMessages:
    """A `RE.msg_hook` that prints each message, and its time since the first."""

    def __init__(self, show: Callable[[str], object] = print) -> None:
        self._show = show
        self._start: float | None = None

    def __call__(self, msg: Msg) -> None:
        """Print one message."""
        now = time.monotonic()
        self._start = self._start or now
        target = getattr(msg.obj, "name", None) or "-"
        arguments = ", ".join([*map(repr, msg.args), *(f"{key}={value!r}" for key, value in msg.kwargs.items())])
        self._show(f"{now - self._start:9.3f} {msg.command:<12} {target:<16} {arguments}")


def during_task(draw: Callable[[], object]) -> DuringTask:
    """What the main thread does while a plan runs: it draws."""
    return MainThread(draw)
