"""Heavy imports behind the prompt: one thread, a fixed order, that first use joins.

databroker and apstools take seconds to import. The prompt does not wait for them: this thread imports them after it,
and rests while the RunEngine runs. Whoever needs one at once calls `need(name)`, which waits for this thread instead
of importing the same modules from a second one (two threads that import packages which import each other may each see
the other's half-made module).
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType

from instrument.config.names import LOGGER_NAME

logger = logging.getLogger(LOGGER_NAME)

REST = 0.1  # s; how often a resting importer looks whether it may go on


@contextlib.contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Start without looking for garbage: nearly all that is made while a session starts stays for its life.

    Looking through it again and again costs a quarter of the start; afterwards it is left out of the search for good.
    Within another such block, or where the collector is off anyway, this does nothing.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


class Importer:
    """Import modules one after the other in a thread of its own.

    Args:
        modules: Dotted names, in the order of import.
        busy: True while the importer is to rest (a plan runs).
    """

    def __init__(self, modules: Sequence[str], busy: Callable[[], bool] = lambda: False) -> None:
        self._modules = tuple(modules)
        self._busy = busy
        self._done = {name: threading.Event() for name in self._modules}
        self._hurry = threading.Event()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin; a second call does nothing."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="importer", daemon=True)
            self._thread.start()

    def close(self, timeout: float = 30.0) -> None:
        """Begin no further import, and wait for the one under way: a process that ends within one may crash."""
        self._closed.set()
        self._hurry.set()
        if self._thread is not None:
            self._thread.join(timeout)

    def need(self, name: str) -> ModuleType:
        """The module `name`, imported now if it is not yet.

        Raises:
            ImportError: It can't be imported.
        """
        if name in self._done and self._thread is not None and self._thread is not threading.current_thread():
            self._hurry.set()
            while self._thread.is_alive() and not self._done[name].wait(REST):
                pass
        return importlib.import_module(name)

    def _run(self) -> None:
        for name in self._modules:
            while self._busy() and not self._hurry.is_set() and not self._closed.wait(REST):
                pass
            if self._closed.is_set():
                return
            try:
                importlib.import_module(name)
            except Exception:
                if not threading.main_thread().is_alive():  # some modules can't be imported while the process ends
                    return
                logger.exception("can't import %s", name)
            self._done[name].set()
