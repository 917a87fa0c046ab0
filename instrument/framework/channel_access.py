"""Channel Access as the session wants it: quick to begin with, and libca's own messages kept away from the prompt.

When an IOC goes away libca prints a block of five lines per connection. The session says the same in one line that
names the devices (`instrument.devices.health`).
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import sys
from collections.abc import Iterator

_handlers: list[object] = []  # libca keeps a pointer to each
_FINDER = "epicscorelibs.path.pyepics"  # sets $PYEPICS_LIBCA; ophyd imports it


def name_libca() -> None:
    """Tell pyepics to use the libca of epicscorelibs, by $PYEPICS_LIBCA, unless that names one already.

    That is what `import epicscorelibs.path.pyepics` does, which imports setuptools and looks through all modules for
    it: a tenth of a second.
    """
    with contextlib.suppress(ImportError):  # without epicscorelibs pyepics uses a libca of its own
        from epicscorelibs.lib import ca_dsoinfo

        os.environ.setdefault("PYEPICS_LIBCA", ca_dsoinfo.sofilename)


def import_ophyd() -> None:
    """Import ophyd, without two things that make up a quarter of its import and that are needed rarely or never.

    - Its search for libca: see `name_libca`.
    - networkx, with which an area detector checks and draws how its plugins are connected: loaded when one does.
    """
    if "ophyd" in sys.modules:
        return
    name_libca()
    _load_at_first_use("networkx")
    with _without(_FINDER):
        import ophyd  # noqa: F401


@contextlib.contextmanager
def _without(module: str) -> Iterator[None]:
    """Have a module look as if it were not installed."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]  how Python's import system spells that
    try:
        yield
    finally:
        del sys.modules[module]


def _load_at_first_use(name: str) -> None:
    """Have a module, if it is installed, loaded only when something of it is used."""
    specification = None if name in sys.modules else importlib.util.find_spec(name)
    if specification is None or specification.loader is None:
        return
    loader = importlib.util.LazyLoader(specification.loader)
    specification.loader = loader
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    loader.exec_module(module)


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
