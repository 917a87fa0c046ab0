"""`instrument notebook`: JupyterLab where one is, whose notebooks find this configuration."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from instrument.config import extras, find
from instrument.config.errors import UserError
from instrument.config.loader import ENVIRONMENT_VARIABLE


def command(directory: Path, *, browser: bool, port: int | None) -> list[str]:
    """The command line of JupyterLab on loopback.

    Raises:
        UserError: Jupyter is not installed, or there is no such directory.
    """
    extras.need("notebook")
    if not directory.is_dir():
        raise UserError(f"there is no directory {directory}: `instrument new NAME` makes one for a beamline")
    options = [f"--ServerApp.root_dir={directory.resolve()}"]
    options += [] if browser else ["--no-browser"]
    options += [] if port is None else [f"--port={port}"]
    if os.geteuid() == 0:
        options.append("--allow-root")  # in a container; on loopback and with a token, as for everybody
    return [sys.executable, "-m", "jupyterlab", *options]


def run(directory: Path, *, config: Path | str | None, browser: bool, port: int | None) -> int:
    """Become JupyterLab, in a directory.

    Args:
        directory: Where the notebooks are.
        config: Path of an iconfig.yml; default: as for a session started in that directory.
        browser: Open one.
        port: TCP port; None: Jupyter's own choice.

    Raises:
        UserError: It can't be started.
    """
    words = command(directory, browser=browser, port=port)
    here = directory / "iconfig.yml"
    if config or here.is_file():
        # kernels start in the directories of their notebooks
        os.environ[ENVIRONMENT_VARIABLE] = str(find(config or here).resolve())
    os.chdir(directory)
    sys.stdout.flush()
    os.execv(words[0], words)
