"""What the virtual beamline contains. Reads like a bill of materials: :func:`contents` is the whole list."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping

from virtual_beamline.epics import RecordSpec
from virtual_beamline.names import DEFAULT_PREFIX, ID_RECORD, LOOPBACK
from virtual_beamline.physics import (
    CHANNEL_RATES,
    CLOCK_FREQUENCY,
    World,
    beam_fields,
    dither_fields,
    temperature_fields,
)

logger = logging.getLogger("virtual_beamline")

MOTORS = 16
SCALER_CHANNELS = 16
CALCS = 20
SCRATCH = 20
BUSYS = 5
LONG_TEXT = 1024
ARRAY = 1024


def contents(
    prefix: str = DEFAULT_PREFIX, world: World | None = None, area_detector: str | None = None
) -> list[RecordSpec]:
    """Every record of the IOC `gp:`.

    Args:
        prefix: begins all their names.
        world: where what is random in it (the simulated peak) comes from.
        area_detector: prefix of the area detector's IOC, whose image two records dither; None: they do not.
    """
    world = world or World()
    return [
        RecordSpec(f"{prefix}{ID_RECORD}", "stringin", "Which beamline this is"),
        RecordSpec(
            f"{prefix}SEED", "stringin", "--seed that makes this world again", {"VAL": world.seed, "PINI": "YES"}
        ),
        *_motors(prefix),
        *_scaler(f"{prefix}scaler1"),
        *_user_calcs(prefix, _simulation(prefix, world, area_detector)),
        *_user_calc_outs(prefix),
        *_scratch(f"{prefix}gp:"),
        *_busys(prefix),
        *_ring(f"{prefix}ring:"),
        *_statistics(prefix),
    ]


def _motors(prefix: str) -> Iterator[RecordSpec]:
    """Rotary stages in degrees, 0.01 a step; the first one, which the peak depends on, ten times finer."""
    for number in range(1, MOTORS + 1):
        name = f"{prefix}m{number}"
        yield RecordSpec(
            name,
            "motor",
            f"motor {number}",
            {
                "DTYP": "asynMotor",
                "EGU": "degrees",
                "PREC": 5,
                "SREV": 2000 if number == 1 else 200,
                "UREV": 2,
                "VELO": 1,
                "VBAS": 0.1,
                "ACCL": 0.2,
                "BVEL": 1,
                "BACC": 0.2,
                "DHLM": 32000,
                "DLLM": -32000,
                "TWV": 1,
            },
        )
        yield RecordSpec(
            f"{name}_able",
            "bo",
            f"Enable motor {number}",
            {"PINI": "YES", "OUT": f"{name}.DISP", "ZNAM": "Enable", "ONAM": "Disable"},
        )


def _scaler(name: str) -> Iterator[RecordSpec]:
    """The scaler and the mean rates of what it counts, which may be written."""
    names = {f"NM{number}": channel for number, channel in enumerate(CHANNEL_RATES, start=1)}
    clock = {"FREQ": CLOCK_FREQUENCY, "TP": 1, "TP1": 1, "RATE": 10}
    yield RecordSpec(
        name, "scaler", "16 channels of counts", {"DTYP": "Asyn Scaler", "NCH": SCALER_CHANNELS, **clock, **names}
    )
    channels = list(CHANNEL_RATES.items())
    for number in range(2, SCALER_CHANNELS + 1):
        channel, rate = channels[number - 1] if number <= len(channels) else (f"channel {number}", 0.0)
        yield RecordSpec(
            f"{name}:rate{number}",
            "ao",
            f"Mean rate of {channel}",
            {"VAL": rate, "PINI": "YES", "EGU": "counts/s", "PREC": 1, "DRVL": 0, "DRVH": 1e9},
        )


def _simulation(prefix: str, world: World, area_detector: str | None) -> dict[int, dict[str, object]]:
    """What the simulated world does with user calcs."""
    found = {1: world.peak.fields(f"{prefix}m1.RBV"), 8: temperature_fields(f"{prefix}userCalc8")}
    if area_detector is not None:
        for number, axis, center in zip((9, 10), "XY", world.spot.center, strict=True):
            found[number] = dither_fields(center, f"{area_detector}cam1:PeakStart{axis}")
    return found


def _user_calcs(prefix: str, simulation: Mapping[int, Mapping[str, object]]) -> Iterator[RecordSpec]:
    yield from _enables(prefix, "userCalc")
    for number in range(1, CALCS + 1):
        name = f"{prefix}userCalc{number}"
        yield RecordSpec(
            name,
            "swait",
            name,
            {"PREC": 5, "SDIS": f"{name}EnableCalc.VAL NPP NMS", "DISV": 0, **simulation.get(number, {})},
        )


def _user_calc_outs(prefix: str) -> Iterator[RecordSpec]:
    yield from _enables(prefix, "userCalcOut")
    for number in range(1, CALCS + 1):
        name = f"{prefix}userCalcOut{number}"
        yield RecordSpec(
            name, "calcout", name, {"PREC": 5, "CALC": "0", "SDIS": f"{name}EnableCalc.VAL NPP NMS", "DISV": 0}
        )


def _enables(prefix: str, kind: str) -> Iterator[RecordSpec]:
    """The switch for all, one for each, and their conjunction, which disables the record through SDIS."""
    switch = {"ZNAM": "Disable", "ONAM": "Enable", "VAL": 1, "PINI": "YES"}
    fan_outs = [f"{prefix}{kind}EnableFan{half}" for half in (1, 2)]
    yield RecordSpec(f"{prefix}{kind}Enable", "bo", f"Enable all {kind}", {**switch, "FLNK": fan_outs[0]})
    numbers = range(1, CALCS + 1)
    for half, name in enumerate(fan_outs):
        group = numbers[half * CALCS // 2 : (half + 1) * CALCS // 2]
        links: dict[str, object] = {
            f"LNK{slot:X}": f"{prefix}{kind}{number}EnableCalc" for slot, number in enumerate(group, start=1)
        }
        if half == 0:
            links["FLNK"] = fan_outs[1]
        yield RecordSpec(name, "fanout", f"Tells {kind} of its switch", links)
    for number in numbers:
        name = f"{prefix}{kind}{number}"
        yield RecordSpec(f"{name}Enable", "bo", f"Enable {kind}{number}", {**switch, "FLNK": f"{name}EnableCalc"})
        yield RecordSpec(
            f"{name}EnableCalc",
            "calc",
            f"Is {kind}{number} enabled",
            {
                "INPA": f"{prefix}{kind}Enable.VAL NPP NMS",
                "INPB": f"{name}Enable.VAL NPP NMS",
                "CALC": "A&&B",
                "PINI": "YES",
            },
        )


def _scratch(prefix: str) -> Iterator[RecordSpec]:
    """Records that belong to whoever wants to keep a value in one."""
    kinds: list[tuple[str, str, str, dict[str, object]]] = [
        ("bit", "bo", "a bit", {"ZNAM": "off", "ONAM": "on"}),
        ("float", "ao", "a number", {"PREC": 5}),
        ("int", "longout", "an integer", {}),
        ("text", "stringout", "39 characters", {}),
        ("longtext", "waveform", f"{LONG_TEXT} characters", {"FTVL": "CHAR", "NELM": LONG_TEXT}),
        ("array", "waveform", f"{ARRAY} numbers", {"FTVL": "DOUBLE", "NELM": ARRAY}),
    ]
    for kind, record_type, what, fields in kinds:
        for number in range(1, SCRATCH + 1):
            yield RecordSpec(
                f"{prefix}{kind}{number}",
                record_type,
                f"Scratch {kind} {number}: {what}",
                {**fields, "UDFS": "NO_ALARM"},
            )


def _busys(prefix: str) -> Iterator[RecordSpec]:
    for number in range(1, BUSYS + 1):
        yield RecordSpec(f"{prefix}mybusy{number}", "busy", f"Busy until somebody says done, {number}")


def _ring(prefix: str) -> Iterator[RecordSpec]:
    """A storage ring: its current, and a switch that takes the beam away."""
    switch, current = f"{prefix}beam", f"{prefix}current"
    states = {"ZNAM": "lost", "ONAM": "stored", "VAL": 1, "PINI": "YES"}
    yield RecordSpec(switch, "bo", "Is there beam in the ring", states)
    yield RecordSpec(current, "calc", "Stored current", {**beam_fields(switch), "INPA": f"{current}.VAL"})


def _statistics(prefix: str) -> Iterator[RecordSpec]:
    device = {"DTYP": "IOC stats", "PINI": "YES"}
    numbers = [
        ("CA_CLNT_CNT", "ca_clients", "CA clients", 10, {}),
        ("CA_CONN_CNT", "ca_connections", "CA connections", 10, {}),
        ("CPU_CNT", "no_of_cpus", "Processors", 0, {}),
        ("FD_CNT", "fd", "File descriptors in use", 10, {}),
        ("FD_FREE", "free_fd", "File descriptors free", 10, {}),
        ("FD_MAX", "max_fd", "File descriptors allowed", 0, {}),
        ("IOC_CPU_LOAD", "ioc_cpuload", "Processor load of this IOC", 10, {"EGU": "%", "PREC": 3}),
        ("SYS_CPU_LOAD", "sys_cpuload", "Processor load of the host", 10, {"EGU": "%", "PREC": 3}),
        ("MEM_FREE", "free_bytes", "Memory of the host not in use", 10, {"EGU": "byte"}),
        ("MEM_MAX", "total_bytes", "Memory of the host", 0, {"EGU": "byte"}),
        ("MEM_USED", "allocated_bytes", "Memory that this IOC uses", 10, {"EGU": "byte"}),
        ("RECORD_CNT", "records", "Records", 0, {}),
        ("SUSP_TASK_CNT", "suspended_tasks", "Threads suspended after a fault", 10, {}),
        ("PROCESS_ID", "proc_id", "Process of this IOC", 0, {}),
        ("PARENT_ID", "parent_id", "Parent of that process", 0, {}),
    ]
    texts = [
        ("APP_DIR1", "pwd1", "Working directory", 0),
        ("APP_DIR2", "pwd2", "Working directory, continued", 0),
        ("ST_SCRIPT1", "startup_script_1", "What started this IOC", 0),
        ("ST_SCRIPT2", "startup_script_2", "What started this IOC, continued", 0),
        ("CA_MAX_ARRAY", "ca_max_array", "Largest array over CA, in bytes", 0),
        ("ENGINEER", "engineer", "Engineer ($ENGINEER)", 0),
        ("LOCATION", "location", "Location ($LOCATION)", 0),
        ("EPICS_VERS", "epics_ver", "Release of EPICS base", 0),
        ("HOSTNAME", "hostname", "Name of the host", 0),
        ("KERNEL_VERS", "kernel_ver", "Operating system", 0),
        ("TIMEZONE", "timezone", "Time zone", 0),
        ("STARTTOD", "start_tod", "When this IOC started", 0),
        ("TOD", "tod", "Time of day", 1),
        ("iso8601", "iso8601", "Time of day, ISO 8601", 1),
        ("UPTIME", "up_time", "How long this IOC has been up", 1),
    ]
    for name, source, description, period, extra in numbers:
        fields = {**device, "INP": f"@{source}", **_scan(period), **extra}
        yield RecordSpec(f"{prefix}{name}", "ai", description, fields)
    for name, source, description, period in texts:
        # apstools' IocStatsDevice looks for the up time under <prefix>:UPTIME
        aliases = (f"{prefix}:UPTIME",) if name == "UPTIME" else ()
        yield RecordSpec(
            f"{prefix}{name}", "stringin", description, {**device, "INP": f"@{source}", **_scan(period)}, aliases
        )
    yield RecordSpec(
        f"{prefix}HEARTBEAT", "calc", "Seconds that this IOC has run", {"CALC": "VAL+1", **_scan(1), "PINI": "YES"}
    )
    access = {"ZRST": "Running", "ONST": "Maintenance", "TWST": "Test", "THST": "OOS", "VAL": 0, "PINI": "YES"}
    yield RecordSpec(f"{prefix}ACCESS", "mbbo", "What this IOC is used for", access)


def _scan(period: int) -> dict[str, object]:
    return {"SCAN": f"{period} second"} if period else {}


def boot_beamline(
    prefix: str,
    seed: int | None,
    listen: str = LOOPBACK,
    repeater_port: int | None = None,
    area_detector: str | None = None,
) -> None:
    """Serve the beamline from this process; returns when it does.

    Raises:
        EpicsBaseError: EPICS base is unsuitable or refuses the database.
    """
    from virtual_beamline import epics, ioc_stats
    from virtual_beamline.records.busy import Busy
    from virtual_beamline.records.motor import MotorRecord
    from virtual_beamline.records.scaler import ScalerRecord
    from virtual_beamline.records.swait import Swait
    from virtual_beamline.repeater import Repeater

    if repeater_port is not None:
        try:
            Repeater(listen, repeater_port).start()
        except OSError as error:  # the libca of a client that was there first serves as one
            logger.info("no CA repeater of its own on port %d: %s", repeater_port, error)
    ScalerRecord.world = world = World(seed)
    text = "\n".join(record.database_text() for record in contents(prefix, world, area_detector))
    epics.boot([Swait, Busy, MotorRecord, ScalerRecord], text, pvaccess=True, devices=ioc_stats.devices())
    epics.stir_random_numbers(world.rndm_draws)
