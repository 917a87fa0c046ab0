"""bluesky's RE Manager with a worker that closes the session before it ends. `instrument qserver` runs it.

python -m instrument.queueserver.manager --config .data/queue/manager.yml
"""

from __future__ import annotations

import functools
import sys

from bluesky_queueserver.manager import start_manager
from bluesky_queueserver.manager.worker import RunEngineWorker

from instrument.queueserver.redis import end_with_parent


class SessionWorker(RunEngineWorker):
    """The worker's process.

    A process of multiprocessing runs no exit functions, and the manager waits half a second for its end: files are
    written, and the virtual beamline is stopped, while the manager still waits for the environment to be closed.
    """

    def _worker_shutdown_code(self) -> None:
        session = sys.modules.get("instrument.session")
        if session is not None and session.is_current():
            session.current().close()
        super()._worker_shutdown_code()


def main() -> None:
    """Run the manager until it is stopped."""
    end_with_parent()
    start_manager.WatchdogProcess = functools.partial(  # type: ignore[misc]  its own parameter, which nothing passes on
        start_manager.WatchdogProcess, cls_run_engine_worker=SessionWorker
    )
    sys.exit(start_manager.start_manager())


if __name__ == "__main__":
    main()
