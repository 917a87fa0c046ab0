"""What NeXus tests share: files of recorded runs, and what punx finds in them."""

from __future__ import annotations

import os

from instrument.callbacks.nexus import NexusWriter
from instrument.config.models import Nexus

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")  # punx brings PyQt along


def findings(path):
    """What `punx validate` calls an error or a warning, and how many items it found right."""
    from punx.validate import Data_File_Validator

    validator = Data_File_Validator()
    try:
        validator.validate(str(path))
        bad = [
            f"{found.status} {found.h5_address}: {found.test_name}: {found.comment}"
            for found in validator.validations
            if str(found.status) in ("ERROR", "WARN")
        ]
        return bad, sum(str(found.status) == "OK" for found in validator.validations)
    finally:
        validator.close()


def assert_valid(path):
    """punx has looked, and found nothing wrong."""
    bad, right = findings(path)
    assert bad == []
    assert right > 100


class Files:
    """Writes recorded runs as the outbox does."""

    def __init__(self, directory):
        self.directory = directory

    def writer(self, **site):
        return NexusWriter(Nexus.model_validate({"enabled": True, **site}), self.directory)

    def write(self, documents, by=None, **site):
        writer = by or self.writer(**site)
        path = writer.deliver(iter(documents), writer.assign(documents[0][1]), [])
        assert path is not None
        return self.directory / path
