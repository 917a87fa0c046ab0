"""Stub consumers for outbox and shipping process."""

import json
import os
import threading
import time
from pathlib import Path


class FileConsumer:
    """Writes one file per run, named by the run's uid, so that a second delivery replaces the first."""

    def __init__(self, directory, name="files"):
        self.name = name
        self.directory = directory
        self.delivered = []
        self.uids = []
        self.fail_with = None
        self.blocked = None

    def assign(self, start):
        return {"file": f"{start['uid']}.json"}

    def deliver(self, documents, assignment, notes):
        if self.blocked is not None:
            self.blocked.wait()
        if self.fail_with is not None:
            raise self.fail_with
        documents = list(documents)
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / assignment["file"]
        draft = path.with_suffix(f".{os.getpid()}.{threading.get_ident()}")
        draft.write_text(json.dumps([[name for name, _ in documents], notes]))
        draft.replace(path)
        self.uids.append(documents[0][1]["uid"])
        self.delivered.append(documents[0][1]["scan_id"] if "scan_id" in documents[0][1] else documents[0][1]["uid"])
        return str(path)


class FeedFiles:
    """Appends the names of a run's documents to a file of its own; beside it, what it is told to do wrong.

    A file `down` in its directory: it raises. A file `hang`: it waits until that is gone.
    """

    def __init__(self, directory, name="feed"):
        self.name = name
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)

    def begin(self, start):
        self._check()
        if (self.directory / f"{start['uid']}.whole").exists():
            return None
        (self.directory / f"{start['uid']}.partial").write_text("")
        return FeedFile(self, start)

    def _check(self):
        while (self.directory / "hang").exists():
            time.sleep(0.01)
        if (self.directory / "down").exists():
            raise ConnectionError("the server is down")

    def names(self, uid):
        """The documents of a run that are there."""
        for suffix in ("whole", "partial"):
            path = self.directory / f"{uid}.{suffix}"
            if path.exists():
                return [json.loads(line)[0] for line in path.read_text().splitlines()]
        return []

    @property
    def whole(self):
        """The runs that are there, in the order in which they came."""
        order = (self.directory / "order").read_text().split() if (self.directory / "order").exists() else []
        return [uid for uid in dict.fromkeys(order) if (self.directory / f"{uid}.whole").exists()]


class FeedFile:
    def __init__(self, consumer, start):
        self.consumer = consumer
        self.path = consumer.directory / f"{start['uid']}.partial"
        self.batches = []

    def take(self, documents):
        self.consumer._check()
        self.batches.append(len(documents))
        with self.path.open("a") as file:
            for name, document in documents:
                file.write(json.dumps([name, document.get("uid")]) + "\n")
        if documents[-1][0] == "stop":
            with (self.consumer.directory / "order").open("a") as file:
                file.write(f"{self.path.stem}\n")
            self.path.rename(self.path.with_suffix(".whole"))
            return str(self.path.with_suffix(".whole"))
        return None
