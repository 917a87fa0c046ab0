"""The catalog driver over the journal's files, for databroker's v2 API; imported with databroker, on first use.

`bluesky_class.yml` names it `bluesky-embedded-catalog`. Every question is put to the index, which is brought up to date
first: there is no time-to-live, and the size of a run costs nothing until its data are read.
"""

from __future__ import annotations

import itertools
import logging
import warnings
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import event_model
import numpy as np
import xarray
from databroker.core import BlueskyEventStream, BlueskyRun, Entry, StreamEntry, discover_handlers
from databroker.utils import LazyMap
from databroker.v2 import Broker
from intake.source.base import Schema

from instrument.config.errors import UserError
from instrument.config.names import LOGGER_NAME
from instrument.framework.image_roots import ImageRoots
from instrument.framework.index import Row, RunIndex
from instrument.framework.runfiles import DataDirectory, Document, RunFile, check_schema

logger = logging.getLogger(LOGGER_NAME)

_KEPT_RUNS = 16  # a run that was read keeps its arrays in memory
_COMPLETIONS = 50
WAITS = (0.02, 0.1, 0.3)  # s between attempts to open a file of images; databroker's own add up to 2 s


class EventStream(BlueskyEventStream):
    """One stream of a run."""

    def _open_dataset(self) -> None:
        self._load_header()
        keys = self._plain_keys()
        if keys is not None:
            self._ds: Any = _to_dataset(list(self._descriptors), self._get_event_pages, keys, self._sub_dict)
            return
        with warnings.catch_warnings():
            # bluesky_live merges several descriptors with defaults that xarray announces to change
            warnings.filterwarnings("ignore", category=FutureWarning, module="bluesky_live")
            super()._open_dataset()

    def _plain_keys(self) -> list[str] | None:
        """The data keys to read, if all are in the documents themselves and every descriptor has the same.

        The stock way makes a dask chunk of each single value: seconds for a thousand points.
        """
        if self._configuration_for is not None or not self._descriptors or (self.include and self.exclude):
            return None
        first = self._descriptors[0]["data_keys"]
        for descriptor in self._descriptors:
            data_keys = descriptor["data_keys"]
            if data_keys.keys() != first.keys() or _external(descriptor):
                return None
        include, exclude = self.include or first, self.exclude or ()
        return [key for key in first if key in include and key not in exclude]

    def read(self) -> Any:
        """The stream as an xarray.Dataset in memory; frames of detectors come when they are computed, from their files.

        (databroker's own loads them too: a run can have more than the memory has room for.)
        """
        self._load_metadata()
        dataset: Any = self._ds
        external = {key for descriptor in self._descriptors for key in _external(descriptor)}
        for name, variable in dataset.variables.items():
            if name not in external:
                variable.load()
        return dataset

    def to_dask(self) -> Any:
        """The stream as an xarray.Dataset backed by dask."""
        dataset: Any = super().to_dask()
        return dataset.chunk()

    def _get_schema(self) -> Schema:
        # The stock method asks for Dataset.dims as a mapping, which xarray announces to take away.
        if self._ds is None:
            self._open_dataset()
            dataset: Any = self._ds
            metadata = {
                "dims": dict(dataset.sizes),
                "data_vars": {key: list(dataset[key].coords) for key in dataset.data_vars},
                "coords": tuple(dataset.coords.keys()),
            }
            self._schema = Schema(
                datashape=None, dtype=None, shape=None, npartitions=None, extra_metadata={**metadata, **dataset.attrs}
            )
        return self._schema


def _external(descriptor: Mapping[str, Any]) -> list[str]:
    """The data keys whose values are in files of their own."""
    return [key for key, entry in descriptor["data_keys"].items() if entry.get("external")]


def _to_dataset(
    descriptors: Sequence[Mapping[str, Any]],
    get_event_pages: Callable[[str], Iterable[Document]],
    keys: list[str],
    sub_dict: str,
) -> xarray.Dataset:
    """The events of a stream by time, with the dimensions and attributes that databroker gives them."""
    times: list[float] = []
    columns: dict[str, list] = {key: [] for key in keys}
    for descriptor in descriptors:
        for page in get_event_pages(descriptor["uid"]):
            times.extend(page["time"])
            for key, column in columns.items():
                column.extend(page[sub_dict][key])
    objects = {key: name for name, names in descriptors[0].get("object_keys", {}).items() for key in names}
    dimensions = (f"dim_{number}" for number in itertools.count())
    variables = {}
    for key, column in columns.items():
        data_key = descriptors[0]["data_keys"][key]
        values = _to_array(column, data_key.get("shape") or () if sub_dict == "data" else ())
        names = list(data_key.get("dims") or ())
        if len(names) != values.ndim - 1:
            names = list(itertools.islice(dimensions, values.ndim - 1))
        variables[key] = (("time", *names), values, {"object": objects[key]} if key in objects else {})
    dataset = xarray.Dataset(variables, coords={"time": times})
    return dataset.sortby("time") if len(descriptors) > 1 else dataset


def _to_array(column: list, shape: Sequence[int]) -> np.ndarray:
    if not column:
        return np.empty((0, *(max(length or 0, 0) for length in shape)))
    try:
        return np.asarray(column)
    except ValueError:  # arrays of different shapes
        values = np.empty(len(column), dtype=object)
        values[:] = column
        return values


class _Plain(Entry):
    """An entry whose arguments are what they are.

    Stock entries take every text in a run's metadata for a Jinja template: `{{ shell(...) }}` in a sample name would
    be run, and looking for it costs ten times what opening the run does.
    """

    def _create_open_args(self, user_parameters: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        arguments = {"metadata": {**self._metadata, "catalog_dir": None}, **self._open_args, **user_parameters}
        return self._plugin[0], {**arguments, "entry": self}


class _PlainStream(_Plain, StreamEntry):
    """The same for a stream."""


class _Streams(LazyMap):
    """The streams of a run, as `EventStream`."""

    def add(self, *args: Any, **kwargs: Any) -> None:
        super().add({name: partial(_retarget, make) for name, make in dict(*args, **kwargs).items()})


def _retarget(make: Callable[[], StreamEntry]) -> StreamEntry:
    entry = make()  # databroker writes its own class and templates into it
    init = entry._captured_init_kwargs  # noqa: SLF001
    return _PlainStream(**{**init, "driver": EventStream})


class Run(BlueskyRun):
    """One run of the embedded catalog."""

    def _make_entries_container(self) -> LazyMap:
        return _Streams()


class _Source:
    """The functions that `BlueskyRun` asks for its documents, over one file."""

    def __init__(self, row: Row, remember: Callable[[str, Any], None]) -> None:
        self.row = row
        self.file = RunFile(row.path, row.layout)
        self._complete = row.layout is not None and row.stop is not None
        self._remember = remember

    def _up_to_date(self) -> RunFile:
        if not self._complete:
            try:
                self.file.survey()
            except FileNotFoundError:
                raise UserError(f"{self.row.path} is gone: the run cannot be read") from None
            if self.file.damage and not (self.file.torn and self.row.stop is None):
                logger.warning("%s %s: its run shows what comes before", self.row.path, self.file.damage)
            if self.row.stop is not None:
                self._complete = True
                self._remember(self.row.uid, self.file.layout)
        return self.file

    def get_run_start(self) -> Document:
        return self.row.start

    def get_run_stop(self) -> Document | None:
        return self.row.stop or next(iter(self._up_to_date().single("stop")), None)

    def get_event_descriptors(self) -> list[Document]:
        return self._up_to_date().single("descriptor")

    def get_event_pages(self, descriptor_uid: str, skip: int = 0, limit: int | None = None) -> Iterator[Document]:
        if skip or limit is not None:
            raise NotImplementedError
        return self._up_to_date().event_pages(descriptor_uid)

    def get_event_count(self, descriptor_uid: str) -> int:
        return self._up_to_date().layout.count(descriptor_uid)

    def get_resource(self, uid: str) -> Document:
        for resource in self.get_resources():
            if resource["uid"] == uid:
                return resource
        msg = f"Could not find Resource with uid={uid}"
        raise ValueError(msg)  # databroker looks elsewhere then

    def get_resources(self) -> list[Document]:
        return self._up_to_date().single("resource")

    def get_datum_pages(self, resource_uid: str, skip: int = 0, limit: int | None = None) -> Iterator[Document]:
        if skip or limit is not None:
            raise NotImplementedError
        return self._up_to_date().datum_pages(resource_uid)

    def lookup_resource_for_datum(self, datum_id: str) -> str:
        for resource in self.get_resources():
            if any(datum_id in page["datum_id"] for page in self.get_datum_pages(resource["uid"])):
                return resource["uid"]
        msg = f"Could not find Datum with datum_id={datum_id}"
        raise ValueError(msg)


class _Filler(event_model.Filler):
    """Databroker's, which tells in one line that a file is missing, and which."""

    def get_handler(self, resource: Any) -> Any:
        roots = self.root_map if isinstance(self.root_map, ImageRoots) else ImageRoots(self.root_map)
        # With the dot it is no key of root_map, in which the base class looks again.
        there: Any = {**resource, "root": f"{roots.of(resource)}/."}
        try:
            return super().get_handler(there)
        except event_model.UndefinedAssetSpecification:
            raise UserError(f"nothing installed reads files of spec {resource['spec']}") from None
        except event_model.EventModelError as error:
            path, root = roots.path_of(resource), resource.get("root", "/")
            reason = "is missing" if not path.exists() else f"can't be read ({_cause(error)})"
            raise UserError(
                f"image file {path} {reason}: if files moved, tell where {root} is now by `root_map` in iconfig.yml"
            ) from error


def _cause(error: BaseException) -> str:
    return " ".join(str(error.__cause__ or error.__context__ or error).split())


class _Handlers(event_model.HandlerRegistryView):
    """The handlers, looked for when the first is asked for: that takes a second."""

    def __init__(self, handlers: dict[str, Any], discover: Callable[[], None]) -> None:
        super().__init__(handlers)
        self._discover = discover

    def __getitem__(self, spec: str) -> Any:
        self._discover()
        return super().__getitem__(spec)

    def __iter__(self) -> Generator:
        self._discover()
        yield from super().__iter__()

    def __len__(self) -> int:
        self._discover()
        return super().__len__()


class _Entries(Mapping):
    """The runs of a catalog as a mapping, for the parts of intake and databroker that go by it."""

    def __init__(self, catalog: EmbeddedCatalog) -> None:
        self._catalog = catalog

    def __iter__(self) -> Iterator[str]:
        return iter(self._catalog.fresh_index().uids(self._catalog.query))

    def __len__(self) -> int:
        return self._catalog.fresh_index().count(self._catalog.query)

    def __contains__(self, name: object) -> bool:
        try:
            self._catalog.find(name)
        except (LookupError, ValueError):
            return False
        return True

    def __getitem__(self, name: Any) -> Run:
        return self._catalog[name]


class EmbeddedCatalog(Broker):
    """A catalog of the runs that the journal wrote."""

    name = "bluesky-embedded-catalog"
    _ipython_display_ = None  # pyright: ignore[reportAssignmentType]  intake's shows YAML

    def __init__(
        self,
        directory: str | Path,
        *,
        index: RunIndex | None = None,
        query: Mapping[str, Any] | None = None,
        handler_registry: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Open the runs of one data directory.

        Args:
            directory: what `directories.data` is in iconfig.yml; its `runs` holds the files.
            index: the session's index; without it one is opened.
            query: a MongoDB query that narrows this catalog down.
            handler_registry: handlers of external files by spec; without it those that are installed, on first use.
            **kwargs: as for `databroker.v2.Broker`.
        """
        data = DataDirectory(Path(directory))
        check_schema(data.runs)
        self.directory = data.root
        self.query = dict(query or {})
        self._index = index or RunIndex(data.index if data.root.is_dir() else None, data.runs)
        self._runs: OrderedDict[tuple[str, bool], Run] = OrderedDict()
        self._discovered = handler_registry is not None
        kwargs.setdefault("name", "embedded")
        kwargs.setdefault("filler_class", _Filler)
        super().__init__(handler_registry=handler_registry or {}, **kwargs)
        self._root_map = ImageRoots(self._root_map, data.root)

    # -- finding runs ----------------------------------------------------------------------------------------------

    def fresh_index(self) -> RunIndex:
        """The index, up to date with the files."""
        for line in self._index.refresh():
            logger.warning("%s", line)
        return self._index

    def find(self, name: Any) -> Row:
        """The run of a negative number (counted from the last one), a scan number, or the beginning of a uid.

        Raises:
            RunNotFoundError: there is none.
            AmbiguousUidError: the beginning of a uid fits several.
        """
        return self.fresh_index().find(name, self.query)

    def __getitem__(self, name: Any) -> Run:
        return self._run(self.find(name))

    def _run(self, row: Row) -> Run:
        key = (row.uid, row.stop is not None)
        run = self._runs.get(key)
        if run is None or row.stop is None:
            run = self._make_run(row)
            self._runs[key] = run
            if row.stop is not None:
                self._runs.pop((row.uid, False), None)
            while len(self._runs) > _KEPT_RUNS:
                self._runs.popitem(last=False)
        self._runs.move_to_end(key)
        return run

    def _make_run(self, row: Row) -> Run:
        source = _Source(row, self._index.remember_layout)
        entry = _Plain(
            name=row.uid,
            description={},
            driver=Run,
            direct_access="forbid",
            args={
                "get_run_start": source.get_run_start,
                "get_run_stop": source.get_run_stop,
                "get_event_descriptors": source.get_event_descriptors,
                "get_event_pages": source.get_event_pages,
                "get_event_count": source.get_event_count,
                "get_resource": source.get_resource,
                "get_resources": source.get_resources,
                "get_datum_pages": source.get_datum_pages,
                "lookup_resource_for_datum": source.lookup_resource_for_datum,
                "get_filler": partial(self._filler_for, source),
                "transforms": self._transforms,
            },
            cache=None,
            parameters=[],
            metadata={"start": row.start, "stop": row.stop},
            catalog_dir=None,
            getenv=True,
            getshell=True,
            catalog=self,
        )
        return cast("Run", entry.get())

    # -- the mapping's other sides ---------------------------------------------------------------------------------

    def _make_entries_container(self) -> _Entries:  # pyright: ignore[reportIncompatibleMethodOverride]
        return _Entries(self)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or len(name) < 4:
            raise AttributeError(name)
        try:
            return self[name]
        except (LookupError, ValueError) as error:
            raise AttributeError(name) from error

    def __dir__(self) -> list[str]:
        return sorted(set(object.__dir__(self)))

    def _ipython_key_completions_(self) -> list[str]:
        return [row.uid for row in self.fresh_index().rows(self.query, limit=_COMPLETIONS)]

    def items(self) -> Generator[tuple[str, Run]]:
        """Each uid with its run, newest first."""
        for uid in self:
            yield uid, self[uid]

    def values(self) -> Generator[Run]:
        """Each run, newest first."""
        for uid in self:
            yield self[uid]

    def __repr__(self) -> str:
        return f"<catalog {self.name}: {self.fresh_index().describe(self.query)}>"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict:
        return {}

    # -- searching -------------------------------------------------------------------------------------------------

    def search(self, query: Mapping[str, Any]) -> EmbeddedCatalog:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The runs whose start documents match a MongoDB query, as a catalog; it goes on to take in new runs."""
        query = dict(query)
        found = type(self)(
            self.directory,
            index=self._index,
            query={"$and": [self.query, query]} if self.query else query,
            handler_registry={},
            root_map=self._root_map,
            filler_class=self._filler_class,
            transforms=self._transforms,
            name="search results",
            getenv=self.getenv,
            getshell=self.getshell,
            auth=self.auth,
            metadata=(self.metadata or {}).copy(),
            storage_options=self.storage_options,
        )
        found.__dict__.update(_handler_registry=self._handler_registry, _discovered=self._discovered)
        return found

    # -- files of detectors ----------------------------------------------------------------------------------------

    @property
    def handler_registry(self) -> event_model.HandlerRegistryView:
        """The handlers of external files by spec."""
        return _Handlers(self._handler_registry, self._discover)

    @handler_registry.setter
    def handler_registry(self, view: Any) -> None:
        """Broker sets it; it is made when it is asked for."""

    def _discover(self) -> None:
        if not self._discovered:
            self._discovered = True
            for spec, handler in discover_handlers().items():
                self._handler_registry.setdefault(spec, handler)

    def _filler_for(self, source: _Source, **kwargs: Any) -> event_model.Filler:
        external = bool(source.get_resources())
        if external:
            self._discover()
        handlers = self._handler_registry if external else {}
        kwargs = {"retry_intervals": WAITS, **kwargs}
        return self._filler_class(handler_registry=handlers, root_map=self._root_map, inplace=False, **kwargs)

    # -- old habits ------------------------------------------------------------------------------------------------

    def _get_serializer(self) -> Callable[[str, Document], None]:
        """What `RE.subscribe(db.insert)` writes to: nothing, since the journal has it all."""
        return _already_recorded


def _already_recorded(name: str, document: Document) -> None:
    if name == "start":
        logger.info("run %s: the journal records every run; db.insert is not needed", document["uid"][:8])
