"""A whole run in one request: `POST /api/v1/runs/<catalog>`, the documents as the journal has them, compressed.

A run takes seven requests and more through Tiled's own interface, each of which costs the server's one processor 20 to
30 ms, most of it before and after what it does. Here TiledWriter lays the run out in the server, in the same way, on
drafts of nodes. Tiled's storage adapters write their data; then all nodes go into the catalog in one transaction, so
that a run that is there is there whole.

No postponed annotations here: FastAPI reads them.
"""

import functools
import shutil
import sys
import zlib
from collections.abc import Sequence
from dataclasses import asdict
from types import SimpleNamespace
from typing import Annotated, Any

import anyio.to_thread
import msgpack
import numpy as np
from bluesky_tiled_plugins.writing.tiled_writer import RunNormalizer
from fastapi import APIRouter, Depends, HTTPException, Request, Security
from jsonschema import ValidationError
from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError
from tiled.catalog import adapter as tiled_catalog
from tiled.catalog import orm
from tiled.catalog.utils import compute_structure_id
from tiled.server.authentication import check_scopes
from tiled.server.dependencies import get_root_tree
from tiled.storage import FileStorage
from tiled.structures.array import ArrayStructure
from tiled.structures.core import StructureFamily
from tiled.structures.data_source import DataSource, Management
from tiled.structures.table import TableStructure

from instrument.framework.runfiles import Document, decode_map
from instrument.tiled.writing import RECORDED, writer_class

SCOPES = ["write:metadata", "write:data", "create:node", "delete:node", "register"]
router = APIRouter()


@router.post("/runs/{catalog}")
async def post_run(
    catalog: str,
    request: Request,
    tree: Annotated[Any, Depends(get_root_tree)],
    _: Annotated[Any, Security(check_scopes, scopes=SCOPES)],
) -> dict[str, Any]:
    """Take a whole run; one that is there already is left alone, a part of one is replaced."""
    _check_key(catalog)
    body = await request.body()
    run = await anyio.to_thread.run_sync(_lay_out, body)
    async with tree.context.engine.connect() as connection:
        into = await _find(connection, catalog)
        recorded = await _find(connection, RECORDED, catalog)
        found = await _find(connection, catalog, run.key)
    if into is None or recorded is None:
        raise HTTPException(404, f"there is no catalog {catalog!r}")
    if found is not None and not await _make_room(tree, catalog, run.key):
        return {"uid": run.key, "written": False}
    record = _array_draft(run.key, np.frombuffer(body, dtype=np.uint8))
    for draft, path in ((run, [catalog]), (record, [RECORDED, catalog])):
        await anyio.to_thread.run_sync(_store, tree.context, draft, path)
    try:
        async with tree.context.engine.begin() as connection:
            await _put(tree, connection, run, into)
            await _put(tree, connection, record, recorded)
    except IntegrityError:
        raise HTTPException(409, f"run {run.key} was written by somebody else meanwhile") from None
    return {"uid": run.key, "written": True}


async def _find(connection: Any, *path: str) -> int | None:
    """The number of a node."""
    found: int | None = 0
    for key in path:
        query = select(orm.Node.id).where(orm.Node.parent == found, orm.Node.key == key)
        found = (await connection.execute(query)).scalar()
    return found


async def _make_room(tree: Any, catalog: str, uid: str) -> bool:
    """Remove what an earlier attempt left of a run, unless it is there whole. Returns whether there is room."""
    found = await tree.lookup_adapter([catalog, uid])
    if found.metadata().get("stop"):
        return False
    async with tree.context.engine.connect() as connection:
        recorded = await _find(connection, RECORDED, catalog, uid)
    if recorded is not None:
        await (await tree.lookup_adapter([RECORDED, catalog, uid])).delete(recursive=True, external_only=False)
    await found.delete(recursive=True, external_only=False)
    return True


def _store(context: Any, draft: "Draft", parents: Sequence[str]) -> None:
    """Write the data of a node and of those below it."""
    path = [*parents, draft.key]
    for number, source in enumerate(draft.data_sources):
        if source.management == Management.external:
            continue
        source.mimetype = source.mimetype or tiled_catalog.DEFAULT_CREATION_MIMETYPE[source.structure_family]
        adapter_class: Any = tiled_catalog.STORAGE_ADAPTERS_BY_MIMETYPE[source.mimetype]
        kinds = tuple(adapter_class.supported_storage())
        storage = next(one for one in context.writable_storage.values() if isinstance(one, kinds))
        if isinstance(storage, FileStorage):  # no node says so, but a server that was killed may have left a file
            shutil.rmtree(storage.path.joinpath(*path), ignore_errors=True)
        made = adapter_class.init_storage(storage, source, path)
        node = SimpleNamespace(metadata_={}, specs=[], structure_family=draft.structure_family)
        adapter = context.adapters_by_mimetype[made.mimetype].from_catalog(made, node, **made.parameters)
        for method, arguments in draft.written:
            getattr(adapter, method)(*arguments)
        draft.data_sources[number] = made
    for child in draft.children:
        _store(context, child, path)


async def _put(tree: Any, connection: Any, draft: "Draft", parent: int) -> None:
    """Put a node and those below it into the catalog, as Tiled's `create_node` does one by one."""
    number = await _insert(
        connection,
        orm.Node,
        parent=parent,
        key=draft.key,
        structure_family=draft.structure_family,
        metadata=draft.metadata,
        specs=draft.specs,
    )
    for source in draft.data_sources:
        structure = asdict(source.structure)
        identifier = compute_structure_id(structure)
        known = tree.insert(orm.Structure).values(id=identifier, structure=structure)
        await connection.execute(known.on_conflict_do_nothing(index_elements=["id"]))
        described = await _insert(
            connection,
            orm.DataSource,
            node_id=number,
            structure_id=identifier,
            structure_family=source.structure_family,
            mimetype=source.mimetype,
            management=source.management,
            parameters=source.parameters,
            properties=source.properties,
        )
        for asset in source.assets:
            await connection.execute(
                insert(orm.DataSourceAssetAssociation).values(
                    data_source_id=described,
                    asset_id=await tree._put_asset(connection, asset),  # noqa: SLF001  it may be there
                    parameter=asset.parameter,
                    num=asset.num,
                )
            )
    for child in draft.children:
        await _put(tree, connection, child, number)


async def _insert(connection: Any, table: Any, **values: Any) -> int:
    done = await connection.execute(insert(table.__table__).values(**values))
    return done.inserted_primary_key[0]


# -- drafts ------------------------------------------------------------------------------------------------------------


def _lay_out(body: bytes) -> "Draft":
    """The documents of a run as nodes."""
    try:
        unpacker = msgpack.Unpacker(object_hook=decode_map, raw=False, max_buffer_size=0)
        unpacker.feed(zlib.decompress(body))
        documents = [(name, document) for name, document in unpacker]
    except (ValueError, zlib.error) as error:
        raise HTTPException(400, f"this is no run: {error}") from error
    if not documents or documents[0][0] != "start" or documents[-1][0] != "stop":
        raise HTTPException(400, "this is no whole run: it has no start document, or no stop document")
    try:
        run = _draft(documents)
    except ValidationError as error:
        raise HTTPException(400, f"this is no run: {error.message}") from error
    _check_keys(run)
    return run


def _check_keys(draft: "Draft") -> None:
    _check_key(draft.key)
    for child in draft.children:
        _check_keys(child)


def _check_key(key: Any) -> None:
    """Keys (the uid, names of streams and of arrays) become names of directories, in which is written and removed."""
    if not isinstance(key, str) or key in {"", ".", ".."} or set(key) & set("/\\\0"):
        raise HTTPException(400, f"{key!r} is no key: it needs a text without / and \\, neither . nor ..")


def _draft(documents: Sequence[tuple[str, Document]]) -> "Draft":
    catalog = Draft("", StructureFamily.container)
    writer = _draft_writer_class()(catalog, batch_size=sys.maxsize, max_array_size=0)
    normalize = RunNormalizer()
    normalize.subscribe(writer)
    for name, document in documents:
        normalize(name, document)
    return catalog.children[0]


@functools.cache
def _draft_writer_class() -> Any:
    class DraftWriter(writer_class()):
        def _update_data_source_for_node(self, node: Draft, data_source: DataSource, patch: Any = None) -> None:
            node.data_sources = [data_source]

    return DraftWriter


class Draft:
    """A node that is not in the catalog yet; TiledWriter takes it for Tiled's client of one."""

    def __init__(
        self,
        key: str,
        structure_family: StructureFamily,
        data_sources: Sequence[DataSource] = (),
        *,
        metadata: dict[str, Any] | None = None,
        specs: Sequence[Any] | None = None,
    ) -> None:
        self.key = key
        self.structure_family = structure_family
        self.data_sources = list(data_sources)
        self.metadata = dict(metadata or {})
        self.specs = list(specs or ())
        self.children: list[Draft] = []
        self.written: list[tuple[str, tuple[Any, ...]]] = []  # methods of the storage's adapter, and what they get
        self.item = {"id": key}
        self.base = self

    # -- as a container

    def create_container(self, key: str, **more: Any) -> "Draft":
        """A container in this one."""
        return self.new(StructureFamily.container, (), key=key, **more)

    def create_appendable_table(self, schema: Any, key: str, **more: Any) -> "Draft":
        """A table in this container, whose rows come by `append_partition`."""
        source = DataSource(
            structure=TableStructure.from_schema(schema, 1),
            structure_family=StructureFamily.table,
            mimetype="application/x-tiled-sql-table",
        )
        return self.new(StructureFamily.table, [source], key=key, **more)

    def write_array(self, array: Any, key: str, dims: Any = None, **more: Any) -> "Draft":
        """An array in this container."""
        draft = _array_draft(key, array, dims)
        draft.metadata = dict(more.get("metadata") or {})
        self.children.append(draft)
        return draft

    def new(
        self,
        structure_family: StructureFamily,
        data_sources: Sequence[DataSource],
        *,
        key: str,
        metadata: dict[str, Any] | None = None,
        specs: Sequence[Any] | None = None,
        access_tags: Any = None,
    ) -> "Draft":
        """Any node in this container. Our servers have no access policy that would read tags."""
        draft = Draft(key, structure_family, data_sources, metadata=metadata, specs=specs)
        self.children.append(draft)
        return draft

    # -- as any node

    def append_partition(self, partition: int, rows: Any) -> None:
        """Rows of a table."""
        self.written.append(("append_partition", (partition, rows)))

    def update_metadata(self, metadata: dict[str, Any], **_: Any) -> None:
        """As a dictionary is updated."""
        self.metadata.update(metadata)


def _array_draft(key: str, array: Any, dims: Any = None) -> Draft:
    structure = ArrayStructure.from_array(array, dims=dims)
    draft = Draft(key, StructureFamily.array, [DataSource(StructureFamily.array, structure)])
    draft.written.append(("write", (array,)))
    return draft
