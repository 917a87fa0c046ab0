"""Stub consumers for the outbox."""

import json
import os
import threading


class FileConsumer:
    """Writes one file per run, named by the run's uid, so that a second delivery replaces the first."""

    def __init__(self, directory, name="files"):
        self.name = name
        self.directory = directory
        self.delivered = []
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
        self.delivered.append(documents[0][1]["scan_id"] if "scan_id" in documents[0][1] else documents[0][1]["uid"])
        return str(path)
