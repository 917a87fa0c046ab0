from __future__ import annotations

import pytest

from tests.terminal import Terminal


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """The working directory of a module's session, in which there has been one session before."""
    directory = tmp_path_factory.mktemp("beamline")
    (directory / ".logs").mkdir()
    (directory / ".logs" / "ipython_console.log").write_text("# IPython log file\n\n# an earlier session\n")
    return directory


@pytest.fixture(scope="module")
def session(directory):
    """One session at a terminal for all tests of a module, in their order."""
    with Terminal(directory) as terminal:
        yield terminal
        assert terminal.exit() == 0
