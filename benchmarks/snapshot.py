"""A snapshot of 1,000 PVs of the virtual beamline, beside the same plan over a signal of ophyd's for each."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.harness import Benchmark, Figure, MeasurementError, child, median, scratch, take_turns
from benchmarks.ioc import our_ioc
from virtual_beamline.beamline import contents

PVS = 1000
BUDGET = 2.0  # s
FIELDS = (
    "VAL RBV DMOV EGU PREC VELO HLM LLM OFF DIR TDIR MSTA ACCL BDST BACC BVEL DESC DHLM DLLM DVAL ERES FOFF MRES NTM "
    "SPMG SREV UREV VBAS VMAX RTYP STAT SEVR DIFF DRBV HLS LLS LVIO MDEL MISS MOVN RCNT RDBD RMOD RRBV RTRY ADEL ATHM"
).split()


def pv_names() -> list[str]:
    """Every record of the beamline, then fields of motors up to 1,000."""
    records = [record.name for record in contents()]
    fields = [f"gp:m{number}.{field}" for field in FIELDS for number in range(1, 17)]
    return list(dict.fromkeys([*records, *fields]))[:PVS]


def measure(rounds: int | None) -> Iterator[Figure]:
    with scratch() as directory, our_ioc() as (beamline, _):
        names = directory / "names"
        names.write_text("\n".join(pv_names()))

        def take(how: str) -> float:
            found = child("snapshot_client", how, names, cwd=directory, variables=beamline.environment.variables)
            if found["read"] != PVS:
                raise MeasurementError(f"the report has values of {found['read']} PVs, not of {PVS}")
            return found["seconds"]

        times = take_turns({"names": lambda: take("names"), "ophyd": lambda: take("ophyd")}, rounds or 3)
        note = f"search, read, journal and report; with a signal of ophyd's for each {median(times['ophyd']):.1f} s"
        yield Figure(f"snapshot: {PVS} PVs, imports left out", median(times["names"]), BUDGET, "s", note=note)


BENCHMARK = Benchmark("snapshot", "1,000 PVs in one snapshot, beside ophyd", measure)
