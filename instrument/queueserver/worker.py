"""What the session looks like in the queue server's worker.

The queue server lists plans with their signatures, and checks what is submitted against them. It reads annotations that
are types and defaults that are plain values; ours are written as text (`from __future__ import annotations`), and some
defaults are what the session has filled in.
"""

from __future__ import annotations

import ast
import functools
import inspect
import itertools
import os
import re
from collections.abc import Callable, Mapping
from typing import Any

ACTIVE = "_QSERVER_RE_WORKER_ACTIVE"  # bluesky-queueserver's: set in its worker


def in_worker() -> bool:
    """Is this process the worker of a queue server?"""
    return os.environ.get(ACTIVE, "").lower() not in {"", "n", "no", "f", "false", "off", "0"}


def plans_for_queue(names: Mapping[str, Any]) -> dict[str, Callable[..., Any]]:
    """The plans among the names of a session, and bluesky's own, as a queue server can list and check them.

    Args:
        names: What a session gives to its user.
    """
    from bluesky import plans
    from bluesky.utils import is_plan

    stock = {name: plan for name, plan in vars(plans).items() if getattr(plan, "__module__", "") == plans.__name__}
    return {
        name: with_plain_signature(thing)
        for name, thing in {**stock, **names}.items()
        if is_plan(thing) and not name.startswith("_")
    }


def with_plain_signature(plan: Callable[..., Any]) -> Callable[..., Any]:
    """The same plan, with a signature of types and plain values; what has other defaults is not in it."""
    signature = inspect.signature(plan)
    names = getattr(inspect.unwrap(plan), "__globals__", {})

    @functools.wraps(plan)
    def plain(*args: Any, **options: Any) -> Any:
        return plan(*args, **options)

    plain.__signature__ = signature.replace(  # type: ignore[attr-defined]  what inspect looks for
        parameters=[
            parameter.replace(annotation=_type(parameter.annotation, names))
            for parameter in signature.parameters.values()
            if _is_plain(parameter.default)
        ],
        return_annotation=signature.empty,
    )
    plain._is_plan_ = True  # type: ignore[attr-defined]  bluesky's mark of what makes a plan
    texts = {name: text for name, text in _texts(plan).items() if name in inspect.signature(plain).parameters}
    if texts:  # where the queue server looks for them; the docstrings that it reads itself are numpy's
        described = {"parameters": {name: {"description": text} for name, text in texts.items()}}
        plain._custom_parameter_annotation_ = described  # type: ignore[attr-defined]
    return plain


def _texts(plan: Callable[..., Any]) -> dict[str, str]:
    """What a docstring of Google's style says of each parameter."""
    _, _, section = inspect.cleandoc(plan.__doc__ or "").partition("\nArgs:\n")
    lines = itertools.takewhile(lambda line: not line or line.startswith("    "), section.splitlines())
    found = re.findall(r"^    \*{0,2}(\w+): (.*(?:\n {8}.*)*)", "\n".join(lines), flags=re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found}


def _type(annotation: Any, names: Mapping[str, Any]) -> Any:
    """What an annotation stands for; anything, where that was imported for type checkers only."""
    if annotation is inspect.Parameter.empty:
        return annotation
    try:
        found = eval(annotation, dict(names)) if isinstance(annotation, str) else annotation
    except Exception:
        return Any
    return found


def _is_plain(default: Any) -> bool:
    if default is inspect.Parameter.empty:
        return True
    try:
        return ast.literal_eval(repr(default)) == default
    except (ValueError, SyntaxError, TypeError):
        return False
