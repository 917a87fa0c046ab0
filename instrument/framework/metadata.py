"""What each run's start document says about where it was made."""

from __future__ import annotations

import getpass
import importlib.metadata
import os
import socket
from typing import Any

PACKAGES = {
    # name in the document: name of the distribution
    "apstools": "apstools",
    "bluesky": "bluesky",
    "databroker": "databroker",
    "epics": "pyepics",
    "epicscorelibs": "epicscorelibs",
    "event_model": "event-model",
    "h5py": "h5py",
    "instrument": "instrument",
    "intake": "intake",
    "ipython": "ipython",
    "matplotlib": "matplotlib",
    "numpy": "numpy",
    "ophyd": "ophyd",
    "pydantic": "pydantic",
    "pyRestTable": "pyRestTable",
    "spec2nexus": "spec2nexus",
    "stdlogpj": "stdlogpj",
    "suitcase-msgpack": "suitcase-msgpack",
}


def package_versions() -> dict[str, str]:
    """Versions of the packages that a run depends on, read from what is installed (nothing is imported)."""
    versions = {}
    for name, distribution in PACKAGES.items():
        try:
            versions[name] = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def session_metadata(catalog: str, configured: dict[str, Any]) -> dict[str, Any]:
    """Metadata of every run of this session.

    Args:
        catalog: Name of the databroker catalog.
        configured: The `metadata:` section of iconfig.yml (beamline_id, instrument_name, proposal_id, ...).

    Returns:
        A dictionary for `RE.md`: it says who, where, with which versions.
    """
    hostname = socket.gethostname() or "localhost"
    return {
        **configured,
        "databroker_catalog": catalog,
        "hostname": hostname,
        "login_id": f"{getpass.getuser()}@{hostname}",
        "pid": os.getpid(),
        "versions": package_versions(),
    }
