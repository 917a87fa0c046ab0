"""Every consumer there is, for the fault tests: how to make it, what it holds, and how its place is taken from it.

To have a new consumer in all of them, write its class here and name it in `CASES`.
"""

import contextlib
import os
import re
import resource
import shutil
import signal
import subprocess
import uuid
from collections.abc import Iterator

import mongomock
import psutil
from pymongo.errors import BulkWriteError, NotPrimaryError, ServerSelectionTimeoutError

from instrument.callbacks.mongo import MongoDB
from instrument.callbacks.nexus import NexusWriter
from instrument.callbacks.shipping import Shipper
from instrument.callbacks.spec import SpecWriter
from instrument.config.models import Nexus
from instrument.tiled.connection import Server
from instrument.tiled.places import TiledDirectory
from instrument.tiled.writing import TiledConsumer
from tests.tiled.servers import Server as TiledServer

from .consumers import FeedFiles, FileConsumer

MAY_MOUNT = (
    os.geteuid() == 0
    and not subprocess.run(
        ["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/tmp"], capture_output=True, check=False
    ).returncode
)


class Outboxed:
    """What the session's outbox delivers to. Its files are in `directory`."""

    many = 1000  # one-point runs that take it a few seconds
    hour = 360  # runs of an hour, one every ten seconds
    long = 100_000  # events

    needs = None  # the name of a fixture

    def __init__(self, root, laboratory, needed=None):
        self.needed = needed
        self.directory = root / "place" / "files"
        self.directory.mkdir(parents=True)
        self._laboratory = laboratory
        self.consumer = self.make()
        self._mounts = []

    # -- its deliveries

    def add(self, *others):
        """Begin to deliver, to others too."""
        for consumer in (self.consumer, *others):
            self._laboratory.outbox.add(consumer)
        self._laboratory.outbox.start()

    def wait(self, timeout=60):
        """Whether it has every run."""
        return self._laboratory.outbox.wait(timeout)

    def row(self):
        """How many runs it has, how many not, and its last error."""
        return next(row[1:] for row in self._laboratory.outbox.rows() if row[0] == self.consumer.name)

    def intercept(self, before):
        """Call `before(name)` with the name of each document, before the consumer gets it."""
        deliver = self.consumer.deliver

        def watched(documents):
            for name, document in documents:
                before(name)
                yield name, document

        self.consumer.deliver = lambda documents, *rest: deliver(watched(documents), *rest)

    # -- faults: each is a context in which its place cannot be used

    @contextlib.contextmanager
    def disk_full(self):
        """Its files are on a disk without room."""
        with self._mounted("size=64k", self.directory):
            filler = self.directory / "filler"
            with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
                while file.write(bytes(1024)):
                    pass
            yield

    @contextlib.contextmanager
    def directory_removed(self):
        """Its directory is gone, and cannot be made."""
        aside = self.directory.with_name("aside")
        self.directory.rename(aside)
        self.directory.touch()
        try:
            yield
        finally:
            self.directory.unlink()
            aside.rename(self.directory)

    @contextlib.contextmanager
    def read_only(self):
        """Its directory cannot be written, by root neither."""
        subprocess.run(["mount", "--bind", self.directory, self.directory], check=True)
        subprocess.run(["mount", "-o", "remount,ro,bind", self.directory], check=True)
        try:
            yield
        finally:
            subprocess.run(["umount", "-l", self.directory], check=True)

    @contextlib.contextmanager
    def _mounted(self, options, directory):
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", directory], check=True)
        try:
            yield
        finally:
            subprocess.run(["umount", "-l", directory], check=True)

    down = directory_removed


class Stub(Outboxed):
    """A stub that writes a file per run."""

    label = "stub"

    def make(self):
        return FileConsumer(self.directory)

    def copies(self):
        return sorted((path.stem for path in self.directory.glob("*.json")), key=self.consumer.uids.index)


class Spec(Outboxed):
    """SPEC files."""

    label = "SPEC"

    def make(self):
        writer = SpecWriter(self.directory)
        writer.newfile("all.dat")
        return writer

    def copies(self):
        path = self.directory / "all.dat"
        text = path.read_text() if path.exists() else ""
        blocks = re.split(r"(?m)^#S ", text)[1:]
        return [re.findall(r"#MD uid = (\S+)", block)[0] for block in blocks if "exit_status = " in block]


class NeXus(Outboxed):
    """NeXus files."""

    label = "NeXus"
    many = 60
    hour = 60

    def make(self):
        return NexusWriter(Nexus.model_validate({"enabled": True}), self.directory)

    def copies(self):
        from instrument.callbacks.nexus_file import run_in

        return [run_in(path) for path in sorted(self.directory.glob("*.hdf"))]


class Shipped(Outboxed):
    """What the shipping process feeds."""

    def add(self, *others):
        laboratory = self._laboratory
        self.shipper = Shipper(laboratory.data, [self.consumer, *others], laboratory.reports.append)
        self.shipper.start()

    def wait(self, timeout=60):
        return self.shipper.finish(timeout)

    def row(self):
        return self.shipper.rows()[0][1:]

    def intercept(self, before):
        begin = self.consumer.begin

        class Watched:
            def __init__(self, run):
                self._run = run

            def take(self, documents):
                result = None
                for name, document in documents:
                    before(name)
                    result = self._run.take([(name, document)])
                return result

        def watched(start):
            run = begin(start)
            return run and Watched(run)

        self.consumer.begin = watched


class ShippedStub(Shipped):
    """A stub that appends to a file per run."""

    label = "shipped stub"

    def make(self):
        return FeedFiles(self.directory)

    def copies(self):
        return self.consumer.whole


class Mongo(Shipped):
    """MongoDB; no server can be installed, mongomock stands in for it."""

    label = "MongoDB (mongomock)"
    many = 200
    long = 10_000

    def make(self):
        self.database = mongomock.MongoClient().get_database("runs")
        return MongoDB(self.database, self.database)

    def copies(self):
        """Every run whose documents are there, each as often as the others, and its stop document."""
        found = []
        for stop in self.database["run_stop"].find():
            uid = stop["run_start"]
            descriptors = [one["uid"] for one in self.database["event_descriptor"].find({"run_start": uid})]
            numbers = [one["seq_num"] for one in self.database["event"].find({"descriptor": {"$in": descriptors}})]
            assert sorted(numbers) == list(range(1, sum(stop["num_events"].values()) + 1))
            found += [start["uid"] for start in self.database["run_start"].find({"uid": uid})]
        return found

    @contextlib.contextmanager
    def _raising(self, error) -> Iterator[None]:
        """Every request fails."""

        class Failing:
            name = "runs"

            def __getitem__(self, name):
                raise error

        real, self.consumer._databases = self.consumer._databases, (Failing(), Failing())
        try:
            yield
        finally:
            self.consumer._databases = real or (self.database, self.database)

    def down(self):
        return self._raising(ServerSelectionTimeoutError("localhost:27017: refused, Timeout: 3s"))

    def disk_full(self):
        details = {
            "writeErrors": [{"code": 14031, "errmsg": "Available disk space of 500 bytes is less than required"}]
        }
        return self._raising(BulkWriteError(details))

    def read_only(self):
        return self._raising(NotPrimaryError("not primary"))

    def directory_removed(self):
        return self._raising(NotPrimaryError("node is recovering"))


class Tiled(Shipped):
    """A Tiled server in a process of its own, over SQLite."""

    label = "Tiled"
    many = 12
    hour = 12
    long = 5000
    needs = "tiled_place"

    def make(self):
        self.place = self.needed
        self.catalog = f"catalog {uuid.uuid4()}"
        return TiledConsumer(Server(self.place.files), self.catalog)

    def copies(self):
        reader = TiledConsumer(Server(self.place.files), self.catalog)
        try:
            return [uid for uid, whole in reader.there().items() if whole]
        finally:
            reader.close()

    @contextlib.contextmanager
    def down(self):
        """The server is killed, and started again; on another port, since it finds a free one."""
        self.place.stop()
        try:
            yield
        finally:
            self.place.start()

    @contextlib.contextmanager
    def directory_removed(self):
        """With its data, its address and its keys."""
        self.place.stop()
        aside = self.place.files.root.with_name("aside")
        self.place.files.root.rename(aside)
        try:
            yield
        finally:
            aside.rename(self.place.files.root)
            self.place.start()

    @contextlib.contextmanager
    def disk_full(self):
        """No file of the server's can grow."""
        server = psutil.Process(self.place.server.process.pid)
        server.rlimit(psutil.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        try:
            yield
        finally:
            server.rlimit(psutil.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    read_only = disk_full


class TiledPlace:
    """A working directory with a Tiled server."""

    def __init__(self, directory):
        self.directory = directory
        self.files = TiledDirectory(directory / ".data" / "tiled")
        self.start()

    def start(self):
        self.server = TiledServer(self.directory).wait_ready()

    def stop(self):
        self.server.end(signal.SIGKILL)


CASES = {case.label: case for case in (Stub, Spec, NeXus, ShippedStub, Mongo, Tiled)}


def clean(directory):
    """Unmount what a test that failed left mounted."""
    for path in (directory, *directory.rglob("*")):
        if path.is_mount():
            subprocess.run(["umount", "-l", path], check=False)
    shutil.rmtree(directory, ignore_errors=True)
