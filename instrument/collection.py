"""`from instrument.collection import *`: starts the session of this process, and exports its names.

The one module that acts when it is imported. A second import, or `%run`, finds the same session.
"""

from __future__ import annotations

import sys
from typing import Any

from instrument.queueserver import worker as queue
from instrument.session import current as _current


def _shell() -> Any:
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython is not None else None


def _start() -> dict[str, object]:
    from instrument.framework import prompt

    session = _current(tell=prompt.tell)
    from instrument import commands  # which import ophyd: not before the session has said where Channel Access looks

    shell = _shell()
    session.open(commands.NAMES, shell=shell)
    typed = {**session.plans, **commands.commands(session)}
    if shell is not None:
        engines = session.RE, session.engine_without_documents()
        hooks = session.suspenders.prompt, session.wait_for_named
        prompt.install(shell, session.last_error, *engines, typed, *hooks)
        prompt.once_shown(shell, session.importer.start)  # sooner, it would take its time from the prompt
    names = {**session.names(), **typed}
    return {**names, **queue.plans_for_queue(names)} if queue.in_worker() else names


_names = _start()
globals().update(_names)
__all__ = sorted(_names)  # noqa: PLE0605  computed from the session
