"""What holds a run while something is wrong, and lets it go on when all is well: beam, shutter, temperature.

bluesky's suspenders tell what they do in several lines, among them that Ctrl-C twice pauses, which here it does not.
The protocol with the RunEngine is bluesky's; what is told is one line each, and a run that waits for too long is ended.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bluesky import Msg

from instrument.config.errors import UserError, nearest

if TYPE_CHECKING:
    from instrument.framework.engine import RunEngine


@dataclass(frozen=True)
class Condition:
    """When a value is bad, and when it is good again.

    Attributes:
        low: Bad below.
        high: Bad above.
        only: Bad while its text is anything else.
        resume_low: Good again above; `low` if None.
        resume_high: Good again below; `high` if None.
    """

    low: float | None = None
    high: float | None = None
    only: str | None = None
    resume_low: float | None = None
    resume_high: float | None = None

    def complaint(self, value: Any, *, tripped: bool = False) -> str | None:
        """What is wrong with a value; None if nothing is.

        Args:
            value: The value.
            tripped: It was bad before: it has to be good enough to go on.
        """
        if self.only is not None:
            return None if str(value).lower() == self.only.lower() else f"{value}, not {self.only}"
        low = self.resume_low if tripped and self.resume_low is not None else self.low
        high = self.resume_high if tripped and self.resume_high is not None else self.high
        if not isinstance(value, int | float) or math.isnan(value):
            return f"{value}, which is no number"
        if low is not None and value < low:
            return f"{value:g}, below {low:g}"
        if high is not None and value > high:
            return f"{value:g}, above {high:g}"
        return None

    def __str__(self) -> str:
        if self.only is not None:
            return f"only {self.only}"
        parts = [f"{self.low:g} <"] if self.low is not None else []
        return " ".join([*parts, "value", *([f"< {self.high:g}"] if self.high is not None else [])])


class Suspender:
    """Watches a signal while it is installed in a RunEngine.

    Args:
        name: What it is called.
        signal: What is watched.
        condition: When its value is bad.
        settle: How long to wait before going on (s).
        abort_after: End a run that was held for longer (s); None: never.
        tell: Shows a line, from any thread.
    """

    def __init__(
        self,
        name: str,
        signal: Any,
        condition: Condition,
        *,
        settle: float = 0.0,
        abort_after: float | None = None,
        tell: Callable[[str], object] = print,
    ) -> None:
        self.name = name
        self.signal = signal
        self.condition = condition
        self.settle = settle
        self.abort_after = abort_after
        self._tell = tell
        self._lock = threading.Lock()
        self._engine: RunEngine | None = None
        self._complaint: str | None = None
        self._released = asyncio.Event()
        self._releasing: asyncio.TimerHandle | None = None

    @property
    def on(self) -> bool:
        """Is it installed?"""
        return self._engine is not None

    @property
    def tripped(self) -> bool:
        """Does it hold a run, or would it?"""
        return self.on and not self._released.is_set()

    @property
    def complains(self) -> bool:
        """Is its signal bad at this moment?"""
        return self._complaint is not None

    @property
    def reason(self) -> str:
        """Why it holds a run."""
        return f"{self.name}: {self.signal.name} is {self._complaint or 'good, but not for long enough'}"

    # --- bluesky's protocol

    def install(self, engine: RunEngine) -> None:
        """Watch from now on; called by `RunEngine.install_suspender`."""
        self._released.set()
        self._complaint = None
        self._engine = engine
        self.signal.subscribe(self._changed, run=True)

    def remove(self) -> None:
        """Do not watch any more; what was held goes on."""
        self.signal.clear_sub(self._changed)
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.loop.call_soon_threadsafe(self._released.set)

    def get_futures(self) -> tuple[list[Any], str]:
        """Nothing that a run waits for at its start: `hold` does that, in one line."""
        return [], ""

    def hold(self) -> Generator[Msg, Any, None]:
        """Wait, at the start of a plan and when a paused one is resumed, until all is well."""
        if self.tripped:
            self._tell(f"waiting: {self.reason}; it goes on by itself, Ctrl-C ends it")
            yield Msg("wait_for", None, [self.wait])

    async def wait(self) -> None:
        """Wait until all is well, for the other suspenders too; end the run if that takes too long."""
        await self.wait_alone()
        while others := self._others_tripped():
            await others[0].wait_alone()

    def _others_tripped(self) -> list[Suspender]:
        installed = self._engine.suspenders if self._engine is not None else ()
        return [other for other in installed if other is not self and isinstance(other, Suspender) and other.tripped]

    async def wait_alone(self) -> None:
        """Wait until all is well as far as this one sees; end the run if that takes too long."""
        try:
            await asyncio.wait_for(self._released.wait(), self.abort_after)
        except TimeoutError:
            engine = self._engine
            if engine is not None:
                self._tell(f"{self.reason}, for {self.abort_after:g} s: the run is ended")
                engine.begin_abort(f"{self.reason}, for {self.abort_after:g} s")
            await asyncio.Event().wait()  # until the engine cancels this

    # --- on ophyd's thread, or that of whoever puts the signal

    def _changed(self, value: Any = None, **_: Any) -> None:
        with self._lock:
            engine, before = self._engine, self._complaint
            if engine is None:
                return
            self._complaint = self.condition.complaint(value, tripped=before is not None)
            now = self._complaint
        if before is None and now is not None:
            engine.loop.call_soon_threadsafe(self._trip, engine)
        elif before is not None and now is None:
            engine.loop.call_soon_threadsafe(self._recover, engine)

    # --- on the engine's event loop

    def _trip(self, engine: RunEngine) -> None:
        if self._releasing is not None:
            self._releasing.cancel()
            self._releasing = None
        was_held = not self._released.is_set()
        self._released.clear()
        if was_held or not (engine.state.is_running or engine.state == "suspending"):
            return
        self._tell(f"suspended: {self.reason}; it goes on by itself, Ctrl-C ends the run")
        if engine.state.is_running:  # else another has just suspended it, and waits for this one too
            engine.suspend_until(self.wait, self.reason)

    def _recover(self, engine: RunEngine) -> None:
        if engine.state.is_running:
            after = f" in {self.settle:g} s" if self.settle else ""
            others = [other.name for other in self._others_tripped() if other.complains]
            then = f"{' and '.join(sorted(others))} still holds the run" if others else f"the run goes on{after}"
            self._tell(f"{self.name} is good again ({self.signal.name}): {then}")
        self._releasing = engine.loop.call_later(self.settle, self._released.set)


class Suspenders:
    """The suspenders of a session.

    Args:
        engine: The RunEngine whose plans they hold.
        suspenders: All there are; none is on.
    """

    def __init__(self, engine: RunEngine, suspenders: list[Suspender]) -> None:
        self._engine = engine
        self._suspenders = {suspender.name: suspender for suspender in suspenders}
        engine.preprocessors.append(self._hold)
        engine.before_resume = self._wait

    def _hold(self, plan: Any) -> Generator[Msg, Any, Any]:
        yield from self._wait()
        return (yield from plan)

    def _wait(self) -> Generator[Msg, Any, None]:
        for suspender in self._suspenders.values():
            yield from suspender.hold()

    def __iter__(self) -> Any:
        return iter(self._suspenders.values())

    def find(self, name: str) -> Suspender:
        """The suspender of a name.

        Raises:
            UserError: There is none.
        """
        if name not in self._suspenders:
            near = nearest(str(name), self._suspenders)
            known = ", ".join(self._suspenders) or "none; iconfig.yml names them"
            hint = f"did you mean {near!r}?" if near else f"there are {known}"
            raise UserError(f"no suspender is named {name!r}; {hint}")
        return self._suspenders[name]

    def switch(self, name: str, *, on: bool) -> None:
        """Switch one on or off.

        Raises:
            UserError: There is none of that name, or its signal does not answer.
        """
        suspender = self.find(name)
        if suspender.on == on:
            return
        if not on:
            self._engine.remove_suspender(suspender)
            return
        if not getattr(suspender.signal, "connected", True):
            raise UserError(f"{name}: {suspender.signal.name} does not answer; it stays off")
        self._engine.install_suspender(suspender)

    def prompt(self) -> str:
        """What the prompt tells: those that are on, with a ! where one holds runs."""
        return " ".join(f"{s.name}!" if s.tripped else s.name for s in self if s.on)
