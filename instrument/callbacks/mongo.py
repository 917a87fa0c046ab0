"""A consumer that puts runs into MongoDB, laid out as databroker's `bluesky-mongo-normalized-catalog` reads them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np

from instrument.config.errors import UserError

_BATCH = 1000  # documents per request
_COLLECTIONS = {
    "start": "run_start",
    "stop": "run_stop",
    "descriptor": "event_descriptor",
    "event": "event",
    "resource": "resource",
    "datum": "datum",
}


class MongoUnreachableError(UserError):
    """The server does not answer, or refuses; the outbox tries again."""

    transient = True


class MongoWriter:
    """Behind the outbox: each complete run into two MongoDB databases, once."""

    name = "MongoDB"

    def __init__(self, metadatastore_db: Any, asset_registry_db: Any) -> None:
        """Nothing is connected before the first run is delivered.

        Args:
            metadatastore_db: address with the name of a database, or a pymongo database.
            asset_registry_db: the same for resources and datums.
        """
        self._addresses = (metadatastore_db, asset_registry_db)
        self._databases: tuple[Any, Any] | None = None

    def assign(self, start: dict) -> dict:
        """Nothing about a run may change before it is delivered."""
        return {}

    def deliver(self, documents: Iterable[tuple[str, dict]], assignment: dict, notes: list[dict]) -> str | None:
        """Write one run; what an earlier attempt left of it is replaced.

        Raises:
            MongoUnreachableError: the server does not take it now.
        """
        from pymongo.errors import PyMongoError

        documents = iter(documents)
        _, start = next(documents)
        uid = start["uid"]
        try:
            metadata, assets = self._connect()
            if metadata["run_stop"].find_one({"run_start": uid}):
                return f"{metadata.name}: {uid[:8]}"  # the mark was lost, not the run
            _remove(metadata, assets, uid)
            metadata["run_start"].insert_one(_to_bson(start))
            stop = None
            for batch in _batches(_single_documents(documents)):
                for name in _COLLECTIONS:
                    kind = [_to_bson(document) for kind, document in batch if kind == name]
                    if name == "stop":
                        stop = kind[0] if kind else stop
                    elif kind:
                        database = assets if name in {"resource", "datum"} else metadata
                        database[_COLLECTIONS[name]].insert_many(kind)
            if stop is not None:
                metadata["run_stop"].insert_one(stop)  # last: what has a stop document is whole
        except PyMongoError as error:
            reason = re.split(r" \(configured timeouts|, Timeout:", " ".join(str(error).split()))[0]
            raise MongoUnreachableError(reason) from error
        return f"{metadata.name}: {uid[:8]}"

    def _connect(self) -> tuple[Any, Any]:
        if self._databases is None:
            from pymongo import MongoClient

            found = [
                MongoClient(address).get_database() if isinstance(address, str) else address
                for address in self._addresses
            ]
            metadata, assets = found
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
            self._databases = (metadata, assets)
        return self._databases


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


def _batches(documents: Iterable[tuple[str, dict]]) -> Iterator[list[tuple[str, dict]]]:
    remaining = iter(documents)
    while batch := list(islice(remaining, _BATCH)):
        yield batch


def _to_bson(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _to_bson(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_to_bson(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return _to_bson(value.tolist())
    return value
