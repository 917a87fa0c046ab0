"""Channel Access as the session wants it: quick to begin with, and libca's own messages kept away from the prompt.

When an IOC goes away libca prints a block of five lines per connection. The session says the same in one line that
names the devices (`instrument.devices.health`).
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.abc
import importlib.util
import os
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

_handlers: list[object] = []  # libca keeps a pointer to each
_FINDER = "epicscorelibs.path.pyepics"  # sets $PYEPICS_LIBCA; ophyd imports it


def name_libca() -> None:
    """Tell pyepics to use the libca of epicscorelibs, by $PYEPICS_LIBCA, unless that names one already.

    It is what the import of `epicscorelibs.path.pyepics` is for, with which ophyd begins; but that imports setuptools
    and looks through all modules to find itself: a tenth of a second. It finds its work done.
    """
    if _FINDER in sys.modules:
        return
    try:
        from epicscorelibs.lib import ca_dsoinfo
    except ImportError:  # pyepics has a libca of its own
        return
    os.environ.setdefault("PYEPICS_LIBCA", ca_dsoinfo.sofilename)
    sys.modules[_FINDER] = ModuleType(_FINDER, "Its work is done: see instrument.framework.channel_access.")


def import_ophyd() -> None:
    """Import ophyd, without two things that make up a quarter of its import and are needed rarely or never.

    - Its search for libca: see `name_libca`.
    - networkx, with which an area detector checks and draws how its plugins are connected: loaded when one does.
    """
    if "ophyd" in sys.modules:
        return
    name_libca()
    with _AtFirstUse("networkx").installed():
        import ophyd  # noqa: F401


class _AtFirstUse(importlib.abc.MetaPathFinder):
    """While installed, one module that is imported is loaded only when something of it is used."""

    def __init__(self, module: str) -> None:
        self._module = module

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        """How to load the module; other modules are left to the other finders."""
        found = PathFinder.find_spec(name, path, target) if name == self._module else None
        if found is not None and found.loader is not None:
            found.loader = importlib.util.LazyLoader(found.loader)
        return found

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Be asked first."""
        sys.meta_path.insert(0, self)
        try:
            yield
        finally:
            sys.meta_path.remove(self)


def silence_libca() -> None:
    """Drop what the Channel Access library of this process prints by itself.

    Acts on the CA context of the calling thread, which ophyd's threads share.
    """
    from epics import ca

    ca.initialize_libca()
    # int caPrintfFunc(const char *format, va_list arguments), from cadef.h
    handler = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda _format, _arguments: 0)
    _handlers.append(handler)
    ca.libca.ca_replace_printf_handler(handler)
    ca.libca.eltc(0)  # "Unexpected problem with CA circuit" goes through EPICS' error log instead
