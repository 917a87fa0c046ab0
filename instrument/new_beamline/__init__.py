"""`instrument new NAME`: a directory with all that a beamline of one's own begins with."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

from instrument.config.errors import UserError

TEMPLATES = Path(__file__).with_name("templates")

_NAMES = {"gitignore": ".gitignore"}  # of files whose own name would act where the templates are
_SUFFIX = ".template"  # ends what is no module of ours
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,60}")


def create(where: Path) -> str:
    """Make the directory; nothing is left behind if that fails.

    Args:
        where: The new directory; its last part is the beamline's name.

    Returns:
        What is in it, and what to do next.

    Raises:
        UserError: The name is no good, something is there already, or it can't be written.
    """
    name = where.name
    if not _NAME.fullmatch(name):
        raise UserError(f"{name or str(where)!r} is no name for a beamline: letters, digits, - and _, such as 45-ID")
    if where.exists() or where.is_symlink():
        raise UserError(f"{where} is there already, and nothing is overwritten: choose another name, or move it away")
    if not where.parent.is_dir():
        raise UserError(f"there is no directory {where.parent}: make it first")
    try:
        with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=where.parent) as scratch:
            draft = Path(scratch) / name
            draft.mkdir()
            for template in sorted(TEMPLATES.iterdir()):
                text = template.read_text().replace("@NAME@", name).replace("@DIRECTORY@", str(where))
                (draft / _NAMES.get(template.name, template.name.removesuffix(_SUFFIX))).write_text(text)
            draft.rename(where)
    except OSError as error:
        raise UserError(f"{where} can't be made ({error.strerror}): choose another directory, or make room") from error
    files = ", ".join(sorted(path.name for path in where.iterdir() if not path.name.startswith(".")))
    tests = "" if shutil.which("pytest") else "   (pip install pytest)"
    return f"made {where}: {files}\n  cd {where}\n  instrument session\n  pytest{tests}"
