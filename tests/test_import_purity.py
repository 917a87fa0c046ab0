"""Modules define; only `instrument.collection` acts.

Two fresh interpreters are compared: one imports every module of ours, the other only the third-party modules that
the first one ended up with, in the same order. What ours does beyond that must be nothing.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ACTS = {"instrument.collection", "virtual_beamline.__main__"}

RECORD = """
import sys, json, os, threading, logging, signal, importlib
events = []
def hook(event, arguments):
    if event in ("socket.bind", "socket.connect", "socket.sendto", "subprocess.Popen", "os.mkdir", "os.remove",
                 "os.rename", "os.putenv", "os.system", "os.fork", "os.posix_spawn", "ctypes.dlopen"):
        events.append([event, str(arguments[0])[:80]])
    elif event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
        if "__pycache__" not in str(arguments[0]):
            events.append([event, str(arguments[0])])
    elif event == "_thread.start_new_thread":
        events.append([event, ""])
sys.dont_write_bytecode = True
sys.addaudithook(hook)
before = (list(sys.path), [str(signal.getsignal(n)) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)])
for name in json.loads(sys.stdin.read()):
    try:
        importlib.import_module(name)
    except Exception as error:
        if name.partition(".")[0] in ("instrument", "virtual_beamline"):
            raise
after = (list(sys.path), [str(signal.getsignal(n)) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)])
print(json.dumps({
    "events": events,
    "threads": threading.active_count(),
    "handlers": {n: len(logging.getLogger(n).handlers) for n in ("", "bluesky-session", "bluesky", "ophyd")},
    "path_and_signals": [before, after],
    "modules": [n for n, m in sys.modules.items() if getattr(m, "__spec__", None) is not None],
}))
"""


def modules_of_ours():
    for package in ("instrument", "virtual_beamline"):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            if name not in ACTS:
                yield name


def record(names, directory):
    done = subprocess.run(
        [sys.executable, "-c", RECORD],
        input=json.dumps(list(names)),
        capture_output=True,
        text=True,
        cwd=directory,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    # matplotlib lists the fonts once for each user: neither of the two is to be the first.
    subprocess.run([sys.executable, "-c", "import matplotlib.pyplot"], check=True, timeout=280)
    directory = tmp_path_factory.mktemp("cwd")
    ours = record(modules_of_ours(), directory)
    theirs = [n for n in ours["modules"] if n.partition(".")[0] not in ("instrument", "virtual_beamline")]
    return ours, record(theirs, directory), directory


def test_importing_opens_no_socket_writes_no_file_starts_no_process(both):
    ours, theirs, directory = both
    extra = [event for event in ours["events"] if event not in theirs["events"]]
    assert extra == []
    assert list(directory.iterdir()) == []


def test_importing_starts_no_thread(both):
    ours, theirs, _ = both
    assert ours["threads"] <= theirs["threads"]


def test_importing_configures_no_logging(both):
    ours, theirs, _ = both
    assert ours["handlers"] == theirs["handlers"]


def test_importing_changes_neither_the_path_nor_the_signals(both):
    ours, theirs, _ = both  # setuptools, which epicscorelibs imports, adds to the path
    assert ours["path_and_signals"] == theirs["path_and_signals"]
