"""Where files of detectors are now: where their run says, where `root_map` does, or where unpacked runs have them."""

from __future__ import annotations

import glob
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from instrument.framework.runfiles import DataDirectory
from instrument.framework.wholefiles import write_whole


class ImageRoots(dict[str, str]):
    """`root_map` of iconfig.yml, by the roots of resource documents; a file of unpacked runs is found without it.

    Args:
        root_map: Where roots are now.
        data: The data directory, which knows where unpacked runs have their files; None: of no use.
    """

    def __init__(self, root_map: Mapping[str, str] | None = None, data: Path | None = None) -> None:
        super().__init__(root_map or {})
        self.data = data

    def __bool__(self) -> bool:
        """Always: event_model puts another dictionary in the place of an empty one."""
        return True

    def of(self, resource: Mapping[str, Any]) -> str:
        """The root of a resource document's file now; if it is nowhere, where it should be."""
        root = str(resource.get("root") or "/")
        moved = [now for before, now in self.items() if root.rstrip("/") == before.rstrip("/")]
        # Older files may have moved while newer ones are where they were written.
        places = [*moved, root]
        found = next((place for place in places if _is_there(place, resource)), None)
        if found is None and self.data is not None:
            found = next((place for place in unpacked(self.data).get(root, []) if _is_there(place, resource)), None)
        return places[0] if found is None else found

    def path_of(self, resource: Mapping[str, Any]) -> Path:
        """Where the file of a resource document is now."""
        return Path(self.of(resource)) / _relative(resource)


def unpacked(data: Path) -> dict[str, list[str]]:
    """The places where unpacked runs have files, by root."""
    try:
        found = json.loads(DataDirectory(data).unpacked.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def note_unpacked(data: Path, places: Mapping[str, str]) -> None:
    """Remember where unpacked runs have files.

    Args:
        data: The data directory that got the runs.
        places: Directories by root.

    Raises:
        OSError: It can't be written.
    """
    known = unpacked(data)
    for root, place in places.items():
        known[root] = [place, *(other for other in known.get(root, []) if other != place)]
    write_whole(DataDirectory(data).unpacked, json.dumps(known, indent=1).encode())


def _relative(resource: Mapping[str, Any]) -> str:
    return str(resource["resource_path"]).lstrip("/")


def _is_there(root: str, resource: Mapping[str, Any]) -> bool:
    """Is the file there, or, where the document names the beginning of names of files, the first of them?"""
    path = Path(root) / _relative(resource)
    return path.exists() or next(path.parent.glob(f"{glob.escape(path.name)}*"), None) is not None
