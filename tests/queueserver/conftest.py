import pytest

from .servers import serving


@pytest.fixture(scope="package")
def server(tmp_path_factory):
    """A queue server whose session is open."""
    with serving(tmp_path_factory.mktemp("queue")) as server:
        yield server


@pytest.fixture
def queue(server):
    """A client of it; the queue is empty and nothing runs."""
    with server.connect() as queue:
        queue.wait()
        queue.ask("queue_clear")
        yield queue
