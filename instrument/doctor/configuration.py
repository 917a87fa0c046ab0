"""The two YAML files, and the time-outs in force."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from instrument.doctor.findings import Finding, Patient

if TYPE_CHECKING:
    from instrument.config import Config

_MOST = 4  # mistakes shown


def checked(path: Path | str | None) -> Config:
    """The configuration, checked as far as is possible without connecting to anything.

    Raises:
        ConfigError: It has mistakes; all of them are told.
        UserError: A consumer that it names can't be made.
    """
    from instrument import commands, session
    from instrument.callbacks.shipped import consumers_of
    from instrument.config import load
    from instrument.devices import registry

    reserved = {*session.NAMES, *commands.NAMES}
    config = load(path, check_devices=registry.check, exported_names=reserved)
    consumers_of(config)
    return config


def examine(path: Path | str | None) -> tuple[Config | None, list[Finding]]:
    """The configuration, None if it can't be used, and what is to be said of it."""
    try:
        from instrument.config import UserError, find, load
    except ImportError as error:
        text = f"not looked at, since {error.name or error} can't be imported"
        return None, [Finding("config", "wrong", text, "install what is missing, see packages")]
    file = find(path)
    here = "this directory's" if file.parent == Path.cwd() else "our own"
    chosen = "--config" if path else "$INSTRUMENT_CONFIG" if os.environ.get("INSTRUMENT_CONFIG") else here
    try:
        config = checked(path)
    except UserError as error:
        lines = str(error).splitlines()
        more = [f"... and {len(lines) - _MOST} more: `instrument check`"] if len(lines) > _MOST else []
        findings = [Finding("config", "wrong", line) for line in [*lines[:_MOST], *more]]
        last = findings[-1]
        advice = f"correct the lines named ({chosen}); `instrument check` looks again"
        findings[-1] = Finding(last.topic, last.status, last.text, advice)
        try:
            return load(path), findings  # only a device is wrong: the rest can be looked at as it is configured
        except UserError:
            return None, findings
    except ImportError as error:
        text = f"{file} can't be checked, since {error.name or error} can't be imported"
        return None, [Finding("config", "wrong", text, "install what is missing, see packages")]
    enabled = sum(spec.enabled for spec in config.devices)
    text = f"{file} ({chosen}): {enabled} devices, no mistakes"
    return config, [Finding("config", "ok", text)]


def timeouts(patient: Patient) -> Iterator[Finding]:
    """How long does a session wait for devices, and how soon does Channel Access notice that an IOC is gone?"""
    if patient.config is None:
        return
    wait = patient.config.connection_timeout
    text = f"devices have {wait:g} s to connect"
    if wait < 0.5:
        advice = "`connection_timeout: 3.0` in iconfig.yml: devices would begin as offline that are not"
        yield Finding("time-outs", "warning", text, advice)
    elif wait > 30:
        advice = (
            "`connection_timeout: 3.0` in iconfig.yml: one dead IOC delays each start; late devices come by themselves"
        )
        yield Finding("time-outs", "warning", text, advice)
    else:
        yield Finding(
            "time-outs", "ok", f"{text}; a silent IOC counts as gone after {_number('EPICS_CA_CONN_TMO', 30):g} s"
        )


def _number(name: str, default: float) -> float:
    try:
        return float(os.environ.get(name) or default)
    except ValueError:
        return default
