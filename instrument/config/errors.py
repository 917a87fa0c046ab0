"""The exception whose message is all that a user needs to see."""

from __future__ import annotations


class UserError(Exception):
    """A mistake or a fault told in one line: what happened, to what, and what to do.

    The prompt prints only the message; the traceback goes to the log.
    """
