"""What is installed only where it is wanted: the optional extras of pyproject.toml."""

from __future__ import annotations

from importlib.util import find_spec

from instrument.config.errors import UserError

# extra: what it is to people, and the modules that show that it is there
EXTRAS = {
    "notebook": ("Jupyter", ("jupyterlab", "ipykernel")),
    "queue": ("the queue server", ("bluesky_queueserver", "bluesky_queueserver_api")),
    "tiled": ("Tiled", ("tiled", "bluesky_tiled_plugins")),
}


class MissingExtraError(UserError, ImportError):
    """An optional extra is not installed; the line says how to have it."""


def need(extra: str) -> None:
    """Make sure that an optional extra is installed.

    Raises:
        MissingExtraError: It is not.
    """
    what, modules = EXTRAS[extra]
    if any(find_spec(module) is None for module in modules):
        raise MissingExtraError(f"{what} is not installed: `pip install '.[{extra}]'` in the clone of instrument")
