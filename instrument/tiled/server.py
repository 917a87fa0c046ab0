"""`instrument tiled serve`: a Tiled server over our runs, by Tiled's own application with three things added.

- A second API key, which may only read.
- Queries that stock Tiled leaves out (`translations`); a filter that the server does not know is refused, where stock
  Tiled ignores it and returns everything.
- The catalogs carry the spec that makes bluesky's client and queries work.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import socket
import sys
import time
import warnings
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from instrument.config import extras
from instrument.config.errors import UserError, nearest
from instrument.framework.imports import without_garbage_collection
from instrument.framework.presence import SoleOwner
from instrument.tiled.connection import CATALOG_SPEC
from instrument.tiled.database import (
    add_indexes,
    embedded_postgresql,
    index_each_table,
    prepare,
    public,
    tables_uri,
    with_driver,
    write_tables_in_turn,
)
from instrument.tiled.places import TiledDirectory, make_key, write_address

_COUNTED = 100_000_000  # so many runs are counted exactly; stock says 101 for all that are more than 100
_JSON_LINES = "application/json-seq"
_FILTER = re.compile(r"filter\[(\w+)\]\[condition\]\[(\w+)\]")


@dataclass(frozen=True)
class Settings:
    """How to serve.

    Attributes:
        directory: The server's own files.
        catalogs: Catalogs that are there from the start.
        database: Address of a PostgreSQL; None for SQLite in the directory.
        embedded: Start a PostgreSQL of our own.
        host: Interface to listen on.
        port: TCP port; 0 for any free one.
        public_read: Reading needs no key.
        readable: Directories whose files (images, NeXus) may be served.
    """

    directory: TiledDirectory
    catalogs: Sequence[str]
    database: str | None = None
    embedded: bool = False
    host: str = "127.0.0.1"
    port: int = 8000
    public_read: bool = False
    readable: Sequence[Path] = ()


def tell_reader(line: str) -> None:
    """Print a line, unless whoever read the lines has gone."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        sys.stdout = Path(os.devnull).open("w")


def serve(settings: Settings, *, tell: Callable[[str], None] = tell_reader, began: float | None = None) -> int:
    """Serve until told to end (SIGTERM, Ctrl-C).

    Args:
        settings: How.
        tell: Shown the lines.
        began: When the start began, of `time.monotonic()`.

    Returns:
        The exit code.

    Raises:
        UserError: Tiled is not installed, the directory or the port is taken, or the database can't be used.
    """
    extras.need("tiled")
    began = time.monotonic() if began is None else began
    settings.directory.make()
    write, read = make_key(settings.directory.write_key), make_key(settings.directory.read_key)
    with ExitStack() as ending, _sole(settings), _listen(settings) as listening, without_garbage_collection():
        uri = settings.database or f"sqlite:///{settings.directory.catalog}"
        if settings.embedded:
            uri = ending.enter_context(embedded_postgresql(settings.directory.postgresql))
        prepare(uri)
        if problem := add_indexes(uri):
            tell(problem)
        tree = make_tree(settings, uri)
        app = make_app(settings, tree, write=write, read=read)
        asyncio.run(_serve(app, tree, settings, uri, listening, tell, began))
    return 0


@contextmanager
def _sole(settings: Settings) -> Iterator[None]:
    """One server at a time in a directory: two would take each other's address away."""
    sole = SoleOwner(settings.directory.lock)
    if (owner := sole.take()) is not None:
        raise UserError(f"a Tiled server runs on {settings.directory.root} already ({owner}): use it, or end it first")
    try:
        yield
    finally:
        sole.leave()


def _listen(settings: Settings) -> socket.socket:
    """Take the port before anything else, which tells at once that it is taken."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.host, settings.port))
    except OSError as error:
        listening.close()
        raise UserError(
            f"a Tiled server cannot listen on {settings.host}:{settings.port}: {error.strerror or error}; "
            "name another one with --port (0: any that is free)"
        ) from error
    return listening


async def _serve(
    app: Any,
    tree: Any,
    settings: Settings,
    uri: str,
    listening: socket.socket,
    tell: Callable[[str], None],
    began: float,
) -> None:
    import uvicorn

    await tree.startup()
    for name in settings.catalogs:
        await _make_catalog(tree, name)

    address, port = listening.getsockname()[:2]
    database = f"the PostgreSQL in {settings.directory.postgresql}" if settings.embedded else public(uri)
    url = f"http://{f'[{address}]' if ':' in address else address}:{port}"

    class Server(uvicorn.Server):
        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            # uvicorn's own raises the signal again, which would end the process before it has put all away
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self.handle_exit)
            yield

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if not self.should_exit:
                write_address(settings.directory, url)
                tell(f"Tiled server at {url} (ready in {time.monotonic() - began:.1f} s), over {database}")
                tell(f"  catalogs: {', '.join(settings.catalogs)}; images are read from: {_paths(settings.readable)}")
                tell(f"  keys: {settings.directory.read_key} reads, {settings.directory.write_key} writes, too")
                if settings.public_read:
                    tell("  anyone who can connect may read")
                tell(f"  web page: {url}/ui/ ({_web_hint(settings)})")

    server = Server(uvicorn.Config(app, log_level="warning", access_log=False))
    try:
        await server.serve(sockets=[listening])
    finally:
        settings.directory.address.unlink(missing_ok=True)
    tell("Tiled server ended")


def _paths(paths: Sequence[Path]) -> str:
    return ", ".join(map(str, paths)) or "nowhere"


def _web_hint(settings: Settings) -> str:
    return "no key needed" if settings.public_read else "give it ?api_key=KEY once"


# -- the application ---------------------------------------------------------------------------------------------------


def make_tree(settings: Settings, uri: str) -> Any:
    """Tiled's catalog over one database."""
    from tiled.catalog import from_uri

    settings.directory.arrays.mkdir(exist_ok=True)
    index_each_table()
    if uri.startswith("sqlite"):
        write_tables_in_turn(settings.directory.tables)
    return from_uri(
        with_driver(uri),
        writable_storage=[settings.directory.arrays, tables_uri(uri, settings.directory)],
        readable_storage=[path.resolve() for path in settings.readable],
    )


def make_app(settings: Settings, tree: Any, *, write: str, read: str) -> Any:
    """Tiled's application, with our keys and queries."""
    from tiled.config import Authentication
    from tiled.server.app import build_app

    from instrument.tiled import indexes, translations
    from instrument.tiled.access import add_read_key, remember_dependencies
    from instrument.tiled.whole_runs import router as whole_runs

    logging.getLogger("tiled.server.app").setLevel(logging.WARNING)  # its import has set it to INFO
    warnings.filterwarnings("ignore", "The dataset .* is of object type")  # each text of a NeXus file
    translations.register()
    indexes.sort_by_index()
    count_when_asked()
    app = build_app(
        tree,
        Authentication(single_user_api_key=write, allow_anonymous_access=settings.public_read),
        server_settings={"exact_count_limit": _COUNTED},
        serialization_registry=_serialization(),
        include_routers=[whole_runs],
    )
    remember_dependencies()
    add_read_key(app, read)
    app.add_middleware(RefuseUnknownFilters)
    app.add_middleware(CountWhenAsked)
    return app


def _serialization() -> Any:
    """Tiled's formats, with lines of JSON as its own web page reads them: 0.2.20 shows no rows of a table otherwise."""
    import copy

    from bluesky_tiled_plugins.exporters import json_seq_exporter
    from tiled.media_type_registration import default_serialization_registry

    formats = copy.deepcopy(default_serialization_registry)
    stock = formats.dispatch("table", _JSON_LINES)

    def without_separators(*arguments: Any, **keywords: Any) -> Iterator[bytes]:
        for line in stock(*arguments, **keywords):
            yield line.removeprefix(b"\x1e")

    formats.register("table", _JSON_LINES, without_separators)
    formats.register(
        "BlueskyRun", _JSON_LINES, json_seq_exporter
    )  # what `run.documents()` of bluesky's client asks for
    return formats


async def _make_catalog(tree: Any, name: str) -> None:
    """Make a catalog of bluesky runs, unless it is there."""
    from tiled.catalog.adapter import Collision
    from tiled.server.core import NoEntry
    from tiled.structures.core import Spec, StructureFamily

    try:
        found = await tree.lookup_adapter([name])
    except NoEntry:
        try:
            await tree.create_node(StructureFamily.container, {}, key=name, specs=[Spec(*CATALOG_SPEC)])
        except Collision:
            pass  # another server on the same database was quicker
        return
    if not any(spec.name == CATALOG_SPEC[0] for spec in found.specs):
        raise UserError(f"{name!r} in the database is no catalog of runs: name another one (tiled: catalog:)")


_counted: ContextVar[bool] = ContextVar("counted", default=True)


class CountWhenAsked:
    """`count=false`: a page of a search is not held up by counting all that match, which a client seldom asks."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
        """Take note of what is asked, then go on."""
        token = _counted.set(b"count=false" not in scope.get("query_string", b"").split(b"&"))
        try:
            await self._app(scope, receive, send)
        finally:
            _counted.reset(token)


def count_when_asked() -> None:
    """Make Tiled leave out the count of a search that says `count=false`: there is always a next page, then."""
    from tiled.server import core

    count = core.len_or_approx

    async def len_or_approx(tree: Any, exact: bool = False, threshold: int = 5000) -> int:
        return await count(tree, exact=exact, threshold=threshold) if _counted.get() else _COUNTED

    core.len_or_approx = len_or_approx


class RefuseUnknownFilters:
    """A filter that the server does not know is an error, not everything there is."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
        """Look at the URL of a search, then go on."""
        problem = None
        if scope["type"] == "http" and b"filter" in scope["query_string"]:
            problem = unknown_filter(scope["query_string"].decode("latin-1"))
        if problem is None:
            await self._app(scope, receive, send)
            return
        from starlette.responses import JSONResponse

        await JSONResponse({"detail": problem}, status_code=400)(scope, receive, send)


def unknown_filter(query_string: str) -> str | None:
    """What is wrong with the filters of a URL, in one line; None if nothing is."""
    from dataclasses import fields

    from tiled.query_registration import default_query_registry

    known = default_query_registry.name_to_query_type
    for parameter, _ in parse_qsl(query_string, keep_blank_values=True):
        if not parameter.startswith("filter"):
            continue
        found = _FILTER.fullmatch(parameter)
        if found is None:
            return f"{parameter!r} is no filter: write filter[QUERY][condition][FIELD]=VALUE"
        name, part = found.groups()
        if name not in known:
            hint = nearest(name, known)
            return f"there is no query {name!r}" + (f": did you mean {hint!r}?" if hint else f": {', '.join(known)}")
        parts = [field.name for field in fields(known[name])]
        if part not in parts:
            return f"the query {name!r} has no field {part!r}: {', '.join(parts)}"
    return None
