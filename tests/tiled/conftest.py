import os
import tempfile
from pathlib import Path

import pytest

from .servers import serving

os.environ.setdefault("TILED_RETRY_ATTEMPTS", "2")  # Tiled's client goes on for most of a minute


@pytest.fixture(scope="session")
def sqlite_server(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("sqlite")) as server:
        yield server


@pytest.fixture(scope="session")
def open_directory():
    """A directory that PostgreSQL's own user may enter (root's PostgreSQL has one): pytest closes its directories."""
    with tempfile.TemporaryDirectory(prefix="tiled-", ignore_cleanup_errors=True) as name:
        yield Path(name)


@pytest.fixture(scope="session")
def postgresql_server(open_directory):
    with serving(open_directory / "shared", "--embedded-postgres") as server:
        yield server


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def server(request):
    return request.getfixturevalue(f"{request.param}_server")
