"""When a consumer fails: is it tried again, when, and what is said of it. The same for outbox and shipping process."""

from __future__ import annotations

from pathlib import Path

from instrument.config.errors import UserError

FIRST_PAUSE = 0.5  # s before the first retry; doubled each time
LONGEST_PAUSE = 60.0  # s
ATTEMPTS = 3  # for errors that time does not heal


class Failure:
    """What one failed attempt to deliver a run means.

    An `OSError`, and what has `transient = True`, is tried for ever; what has `final = True`, never again; all else a
    few times.

    Args:
        error: What the consumer raised.
        path: The run's file.
        attempts: How many attempts there were, this one included.
    """

    def __init__(self, error: Exception, path: Path, attempts: int) -> None:
        gone = isinstance(error, FileNotFoundError) and not path.exists()
        self.heals = not gone and (
            isinstance(error, OSError) or isinstance(error.__cause__, OSError) or getattr(error, "transient", False)
        )
        self.attempts = attempts
        self.reason = f"{path} is gone" if gone else one_line(error)
        self.final = gone or getattr(error, "final", False) or (not self.heals and attempts >= ATTEMPTS)

    @property
    def pause(self) -> float:
        """How long to wait before the next attempt (s)."""
        return min(FIRST_PAUSE * 2 ** min(self.attempts - 1, 20), LONGEST_PAUSE)


def one_line(error: BaseException) -> str:
    """An error in one line; with its type, unless it was written for people."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if isinstance(error, UserError | OSError) else f"{type(error).__name__}: {text}"
