"""How our own programs reach a Tiled server: address, key, and errors that people understand."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlencode

from instrument.config import Config, extras
from instrument.config.errors import UserError
from instrument.framework.runfiles import DataDirectory
from instrument.tiled.places import TiledDirectory, read_address, read_key

if TYPE_CHECKING:
    import httpx

PAGE = 300  # the most that Tiled gives at once
UNCOUNTED = [("count", "false"), ("omit_links", "true")]  # the first is ours; stock Tiled takes no notice of it
CATALOG_SPEC = ("CatalogOfBlueskyRuns", "3.0")


class TiledUnreachableError(UserError):
    """The server does not answer, or not now; it is tried again."""

    transient = True


class TiledRefusedError(UserError):
    """The server answers, and refuses."""


def catalog_of(config: Config) -> str:
    """The catalog that this configuration's runs go to."""
    return config.tiled.catalog or config.metadata.instrument_name.replace("/", "_").replace(" ", "_")


@dataclass(frozen=True)
class Server:
    """Where a server is, and the key for it; both are looked up when they are needed, since it may start later.

    Attributes:
        directory: Of the server that serves this data directory; None if `url` names another one.
        url: Its address; None: where the server of `directory` says that it is.
        key_file: Holds an API key; None: `directory`'s own, or $TILED_API_KEY.
    """

    directory: TiledDirectory | None
    url: str | None = None
    key_file: Path | None = None

    @classmethod
    def of(cls, config: Config, working_directory: Path | None = None) -> Server:
        """The server of a configuration."""
        here = working_directory or Path.cwd()
        key_file = config.tiled.key_file
        directory = TiledDirectory(DataDirectory(here / config.directories.data).tiled)
        return cls(directory, config.tiled.url, here / key_file if key_file else None)

    def address(self) -> str:
        """Where it answers.

        Raises:
            TiledUnreachableError: It is not running.
        """
        found = self.url or (read_address(self.directory) if self.directory else None)
        if found is None:
            raise TiledUnreachableError(
                "no Tiled server runs on this data directory: start `instrument tiled serve`, or name one in "
                "iconfig.yml (tiled: url:)"
            )
        return found

    def key(self, *, write: bool) -> str | None:
        """The API key; None where there is none.

        Raises:
            UserError: The file that should hold it can't be read.
        """
        if self.key_file is not None:
            return read_key(self.key_file)
        given = os.environ.get("TILED_API_KEY")
        if self.directory is not None and not (given and self.url):  # the variable is for a server elsewhere
            path = self.directory.write_key if write else self.directory.read_key
            if path.exists():
                return read_key(path)
        return given

    def connect(self, *, write: bool = False) -> Any:
        """Tiled's client of the root.

        Raises:
            MissingExtraError: Tiled is not installed.
            TiledUnreachableError: Nothing answers.
            TiledRefusedError: The key is none of the server's.
        """
        extras.need("tiled")
        url = self.address()
        with told(url):
            from tiled.client import from_uri

            return from_uri(url, api_key=self.key(write=write))


@contextmanager
def told(url: str) -> Iterator[None]:
    """Say what went wrong in one line, and whether time may heal it."""
    import httpx

    try:
        yield
    except httpx.HTTPStatusError as error:
        code, reason = error.response.status_code, _detail(error)
        if code in {401, 403}:
            raise TiledRefusedError(f"the Tiled server {url} refuses this API key: {reason}") from error
        # What the server fails at by itself (500) may be this run's fault: it must not hold up the next ones.
        kind = TiledUnreachableError if code in {429, 502, 503, 504} else TiledRefusedError
        raise kind(f"the Tiled server {url} answers {code}: {reason}") from error
    except (httpx.TransportError, OSError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise TiledUnreachableError(f"the Tiled server {url} does not answer ({reason})") from error


def _detail(error: Any) -> str:
    try:
        detail = error.response.json()["detail"]
    except (ValueError, KeyError, TypeError):
        detail = error.response.text
    return " ".join(str(detail).split())[:300]


# -- nodes -----------------------------------------------------------------------------------------------------------


def node_of(parent: Any, name: str) -> Any:
    """What a container holds under a name; None if nothing."""
    import httpx
    from tiled.client.container import Container

    try:
        return Container.__getitem__(parent, name)
    except KeyError:
        return None
    except httpx.HTTPStatusError as error:
        if error.response.status_code == 404:
            return None
        raise


def container(parent: Any, name: str, specs: list[Any] | None = None) -> Any:
    """A container, made if it is not there, as Tiled's plain client of one."""
    import httpx

    found = node_of(parent, name)
    if found is None:
        try:
            found = parent.create_container(name, specs=specs)
        except httpx.HTTPStatusError as error:
            if error.response.status_code != 409:
                raise
            found = node_of(parent, name)  # somebody else was quicker
    return plain(found)


def plain(node: Any) -> Any:
    """A container without the ways of bluesky's clients."""
    from tiled.client.container import Container

    return Container(
        node.context,
        item=node.item,
        structure_clients=node.structure_clients,
        include_data_sources=node._include_data_sources,  # noqa: SLF001  as BlueskyRun.base does
    )


def pages(node: Any, parameters: Any, *, limit: int | None = None) -> Iterator[dict[str, Any]]:
    """The items of a search, page by page, with only what is asked for, and uncounted."""
    size = PAGE if limit is None else min(limit, PAGE)
    asked = [*(parameters.items() if isinstance(parameters, dict) else parameters), *UNCOUNTED]
    link: str | None = f"{node.item['links']['search']}?{urlencode({'page[limit]': size})}"
    taken = 0
    while link is not None:
        content = get(node, f"{link}&{urlencode(asked)}").json()  # Tiled's link to the next page leaves all this out
        for item in content["data"]:
            yield item
            taken += 1
            if limit is not None and taken >= limit:
                return
        link = content["links"]["next"] if len(content["data"]) == size else None


def get(node: Any, link: str, **keywords: Any) -> httpx.Response:
    """Ask the server, again where the answer was lost on the way."""
    from tiled.client.utils import handle_error, retry_context

    for attempt in retry_context():
        with attempt:
            return cast("httpx.Response", handle_error(node.context.http_client.get(link, **keywords)))
    raise AssertionError  # the last attempt raises
