"""The IOC's statistics, with true values, as synApps' iocStats serves them (README_devIocStats tells what they mean).

Each record reads when it processes, at the rates that iocStats documents: time 1 s; CPU, memory, file descriptors and
clients 10 s. What cannot change is read once.
"""

from __future__ import annotations

import ctypes as C  # noqa: N812
import datetime
import os
import platform
import resource
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from virtual_beamline.epics import InputDevice, base, record_count

DEVICE = "IOC stats"
_TEXT_SIZE = 39  # of an EPICS string
_NOT_AVAILABLE = "<not available>"


def devices() -> list[InputDevice]:
    """The device support that the records of the statistics need."""
    statistics = _Statistics()
    return [
        InputDevice("ai", DEVICE, statistics.numbers()),
        InputDevice("stringin", DEVICE, statistics.texts()),
    ]


class _Statistics:
    def __init__(self) -> None:
        import psutil

        self._psutil = psutil
        self._process = psutil.Process()
        self._started = time.time()
        self._cpu_before = (time.monotonic(), sum(self._process.cpu_times()[:2]))
        psutil.cpu_percent(None)

    def numbers(self) -> dict[str, Callable[[], float]]:
        psutil = self._psutil
        return {
            "ca_clients": lambda: _ca_statistics()[1],
            "ca_connections": lambda: _ca_statistics()[0],
            "no_of_cpus": lambda: psutil.cpu_count() or 1,
            "fd": self._process.num_fds,
            "max_fd": lambda: resource.getrlimit(resource.RLIMIT_NOFILE)[0],
            "free_fd": lambda: resource.getrlimit(resource.RLIMIT_NOFILE)[0] - self._process.num_fds(),
            "ioc_cpuload": self._ioc_cpu_load,
            "sys_cpuload": lambda: psutil.cpu_percent(None),
            "free_bytes": lambda: psutil.virtual_memory().free,
            "total_bytes": lambda: psutil.virtual_memory().total,
            "allocated_bytes": lambda: self._process.memory_info().rss,
            "records": record_count,
            "suspended_tasks": _suspended_threads,
            "proc_id": os.getpid,
            "parent_id": os.getppid,
        }

    def texts(self) -> dict[str, Callable[[], str]]:
        return {
            "startup_script_1": lambda: _command_line()[:_TEXT_SIZE],
            "startup_script_2": lambda: _command_line()[_TEXT_SIZE:],
            "pwd1": lambda: str(Path.cwd())[:_TEXT_SIZE],
            "pwd2": lambda: str(Path.cwd())[_TEXT_SIZE:],
            "kernel_ver": lambda: f"{platform.system()} {platform.release()}",
            "epics_ver": _epics_version,
            "engineer": lambda: os.environ.get("ENGINEER", _NOT_AVAILABLE),
            "location": lambda: os.environ.get("LOCATION", _NOT_AVAILABLE),
            "hostname": socket.gethostname,
            "up_time": self._up_time,
            "tod": lambda: _time_of_day(time.time()),
            "start_tod": lambda: _time_of_day(self._started),
            "iso8601": lambda: datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
            "timezone": lambda: os.environ.get("TZ") or time.strftime("%Z"),
            "ca_max_array": lambda: os.environ.get("EPICS_CA_MAX_ARRAY_BYTES", _NOT_AVAILABLE),
        }

    def _up_time(self) -> str:
        seconds = int(time.time() - self._started)
        days, seconds = divmod(seconds, 86400)
        clock = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
        return f"{days} day{'s' * (days > 1)}, {clock}" if days else clock

    def _ioc_cpu_load(self) -> float:
        """Per cent of all processors since the last reading."""
        now, used = time.monotonic(), sum(self._process.cpu_times()[:2])
        (before, used_before), self._cpu_before = self._cpu_before, (now, used)
        return 100 * (used - used_before) / max(now - before, 1e-3) / (self._psutil.cpu_count() or 1)


def _command_line() -> str:
    return " ".join(["python", "-m", "virtual_beamline", *sys.argv[1:2]])


def _time_of_day(seconds: float) -> str:
    return time.strftime("%m/%d/%Y %H:%M:%S", time.localtime(seconds))


def _epics_version() -> str:
    return f"EPICS {base.version}"


def _ca_statistics() -> tuple[int, int]:
    """Channels and clients of the CA server."""
    channels, clients = C.c_uint(), C.c_uint()
    base.casStatsFetch(C.byref(channels), C.byref(clients))
    return channels.value, clients.value


def _suspended_threads() -> int:
    """Threads of base that it has suspended, which is what it does with a thread that hit a bug."""
    count = 0

    def look(thread: int) -> None:
        nonlocal count
        count += base.epicsThreadIsSuspended(thread)

    visitor: Any = C.CFUNCTYPE(None, C.c_void_p)(look)
    base.epicsThreadMap(visitor)
    return count
