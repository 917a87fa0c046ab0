"""IOCs and how they are looked for: Channel Access' environment, ports, virtual beamlines, which prefixes answer.

PVs are searched for by UDP datagrams of our own: libca would start a caRepeater, and ophyd's devices connect.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
import socket
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from instrument.doctor.findings import Finding, Patient, count, some

if TYPE_CHECKING:
    from instrument.config import DeviceSpec
    from virtual_beamline.supervisor import RunningBeamline

_SEARCH_TIME = 1.0  # s
_BOOT_TIME = 30.0  # s
_CA_PORT = 5064  # EPICS_CA_SERVER_PORT, Channel Access Reference Manual
_IMAGE_BYTES = 32_000_000  # EPICS_CA_MAX_ARRAY_BYTES that an image of doubles, 2k x 2k, needs
_PV_KEYS = ("read_pv", "write_pv", "setpoint_pv", "readback_pv", "pvname", "pv")
_NUMBERS = ("SERVER_PORT", "REPEATER_PORT", "MAX_ARRAY_BYTES", "CONN_TMO", "MAX_SEARCH_PERIOD", "BEACON_PERIOD")
_OPEN_MOST = 5  # levels of a device's parts that are looked into for its first PV


# --- the environment -------------------------------------------------------------------------------------------------


def environment(patient: Patient) -> Iterator[Finding]:
    """Do the variables of Channel Access make sense, and do they agree with each other?"""
    ca = {name: value for name, value in os.environ.items() if name.startswith("EPICS_CA_")}
    told = False
    for name in _NUMBERS:
        value = ca.get(f"EPICS_CA_{name}")
        if value and not re.fullmatch(r"\d+(\.\d*)?", value.strip()):
            yield Finding(
                "CA", "wrong", f"EPICS_CA_{name}={value!r} is no number", f"unset EPICS_CA_{name}, or mend it"
            )
            told = True
    for text in ca.get("EPICS_CA_ADDR_LIST", "").split():
        if _resolved(text) is None:
            advice = "correct EPICS_CA_ADDR_LIST: names or numbers of hosts, with :port if it is not 5064"
            yield Finding("CA", "wrong", f"EPICS_CA_ADDR_LIST names {text!r}, which is no host", advice)
            told = True
    virtual = _virtual(patient)
    if (
        not virtual
        and _automatic(ca) is False
        and not (ca.get("EPICS_CA_ADDR_LIST") or ca.get("EPICS_CA_NAME_SERVERS"))
    ):
        text = "EPICS_CA_AUTO_ADDR_LIST=NO, and neither EPICS_CA_ADDR_LIST nor EPICS_CA_NAME_SERVERS: no IOC is found"
        yield Finding("CA", "wrong", text, "export EPICS_CA_ADDR_LIST=..., or unset EPICS_CA_AUTO_ADDR_LIST")
        told = True
    size = ca.get("EPICS_CA_MAX_ARRAY_BYTES", "")
    if size.isdigit() and int(size) < _IMAGE_BYTES and not virtual:
        text = f"EPICS_CA_MAX_ARRAY_BYTES={size} is less than an image over Channel Access may need"
        yield Finding("CA", "warning", text, f"export EPICS_CA_MAX_ARRAY_BYTES={_IMAGE_BYTES}, or unset it")
        told = True
    named = os.environ.get("VIRTUAL_BEAMLINE")
    if named:
        beamline = next((one for one in _running() if one.id == named), None)
        variables = {} if beamline is None else beamline.environment.variables
        others = [name for name, value in variables.items() if name in ca and ca[name] != value]
        if others:
            text = f"{some(others)} {'is' if len(others) == 1 else 'are'} not what {named} ($VIRTUAL_BEAMLINE) needs"
            advice = "a session here sets them right; for other clients start a new shell, or unset VIRTUAL_BEAMLINE"
            yield Finding("CA", "warning", text, advice)
            told = True
    elif virtual and ca.get("EPICS_CA_ADDR_LIST"):
        text = f"EPICS_CA_ADDR_LIST={ca['EPICS_CA_ADDR_LIST']}, which a session replaces by its virtual beamline's"
        advice = "for these IOCs: `virtual_beamline: {start: false}` in iconfig.yml"
        yield Finding("CA", "warning", text, advice)
        told = True
    if not told:
        values = [f"{name.removeprefix('EPICS_CA_')}={value}" for name, value in sorted(ca.items())]
        text = f"EPICS_CA_ {' '.join(values)}" if values else "no EPICS_CA_ variable is set"
        where = "the session sets its virtual beamline's" if virtual else _in_words(ca)
        yield Finding("CA", "ok", f"{text}; {where}")


def _in_words(ca: dict[str, str]) -> str:
    listed = ca.get("EPICS_CA_ADDR_LIST", "").split()
    nets = ["the networks of this machine"] if _automatic(ca) else []
    return f"IOCs are looked for at {some([*listed, *nets])}"


def _virtual(patient: Patient) -> bool:
    """Whether a session would start a virtual beamline, or use one that is named."""
    starts = patient.config is None or patient.config.virtual_beamline.start
    return bool(os.environ.get("VIRTUAL_BEAMLINE")) or starts


def _automatic(ca: dict[str, str]) -> bool:
    return ca.get("EPICS_CA_AUTO_ADDR_LIST", "YES").strip().upper() != "NO"


def _resolved(text: str, default_port: int = _CA_PORT) -> tuple[str, int] | None:
    host, _, port = text.partition(":")
    if port and not (port.isdigit() and int(port) < 65536):
        return None
    try:
        return socket.gethostbyname(host), int(port or default_port)
    except OSError:
        return None


def addresses(ca: dict[str, str]) -> list[tuple[str, int]]:
    """Where libca would send its searches to, of the variables `EPICS_CA_*`."""
    text = ca.get("EPICS_CA_SERVER_PORT", "")
    port = int(text) if text.isdigit() else _CA_PORT
    listed = [_resolved(one, port) for one in ca.get("EPICS_CA_ADDR_LIST", "").split()]
    found = [one for one in listed if one is not None]
    if _automatic(ca):
        import psutil

        broadcast = [one.broadcast for nets in psutil.net_if_addrs().values() for one in nets if one.broadcast]
        hosts = [host for host in broadcast if re.fullmatch(r"[\d.]+", host)]
        found += [(host, port) for host in dict.fromkeys([*hosts, "127.0.0.1"])]
    return found


# --- IOCs ------------------------------------------------------------------------------------------------------------


def iocs(patient: Patient) -> Iterator[Finding]:
    """Which virtual beamlines run, and which prefixes of devices answer?"""
    try:
        from virtual_beamline.client import search
    except ImportError as error:
        yield Finding("IOCs", "wrong", f"{error.name} can't be imported", "install what is missing, see packages")
        return
    beamlines = _running()
    named = os.environ.get("VIRTUAL_BEAMLINE")
    beamline = next((one for one in beamlines if one.id == named), None)
    if named and beamline is None:
        advice = 'unset VIRTUAL_BEAMLINE, or start one: eval "$(virtual-beamline start)"'
        yield Finding("IOCs", "wrong", f"$VIRTUAL_BEAMLINE names {named}, which is not running", advice)
    yield from _answering(beamlines, beamline)
    config = patient.config
    if config is None:
        return
    enabled = [spec for spec in config.devices if spec.enabled]
    if not named and config.virtual_beamline.start:
        yield from _to_be_started(patient, enabled)
        return
    variables = dict(os.environ) if beamline is None else {**os.environ, **beamline.environment.variables}
    ca = {name: value for name, value in variables.items() if name.startswith("EPICS_CA_")}
    pvs = {spec.name or spec.cls: first_pvs(spec) for spec in enabled}
    asked = {pv for some_pvs in pvs.values() for pv in some_pvs}
    found = search(asked, addresses(ca), _SEARCH_TIME) if asked else {}
    yield from _by_prefix(pvs, found, by_name_server=bool(ca.get("EPICS_CA_NAME_SERVERS")))


def _running() -> list[RunningBeamline]:
    from virtual_beamline import supervisor

    try:
        return supervisor.running()
    except OSError:
        return []


def _answering(beamlines: list[RunningBeamline], meant: RunningBeamline | None) -> Iterator[Finding]:
    """One line for the beamline that $VIRTUAL_BEAMLINE names, one for all others that answer, one for each other."""
    well = []
    for beamline in beamlines:
        silent = _silent(beamline)
        text = f"virtual beamline {beamline.id}"
        if silent:
            advice = f"virtual-beamline stop {beamline.id}; in its session: start_beamline(); log: {beamline.log_file}"
            status = "wrong" if beamline is meant else "warning"
            yield Finding("IOCs", status, f"{text}: {some(silent)} does not answer", advice)
        elif beamline is meant:
            iocs = ", ".join(f"{ioc.prefix} (pid {ioc.pid})" for ioc in beamline.iocs)
            yield Finding("IOCs", "ok", f"{text} ($VIRTUAL_BEAMLINE) answers: {iocs}")
        else:
            well.append(beamline.id)
    if well:
        text = f"{count(len(well), 'virtual beamline')} of other sessions or shells of yours: {some(well)}"
        yield Finding("IOCs", "ok", text)


def _silent(beamline: RunningBeamline) -> list[str]:
    """The prefixes of its IOCs that do not answer; those that have just been started are given time."""
    from virtual_beamline.client import PvNotAnsweringError, read_text
    from virtual_beamline.names import ID_RECORD

    silent = []
    for ioc in beamline.iocs:
        try:
            answers = read_text(f"{ioc.prefix}{ID_RECORD}", ioc.address, 0.5) == beamline.id
        except PvNotAnsweringError:
            answers = False
        if not answers and time.time() - ioc.started > _BOOT_TIME:
            silent.append(ioc.prefix)
    return silent


def _to_be_started(patient: Patient, enabled: list[DeviceSpec]) -> Iterator[Finding]:
    """A session starts its own beamline: nothing answers yet, and nothing else will be looked for."""
    assert patient.config is not None
    wanted = patient.config.virtual_beamline
    served = tuple(filter(None, (wanted.prefix, wanted.area_detector)))
    yield Finding("IOCs", "ok", f"a session here starts {' and '.join(served)} itself (virtual_beamline: start: true)")
    strangers = [spec.name for spec in enabled if (pvs := first_pvs(spec)) and not any(map(_begins(served), pvs))]
    if strangers:
        text = f"{some(strangers)}: not of the virtual beamline, which is all that a session here looks at"
        yield Finding("IOCs", "warning", text, "on a real beamline: `virtual_beamline: {start: false}` in iconfig.yml")


def _begins(prefixes: tuple[str, ...]) -> Any:
    return lambda pv: pv.startswith(prefixes)


def _by_prefix(pvs: dict[str, list[str]], found: dict[str, str], *, by_name_server: bool) -> Iterator[Finding]:
    groups: dict[str, list[str]] = {}
    for name, candidates in pvs.items():
        if candidates:
            groups.setdefault(_ioc_of(candidates[0]), []).append(name)
    for prefix, names in groups.items():
        servers = {found[pv] for name in names for pv in pvs[name] if pv in found}
        silent = [name for name in names if not any(pv in found for pv in pvs[name])]
        where = f" at {some(sorted(servers))}" if servers else ""
        text = f"{prefix} {len(names) - len(silent)} of {count(len(names), 'device')} answer{where}"
        if not silent:
            yield Finding("IOCs", "ok", text)
            continue
        dead = [f"{name} ({pvs[name][0]})" for name in silent]
        status = "warning" if servers or by_name_server else "wrong"
        advice = (
            f"{'look at the devices and records' if servers else 'start the IOC, or see CA'}: silent is {some(dead)}"
        )
        if by_name_server:
            advice += "; EPICS_CA_NAME_SERVERS were not asked"
        yield Finding("IOCs", status, text, advice)


def _ioc_of(pv: str) -> str:
    """What names of one IOC begin with, by the usual way to name them."""
    beginning, colon, _ = pv.partition(":")
    return f"{beginning}{colon}"


# --- the first PV of a device ----------------------------------------------------------------------------------------


def first_pvs(spec: DeviceSpec) -> list[str]:
    """PVs of which one answers where the device is there; empty if that can't be told without making the device."""
    for key in _PV_KEYS:
        if isinstance(value := spec.kwargs.get(key), str):
            return [value]
    prefix = spec.kwargs.get("prefix")
    if not isinstance(prefix, str) or not prefix:
        return []
    module, _, attribute = spec.cls.rpartition(".")
    try:
        cls = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError):
        return []
    if inspect.isclass(cls):
        suffix = _first_suffix(cls)
        return [] if suffix is None else [f"{prefix}{suffix}"]
    if "cam" in inspect.signature(cls).parameters or "cam" in spec.kwargs or "plugins" in spec.kwargs:
        return [f"{prefix}cam1:Acquire"]  # our factory of area detectors, or apstools'
    return [prefix] if not prefix.endswith(":") else []


def _first_suffix(cls: type, level: int = 0) -> str | None:
    from ophyd import Component, Device, DynamicDeviceComponent, FormattedComponent
    from ophyd.signal import EpicsSignalBase

    if not issubclass(cls, Device) or level > _OPEN_MOST:
        return None
    for name in cls.component_names:
        part = inspect.getattr_static(cls, name)
        if isinstance(part, DynamicDeviceComponent):
            suffixes = [(kind, suffix) for kind, suffix, *_ in part.defn.values()]
        elif isinstance(part, Component) and not isinstance(part, FormattedComponent):
            suffixes = [(part.cls, part.suffix)]
        else:
            continue
        for kind, suffix in suffixes:
            if not inspect.isclass(kind) or (suffix and "{" in suffix):
                continue
            if issubclass(kind, EpicsSignalBase) and suffix:
                return suffix
            if issubclass(kind, Device) and (inner := _first_suffix(kind, level + 1)) is not None:
                return f"{suffix or ''}{inner}"
    return None


# --- ports -----------------------------------------------------------------------------------------------------------


def ports(patient: Patient) -> Iterator[Finding]:
    """Are there ports for what a session or a command here would serve?"""
    from virtual_beamline import supervisor

    if (patient.config is None or patient.config.virtual_beamline.start) and not os.environ.get("VIRTUAL_BEAMLINE"):
        free = supervisor.free_ports()
        if free is None:
            advice = "virtual-beamline status shows those of yours; virtual-beamline stop ID"
            yield Finding("ports", "wrong", "none left for a virtual beamline", advice)
        else:
            yield Finding("ports", "ok", f"{free[0]} to {free[-1]} free for a virtual beamline")
    if patient.config is not None:
        yield from _tiled(patient)
        yield from _queue(patient)


def _tiled(patient: Patient) -> Iterator[Finding]:
    """The port of `instrument tiled serve`: ours, free, or a stranger's."""
    assert patient.config is not None
    tiled = patient.config.tiled
    if tiled.url is not None or tiled.port == 0:
        return
    reason = _refused(tiled.host, tiled.port)
    if reason is None:
        yield Finding("ports", "ok", f"{tiled.port} free for `instrument tiled serve`")
        return
    from instrument.framework.runfiles import DataDirectory
    from instrument.tiled.places import TiledDirectory, read_address

    address = read_address(TiledDirectory(DataDirectory(patient.data).tiled))
    if address and address.rstrip("/").endswith(f":{tiled.port}"):
        yield Finding("ports", "ok", f"{tiled.port}: the Tiled server of {patient.data}, {address}")
        return
    advice = "another port in iconfig.yml, `tiled: {port: 8001}`; 0 is any free one"
    text = f"{tiled.host}:{tiled.port} can't be used by `instrument tiled serve` ({reason})"
    yield Finding("ports", "warning", text, advice)


def _queue(patient: Patient) -> Iterator[Finding]:
    """The ports of `instrument qserver`, and its Redis; nothing where the queue server is not installed."""
    from instrument.config import UserError, extras
    from instrument.framework.runfiles import DataDirectory
    from instrument.queueserver import redis
    from instrument.queueserver.places import QueueDirectory

    assert patient.config is not None
    try:
        extras.need("queue")
    except UserError:
        return
    queue = patient.config.queue
    address = QueueDirectory(DataDirectory(patient.data).queue).read_address()
    ours = (address.control, address.info) if address else ()
    free = []
    for port, key in ((queue.port, "port"), (queue.info_port, "info_port")):
        reason = _refused(queue.host, port) if port else None
        if port and reason is None:
            free.append(str(port))
        elif port and f"tcp://{queue.host}:{port}" in ours:
            yield Finding("ports", "ok", f"{port}: the queue server of {patient.data}")
        elif port:
            advice = f"another port in iconfig.yml, `queue: {{{key}: {port + 1}}}`; 0 is any free one"
            text = f"{queue.host}:{port} can't be used by `instrument qserver` ({reason})"
            yield Finding("ports", "warning", text, advice)
    if free:
        yield Finding("ports", "ok", f"{', '.join(free)} free for `instrument qserver`")
    try:
        redis.executable() if queue.redis is None else redis.check(queue.redis)
    except redis.RedisError as error:
        advice = "`instrument qserver` needs it; all else does without"
        yield Finding("ports", "warning", str(error), advice)


def _refused(host: str, port: int) -> str | None:
    """Why a TCP port can't be listened on; None: it can."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error.strerror or str(error)
    return None
