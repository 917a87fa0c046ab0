"""`cat` and `db`: the catalog that iconfig.yml names, as databroker's v2 and v1 objects that load on first use.

Importing databroker takes seconds, and the names lie in everyone's namespace, where `%ct`, `%wa`, tab completion and
`vars()` look at every object. The two objects here answer such looks by themselves.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from instrument.config.errors import UserError
from instrument.config.names import LOGGER_NAME
from instrument.framework.index import RunIndex
from instrument.framework.runfiles import DataDirectory

if TYPE_CHECKING:
    from instrument.config import Config

logger = logging.getLogger(LOGGER_NAME)

EMBEDDED = "embedded"
DRIVER = "bluesky-embedded-catalog"

_SERVER_TIMEOUT = 3000  # ms in which a MongoDB server must answer
_FAILURE_HOLDS = 10.0  # s during which a catalog that did not open is not tried again

# What people use of databroker.v2.Broker and databroker.v1.Broker. Other names are none of a catalog's: asking for
# them must not import anything, since runtime-checkable protocols (`isinstance(x, Readable)`) ask for many. Tab
# completion asks for each name that `dir()` gives: those are methods, which import when they are called.
_CATALOG_METHODS = frozenset({
    "search", "items", "keys", "values", "walk", "filter", "register_handler", "deregister_handler", "force_reload",
    "reload", "stats", "find", "serialize", "save",
})  # fmt: skip
_CATALOG_VALUES = frozenset({"metadata", "handler_registry", "root_map", "_entries"})
_BROKER_METHODS = frozenset({
    "get_config", "named", "from_config", "stream_names_given_header", "fetch_external", "get_fields", "get_documents",
    "get_events", "get_table", "get_images", "alias", "dynamic_alias", "add_filter", "clear_filters", "restream",
    "stream", "process", "export", "export_size", "insert", "stats",
})  # fmt: skip
_BROKER_VALUES = frozenset({"reg", "fs", "aliases", "filters", "external_fetchers", "prepare_hook", "_catalog"})


class CatalogError(UserError):
    """The catalog cannot be opened."""


class _Source(NamedTuple):
    file: Path
    driver: str
    args: dict[str, Any]


class _Loader:
    """Opens the real catalog once; a failure holds for a while, so that it is not waited for again and again."""

    def __init__(
        self, name: str, open_it: Callable[[], Any], before: Callable[[], object] | None, index: RunIndex | None
    ) -> None:
        self.name = name
        self.index = index  # of the embedded catalog: it can say what is there without databroker
        self.catalog: Any = None
        self._open = open_it
        self._before = before
        self._lock = threading.RLock()
        self._failure: tuple[float, CatalogError] | None = None

    def get(self) -> Any:
        with self._lock:
            if self.catalog is None:
                if self._failure and time.monotonic() - self._failure[0] < _FAILURE_HOLDS:
                    raise CatalogError(str(self._failure[1]))
                try:
                    if self._before is not None:
                        self._before()
                    self.catalog = self._open()
                except CatalogError as error:
                    self._failure = (time.monotonic(), error)
                    raise
            return self.catalog

    def fresh_index(self) -> RunIndex:
        assert self.index is not None
        for line in self.index.refresh():
            logger.warning("%s", line)
        return self.index

    def describe(self) -> str:
        if self.index is not None:
            return f"{self.name}: {self.fresh_index().describe()}"
        return f"{self.name}: {'open' if self.catalog is not None else 'opened on first use'}"


class _Lazy:
    """What both objects have in common."""

    _methods: frozenset[str] = frozenset()
    _values: frozenset[str] = frozenset()
    _kind = "catalog"

    def __init__(self, loader: _Loader) -> None:
        self.__dict__["_loader"] = loader
        self.__dict__["name"] = loader.name

    def __init_subclass__(cls) -> None:
        for name in cls._methods:
            setattr(cls, name, _delegate(name))

    def _real(self) -> Any:
        return self._loader.get()

    @property
    def v1(self) -> LazyBroker:
        """The broker over the same runs."""
        return LazyBroker(self._loader)

    @property
    def v2(self) -> LazyCatalog:
        """The catalog of the same runs."""
        return LazyCatalog(self._loader)

    def __getattr__(self, name: str) -> Any:
        if name in self._values:
            return getattr(self._real(), name)
        if not name.startswith("_") and self._loader.catalog is not None and self._answers(name):
            return getattr(self._real(), name)
        msg = f"{self._kind} has no attribute {name!r}"
        raise AttributeError(msg)

    def _answers(self, name: str) -> bool:
        """Whether the opened catalog knows a name that was given at run time."""
        return False

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self._values:
            msg = f"{self._kind} has no attribute {name!r} to set"
            raise AttributeError(msg)
        setattr(self._real(), name, value)

    def __dir__(self) -> list[str]:
        return sorted({"name", "v1", "v2", *self._methods})

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other._loader is self._loader

    def __hash__(self) -> int:
        return hash((type(self), id(self._loader)))

    def __bool__(self) -> bool:
        return True

    def __getitem__(self, key: Any) -> Any:
        return self._real()[key]

    def __repr__(self) -> str:
        return f"<{self._kind} {self._loader.describe()}>"


def _delegate(name: str) -> Callable[..., Any]:
    def method(self: _Lazy, *args: Any, **kwargs: Any) -> Any:
        return getattr(self._real(), name)(*args, **kwargs)

    method.__name__ = name
    method.__doc__ = f"databroker's `{name}`."
    return method


class LazyCatalog(_Lazy):
    """`cat`: databroker's v2 catalog."""

    _methods = _CATALOG_METHODS
    _values = _CATALOG_VALUES

    def __iter__(self) -> Iterator[str]:
        return iter(self._loader.fresh_index().uids() if self._loader.index else self._real())

    def __len__(self) -> int:  # `cat?` asks for it
        return self._loader.fresh_index().count() if self._loader.index else len(self._real())

    def __contains__(self, name: object) -> bool:
        return name in self._real()

    def _ipython_key_completions_(self) -> list[str]:
        return [row.uid for row in self._loader.index.rows(limit=50)] if self._loader.index else []


class LazyBroker(_Lazy):
    """`db`: databroker's v1 Broker over the same catalog."""

    _methods = _BROKER_METHODS
    _values = _BROKER_VALUES
    _kind = "broker"

    def _real(self) -> Any:
        return self._loader.get().v1

    def _answers(self, name: str) -> bool:
        return name in self._real().aliases

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The headers that match, as `db(plan_name="scan", since="2026-11")`."""
        return self._real()(*args, **kwargs)


def open_catalog(
    config: Config,
    *,
    data: Path | None = None,
    index: RunIndex | None = None,
    before_loading: Callable[[], object] | None = None,
) -> tuple[LazyCatalog, LazyBroker]:
    """The catalog that the configuration names. Never raises: what is wrong is logged in one line, and told on use.

    Args:
        config: the session's configuration.
        data: the data directory; without it, that of the configuration in the working directory.
        index: the journal's index of it.
        before_loading: called before databroker is imported, so that an importer thread can be waited for.
    """
    data = data or Path.cwd() / config.directories.data
    name = config.catalog
    if name == EMBEDDED:
        index = index or RunIndex(DataDirectory(data).index if data.is_dir() else None, DataDirectory(data).runs)
        shared = index
        loader = _Loader(name, lambda: _open_embedded(data, shared, config.root_map), before_loading, shared)
        return LazyCatalog(loader), LazyBroker(loader)
    sources = _sources(config)
    source = sources.get(name)
    if source is None:
        known = ", ".join(sorted({EMBEDDED, *sources}))
        problem = (
            f"iconfig.yml names the catalog {name!r}, which {config.catalog_file} does not have: "
            f"choose one of {known}; runs are safe in the journal ({data / 'runs'})"
        )
        logger.warning("%s", problem)
        loader = _Loader(name, lambda: _refuse(problem), before_loading, None)
    else:
        found = source
        loader = _Loader(name, lambda: _open_source(name, found, data), before_loading, None)
    return LazyCatalog(loader), LazyBroker(loader)


def mongodb_of(config: Config) -> tuple[str, str] | None:
    """The two databases of the configured catalog, for `callbacks.mongo.MongoWriter`; None if it is not MongoDB's."""
    if config.catalog == EMBEDDED:
        return None
    source = _sources(config).get(config.catalog)
    if source is None or "mongo" not in source.driver:
        return None
    return _impatient(source.args.get("metadatastore_db")), _impatient(source.args.get("asset_registry_db"))


def catalog_names(config: Config) -> list[str]:
    """Every catalog that `iconfig.yml`, or `bluesky_snapshot -b`, may name."""
    return sorted({EMBEDDED, *_sources(config)})


def _refuse(problem: str) -> Any:
    raise CatalogError(problem)


def _open_embedded(data: Path, index: RunIndex, root_map: dict[str, str]) -> Any:
    from instrument.framework.embedded import EmbeddedCatalog

    return EmbeddedCatalog(data, index=index, name=EMBEDDED, root_map=root_map)


def _open_source(name: str, source: _Source, data: Path) -> Any:
    """Open a source of bluesky_class.yml, and make sure that it answers."""
    safe = f"runs are safe in the journal ({data / 'runs'}); `catalog: embedded` in iconfig.yml shows them"
    catalog = None
    try:
        import databroker  # noqa: F401  registers its drivers with intake
        import intake

        if "mongo" in source.driver:
            catalog = intake.registry[source.driver](
                **{key: _impatient(value) for key, value in source.args.items()}, name=name
            )
            catalog._metadatastore_db.client.admin.command("ping")  # noqa: SLF001  the only way to it
        else:
            catalog = intake.open_catalog(str(source.file))[name]
    except Exception as error:
        for database in ("_metadatastore_db", "_asset_registry_db") if catalog is not None else ():
            getattr(catalog, database).client.close()
        reason = re.split(r" \(configured timeouts|, Timeout:", " ".join(str(error).split()))[0]
        raise CatalogError(
            f"the catalog {name!r} cannot be reached ({reason or type(error).__name__}): {safe}"
        ) from error
    return catalog


def _impatient(value: Any) -> Any:
    """A MongoDB address with a limit to how long its server is looked for, unless it has one."""
    if not isinstance(value, str) or not value.startswith("mongodb") or "serverSelectionTimeoutMS" in value:
        return value
    return f"{value}{'&' if '?' in value else '?'}serverSelectionTimeoutMS={_SERVER_TIMEOUT}"


def _sources(config: Config) -> dict[str, _Source]:
    """Every source that a session may name: those of the catalog file first, then of databroker's own directories."""
    found: dict[str, _Source] = {}
    for file in (*_catalog_files(config), *_shared_files()):
        try:
            entries = (yaml.safe_load(file.read_text()) or {}).get("sources", {})
            for name, entry in entries.items():
                found.setdefault(name, _Source(file, str(entry["driver"]), dict(entry.get("args") or {})))
        except (OSError, yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())
            logger.warning("%s is no catalog file that can be read (%s): its catalogs are not known", file, reason)
    return found


def _catalog_files(config: Config) -> list[Path]:
    """Where the catalog file is: beside iconfig.yml, in the working directory, in the package, beside the package."""
    name = Path(config.catalog_file)
    package = Path(__file__).parents[1]
    places = [config.file.parent / name, Path.cwd() / name, package / name, package.parent / name]
    return [path for path in dict.fromkeys(places) if path.is_file()][:1]


def _shared_files() -> list[Path]:
    """The catalog files that databroker finds by itself."""
    directories = [
        *(Path(path) for path in os.environ.get("INTAKE_PATH", "").split(os.pathsep) if path),
        Path.home() / ".local" / "share" / "intake",
        Path(sys.prefix) / "share" / "intake",
    ]
    return [file for directory in directories for suffix in ("yml", "yaml") for file in directory.glob(f"*.{suffix}")]
