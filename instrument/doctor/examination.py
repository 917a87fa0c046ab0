"""The whole examination, and how it is printed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from instrument.doctor import catalog, configuration, epics, machine
from instrument.doctor.findings import Finding, Patient, count

Check = Callable[[Patient], Iterable[Finding]]

CHECKS: tuple[Check, ...] = (
    epics.environment,
    epics.iocs,
    epics.ports,
    configuration.timeouts,
    catalog.catalog,
    machine.disk,
    machine.display,
)
"""What is looked at after Python, packages and the configuration, in this order."""


def examine(config: Path | str | None = None) -> Iterator[Finding]:
    """Look at everything; what a check could not do is a finding, too.

    Args:
        config: Path of an iconfig.yml; default: as for a session.
    """
    nobody = Patient.of(None)
    yield from _done(machine.python, nobody)
    yield from _done(machine.packages, nobody)
    try:
        loaded, findings = configuration.examine(config)
    except Exception as error:
        loaded, findings = None, [_failed("config", error)]
    yield from findings
    patient = Patient.of(loaded)
    for check in CHECKS:
        yield from _done(check, patient)


def _done(check: Check, patient: Patient) -> Iterator[Finding]:
    try:
        yield from check(patient)
    except Exception as error:  # one that fails hides none of the others
        yield _failed(check.__name__, error)


def _failed(topic: str, error: Exception) -> Finding:
    text = f"could not be looked at: {type(error).__name__}: {' '.join(str(error).split())}"
    advice = "if packages are missing, install them; else this is a fault of ours: `instrument report-bug`"
    return Finding(topic, "wrong", text, advice)


def summary(findings: list[Finding]) -> str:
    """The last line."""
    wrong = sum(finding.status == "wrong" for finding in findings)
    warnings = sum(finding.status == "warning" for finding in findings)
    if not wrong and not warnings:
        return "all is well"
    return ", ".join(filter(None, [f"{wrong} wrong" if wrong else "", count(warnings, "warning") if warnings else ""]))


def report(config: Path | str | None = None) -> tuple[str, int]:
    """All lines, and the exit code: 1 if something is wrong."""
    findings = list(examine(config))
    head = f"instrument doctor, {time.strftime('%Y-%m-%d %H:%M:%S')}, in {Path.cwd()}"
    text = "\n".join([head, *map(str, findings), summary(findings)])
    return text, int(any(finding.status == "wrong" for finding in findings))
