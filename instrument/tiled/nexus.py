"""NeXus files of runs on a Tiled server: `/nexus/<catalog>/<uid>` is the file, groups are containers, fields arrays.

A file stays where it is; the server must see it. It is no child of its run, which clients would take for a stream.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from instrument.tiled.connection import Server, container, node_of, pages, told

FILES = "nexus"
MIME_TYPE = "application/x-hdf5"


class NexusFiles:
    """The NeXus files of one catalog's runs.

    Args:
        server: Where. Nothing is connected before the first file is told of.
        catalog: The catalog's name.
    """

    def __init__(self, server: Server, catalog: str) -> None:
        self._server = server
        self._catalog_name = catalog
        self._node: Any = None

    def there(self) -> dict[str, str]:
        """The files that the server was told of, by the uids of their runs."""
        with self._told():
            found = pages(self._files(), {"fields": "metadata", "select_metadata": "{file: file}"})
            return {item["id"]: item["attributes"]["metadata"]["selected"]["file"] for item in found}

    def add(self, uid: str, path: Path) -> str:
        """Tell the server of a run's file; of another run's that it has replaced, the server forgets.

        Raises:
            TiledUnreachableError: The server does not answer now.
            TiledRefusedError: It refuses.

        Returns:
            The address.
        """
        from tiled.structures.core import StructureFamily
        from tiled.structures.data_source import Asset, DataSource, Management

        uri = path.absolute().as_uri()
        with self._told():
            files = self._files()
            for replaced in {uid, *self._of(str(path))}:
                if (node := node_of(files, replaced)) is not None:
                    node.delete(external_only=True)
            source = DataSource(
                structure_family=StructureFamily.container,
                structure=None,
                mimetype=MIME_TYPE,
                management=Management.external,
                assets=[Asset(data_uri=uri, is_directory=False, parameter="data_uris", num=0)],
            )
            files.new(StructureFamily.container, [source], key=uid, metadata={"run": uid, "file": str(path)}, specs=[])
        return f"{self._server.address()}/api/v1/metadata/{FILES}/{self._catalog_name}/{uid}"

    def _of(self, path: str) -> Iterator[str]:
        """The runs whose file this was."""
        from tiled.queries import Eq

        query = Eq("file", path).encode()
        filters = {f"filter[eq][condition][{part}]": str(value) for part, value in query.items()}
        for item in pages(self._files(), {**filters, "fields": ""}):
            yield item["id"]

    def _files(self) -> Any:
        if self._node is None:
            self._node = container(container(self._server.connect(write=True), FILES), self._catalog_name)
        return self._node

    def _told(self) -> Any:
        return told(self._server.address())

    def close(self) -> None:
        """Close the connection."""
        if self._node is not None:
            self._node.context.close()
            self._node = None
