"""Calls of a person's own plans that nobody runs: `scan_it(m1)` where `yield from scan_it(m1)` is meant.

A plan that bluesky's `@plan` marks, as all of bluesky and of this package are, tells by itself that nobody ran it. A
generator function without it says nothing to anybody: Python makes the generator and forgets it. So the source of a
plan that is about to run is looked at, and of those that it calls, for statements that are nothing but such a call.
Only what is certain is told: names that stand for generator functions, in source that is what runs.
"""

from __future__ import annotations

import ast
import dis
import functools
import inspect
import linecache
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import CodeType, FunctionType, GeneratorType, ModuleType
from typing import Any

from bluesky.utils import Plan

PACKAGES = ("bluesky", "ophyd", "IPython", "instrument", "threading")  # with what is beside them, Python's own


def forgotten_calls(plan: Any) -> list[str]:
    """A line for each call of a plan that will not run.

    Args:
        plan: A plan that has not begun; it is not touched.
    """
    lines: dict[str, None] = {}
    seen: set[CodeType] = set()
    waiting = list(_codes_of(plan))
    while waiting:
        code, names = waiting.pop()
        if code in seen or is_library(code.co_filename):
            continue
        seen.add(code)
        for dotted, line, source in _bare_calls(code):
            if inspect.isgeneratorfunction(_function(dotted, names)):
                file = Path(code.co_filename)
                where = f"{file.name}, line {line}" if file.is_file() else f"line {line}"  # of a cell
                told = f"`{source}` in {code.co_name} ({where}): the plan {dotted} is never run"
                lines[f"{told}; write `yield from {dotted}(...)`"] = None
        called = (_function(dotted, names) for dotted in _names_in(code))
        waiting += [
            found for function in called if function is not None for found in _codes_of(inspect.unwrap(function))
        ]
        waiting += [
            (const, names) for const in code.co_consts if type(const) is CodeType and const.co_name.isidentifier()
        ]
    return list(lines)


def _codes_of(plan: Any) -> Iterator[tuple[CodeType, Mapping[str, Any]]]:
    """The code of a plan, or of a function that makes plans, and of those it was given; with the names it uses."""
    waiting, seen = [plan], set()
    while waiting:
        one = waiting.pop()
        if issubclass(type(one), Plan):
            one = one._iter  # noqa: SLF001  bluesky has no other name for it
        if type(one) is GeneratorType and id(one) not in seen and one.gi_frame is not None:
            seen.add(id(one))
            yield one.gi_code, one.gi_frame.f_globals
            waiting += one.gi_frame.f_locals.values()  # also what a decorator's generator will call
        elif type(one) is FunctionType and inspect.isgeneratorfunction(one):
            yield one.__code__, one.__globals__


def _function(dotted: str, names: Mapping[str, Any]) -> FunctionType | None:
    """The function that a name stands for, of a module too (`plans.scan_it`); None if it is none.

    Types are looked at, not objects: merely asking a catalog that is loaded at first use for its class would load it.
    """
    first, *rest = dotted.split(".")
    found = names.get(first)
    for part in rest:
        found = vars(found).get(part) if type(found) is ModuleType else None
    return found if type(found) is FunctionType else None


def is_library(file: str) -> bool:
    """Is it code that is nobody's own: installed, or ours? A directory of one's own may be called bluesky."""
    path = Path(file)
    # Beside the interpreter are the scripts of what is installed, such as `instrument` and `ipython`.
    installed = [sys.executable, *(getattr(sys.modules.get(name), "__file__", None) for name in PACKAGES)]
    return "site-packages" in path.parts or any(path.is_relative_to(Path(one).parent) for one in installed if one)


@functools.lru_cache(maxsize=512)
def _names_in(code: CodeType) -> tuple[str, ...]:
    """The global names that code uses, dotted with their attributes; `align` of `stage.align` is none of them."""
    found: dict[str, None] = {}
    dotted = ""
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            dotted = instruction.argval
        elif dotted and instruction.opname in ("LOAD_ATTR", "LOAD_METHOD"):
            dotted = f"{dotted}.{instruction.argval}"
        elif instruction.opname != "EXTENDED_ARG":  # which goes before the others where there are many names
            dotted = ""
        if dotted:
            found[dotted] = None
    return tuple(found)


@functools.lru_cache(maxsize=512)
def _bare_calls(code: CodeType) -> tuple[tuple[str, int, str], ...]:
    """Name, line and text of each statement of a function that is a call and nothing else."""
    linecache.checkcache(code.co_filename)
    try:
        tree, compiled = _parsed("".join(linecache.getlines(code.co_filename)))
    except (SyntaxError, ValueError):
        return ()
    if not any(_key(one) == _key(code) and one.co_code == code.co_code for one in compiled):
        return ()  # it was edited since
    local = {*code.co_varnames, *code.co_cellvars, *code.co_freevars}
    return tuple(
        (dotted, node.lineno, ast.unparse(node))
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef) and (function.name, _first_line(function)) == _key(code)
        for node in _within(function)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
        if (dotted := ast.unparse(node.value.func)).partition(".")[0] not in local
    )


@functools.lru_cache(maxsize=8)
def _parsed(source: str) -> tuple[ast.Module, list[CodeType]]:
    """The tree of a file, and the code of all its functions."""
    tree = ast.parse(source)
    return tree, list(_codes_in(compile(tree, "<file>", "exec", dont_inherit=True)))


def _key(code: CodeType) -> tuple[str, int]:
    return code.co_name, code.co_firstlineno


def _first_line(function: ast.FunctionDef) -> int:
    return min([function.lineno, *(decorator.lineno for decorator in function.decorator_list)])


def _codes_in(code: CodeType) -> Iterator[CodeType]:
    """Code, and that of the functions in it."""
    yield code
    for const in code.co_consts:
        if type(const) is CodeType:
            yield from _codes_in(const)


def _within(function: ast.AST) -> Iterator[ast.AST]:
    """What a function is made of, without the functions and classes in it."""
    for node in ast.iter_child_nodes(function):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            yield node
            yield from _within(node)
