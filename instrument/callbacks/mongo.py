"""Runs into MongoDB, laid out as databroker's `bluesky-mongo-normalized-catalog` reads them; in the shipping process.

The stop document goes last: a run that has one is there whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from instrument.config.errors import UserError

_SOCKET_TIMEOUT = 60_000  # ms; a server that takes a batch but does not answer is given up
_OUT_OF_DISK = 14031  # the server's error code
_COLLECTIONS = {  # in the order in which they are inserted
    "start": "run_start",
    "descriptor": "event_descriptor",
    "event": "event",
    "resource": "resource",
    "datum": "datum",
    "stop": "run_stop",
}


class MongoUnreachableError(UserError):
    """The server does not answer, or refuses; it is tried again."""

    transient = True


class MongoRefusedError(UserError):
    """The server does not take this run, now or ever."""

    final = True


class MongoDB:
    """Feeds two MongoDB databases.

    Args:
        metadatastore_db: address with the name of a database, or a pymongo database. Nothing is connected before the
            first run begins.
        asset_registry_db: the same for resources and datums.
    """

    name = "MongoDB"

    def __init__(self, metadatastore_db: Any, asset_registry_db: Any) -> None:
        self._addresses = (metadatastore_db, asset_registry_db)
        self._databases: tuple[Any, Any] | None = None
        self._indexed = False

    def begin(self, start: dict) -> MongoRun | None:
        """Begin a run; what an earlier attempt left of it is removed.

        Raises:
            MongoUnreachableError: the server does not answer now.
        """
        with _told():
            metadata, assets = self._connect()
            if metadata["run_stop"].find_one({"run_start": start["uid"]}):
                return None  # the mark was lost, not the run
            _remove(metadata, assets, start["uid"])
        return MongoRun(metadata, assets)

    def _connect(self) -> tuple[Any, Any]:
        if self._databases is None:
            from pymongo import MongoClient

            metadata, assets = (
                MongoClient(address, socketTimeoutMS=_SOCKET_TIMEOUT).get_database()
                if isinstance(address, str)
                else address
                for address in self._addresses
            )
            self._databases = (metadata, assets)
        if not self._indexed:
            metadata, assets = self._databases
            metadata["run_start"].create_index("uid", unique=True)
            metadata["run_start"].create_index([("time", -1), ("scan_id", -1)])
            metadata["run_start"].create_index([("$**", "text")])
            metadata["run_stop"].create_index("run_start", unique=True)
            metadata["event_descriptor"].create_index([("run_start", -1), ("time", -1)])
            metadata["event_descriptor"].create_index("uid", unique=True)
            metadata["event"].create_index([("descriptor", -1), ("time", 1)])
            assets["resource"].create_index("uid")
            assets["resource"].create_index("run_start")
            assets["datum"].create_index("datum_id", unique=True)
            assets["datum"].create_index("resource")
            self._indexed = True
        return self._databases


class MongoRun:
    """One run on its way into two databases."""

    def __init__(self, metadata: Any, assets: Any) -> None:
        self._metadata = metadata
        self._assets = assets

    def take(self, documents: list[tuple[str, dict]]) -> str | None:
        """Insert documents, those of a kind together, a stop document after all others.

        Raises:
            MongoUnreachableError: the server does not take them now.
            MongoRefusedError: it never will.
        """
        kinds: dict[str, list[dict]] = {name: [] for name in _COLLECTIONS}
        for name, document in _single_documents(documents):
            kinds[name].append(_to_bson(document))
        with _told():
            for name, found in kinds.items():
                if found:
                    database = self._assets if name in {"resource", "datum"} else self._metadata
                    database[_COLLECTIONS[name]].insert_many(found)
        return f"{self._metadata.name}: {kinds['stop'][0]['run_start'][:8]}" if kinds["stop"] else None


@contextmanager
def _told() -> Iterator[None]:
    """Say what went wrong in one line, and whether time may heal it."""
    from bson.errors import BSONError
    from pymongo import errors

    try:
        yield
    except (BSONError, OverflowError, errors.DuplicateKeyError) as error:
        raise MongoRefusedError(f"MongoDB does not take it: {' '.join(str(error).split())}") from error
    except errors.BulkWriteError as error:
        first = (error.details.get("writeErrors") or [{}])[0]
        reason = " ".join(str(first.get("errmsg", error)).split())
        kind = MongoUnreachableError if first.get("code") == _OUT_OF_DISK else MongoRefusedError
        raise kind(f"MongoDB does not take it: {reason}") from error
    except errors.PyMongoError as error:
        reason = re.split(r" \(configured timeouts|, Timeout:", " ".join(str(error).split()))[0]
        raise MongoUnreachableError(reason) from error


def _remove(metadata: Any, assets: Any, uid: str) -> None:
    """Take away what an attempt that was cut short left of a run."""
    descriptors = [document["uid"] for document in metadata["event_descriptor"].find({"run_start": uid}, {"uid": 1})]
    resources = [document["uid"] for document in assets["resource"].find({"run_start": uid}, {"uid": 1})]
    metadata["event"].delete_many({"descriptor": {"$in": descriptors}})
    metadata["event_descriptor"].delete_many({"run_start": uid})
    metadata["run_start"].delete_many({"uid": uid})
    assets["datum"].delete_many({"resource": {"$in": resources}})
    assets["resource"].delete_many({"run_start": uid})


def _single_documents(documents: Iterable[tuple[str, dict]]) -> Iterable[tuple[str, dict]]:
    """The documents with pages taken apart; databroker 1 has no place for stream documents."""
    import event_model

    for name, document in documents:
        if name == "event_page":
            yield from (("event", event) for event in event_model.unpack_event_page(document))  # pyright: ignore[reportArgumentType]
        elif name == "datum_page":
            yield from (("datum", datum) for datum in event_model.unpack_datum_page(document))  # pyright: ignore[reportArgumentType]
        elif name in _COLLECTIONS:
            yield name, document


def _to_bson(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _to_bson(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_to_bson(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return _to_bson(value.tolist())
    return value
