"""`instrument tiled ...`: what the shell's commands do with the configuration and their options."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

from instrument.config import Config
from instrument.config.errors import UserError
from instrument.framework.runfiles import DataDirectory
from instrument.tiled.places import TiledDirectory


def catalog_of(config: Config) -> str:
    """The catalog that this configuration's runs go to."""
    return config.tiled.catalog or config.metadata.instrument_name.replace("/", "_").replace(" ", "_")


def tiled_directory(config: Config) -> TiledDirectory:
    """The Tiled server's directory, under the working directory's data."""
    return TiledDirectory(DataDirectory(Path.cwd() / config.directories.data).tiled)


def serve(config: Config, options: argparse.Namespace) -> int:
    """`instrument tiled serve`."""
    from instrument.tiled import server

    began = time.monotonic()
    wanted = config.tiled
    if options.embedded_postgres and wanted.database:
        raise UserError(
            f"--embedded-postgres, but {config.file} names {wanted.database} (tiled: database:): choose one"
        )
    directory = tiled_directory(config)
    readable = [directory.root.parent, *(Path.cwd() / path for path in (*wanted.readable, *(options.readable or ())))]
    settings = server.Settings(
        directory,
        [catalog_of(config)],
        database=wanted.database,
        embedded=options.embedded_postgres,
        host=options.host or wanted.host,
        port=wanted.port if options.port is None else options.port,
        public_read=wanted.public_read if options.public_read is None else options.public_read,
        readable=readable,
    )
    return server.serve(settings, began=began)


ACTIONS: dict[str, Callable[[Config, argparse.Namespace], int]] = {"serve": serve}
