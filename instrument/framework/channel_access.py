"""Channel Access as the session wants it: libca's own messages kept away from the prompt.

When an IOC goes away libca prints a block of five lines per connection. The session says the same in one line that
names the devices (`instrument.devices.health`).
"""

from __future__ import annotations

import ctypes

_handlers: list[object] = []  # libca keeps a pointer to each


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
