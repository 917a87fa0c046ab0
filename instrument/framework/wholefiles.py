"""Files that are complete when they exist: written under another name in the same directory, then renamed."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from instrument.framework.runfiles import sync_directory


def part_of(path: Path) -> Path:
    """The name under which a file is written before it is complete."""
    return path.with_name(f".{path.name}.part")


def write_whole(path: Path, content: bytes) -> None:
    """Write a file, so that it is there with all of its content, or not at all, whatever ends this process.

    A file that is there already is replaced. What a killed writer left behind under the other name is used up.

    Args:
        path: Its directories are made if they do not exist.
        content: All of it.

    Raises:
        OSError: It can't be written; what was there before is unchanged.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:  # what stands there is a file
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path.parent)) from error
    part = part_of(path)
    descriptor = _own(part)
    try:
        os.ftruncate(descriptor, 0)
        left = memoryview(content)
        while left:
            left = left[os.write(descriptor, left) :]
        os.fsync(descriptor)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
    sync_directory(path.parent)


def _own(part: Path) -> int:
    """Open the unfinished file, and wait until no other process writes it."""
    while True:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            except OSError as error:
                if error.errno not in {errno.ENOLCK, errno.ENOTSUP}:  # a file system without locks
                    raise
            if part.exists() and os.path.samestat(os.fstat(descriptor), part.stat()):
                return descriptor
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # who had the lock has renamed or removed it
