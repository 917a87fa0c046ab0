"""Each example of the reference, "bluesky_snapshot" of APS_BlueSky_tools, on PVs of `gp:`: what is printed, whole."""

from __future__ import annotations

from instrument.framework.runfiles import DataDirectory, RunFile
from tests.reference.printout import TIME, Difference, Mask, assert_same

RULE = Mask("rule", r"={5,}", "columns are as wide as the longest value")
WIDTH = Mask("", r"(?<=\S) {2,}(?=\S)", "columns are as wide as the longest value")
UID = Mask("uid", r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", "each run has its own")
SECONDS = Mask("seconds", r"^time: \d+\.\d+", "when it was taken")
LOAD = Mask("load", r"(?<=CPU_LOAD) +\d+\.\d+", "what the processor does")
VERSION = Mask("version", r"(?<=': )'(?:[^'\\]|\\.)*'", "today's packages")
MASKS = (TIME, UID, SECONDS, VERSION, LOAD, RULE, WIDTH)

GP = Difference("otz:", "gp:", "the IOC that we have")
PACKAGES = Difference(
    "'APS_Bluesky_Tools': '0.0.37'}",
    "'apstools': '1.0', 'instrument': '0.1.0'}",
    "its name today, and the package that took its place here",
)
REASON = Difference("\nrun_start:", "\nreason:\nrun_start:", "bluesky's stop documents have a reason now")

HELP = """\
usage: bluesky_snapshot [-h] [-b BROKER_CONFIG] [-m METADATA]
                        EPICS_PV [EPICS_PV ...]

record a snapshot of some PVs using Bluesky, ophyd, and databroker

positional arguments:
  EPICS_PV          EPICS PV name

optional arguments:
  -h, --help        show this help message and exit
  -b BROKER_CONFIG  YAML configuration for databroker
  -m METADATA       additional metadata, enclose in quotes, such as -m
                    "purpose=just tuned, situation=routine"
"""

TWO_PVS = """\

========================================
snapshot: 2018-12-20 18:18:27.052009
========================================

hints: {}
iso8601: 2018-12-20 18:18:27.052009
plan_description: archive snapshot of ophyd Signals (usually EPICS PVs)
plan_name: snapshot
plan_type: generator
purpose: example
scan_id: 1
software_versions: {'python': '3.6.2 |Continuum Analytics, Inc.| (default, Jul 20 2017, 13:51:32) \\n[GCC 4.4.7 20120313 (Red Hat 4.4.7-1)]', 'PyEpics': '3.3.1', 'bluesky': '1.4.1', 'ophyd': '1.3.0', 'databroker': '0.11.3', 'APS_Bluesky_Tools': '0.0.37'}
time: 1545351507.0527153
uid: ab270806-0697-4056-ba44-80f7b462bedc

========================== ====== ================ ===================
timestamp                  source name             value              
========================== ====== ================ ===================
2018-12-20 18:18:17.109931 PV     otz:IOC_CPU_LOAD 0.10009559468607492
2018-12-20 18:18:17.109927 PV     otz:SYS_CPU_LOAD 10.935451151721377 
========================== ====== ================ ===================

exit_status: success
num_events: {'primary': 1}
run_start: ab270806-0697-4056-ba44-80f7b462bedc
time: 1545351507.0696447
uid: a0b5b4ff-d9a7-47ce-ace7-1bba818da77b

"""  # noqa: E501, W291

TWO_IOCS = """\

========================================
snapshot: 2018-12-20 18:21:53.371995
========================================

example: example 2
hints: {}
iso8601: 2018-12-20 18:21:53.371995
plan_description: archive snapshot of ophyd Signals (usually EPICS PVs)
plan_name: snapshot
plan_type: generator
purpose: this is an example
scan_id: 1
software_versions: {'python': '3.6.2 |Continuum Analytics, Inc.| (default, Jul 20 2017, 13:51:32) \\n[GCC 4.4.7 20120313 (Red Hat 4.4.7-1)]', 'PyEpics': '3.3.1', 'bluesky': '1.4.1', 'ophyd': '1.3.0', 'databroker': '0.11.3', 'APS_Bluesky_Tools': '0.0.37'}
time: 1545351713.3727024
uid: d5e15ba3-0393-4df3-8217-1b72d82b5cf9

========================== ====== ================ ===================
timestamp                  source name             value              
========================== ====== ================ ===================
2018-12-20 18:21:45.488033 PV     gov:IOC_CPU_LOAD 0.22522293126578166
2018-12-20 18:21:45.488035 PV     gov:SYS_CPU_LOAD 10.335244804189122 
2018-12-20 18:21:46.910976 PV     otz:IOC_CPU_LOAD 0.10009633509509736
2018-12-20 18:21:46.910973 PV     otz:SYS_CPU_LOAD 11.360899731293234 
========================== ====== ================ ===================

exit_status: success
num_events: {'primary': 1}
run_start: d5e15ba3-0393-4df3-8217-1b72d82b5cf9
time: 1545351713.3957422
uid: e033cd99-dcac-4b56-848c-62eede1e4d77

"""  # noqa: E501, W291

TEXT_AND_ARRAYS = """\

========================================
snapshot: 2018-12-20 18:28:28.825551
========================================

example: example 2
hints: {}
iso8601: 2018-12-20 18:28:28.825551
look: can snapshot text and arrays too
note: no commas in metadata
plan_description: archive snapshot of ophyd Signals (usually EPICS PVs)
plan_name: snapshot
plan_type: generator
purpose: this is an example
scan_id: 1
software_versions: {'python': '3.6.2 |Continuum Analytics, Inc.| (default, Jul 20 2017, 13:51:32) \\n[GCC 4.4.7 20120313 (Red Hat 4.4.7-1)]', 'PyEpics': '3.3.1', 'bluesky': '1.4.1', 'ophyd': '1.3.0', 'databroker': '0.11.3', 'APS_Bluesky_Tools': '0.0.37'}
time: 1545352108.8262713
uid: 7e77708e-9169-45ab-b2b6-4e31534d980a

========================== ====== ================ ===================
timestamp                  source name             value              
========================== ====== ================ ===================
2018-12-20 18:24:34.220028 PV     compress         [0.1, 0.2, 0.3]    
2018-12-13 14:49:53.121188 PV     gov:HOSTNAME     otz.aps.anl.gov    
2018-12-20 18:28:25.093941 PV     gov:IOC_CPU_LOAD 0.1501490058473918 
2018-12-20 18:28:25.093943 PV     gov:SYS_CPU_LOAD 10.360270546421546 
2018-12-20 18:28:28.817630 PV     gov:iso8601      2018-12-20T18:28:28
2018-12-13 14:49:53.135016 PV     otz:HOSTNAME     otz.aps.anl.gov    
2018-12-20 18:28:26.525208 PV     otz:IOC_CPU_LOAD 0.10009727705620367
2018-12-20 18:28:26.525190 PV     otz:SYS_CPU_LOAD 12.937574161543873 
2018-12-20 18:28:28.830285 PV     otz:iso8601      2018-12-20T18:28:28
========================== ====== ================ ===================

exit_status: success
num_events: {'primary': 1}
run_start: 7e77708e-9169-45ab-b2b6-4e31534d980a
time: 1545352108.8656788
uid: 0de0ec62-504e-4dbc-ad08-2507d4ed44f9

"""  # noqa: E501, W291


def last_lines(text: str, first: str) -> str:
    return text[text.index(first) :]


def test_the_help_is_the_reference_s_with_our_options_after_its_own(shell):
    shown = shell.run("-h").stdout
    added_usage = last_lines(shown.partition("\n\nrecord")[0], "       bluesky_snapshot --show")
    added_options = last_lines(shown, "  --timeout S")
    assert_same(
        shown,
        HELP,
        differences=[
            Difference("optional arguments:", "options:", "as Python prints it"),
            Difference("EPICS_PV ...]\n", f"EPICS_PV ...]\n{added_usage}\n", "our added options"),
            Difference('situation=routine"\n', f'situation=routine"\n{added_options}', "our added options"),
        ],
    )


def test_the_first_example_two_pvs_and_a_purpose(shell):
    done = shell.run("gp:IOC_CPU_LOAD", "gp:SYS_CPU_LOAD", "-m", "purpose=example")
    assert (done.returncode, done.stderr) == (0, "")
    assert_same(done.stdout, TWO_PVS, MASKS, [GP, PACKAGES, REASON])
    again = shell.run("--show")
    assert (again.returncode, again.stdout) == (0, done.stdout)  # printed again by another process, to the letter

    (path,) = DataDirectory(shell.directory / ".data").runs.glob("*/*/*.msgpack")
    documents = dict(reversed(list(RunFile(path))))
    for table_row in ("IOC_CPU_LOAD", "SYS_CPU_LOAD"):  # what the masks hide is what was recorded
        assert f"gp:{table_row} {documents['event']['data'][f'gp_{table_row}']}" in done.stdout
    assert f"\nuid: {documents['start']['uid']}\n" in done.stdout
    assert f"\ntime: {documents['stop']['time']}\n" in done.stdout
    assert f"\nsnapshot: {documents['start']['iso8601']}\n" in done.stdout


def test_the_other_examples_two_iocs_text_and_arrays(shell, fresh_beamline, put):
    other = fresh_beamline(prefix="sky:")
    shell.variables.pop("VIRTUAL_BEAMLINE")  # as an operating beamline's environment: only addresses
    addresses = (shell.variables["EPICS_CA_ADDR_LIST"], other.environment.variables["EPICS_CA_ADDR_LIST"])
    shell.variables["EPICS_CA_ADDR_LIST"] = " ".join(addresses)
    # gp: comes before sky: as gov: comes before otz:
    gov, otz = Difference("gov:", "gp:", "the IOC that we have"), Difference("otz:", "sky:", "another IOC of ours")

    names = ["sky:IOC_CPU_LOAD", "gp:IOC_CPU_LOAD", "gp:SYS_CPU_LOAD", "sky:SYS_CPU_LOAD"]
    done = shell.run(*names, "-m", "purpose=this is an example, example=example 2")
    assert (done.returncode, done.stderr) == (0, "")
    assert_same(done.stdout, TWO_IOCS, MASKS, [gov, otz, PACKAGES, REASON])

    put("gp:gp:array1", [0.1, 0.2, 0.3])
    parts = ("iso8601", "HOSTNAME", "IOC_CPU_LOAD", "SYS_CPU_LOAD")
    names = [*(f"{ioc}:{part}" for ioc in ("gp", "sky") for part in parts), "gp:gp:array1"]
    note = (
        "purpose=this is an example, example=example 2, look=can snapshot text and arrays too, "
        "note=no commas in metadata"
    )
    done = shell.run(*names, "-m", note)
    assert (done.returncode, done.stderr) == (0, "")
    array = "2018-12-20 18:24:34.220028 PV     compress         [0.1, 0.2, 0.3]    \n"
    first = "2018-12-20 18:28:28.817630 PV     gov:iso8601"
    now = Mask("iso8601", r"(?<=:iso8601) +\S+", "the time of day")
    host = Mask("host", r"(?<=:HOSTNAME) +\S+", "the name of this host")
    assert_same(
        done.stdout,
        TEXT_AND_ARRAYS,
        (*MASKS, now, host),
        [
            Difference(array, "", "our array is gp:gp:array1, which the order puts elsewhere"),
            Difference(first, array.replace("compress", "gp:gp:array1") + first, "there"),
            gov,
            otz,
            PACKAGES,
            REASON,
            Difference("scan_id: 1\n", "scan_id: 2\n", "it goes on from the state"),
        ],
    )
