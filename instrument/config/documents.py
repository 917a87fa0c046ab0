"""YAML files read with the line of every key, and with duplicate keys noticed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from instrument.config.errors import Problem

try:
    from yaml import CSafeLoader as _Loader  # libyaml: a tenth of the time
except ImportError:  # PyYAML built without libyaml
    from yaml import SafeLoader as _Loader

Location = tuple[str | int, ...]
_MERGE = "tag:yaml.org,2002:merge"


@dataclass
class Document:
    """The content of one YAML file.

    Attributes:
        file: Where it was read.
        content: Plain Python data.
        lines: Line, counted from 1, of each key and list item by its path.
        problems: What made parts of it unreadable; those parts are left out of `content`.
    """

    file: Path
    content: Any = None
    lines: dict[Location, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def line(self, location: Location) -> int | None:
        """The line of a path, or of the nearest parent that is in the file."""
        while location not in self.lines:
            if not location:
                return None
            location = location[:-1]
        return self.lines[location]

    def problem(self, location: Location, key: str, message: str, suggestion: str | None = None) -> None:
        """Note a mistake at a path."""
        self.problems.append(Problem(self.file, self.line(location), key, message, suggestion))


def read(file: Path) -> Document:
    """Read a YAML file; whatever is wrong with it ends up in `problems`, never in an exception."""
    document = Document(file)
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        document.problems.append(Problem(file, None, "", f"cannot be read: {reason}"))
        return document
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is not None:
                document.content = _Builder(loader, document).build(node, ())
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        line = mark.line + 1 if mark else None
        document.problems.append(Problem(file, line, "", f"is not valid YAML: {reason}"))
    return document


class _Builder:
    """Turns YAML nodes into data, keeping lines."""

    def __init__(self, loader: Any, document: Document) -> None:
        self._loader = loader
        self._document = document
        self._open: set[int] = set()

    def build(self, node: yaml.Node, location: Location) -> Any:
        self._document.lines.setdefault(location, node.start_mark.line + 1)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, location)
        if id(node) in self._open:
            self._document.problem(location, _dotted(location), "an alias that contains itself")
            return None
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return {key: self.build(value, (*location, key)) for key, value in self._pairs(node, location)}
            return [self.build(item, (*location, index)) for index, item in enumerate(node.value)]
        finally:
            self._open.discard(id(node))

    def _scalar(self, node: yaml.ScalarNode, location: Location) -> Any:
        try:
            return self._loader.construct_object(node)
        except (yaml.YAMLError, ValueError) as error:
            reason = getattr(error, "problem", None) or str(error)
            self._document.problem(location, _dotted(location), f"{node.value!r} cannot be read: {reason}")
            return None

    def _pairs(self, node: yaml.MappingNode, location: Location) -> Iterator[tuple[str, yaml.Node]]:
        """The keys and values of a mapping, merge keys resolved, a key given twice noted and left out."""
        own: dict[str, int] = {}
        accepted: list[tuple[yaml.Node, yaml.Node]] = []
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if key_node.tag != _MERGE:
                key = self._loader.construct_object(key_node) if isinstance(key_node, yaml.ScalarNode) else None
                if not isinstance(key, str):
                    shown = key_node.value if isinstance(key_node, yaml.ScalarNode) else "a list or mapping"
                    problem = Problem(self._document.file, line, _dotted(location), f"the key {shown} must be text")
                    self._document.problems.append(problem)
                    continue
                if key in own:
                    message = f"is given twice; first on line {own[key]}"
                    problem = Problem(self._document.file, line, _dotted((*location, key)), message)
                    self._document.problems.append(problem)
                    continue
                own[key] = line
                self._document.lines[(*location, key)] = line
            accepted.append((key_node, value_node))
        node.value = accepted
        self._loader.flatten_mapping(node)
        merged = {self._loader.construct_object(key_node): value_node for key_node, value_node in node.value}
        yield from merged.items()


def _dotted(location: Location) -> str:
    return ".".join(map(str, location))
