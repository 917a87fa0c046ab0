"""Who is fed by the shipping process: the one place where its consumers are registered."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, cast

from instrument.config.errors import UserError

if TYPE_CHECKING:
    from instrument.callbacks.shipping import ShippedConsumer
    from instrument.config import Config


def _mongodb(config: Config) -> Iterable[ShippedConsumer]:
    from instrument.framework.catalog import mongodb_of

    if databases := mongodb_of(config):
        from instrument.callbacks.mongo import MongoDB

        yield MongoDB(*databases)


def _tiled(config: Config) -> Iterable[ShippedConsumer]:
    if config.tiled.feed:
        from instrument.callbacks.nexus_shipped import ShippedNexusFiles
        from instrument.framework.runfiles import DataDirectory
        from instrument.tiled.connection import Server, catalog_of
        from instrument.tiled.nexus import NexusFiles
        from instrument.tiled.writing import TiledConsumer

        yield TiledConsumer(Server.of(config), catalog_of(config))
        data = DataDirectory(Path.cwd() / config.directories.data)
        yield ShippedNexusFiles(NexusFiles(Server.of(config), catalog_of(config)), data.outbox)


def _configured(config: Config) -> Iterable[ShippedConsumer]:
    """Those of `ship: consumers:`, from anyone's package."""
    from pydoc import locate

    for path, arguments in config.ship.consumers.items():
        try:
            found = locate(path, forceload=False)
            if not callable(found):
                raise UserError("there is no such class")
            consumer = found(**arguments)
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UserError(f"{config.file}: ship: consumers: {path}: {reason}") from error
        yield cast("ShippedConsumer", consumer)


REGISTERED: tuple[Callable[[Config], Iterable[ShippedConsumer]], ...] = (_mongodb, _tiled, _configured)


def consumers_of(config: Config) -> list[ShippedConsumer]:
    """The consumers that the configuration asks for. Making them connects to nothing.

    Raises:
        UserError: one of `ship: consumers:` cannot be made, or two have one name.
    """
    consumers = [consumer for register in REGISTERED for consumer in register(config)]
    names = [consumer.name for consumer in consumers]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{config.file}: ship: two consumers are named {name!r}: give one of them another name")
    return consumers
