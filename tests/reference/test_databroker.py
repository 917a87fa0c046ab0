"""Section "databroker": the catalog of a session, the embedded one or MongoDB's `class_2021_03`."""

from __future__ import annotations

import re
import shutil
import socket
from pathlib import Path

import pytest
import yaml

import instrument.config
from tests.faults.session import until
from tests.terminal import ROOT, Terminal

REFERENCE = """\
# file: bluesky_class.yml
# purpose: Configuration file to connect Bluesky databroker with MongoDB
# For 2021-03 Python Training at APS

# Copy to: ~/.local/share/intake/bluesky_class.yml
# Create subdirectories as needed

sources:
  class_2021_03:
    args:
      asset_registry_db: mongodb://localhost:27017/class_2021_03-bluesky
      metadatastore_db: mongodb://localhost:27017/class_2021_03-bluesky
    driver: bluesky-mongo-normalized-catalog
"""


def test_the_source_of_the_reference_is_in_our_file():
    ours = yaml.safe_load((ROOT / "bluesky_class.yml").read_text())["sources"]
    assert ours["class_2021_03"] == yaml.safe_load(REFERENCE)["sources"]["class_2021_03"]
    assert ours["embedded"]["driver"] == "bluesky-embedded-catalog"


@pytest.fixture
def no_mongodb():
    """The reference's server is not there, as on most machines."""
    with socket.socket() as probe:
        probe.settimeout(1)
        if probe.connect_ex(("localhost", 27017)) == 0:
            pytest.skip("NOT RUN: a MongoDB server listens on localhost:27017")


@pytest.mark.usefixtures("no_mongodb")
def test_choosing_the_catalog_is_one_line_and_runs_are_safe_in_the_journal(tmp_path):
    """Away to MongoDB, which is not there, and back: one line of an iconfig.yml."""
    package = Path(instrument.config.__file__).parent
    for file in ("iconfig.yml", "devices.yml"):
        shutil.copy(package / file, tmp_path)
    iconfig = tmp_path / "iconfig.yml"
    embedded = iconfig.read_text()
    mongodb = re.sub(r"(?m)^catalog: embedded", "catalog: class_2021_03", embedded)
    changed = [line for line in mongodb.splitlines() if line not in embedded.splitlines()]
    assert len(changed) == 1

    iconfig.write_text(mongodb)
    with Terminal(tmp_path, arguments=("--config", "iconfig.yml")) as session:
        # `logger.info(f"using databroker catalog '{catalog_name}'")`, as in the reference
        assert re.search(
            r"^I \w{3}-[\d:]{8} - using databroker catalog 'class_2021_03'$", session.startup, re.MULTILINE
        )
        shown = session.run("uid, = RE(bp.count([noisy]))")
        uid = re.findall(r"^Persistent Unique Scan ID: '(.*)'$", shown, re.MULTILINE)[0]
        runs = tmp_path / ".data" / "runs"
        refused = re.compile(
            r"the catalog 'class_2021_03' cannot be reached \(localhost:27017: [^\n]*\): runs are safe in the journal "
            rf"\({re.escape(str(runs))}\); `catalog: embedded` in iconfig\.yml shows them"
        )
        for catalog in ("cat", "db"):
            shown += session.run(f"{catalog}[-1]")
            assert len(refused.findall(shown)) == 1
            shown = refused.sub("", shown)
        assert len(list(runs.rglob(f"{uid}.msgpack"))) == 1
        assert session.exit() == 0
    # The run is for MongoDB too: the shipping process says once that it could not, and ends behind the last session.
    log = tmp_path / ".logs" / "ship.log"
    until(lambda: "MongoDB: 0 delivered, 1 pending" in (log.read_text() if log.exists() else ""), "the end of shipping")
    told = re.findall(
        r"- MongoDB: run 1 is not delivered yet: localhost:27017: .*; it is tried again\n", log.read_text()
    )
    assert len(told) == 1

    iconfig.write_text(embedded)
    with Terminal(tmp_path, arguments=("--config", "iconfig.yml")) as session:
        assert re.search(r"^I \w{3}-[\d:]{8} - using databroker catalog 'embedded'$", session.startup, re.MULTILINE)
        assert session.run("print(cat[-1].metadata['start']['uid'], len(cat))") == f"{uid} 1"
        assert session.run("print(db[-1].start['databroker_catalog'], db[-1].stop['exit_status'])") == (
            "class_2021_03 success"
        )
        assert session.run("print(type(db).__name__, list(db[-1].table()))").endswith("['time', 'noisy']")
        assert session.exit() == 0
