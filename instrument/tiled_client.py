"""Runs of a Tiled server, found and read: plain questions, plain answers (pandas, pyRestTable, numpy).

    from instrument import tiled_client

    cat = tiled_client.connect()                      # the server of this directory, or connect("http://server:8000")
    cat.runs(since="2026-05-01", until="2026-11-01")  # shows a table; each question is answered by the server
    cat.runs(plan="scan", like='silver behen', sample__name="AgBh")
    run = cat[-1]                                     # or a scan number, or the beginning of a uid
    run.start, run.streams, run.stream("primary"), run.data(), run.image(0), run.summary()

Needs no session: it runs on any machine that reaches the server. `cat.client` is Tiled's own client.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instrument.config import extras
from instrument.config.errors import UserError, nearest
from instrument.framework.runs import moment
from instrument.tiled.connection import (
    CATALOG_SPEC,
    UNCOUNTED,
    Server,
    catalog_of,
    get,
    node_of,
    pages,
    plain,
    told,
)
from instrument.tiled.nexus import FILES

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from pyRestTable import Table

_TEXT_KEYS = ("start", "stop", "summary")
_SELECT = "{start: start, stop: stop}"


class TiledQuestionError(UserError):
    """The server can't answer this, or there is nothing to answer."""


def connect(
    server: str | None = None,
    *,
    catalog: str | None = None,
    api_key: str | None = None,
    config: Path | str | None = None,
) -> Catalog:
    """A catalog of runs on a Tiled server.

    Args:
        server: Its address; without it the server of this directory, or the one that iconfig.yml names.
        catalog: The catalog's name; may be left out if the server has one.
        api_key: Without it that of this directory's server, or $TILED_API_KEY.
        config: An iconfig.yml other than the usual one.

    Raises:
        MissingExtraError: Tiled is not installed.
        TiledUnreachableError: Nothing answers.
        TiledRefusedError: The key is none of the server's.
        TiledQuestionError: There is no such catalog, or it is no catalog of runs.
    """
    extras.need("tiled")
    own = None
    if server is None:
        from instrument.config import load

        loaded = load(config)
        where, own = Server.of(loaded), catalog_of(loaded)
    else:
        where = Server(None, server)
    url = where.address()
    if api_key is None:
        root = where.connect()
    else:
        with told(url):
            from tiled.client import from_uri

            root = from_uri(url, api_key=api_key)
    return _open(root, url, catalog, own)


def _open(root: Any, url: str, name: str | None, own: str | None) -> Catalog:
    with told(url):
        names = _catalogs(root)
        if name is None:
            name = own if own in names else names[0] if len(names) == 1 else None
        if name is None:
            raise TiledQuestionError(
                f"{url} has {len(names)} catalogs of runs: {', '.join(names) or 'feed it first'}; name one: "
                "connect(catalog=...)"
            )
        node = node_of(root, name)
    if node is None:
        close = nearest(name, names)
        hint = f"did you mean {close!r}?" if close else f"there are {', '.join(names)}"
        raise TiledQuestionError(f"{url} has no catalog {name!r}: {hint}")
    if name not in names:
        raise TiledQuestionError(
            f"{name!r} on {url} is no catalog of runs (it lacks the spec {CATALOG_SPEC[0]}): bluesky's queries "
            "would be ignored"
        )
    return Catalog(root, node, url)


def _catalogs(root: Any) -> list[str]:
    items = pages(root, {"fields": "specs"})
    return [
        item["id"]
        for item in items
        if any(spec["name"] == CATALOG_SPEC[0] for spec in item["attributes"]["specs"] or ())
    ]


class Catalog:
    """One catalog of runs on a server.

    Attributes:
        client: Tiled's own client of it.
        url: The server's address.
    """

    def __init__(self, root: Any, client: Any, url: str) -> None:
        self.root = root
        self.client = client
        self.url = url
        self.name = client.item["id"]

    def __repr__(self) -> str:
        return f"<{len(self)} runs in {self.name!r} on {self.url}>"

    def __len__(self) -> int:
        return len(self.runs())

    def __getitem__(self, name: int | str) -> Run:
        """The run of a negative number (counted from the last one), a scan number, or the beginning of a uid.

        Raises:
            TiledQuestionError: There is none, or the beginning of a uid fits several.
        """
        if isinstance(name, int) and name < 0:
            found = self.runs().newest(-name - 1)
            if found is None:
                raise TiledQuestionError(f"there is no run {name}: {self!r}")
            return found
        if isinstance(name, int):
            found = self.runs(scan_id=name).newest()
            if found is None:
                raise TiledQuestionError(f"there is no run with scan_id {name} in {self.name!r}")
            return found
        runs = list(Runs(self, [_partial_uid(self, str(name))]).first(2))
        if len(runs) != 1:
            told_ = "several runs have" if runs else "no run has"
            raise TiledQuestionError(f"{told_} a uid that begins with {name!r} in {self.name!r}")
        return runs[0]

    def runs(
        self,
        *,
        since: str | float | datetime | None = None,
        until: str | float | datetime | None = None,
        tz: str | tzinfo | None = None,
        plan: str | None = None,
        text: str | None = None,
        like: str | None = None,
        regex: str | None = None,
        key: str = "",
        case_sensitive: bool = False,
        metadata: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> Runs:
        """The runs to which all of this applies, newest first. The server looks for them.

        Args:
            since: Started then or later: "2026-05-01", "2026-05-01 08:30", "2 h" (ago), seconds since the epoch, ...
            until: Started before; a day stands for its end.
            tz: Time zone of `since` and `until` where they do not tell it ("US/Central"); this machine's if not given.
            plan: Name of the plan.
            text: Whole words of the metadata (all of them; no names of keys, no uids), by the database's own index.
            like: Words, or parts of words, in any order; "several words" in quotation marks stand together.
            regex: A regular expression of Python.
            key: Where `like` and `regex` look ("plan_name", "start.sample.name"); anywhere in the metadata without it.
            case_sensitive: Whether capital letters matter to `like` and `regex`.
            metadata: Keys of the start document ("sample.name", "stop.exit_status") and their values.
            **more: The same as keywords; two underscores stand for a dot: `sample__name="AgBh"`.

        Raises:
            TiledQuestionError: The server does not know this question, and would answer with all runs.
            UserError: A time or a time zone is not understood.
        """
        from tiled.queries import Comparison, Eq, FullText

        from instrument.tiled.queries import REGEX, Loose

        zone = _zone(tz)
        queries: list[Any] = []
        if since is not None:
            queries.append(Comparison("ge", "start.time", moment(since, zone=zone)))
        if until is not None:
            queries.append(Comparison("lt", "start.time", moment(until, end=True, zone=zone)))
        wanted = {**(metadata or {}), **{name.replace("__", "."): value for name, value in more.items()}}
        if plan is not None:
            wanted["plan_name"] = plan
        for name, value in wanted.items():
            if not isinstance(value, str | int | float):
                raise TiledQuestionError(f"{name}={value!r}: a text, a number, or True or False can be asked for")
            queries.append(Eq(_full(name), value))
        if text is not None:
            queries.append(FullText(text))
        try:
            full = _full(key) if key else ""
            if like is not None:
                queries.append(Loose(like, full, case_sensitive=case_sensitive))
            if regex is not None:
                queries.append(Loose(regex, full, REGEX, case_sensitive=case_sensitive))
        except ValueError as error:
            raise TiledQuestionError(str(error)) from error
        return Runs(self, queries)

    def tree(self) -> Table:
        """The catalogs of the server."""
        from pyRestTable import Table

        table = Table()
        table.labels = ["catalog", "runs", "first", "last"]
        with told(self.url):
            for name in _catalogs(self.root):
                runs = Catalog(self.root, node_of(self.root, name), self.url).runs()
                oldest, newest = runs.oldest(), runs.newest()
                table.addRow([name, len(runs), _when(oldest), _when(newest)])
        return table

    def summary(self, num: int = 10) -> Table:
        """The newest runs, as `Run.summary` tells of each."""
        return self.runs().table(num)


class Runs:
    """Runs that answer to a question; asked of the server when looked at."""

    def __init__(self, catalog: Catalog, queries: list[Any]) -> None:
        from tiled.query_registration import default_query_registry

        known = set(catalog.root.context.server_info.queries)
        self._catalog = catalog
        self._filters: list[tuple[str, str]] = []
        for query in queries:
            name = default_query_registry.query_type_to_name[type(query)]
            if name not in known:
                raise TiledQuestionError(
                    f"{catalog.url} does not know the query {name!r} and would answer with all runs: it is no "
                    "server of `instrument tiled serve`"
                )
            self._filters += [(f"filter[{name}][condition][{part}]", str(v)) for part, v in query.encode().items()]

    def __len__(self) -> int:
        with told(self._catalog.url):
            answer = self._page({"page[limit]": "1", "fields": "count"})
        return answer["meta"]["count"]

    def __iter__(self) -> Iterator[Run]:
        yield from self.first(None)

    def __repr__(self) -> str:
        return self.table().reST(fmt="simple") if len(self) else "no runs"

    def first(self, num: int | None, *, newest: bool = True) -> Iterator[Run]:
        """So many of them, the newest (or the oldest) first."""
        wanted = {"fields": "metadata", "select_metadata": _SELECT, "sort": "-start.time" if newest else "start.time"}
        parameters = self._parameters(wanted)
        with told(self._catalog.url):
            for item in pages(self._catalog.client, parameters, limit=num):
                yield self._run(item)

    def newest(self, back: int = 0) -> Run | None:
        """The last one, or that so many places before it; None if there is none."""
        parameters = {"page[offset]": str(back), "page[limit]": "1", "sort": "-start.time", "fields": "metadata"}
        with told(self._catalog.url):
            items = self._page({**parameters, "select_metadata": _SELECT, **dict(UNCOUNTED)})["data"]
        return self._run(items[0]) if items else None

    def oldest(self) -> Run | None:
        """The first one; None if there is none."""
        return next(self.first(1, newest=False), None)

    def uids(self) -> list[str]:
        """Their uids, the newest first."""
        with told(self._catalog.url):
            parameters = self._parameters({"fields": "", "sort": "-start.time"})
            return [item["id"] for item in pages(self._catalog.client, parameters)]

    def table(self, num: int = 20) -> Table:
        """The newest ones."""
        from pyRestTable import Table

        table = Table()
        table.labels = ["scan_id", "start", "duration", "plan", "streams", "status", "uid"]
        for run in self.first(num):
            summary = run.summary()
            streams = ", ".join(f"{name} ({summary['num_events'].get(name, '?')})" for name in summary["streams"])
            duration = "" if summary["duration"] is None else f"{summary['duration']:.1f} s"
            status = (run.stop or {}).get("exit_status", "open")
            cells = [summary["scan_id"], _when(run), duration, summary["plan_name"]]
            table.addRow(["" if cell is None else cell for cell in (*cells, streams, status, run.uid[:7])])
        return table

    def dataframe(self, num: int | None = None) -> pd.DataFrame:
        """The same as a pandas DataFrame, by uid."""
        import pandas as pd

        rows = [{"uid": run.uid, **run.summary()} for run in self.first(num)]
        frame = pd.DataFrame(rows, columns=["uid", *Run.SUMMARY]).set_index("uid")
        return frame.assign(datetime=pd.to_datetime(frame["datetime"]))

    def _run(self, item: Mapping[str, Any]) -> Run:
        found = item["attributes"]["metadata"]["selected"]
        return Run(self._catalog, item["id"], found["start"] or {}, found["stop"])

    def _parameters(self, more: Mapping[str, str]) -> list[tuple[str, str]]:
        return [*self._filters, *more.items()]

    def _page(self, more: Mapping[str, str]) -> dict[str, Any]:
        node = self._catalog.client
        return get(node, node.item["links"]["search"], params=self._parameters(more)).json()


class Run:
    """One run.

    Attributes:
        start: The start document; empty where somebody put what is no run into the catalog.
        stop: The stop document; None while the run goes on.
    """

    SUMMARY = ("plan_name", "scan_id", "datetime", "duration", "streams", "num_events")

    def __init__(self, catalog: Catalog, uid: str, start: dict[str, Any], stop: dict[str, Any] | None) -> None:
        self.catalog = catalog
        self.uid = uid
        self.start = start
        self.stop = stop
        self._node: Any = None

    def __repr__(self) -> str:
        return f"<run {self.start.get('scan_id', '?')} ({self.uid[:7]}): {self.start.get('plan_name', 'no plan')}>"

    @property
    def client(self) -> Any:
        """Tiled's own client of it, as bluesky's plugins make it.

        Raises:
            TiledQuestionError: It was removed meanwhile.
        """
        with told(self.catalog.url):
            if self._node is None:
                self._node = node_of(self.catalog.client, self.uid)
        if self._node is None:
            raise TiledQuestionError(f"{self!r} is no longer in {self.catalog.name!r}")
        return self._node

    @property
    def metadata(self) -> dict[str, Any]:
        """Start and stop document, and the summary."""
        return {"start": self.start, "stop": self.stop, "summary": self.summary()}

    @property
    def streams(self) -> list[str]:
        """The names of its streams; `primary` first."""
        if self.client.item["attributes"]["structure_family"] != "container":
            return []
        with told(self.catalog.url):
            names = [item["id"] for item in pages(plain(self.client), {"fields": ""})]
        return sorted(names, key=lambda name: (name != "primary", name))

    def summary(self) -> dict[str, Any]:
        """What the reference prints: plan_name, scan_id, datetime, duration (s), streams, num_events."""
        counts = (self.stop or {}).get("num_events") or {}
        began, ended = self.start.get("time"), (self.stop or {}).get("time")
        return {
            "plan_name": self.start.get("plan_name"),
            "scan_id": self.start.get("scan_id"),
            "datetime": None if began is None else datetime.fromtimestamp(began).isoformat(),
            "duration": None if began is None or ended is None else ended - began,
            "streams": list(counts) or self.streams,
            "num_events": counts,
        }

    def stream(self, name: str = "primary") -> dict[str, Any]:
        """The metadata of a stream: data keys, configuration, hints.

        Raises:
            TiledQuestionError: There is no such stream.
        """
        return dict(self._stream(name).metadata)

    def data(self, stream: str = "primary", *, timestamps: bool = False) -> pd.DataFrame:
        """The events of a stream, but for images and other large arrays.

        Args:
            stream: Its name.
            timestamps: With the time stamp of each value, as `ts_...`.

        Returns:
            One row for each event, by `seq_num`.
        """
        import pandas as pd

        node = self._stream(stream)
        with told(self.catalog.url):
            tables = [node[name].read() for name in node if name.partition("_")[0] == "internal"]
        if not tables:
            return pd.DataFrame({"time": []}, index=pd.Index([], name="seq_num"))
        frame = pd.concat(tables, axis=1).set_index("seq_num").sort_index()
        kept = [name for name in frame.columns if timestamps or not name.startswith("ts_")]
        return frame.loc[:, kept]

    def arrays(self, stream: str = "primary") -> dict[str, Any]:
        """Images and other large arrays, by data key: Tiled's clients, which read what is sliced (`[0, 100:200]`)."""
        node = self._stream(stream)
        with told(self.catalog.url):
            return {name: node[name] for name in node if name.partition("_")[0] != "internal"}

    def image(self, frame: int = 0, *, key: str | None = None, stream: str = "primary") -> np.ndarray:
        """One image, of the first data key that has images unless told otherwise.

        Raises:
            TiledQuestionError: There is none.
        """
        import numpy as np

        array = self._images(key, stream)
        with told(self.catalog.url):
            return np.asarray(array[(*_frame(array.shape, frame, self), ...)])

    def png(self, frame: int = 0, *, key: str | None = None, stream: str = "primary") -> bytes:
        """The same as a PNG file's content, made by the server."""
        array = self._images(key, stream)
        place = ",".join(map(str, _frame(array.shape, frame, self)))
        link = array.item["links"]["full"]
        with told(self.catalog.url):
            return get(array, link, params={"slice": place}, headers={"Accept": "image/png"}).content

    def nexus(self) -> Any:
        """Its NeXus file: Tiled's client, whose groups and fields are found by name and read by slice.

            run.nexus()["entry/data/adsimdet"][0, 100:200]

        Raises:
            TiledQuestionError: The server was not told of any: sessions do, with `nexus: {enabled: true}`.
        """
        with told(self.catalog.url):
            found: Any = self.catalog.root
            for name in (FILES, self.catalog.name, self.uid):
                found = None if found is None else node_of(plain(found), name)
        if found is None:
            raise TiledQuestionError(
                f"{self!r} has no NeXus file on {self.catalog.url}: sessions write them with `nexus: {{enabled: true}}`"
                ", `instrument tiled backfill` tells of earlier ones"
            )
        return found

    def _images(self, key: str | None, stream: str) -> Any:
        arrays = {name: array for name, array in self.arrays(stream).items() if len(array.shape) >= 3}
        if key is None and arrays:
            return next(iter(arrays.values()))
        if key not in arrays:
            raise TiledQuestionError(
                f"{self!r} has no images {key or ''} in {stream}: {', '.join(arrays) or 'none at all'}"
            )
        return arrays[key]

    def _stream(self, name: str) -> Any:
        with told(self.catalog.url):
            found = node_of(plain(self.client), name)
        if found is None:
            raise TiledQuestionError(f"{self!r} has no stream {name!r}: {', '.join(self.streams) or 'it has none'}")
        return plain(found)


def _partial_uid(catalog: Catalog, beginning: str) -> Any:
    """By an index where the server has one."""
    if "partial_uid" in catalog.root.context.server_info.queries:
        from bluesky_tiled_plugins.queries import PartialUID

        return PartialUID(beginning)
    from tiled.queries import Like

    return Like("start.uid", f"{beginning.replace('%', '').replace('_', '')}%")


def _frame(shape: tuple[int, ...], number: int, run: Run) -> tuple[int, ...]:
    """Where the image of a number is, counted through points and frames of a point."""
    frames = shape[:-2]
    count = 1
    for length in frames:
        count *= length
    if not -count <= number < count:
        raise TiledQuestionError(f"{run!r} has {count} images, there is none of number {number}")
    number %= count
    place: list[int] = []
    for length in reversed(frames):
        number, index = divmod(number, length)
        place.insert(0, index)
    return tuple(place)


def _full(key: str) -> str:
    """A key of the metadata; of the start document, unless it says otherwise."""
    return key if key.partition(".")[0] in _TEXT_KEYS and "." in key else f"start.{key}"


def _zone(name: str | tzinfo | None) -> tzinfo | None:
    if name is None or isinstance(name, tzinfo):
        return name
    from zoneinfo import ZoneInfo, available_timezones

    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        close = nearest(name, available_timezones())
        raise UserError(f"there is no time zone {name!r}" + (f": did you mean {close!r}?" if close else "")) from None


def _when(run: Run | None) -> str:
    began = None if run is None else run.start.get("time")
    return "" if began is None else f"{datetime.fromtimestamp(began):%Y-%m-%d %H:%M:%S}"
