"""Commands about the files that a session writes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from instrument.config.errors import UserError

if TYPE_CHECKING:
    from instrument.callbacks.export import ExportedRun
    from instrument.session import Session


class FileCommands:
    """Commands about the files that a session writes."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def wait_for_files(self, timeout: float = 60.0) -> bool:
        """Wait until the files of all runs are written, and databases that are fed have all runs.

        Args:
            timeout: How long to wait at the most (s).

        Returns:
            True if all are written and delivered.
        """
        return self._session.wait_for_files(timeout)

    def outbox(self) -> None:
        """Print what each file writer and each database has, what is pending, and its last error."""
        from instrument.callbacks.outbox import table

        print(table(self._session.deliveries()))

    def export(
        self,
        runs: Any,
        target: str | Path,
        *,
        format: str | None = None,
        force: bool = False,
    ) -> Path | list[Path]:
        """Write runs to files, from the catalog, one file for each run: NeXus, SPEC, CSV or JSON.

        Args:
            runs: A scan number, -1 for the last run, the beginning of a uid, `cat[...]`, or several of these in a list.
            target: A file, whose suffix means the format: .hdf .h5 .nxs .dat .csv .json; with several runs, scan
                number and uid are added to its name. Or a directory: names by the pattern of iconfig.yml.
            format: "nexus", "spec", "csv" or "json", whatever the suffix.
            force: Replace what is there.

        Returns:
            The files.

        Raises:
            UserError: There is no such run, a file can't be written, or something else is there.

        Example:
            >>> export(-1, "last.hdf")
            >>> export(range(12, 21), "proposal", format="csv")
        """
        from instrument.callbacks import export
        from instrument.framework.image_roots import ImageRoots

        path = Path(target).expanduser()
        several = not isinstance(runs, int | str) and not _is_run(runs) and isinstance(runs, Iterable)
        wanted = [self._run(run) for run in cast("Iterable[Any]", runs if several else [runs])]
        config = self._session.config
        roots = ImageRoots(config.root_map, self._session.data_directory)
        exporter = export.Exporter(config.nexus, export.format_of(path, format), force=force, root_map=roots)
        done = export.export(wanted, path, exporter, export.progress_bar)
        if done.failures:
            raise UserError("; ".join(done.failures))
        paths = exporter.paths(wanted, path)
        return paths if several else paths[0]

    def nexus_tree(self, file_or_run: Any = -1) -> None:
        """Print the tree of a NeXus file.

        Args:
            file_or_run: A file, or a run as `export` takes it; one without a NeXus file is written to a temporary one.
        """
        from nexusformat.nexus import nxload

        if isinstance(file_or_run, str | Path) and Path(file_or_run).expanduser().is_file():
            print(nxload(str(Path(file_or_run).expanduser())).tree)
            return
        if isinstance(file_or_run, Path) or (isinstance(file_or_run, str) and Path(file_or_run).suffix):
            raise UserError(f"there is no file {file_or_run}")
        from tempfile import TemporaryDirectory

        run = self._run(file_or_run)
        written = self._session.outbox.results(run.start["uid"]).get(self._session.nxwriter.name)
        if written is not None and Path(written).is_file():
            print(nxload(written).tree)
            return
        with TemporaryDirectory() as directory:
            print(nxload(str(self.export(file_or_run, Path(directory) / "run.hdf"))).tree)

    def _run(self, run: Any) -> ExportedRun:
        """A run as people name it."""
        from instrument.callbacks import export
        from instrument.framework.catalog import EMBEDDED

        if isinstance(run, int | str) and not isinstance(run, bool):
            if self._session.config.catalog == EMBEDDED:
                self._session.index.refresh()
                return export.of_journal(self._session.index.find(run))
            run = self._session.cat[run]
        return export.of_catalog(run)


def _is_run(value: Any) -> bool:
    """Runs of databroker are mappings of their streams, hence iterable."""
    return hasattr(value, "documents")
