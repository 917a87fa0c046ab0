"""Plans with a session's own devices filled in, so that `RE(two_pass_scan())` is all to type."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from operator import attrgetter
from types import MappingProxyType
from typing import Any

# Keyword-only arguments of plans, and what a session fills in: a device, or a part of one.
DEVICES: Mapping[str, str] = MappingProxyType({"detector": "noisy", "motor": "m1", "calc": "calcs.calc1"})


def with_devices(plan: Callable[..., Any], devices: Mapping[str, Any]) -> Callable[..., Any]:
    """`plan`, with defaults for those of its keyword-only arguments that name a device of the session.

    Args:
        plan: A plan. It is returned as it is if it takes no such argument.
        devices: The session's devices by name. Arguments whose device is not there stay as they are.
    """
    signature = inspect.signature(plan)
    given = {}
    for name, parameter in signature.parameters.items():
        device, _, part = DEVICES.get(name, "").partition(".")
        if parameter.kind is parameter.KEYWORD_ONLY and device in devices:
            given[name] = attrgetter(part)(devices[device]) if part else devices[device]
    if not given:
        return plan

    @functools.wraps(plan)
    def bound(*args: Any, **options: Any) -> Any:
        return plan(*args, **{**given, **options})

    bound.__signature__ = signature.replace(  # type: ignore[attr-defined]  what inspect looks for
        parameters=[
            parameter.replace(default=given.get(name, parameter.default))
            for name, parameter in signature.parameters.items()
        ]
    )
    return bound
