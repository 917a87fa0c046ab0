"""The user's own Python files, which iconfig.yml names under `code:`."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from instrument.config.errors import Problem


@dataclass
class OwnCode:
    """What was loaded.

    Attributes:
        names: What the files define for the prompt: their `__all__`, else their public functions and classes.
        problems: One for each file that can't be imported.
        errors: What was raised, by file.
    """

    names: dict[str, Any] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    errors: dict[Path, Exception] = field(default_factory=dict)


def load(files: Sequence[Path]) -> OwnCode:
    """Import the files, each as a module by its own name (`plans.py` is `plans`), once in a process.

    Args:
        files: As the loaded configuration has them.
    """
    loaded = OwnCode()
    for file in files:
        try:
            module = _module(file)
        except Exception as error:
            loaded.errors[file] = error
            loaded.problems.append(_problem(file, error))
            continue
        loaded.names |= {name: getattr(module, name) for name in _public(module) if hasattr(module, name)}
    return loaded


def _module(file: Path) -> ModuleType:
    name, path = file.stem, file.resolve()
    there = sys.modules.get(name)
    if there is not None and Path(getattr(there, "__file__", None) or "").resolve() == path:
        return there
    found = None if there is not None else importlib.util.find_spec(name)
    if there is not None or (found is not None and Path(found.origin or "").resolve() != path):
        raise ImportError(f"{name!r} is the name of another Python module: rename the file")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # noqa: PT018  (it ends in .py)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _public(module: ModuleType) -> list[str]:
    if (listed := getattr(module, "__all__", None)) is not None:
        return list(listed)
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isfunction(value) or inspect.isclass(value))
        and value.__module__ == module.__name__
    ]


def _problem(file: Path, error: Exception) -> Problem:
    """The error in one line, with the line of the file where it happened."""
    line = error.lineno if isinstance(error, SyntaxError) else None
    traceback = error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == str(file.resolve()):
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    text = error.msg if isinstance(error, SyntaxError) else " ".join(str(error).split())
    return Problem(file, line, "", f"can't be imported: {type(error).__name__}: {text}")
