"""The virtual beamline's IOC beside caproto, which serves PVs of the same names; stock pyepics asks both.

Gets are measured with several in flight, from both (see `ca_client`). With one at a time, the ratio is that of two sums
of which the larger part is the client's own: 1.8 to 2.4 on one machine on one day.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from benchmarks.harness import (
    Benchmark,
    Figure,
    MeasurementError,
    child,
    environment,
    median,
    ratio,
    scratch,
    take_turns,
)
from virtual_beamline import supervisor
from virtual_beamline.beamline import contents
from virtual_beamline.client import PvNotAnsweringError, read_text

PVS = [f"gp:gp:float{number}" for number in range(1, 21)]  # ao records that keep a value; caproto's do the same
PV = PVS[0]
CONNECTIONS = 500
IDLE = 12.0  # s
START_DEADLINE = 60.0  # s
MOTOR_FIELDS = ("VAL", "RBV", "DMOV", "STOP", "EGU", "PREC", "VELO", "HLM", "LLM", "OFF", "DIR", "TDIR", "MSTA")


def pv_names() -> list[str]:
    """The PVs whose rates are measured, then others up to 500: all records of the beamline, then fields of motors."""
    records = [record.name for record in contents()]
    fields = [f"gp:m{number}.{field}" for field in MOTOR_FIELDS for number in range(1, 17)]
    return list(dict.fromkeys([*PVS, *records, *fields]))[:CONNECTIONS]


def _wait_for(pv: str, address: tuple[str, int], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_DEADLINE
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise MeasurementError(f"the caproto IOC ended with {process.returncode}")
        try:
            read_text(pv, address, 0.25)
        except PvNotAnsweringError:
            time.sleep(0.01)
        else:
            return
    raise MeasurementError(f"{pv} of the caproto IOC did not answer in {START_DEADLINE:g} s")


@contextmanager
def caproto_ioc(names: Path) -> Iterator[tuple[dict[str, str], float]]:
    """A caproto IOC at work: what its clients need, and how long it took to its first PV (s)."""
    lease = supervisor.lease_ports()
    variables = dict(lease.environment("caproto").variables)
    serving = {"EPICS_CA_SERVER_PORT": str(lease.first), "EPICS_CAS_INTF_ADDR_LIST": "127.0.0.1"}
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.caproto_ioc", str(names)],
        env=environment(**variables, **serving),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(PV, ("127.0.0.1", lease.first), process)
        yield variables, time.perf_counter() - began
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        lease.release()


@contextmanager
def our_ioc() -> Iterator[tuple[supervisor.RunningBeamline, float]]:
    """A virtual beamline at work, and how long it took to its first PV (s)."""
    began = time.perf_counter()
    beamline = supervisor.start()
    try:
        beamline.wait_ready(START_DEADLINE)
        yield beamline, time.perf_counter() - began
    finally:
        beamline.stop()


def _start_ours() -> float:
    with our_ioc() as (_, took):
        return took


def _start_caproto(names: Path) -> float:
    with caproto_ioc(names) as (_, took):
        return took


def _idle_load(pid: int) -> float:
    """How much of a processor a process takes that nobody asks anything (%)."""
    process = psutil.Process(pid)
    before, began = process.cpu_times(), time.perf_counter()
    time.sleep(IDLE)
    after = process.cpu_times()
    return 100 * (after.user + after.system - before.user - before.system) / (time.perf_counter() - began)


def measure(rounds: int | None) -> Iterator[Figure]:
    with scratch() as directory:
        names = directory / "names"
        names.write_text("\n".join(pv_names()))
        starts = take_turns({"ours": _start_ours, "caproto": lambda: _start_caproto(names)}, rounds or 3, warm_up=True)
        note = f"caproto {median(starts['caproto']):.2f} s"
        yield Figure("IOC: exec to first PV", median(starts["ours"]), 2, "s", note=note)
        with our_ioc() as (beamline, _), caproto_ioc(names) as (their_variables, _):
            our_variables = dict(beamline.environment.variables)
            yield from _ask(rounds, names, our_variables, their_variables)
            idle = _idle_load(beamline.pid)
            yield Figure("IOC: idle, of one processor", idle, 3, "%", note=f"over {IDLE:g} s, without a client")


def _ask(
    rounds: int | None, names: Path, our_variables: dict[str, str], their_variables: dict[str, str]
) -> Iterator[Figure]:
    def client(what: str, variables: dict[str, str]) -> dict[str, float]:
        return child("ca_client", what, names, cwd=names.parent, variables=variables)

    both = {"ours": our_variables, "caproto": their_variables}
    rates = take_turns(
        {name: lambda variables=variables: client("rates", variables) for name, variables in both.items()}, rounds or 5
    )
    for kind, limit, what in (("gets", 2, "gets"), ("puts", 20, "puts with completion")):
        ours, theirs = ([found[kind] for found in rates[name]] for name in ("ours", "caproto"))
        note = f"{median(ours):.0f} /s, caproto {median(theirs):.0f} /s; {PV}"
        if kind == "gets":
            single = ratio(*([found["single gets"] for found in rates[name]] for name in ("ours", "caproto")))
            note += f" to {PVS[-1].rpartition(':')[2]}, {len(PVS)} in flight; one at a time: {single:.2f} x"
        if kind == "puts":
            bare = ratio(*([found["unmonitored puts"] for found in rates[name]] for name in ("ours", "caproto")))
            note += f", monitored as pyepics' PV does by itself; {bare:.1f} x without a monitor"
        yield Figure(f"IOC: {what} / caproto's", ratio(ours, theirs), limit, "x", at_least=True, note=note)
    connections = take_turns(
        {name: lambda variables=variables: client("connect", variables) for name, variables in both.items()},
        rounds or 5,
    )
    ours, theirs = ([found["connect"] for found in connections[name]] for name in ("ours", "caproto"))
    yield Figure(f"IOC: {CONNECTIONS} PVs connect", median(ours), 0.3, "s", note=f"caproto {median(theirs):.2f} s")


BENCHMARK = Benchmark("ioc", "the virtual beamline's IOC, beside caproto", measure)
