"""Pages that are made from the code: the keys of the two YAML files, PVs, options of commands, the notebooks.

What is made goes to `docs/_generated` (included by pages) and `docs/tutorials/notebooks`; neither is kept in git.
"""

from __future__ import annotations

import argparse
import json
import re
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"


def write(docs: Path) -> None:
    """Make all of them; a file that would not change is left alone, so that Sphinx reads only what is new."""
    made = docs / "_generated"
    _put(made / "iconfig.md", iconfig())
    _put(made / "devices.md", device_keys())
    _put(made / "pvs.md", pvs())
    _put(made / "shell.md", shell_commands())
    _put(made / "prompt.md", prompt_commands())
    copies = docs / "tutorials" / "notebooks"
    titles = []
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        _put(copies / path.name, _with_lexer(path))
        titles.append(path.stem)
    for stale in copies.glob("*.ipynb"):
        if stale.stem not in titles:
            stale.unlink()
    _put(docs / "_generated" / "notebooks.md", notebooks(titles))


def _put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


# --- notebooks -------------------------------------------------------------------------------------------------------


def notebooks(stems: list[str]) -> str:
    """The list of the notebooks, by their numbers, with what the first lines of each say."""
    lines = [f"1. {{doc}}`notebooks/{stem}`: {_about(NOTEBOOKS / f'{stem}.ipynb')}" for stem in stems]
    tree = "\n".join(f"notebooks/{stem}" for stem in stems)
    return "\n".join(lines) + f"\n\n```{{toctree}}\n:hidden:\n\n{tree}\n```\n"


def _with_lexer(path: Path) -> str:
    """A notebook that says that its cells are IPython's, `!` and `%` included; its links lead to the pages."""
    content = json.loads(path.read_text().replace("](../docs/", "](../../"))
    content["metadata"].setdefault("language_info", {"name": "python"})["pygments_lexer"] = "ipython3"
    return json.dumps(content)


def _about(path: Path) -> str:
    """The first sentence below the title."""
    cells = json.loads(path.read_text())["cells"]
    text = next("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    paragraph = text.strip().split("\n\n", 1)[-1].split("\n\n")[0].replace("\n", " ")
    return re.split(r"(?<=[.!?:;]) ", paragraph, maxsplit=1)[0].rstrip(":;")


# --- iconfig.yml and devices.yml -------------------------------------------------------------------------------------


def iconfig() -> str:
    """Every key of iconfig.yml, by the models that check it."""
    from instrument.config.models import SessionFile

    return "\n".join(_section("", SessionFile)) + "\n"


def _section(path: str, model: type[BaseModel]) -> Iterator[str]:
    """The table of a model's own keys, then the sections of the models in it."""
    inner: list[tuple[str, type[BaseModel]]] = []
    if path:
        yield f"\n## {path}\n\n{_sentence(model)}\n"
    else:
        yield "## At the top\n"
    yield "| key | type | default | |\n| --- | --- | --- | --- |"
    for name, field in model.model_fields.items():
        whole = f"{path}.{name}" if path else name
        found = _model_in(field.annotation)
        if found is not None:
            inner.append((whole, found))
        yield f"| `{name}` | {_type(field)} | {_default(field)} | {_cell(field.description or '')} |"
    for whole, found in inner:
        yield from _section(whole, found)


def _sentence(model: type[BaseModel]) -> str:
    return " ".join((model.__doc__ or "").split("\n\n")[0].split())


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in typing.get_args(annotation) if (found := _model_in(part))), None)


def _type(field: FieldInfo) -> str:
    return _cell(_words(field.annotation) + _limits(field))


def _words(annotation: Any) -> str:
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is type(None):
        return "null"
    if annotation is Any:
        return "anything"
    if origin is typing.Annotated:
        return _words(parts[0])
    if origin is typing.Literal:
        return "one of " + ", ".join(f"`{part}`" for part in parts)
    if origin in {typing.Union, types.UnionType}:
        return " or ".join(map(_words, parts))
    if origin is tuple:
        item = _words(parts[0])
        return "list of sections" if item == "a section" else f"list of {item}"
    if origin is dict:
        return f"{_words(parts[0])}: {_words(parts[1])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "a section"
    names = {str: "text", bool: "true or false", int: "whole number", float: "number", Path: "path"}
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _limits(field: FieldInfo) -> str:
    signs = {"gt": "> ", "ge": "≥ ", "lt": "< ", "le": "≤ "}
    found = [
        f"{sign}{getattr(one, name)}" for one in field.metadata for name, sign in signs.items() if hasattr(one, name)
    ]
    return f", {' and '.join(found)}" if found else ""


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        if field.default_factory is None:
            return "required"
        if _model_in(field.annotation) is not None:
            return ""
        return f"`{field.default_factory()!r}`"  # type: ignore[call-arg]
    value = field.default
    shown = {None: "null", True: "true", False: "false"}.get(value) if isinstance(value, bool | None) else None
    if shown is None:
        shown = json.dumps(list(value)) if isinstance(value, tuple) else str(value) or '""'
    return f"`{_cell(shown)}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def device_keys() -> str:
    """The keys of a device entry that are ours, and the arguments of our own classes."""
    import inspect

    from instrument.config.loader import OWN_KEYS
    from instrument.config.models import DeviceSpec

    about = DeviceSpec.__doc__ or ""
    lines = ["| key | default | |", "| --- | --- | --- |"]
    for key in ("name", "labels", *OWN_KEYS):
        field = DeviceSpec.model_fields[key]
        found = re.search(rf"^ +{key}: (.*?)(?=\n +\w+: |\n\n|\Z)", about, re.MULTILINE | re.DOTALL)
        text = " ".join(found[1].split()) if found else ""
        default = "required by classes" if key == "name" else _default(field)
        lines.append(f"| `{key}` | {default} | {_cell(text)} |")
    lines.append("\n## Classes of ours\n\nAny other importable class or factory will do: ophyd's, apstools', yours.\n")
    for path in _our_classes():
        module, _, name = path.rpartition(".")
        cls = getattr(__import__(module, fromlist=[name]), name)
        lines.append(f"### {path}\n\n{_first_paragraph(inspect.getdoc(cls) or '')}\n")
        if arguments := _arguments(cls):
            lines.append("| argument | default |\n| --- | --- |")
            lines += [f"| `{argument}` | {default} |" for argument, default in arguments]
        lines.append("")
    return "\n".join(lines) + "\n"


def _our_classes() -> list[str]:
    """Those that our own devices.yml uses."""
    import yaml

    content = yaml.safe_load((ROOT / "instrument" / "config" / "devices.yml").read_text())
    return [path for path in content if path.startswith("instrument.")]


def _first_paragraph(text: str) -> str:
    return " ".join(text.split("\n\n", maxsplit=1)[0].split())


def _arguments(cls: Any) -> list[tuple[str, str]]:
    import inspect

    found: dict[str, str] = {}
    functions = [cls] if not isinstance(cls, type) else [vars(base).get("__init__") for base in cls.__mro__]
    for function in filter(None, functions):
        for name, one in inspect.signature(function).parameters.items():
            if name == "self" or name.startswith("_") or one.kind in {one.VAR_KEYWORD, one.VAR_POSITIONAL}:
                continue
            default = "required" if one.default is one.empty else f"`{_cell(repr(one.default))}`"
            found.setdefault(name, default)
        if not any(one.kind == one.VAR_KEYWORD for one in inspect.signature(function).parameters.values()):
            break
    hidden = {"parent", "kind", "read_attrs", "configuration_attrs", "attr_name", "child_name_separator", "lazy_wait"}
    return [(name, default) for name, default in found.items() if name not in hidden]


# --- PVs -------------------------------------------------------------------------------------------------------------


def pvs() -> str:
    """Every record of the virtual beamline; of those that differ by a number, one line."""
    from virtual_beamline import beamline
    from virtual_beamline.area_detector import detector

    parts = []
    for title, records in (("gp:", beamline.contents()), ("ad:", detector.contents())):
        parts.append(f"\n## {title}\n\n{len(records)} records.\n\n| PV | type | |\n| --- | --- | --- |")
        alike: dict[tuple[str, ...], list[Any]] = {}
        for record in records:
            key = (_unnumbered(record.name), record.type, _unnumbered(record.description))
            alike.setdefault(key, []).append(record)
        for (_, kind, description), found in alike.items():
            first, last = found[0], found[-1]
            if first is last:
                parts.append(f"| `{first.name}` | {kind} | {_cell(first.description)} |")
            else:
                parts.append(f"| `{first.name}` ... `{last.name}` ({len(found)}) | {kind} | {_cell(description)} |")
    return "\n".join(parts) + "\n"


def _unnumbered(text: str) -> str:
    return re.sub(r"\d+", "#", text)


# --- the shell's commands --------------------------------------------------------------------------------------------


def shell_commands() -> str:
    """Every command of the shell with its arguments, by the parsers that read them."""
    from instrument import cli, snapshot_cli
    from virtual_beamline import __main__ as virtual_beamline

    parts = []
    for parser in (cli.parser(), snapshot_cli.parser(), virtual_beamline.parser()):
        parts += _of_parser(parser, parser.prog)
    return "\n".join(parts) + "\n"


def commands_of(parser: argparse.ArgumentParser, words: str) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Every command that does something: the words, and its parser."""
    inner = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]  # noqa: SLF001
    if not inner:
        yield words, parser
    for action in inner:
        for name, command in action.choices.items():
            yield from commands_of(command, f"{words} {name}")


def _of_parser(parser: argparse.ArgumentParser, words: str) -> Iterator[str]:
    for command, one in commands_of(parser, words):
        yield f"\n### {command}\n\n{_cell(_upper(one.description or ''))}.\n"
        rows = [action for action in one._actions if action.help not in {argparse.SUPPRESS, None}]  # noqa: SLF001
        rows = [action for action in rows if not isinstance(action, argparse._HelpAction)]  # noqa: SLF001
        if rows:
            yield "| argument | |\n| --- | --- |"
        for action in rows:
            names = ", ".join(action.option_strings) or str(action.metavar or action.dest)
            value = f" {action.metavar or action.dest.upper()}" if action.option_strings and action.nargs != 0 else ""
            text = (action.help or "") % {"default": action.default, "prog": command}
            yield f"| `{names}{value}` | {_cell(text)} |"


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(".")


# --- the prompt's commands -------------------------------------------------------------------------------------------


def prompt_commands() -> str:
    """Every command and plan of the prompt: how it is called, and the first sentence of its docstring."""
    import inspect

    from instrument import commands, plans

    rows = {name: getattr(group, name) for group in commands.GROUPS for name in vars(group) if name[0] != "_"}
    rows |= {name: getattr(plans, name) for name in plans.__all__}
    lines = ["| | |", "| --- | --- |"]
    for name, function in sorted(rows.items(), key=lambda row: row[0].lower()):
        about = (inspect.getdoc(function) or "").split("\n")[0]
        lines.append(f"| `{name}({_cell(', '.join(_typed_arguments(function)))})` | {_cell(about)} |")
    return "\n".join(lines) + "\n"


def _typed_arguments(function: Any) -> Iterator[str]:
    """What a person gives: the session gives what has no default and comes by keyword only."""
    import inspect

    for name, one in inspect.signature(function).parameters.items():
        if name in {"self", "md"} or (one.kind == one.KEYWORD_ONLY and one.default is one.empty):
            continue
        if one.kind == one.VAR_POSITIONAL:
            yield f"*{name}"
        elif one.kind != one.VAR_KEYWORD and name not in {"show", "commands", "counted"}:
            yield name if one.default is one.empty else f"{name}={one.default!r}"
