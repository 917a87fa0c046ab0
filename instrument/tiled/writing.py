"""Runs into a Tiled server, while they grow: bluesky's own TiledWriter layout, and the documents as they were recorded.

    /<catalog>/<uid>                 the run: start and stop document; its streams are what it holds
    /<catalog>/<uid>/<stream>        the descriptor; a table `internal`, arrays, images
    /recorded/<catalog>/<uid>        the journal's file, compressed, as bytes

TiledWriter's layout keeps no uids of events, and neither resources nor datums; `instrument tiled export` gives back
what was recorded. The stop document goes last: a run that has one is there whole.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast
from urllib.parse import quote

import numpy as np

from instrument.framework.runfiles import Document, make_packer
from instrument.tiled.connection import CATALOG_SPEC, Server, TiledUnreachableError, container, node_of, pages, told

RECORDED = "recorded"
_BATCH = 1_000_000  # rows that the writer keeps: it is told when to write
_LEVEL = 1  # of zlib: a third of the size at 100 MB/s
_LARGEST = 16_000_000  # bytes of a run that is sent in one request; of larger ones the requests are the smaller part


class TiledConsumer:
    """Feeds one catalog of a Tiled server; of the shipping process.

    Args:
        server: Where. Nothing is connected before the first run begins.
        catalog: The catalog's name; made if it is not there.
    """

    name = "Tiled"

    def __init__(self, server: Server, catalog: str) -> None:
        self._server = server
        self._catalog_name = catalog
        self._nodes: tuple[Any, Any] | None = None
        self._takes_whole_runs = True  # until the server says that it does not

    def begin(self, start: Document) -> TiledRun | None:
        """Begin a run; what an earlier attempt left of it is removed.

        Raises:
            TiledUnreachableError: The server does not answer now.
            TiledRefusedError: It refuses.
        """
        try:
            catalog, recorded = self.nodes()
            uid = start["uid"]
            with told(self._server.address()):
                found = node_of(catalog, uid)
                if found is not None and found.metadata.get("stop"):
                    return None  # the mark was lost, not the run
                if found is not None:
                    for node in (node_of(recorded, uid), found):  # what was recorded is not there without the run
                        if node is not None:
                            node.delete(recursive=True, external_only=False)
        except TiledUnreachableError:
            self.close()  # the server may come back on another port, or without what was in its catalog
            raise
        return self.begin_new()

    def begin_new(self) -> TiledRun:
        """Begin a run that is known not to be there."""
        return TiledRun(*self.nodes(), self._server.address(), self.send_whole)

    def send_whole(self, documents: Sequence[tuple[str, Document]]) -> bool | None:
        """Send a run in one request; one that is there already is left alone, a part of one is replaced.

        Args:
            documents: The whole run, from its start document to its stop document.

        Raises:
            TiledUnreachableError: The server does not answer now.
            TiledRefusedError: It refuses.

        Returns:
            Whether it was not there yet; None if the server takes no whole runs (stock Tiled).
        """
        import httpx
        from tiled.client.utils import handle_error

        if not self._takes_whole_runs or _is_ragged(documents):
            return None
        content = b"".join(map(make_packer(), documents))
        if len(content) > _LARGEST:
            return None
        catalog, _ = self.nodes()
        url = self._server.address()
        body = zlib.compress(content, _LEVEL)
        with told(url):
            try:
                link = f"{url}/api/v1/runs/{quote(self._catalog_name, safe='')}"
                answer = cast("httpx.Response", handle_error(catalog.context.http_client.post(link, content=body)))
            except httpx.HTTPStatusError as error:
                if error.response.status_code not in {404, 405}:
                    raise
                self._takes_whole_runs = False
                return None
        return answer.json()["written"]

    def there(self) -> dict[str, bool]:
        """The runs that the catalog has, and of each whether it is whole."""
        catalog, _ = self.nodes()
        with told(self._server.address()):
            found = pages(catalog, {"fields": "metadata", "select_metadata": "{stop: stop.uid}"})
            return {item["id"]: bool(item["attributes"]["metadata"]["selected"]["stop"]) for item in found}

    def nodes(self) -> tuple[Any, Any]:
        """The catalog, and where the documents are recorded.

        Raises:
            TiledUnreachableError: The server does not answer now.
            TiledRefusedError: It refuses.
        """
        if self._nodes is None:
            root = self._server.connect(write=True)
            with told(self._server.address()):
                from tiled.structures.core import Spec

                catalog = container(root, self._catalog_name, [Spec(*CATALOG_SPEC)])
                recorded = container(container(root, RECORDED), self._catalog_name)
            self._nodes = (catalog, recorded)
        return self._nodes

    def close(self) -> None:
        """Close the connections."""
        if self._nodes is not None:
            self._nodes[0].context.close()
            self._nodes = None
            self._takes_whole_runs = True


class TiledRun:
    """One run on its way into Tiled."""

    def __init__(
        self,
        catalog: Any,
        recorded: Any,
        url: str,
        send_whole: Callable[[Sequence[tuple[str, Document]]], bool | None],
    ) -> None:
        from bluesky_tiled_plugins.writing.tiled_writer import RunNormalizer

        self._catalog = catalog
        self._recorded = recorded
        self._url = url
        self._send_whole = send_whole
        self._pack = make_packer()
        self._compress = zlib.compressobj(_LEVEL)
        self._documents = bytearray()
        self._writer = writer_class()(catalog, batch_size=_BATCH, max_array_size=0)
        self._normalize = RunNormalizer()
        self._normalize.subscribe(self._writer)
        self._uid = ""

    def take(self, documents: Iterable[tuple[str, Document]]) -> str | None:
        """Write documents; those who look see them when this returns.

        Raises:
            TiledUnreachableError: The server does not answer now.
            TiledRefusedError: It refuses.

        Returns:
            Where the run is, once it is whole.
        """
        documents = list(documents)
        if documents[0][0] == "start" and documents[-1][0] == "stop" and self._send_whole(documents) is not None:
            return self._address(documents[0][1]["uid"])
        done = None
        with told(self._url):
            for name, document in documents:
                self._documents += self._compress.compress(self._pack((name, document)))
                if name == "start":
                    self._uid = document["uid"]
                elif name == "stop":
                    self._record()
                    done = self._address(self._uid)
                self._normalize(name, document)
            self._writer.flush()
        return done

    def _address(self, uid: str) -> str:
        return f"{self._url}/api/v1/metadata/{'/'.join([*self._catalog.path_parts, uid])}"

    def _record(self) -> None:
        self._documents += self._compress.flush()
        self._recorded.write_array(np.frombuffer(self._documents, dtype=np.uint8), key=self._uid)


def recorded_documents(node: Any) -> bytes:
    """A run as the journal recorded it, of its node below `recorded`."""
    return zlib.decompress(node.read().tobytes())


@functools.cache
def writer_class() -> Any:
    """TiledWriter's own writer of one run, which writes when it is told to and takes columns for what they are."""
    from bluesky_tiled_plugins.writing.tiled_writer import _RunWriter

    class RunWriter(_RunWriter):
        def flush(self) -> None:
            """Write the events so far."""
            for stream, rows in self._internal_data_cache.items():
                if rows:
                    self._write_internal_data(rows, desc_node=self._desc_nodes[stream])
                    rows.clear()
            for document in self._external_data_cache.values():
                self._write_external_data(document)
            self._external_data_cache.clear()

        def stop(self, doc: Any) -> None:
            super().stop(doc)
            self._external_data_cache.clear()  # it has written them; `flush` would count their frames again

        def event(self, doc: Any) -> None:
            # A column has the type of its first batch: 1 and then 1.5 would not fit.
            data = {key: _like(value, self.data_keys.get(key, {})) for key, value in doc["data"].items()}
            super().event(cast("Any", {**doc, "data": data}))

        def _append_with_retry(self, df_client: Any, table: Any, desc_name: str) -> None:
            # Stock repeats what may have been done, and doubles rows; here the whole run is written again.
            df_client.append_partition(0, table)

        def _close_stream_tree(self) -> None:
            """Tell nobody: only a server with a cache for subscribers has any, and each node takes a request."""

    return RunWriter


def _like(value: Any, data_key: Any) -> Any:
    """A value as what its descriptor says that it is."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    kind = data_key.get("dtype")
    if kind == "number" and (value is None or isinstance(value, int)):
        return float("nan") if value is None else float(value)
    if kind == "integer" and isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _is_ragged(documents: Iterable[tuple[str, Document]]) -> bool:
    """Whether a stream has arrays of which only the event tells the shape: TiledWriter writes those as it goes on."""
    shapes = (
        key.get("shape") or ()
        for name, document in documents
        if name == "descriptor"
        for key in document["data_keys"].values()
    )
    return any(None in shape for shape in shapes)
