"""What an IOC tells about itself (the iocStats module), by the attribute names of `apstools.synApps`."""

from __future__ import annotations

from typing import Any

from ophyd import Component, Device, EpicsSignalRO, Signal


class IocStats(Device):
    """Statistics of an IOC."""

    _app_dir1 = Component(EpicsSignalRO, "APP_DIR1", kind="omitted")
    _app_dir2 = Component(EpicsSignalRO, "APP_DIR2", kind="omitted")
    _startup_script1 = Component(EpicsSignalRO, "ST_SCRIPT1", kind="omitted")
    _startup_script2 = Component(EpicsSignalRO, "ST_SCRIPT2", kind="omitted")
    access = Component(EpicsSignalRO, "ACCESS", string=True, kind="config")
    ca_client_count = Component(EpicsSignalRO, "CA_CLNT_CNT")
    ca_connection_count = Component(EpicsSignalRO, "CA_CONN_CNT")
    cpu_count = Component(EpicsSignalRO, "CPU_CNT", kind="config")
    engineer = Component(EpicsSignalRO, "ENGINEER", kind="config")
    epics_version = Component(EpicsSignalRO, "EPICS_VERS", kind="config")
    file_descriptors_free = Component(EpicsSignalRO, "FD_FREE")
    file_descriptors_max_ = Component(EpicsSignalRO, "FD_MAX")
    heartbeat = Component(EpicsSignalRO, "HEARTBEAT", kind="omitted")
    host_name = Component(EpicsSignalRO, "HOSTNAME")
    ioc_cpu_load = Component(EpicsSignalRO, "IOC_CPU_LOAD")
    iso8601 = Component(EpicsSignalRO, "iso8601")
    kernel_version = Component(EpicsSignalRO, "KERNEL_VERS", kind="config")
    location = Component(EpicsSignalRO, "LOCATION")
    max_array_bytes = Component(EpicsSignalRO, "CA_MAX_ARRAY")
    memory_free = Component(EpicsSignalRO, "MEM_FREE")
    memory_max = Component(EpicsSignalRO, "MEM_MAX")
    memory_used = Component(EpicsSignalRO, "MEM_USED")
    records_count = Component(EpicsSignalRO, "RECORD_CNT")
    startup_time = Component(EpicsSignalRO, "STARTTOD", kind="config")
    suspended_task_count = Component(EpicsSignalRO, "SUSP_TASK_CNT")
    system_cpu_load = Component(EpicsSignalRO, "SYS_CPU_LOAD")
    time_of_day = Component(EpicsSignalRO, "TOD")
    timezone = Component(EpicsSignalRO, "TIMEZONE", kind="config")
    uptime = Component(EpicsSignalRO, "UPTIME")

    application_directory = Component(Signal, value="", kind="config")
    memory_used_percentage = Component(Signal, value=0.0)
    startup_script = Component(Signal, value="")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._parts: dict[str, Any] = {}
        super().__init__(*args, **kwargs)
        for signal in (
            self._app_dir1,
            self._app_dir2,
            self._startup_script1,
            self._startup_script2,
            self.memory_used,
            self.memory_max,
        ):
            signal.subscribe(self._part_changed, run=False)

    def _part_changed(self, value: Any = None, obj: Any = None, **_: Any) -> None:
        """Put together what the IOC splits: long texts, and memory used of what there is."""
        parts = self._parts
        parts[obj.attr_name] = value
        self.application_directory.put(parts.get("_app_dir1", "") + parts.get("_app_dir2", ""))
        self.startup_script.put(parts.get("_startup_script1", "") + parts.get("_startup_script2", ""))
        if parts.get("memory_max"):
            self.memory_used_percentage.put(100.0 * parts.get("memory_used", 0) / parts["memory_max"])
