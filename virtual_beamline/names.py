"""Names that the virtual beamline's server side and client side must agree on."""

from __future__ import annotations

import re

DEFAULT_PREFIX = "gp:"
AREA_DETECTOR_PREFIX = "ad:"
ENVIRONMENT_VARIABLE = "VIRTUAL_BEAMLINE"
"""Holds the id of the beamline that a shell or a session uses."""
ID_RECORD = "BEAMLINE_ID"
"""``<prefix>BEAMLINE_ID`` has the id as its value once the beamline is ready."""
LOOPBACK = "127.0.0.1"
MAX_ARRAY_BYTES = 32_000_000

_PREFIX = re.compile(r"[A-Za-z0-9_:.<>;\-]{1,20}")


def checked_prefix(prefix: str) -> str:
    """The prefix, if it can begin a PV name.

    Raises:
        ValueError: it cannot.
    """
    if not _PREFIX.fullmatch(prefix):
        msg = f"{prefix!r} cannot begin PV names: 1 to 20 letters, digits, or any of _ - : . < > ;"
        raise ValueError(msg)
    return prefix
