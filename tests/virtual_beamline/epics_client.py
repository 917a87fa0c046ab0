"""What test_epics.py asks the IOC of delay_ioc.py for, in a process that looks at its ports; prints one JSON object."""

import json
import sys
import time

import epics

from tests.virtual_beamline.conftest import Client, wait_for

x = Client("x:")


def connect(*names):
    """Before what follows is watched while it happens."""
    for name in names:
        x.pv(name)


def asynchronous_completion():
    connect("delay.REQ", "delay.VAL")
    x.put("delay.DLY", 1)
    started = time.monotonic()
    done = x.start_put("delay.REQ", 7)
    early = x.get("delay.VAL")
    wait_for(lambda: done)
    return {"early": early, "waited": done[0] - started >= 1, "value": x.get("delay.VAL"), "after": x.get("after")}


def redirection():
    connect("delay.REQ")
    x.put("delay.DLY", 0.5)
    x.start_put("delay.REQ", 1)
    x.put("delay.REQ", 2, wait=False)
    seen = []
    pv = epics.PV("x:delay.VAL", auto_monitor=True, callback=lambda value, **_: seen.append(value))
    wait_for(lambda: seen and seen[-1] == 2)
    pv.disconnect()
    return {"never_at_the_first": 1 not in seen}


def hold_makes_it_active():
    connect("delay.REQ", "delay.PACT")
    x.put("delay.DLY", 1)
    x.put("delay.HOLD", 1)
    before = x.get("delay.COUN")
    done = x.start_put("delay.REQ", 3)
    wait_for(lambda: x.get("delay.COUN") == before + 1)
    active = x.get("delay.PACT")
    precision = x.get("delay.PREC")
    refused = x.put("delay.PREC", 9, timeout=1)
    wait_for(lambda: done)
    x.put("delay.HOLD", 0)
    return {
        "active": active,
        "inactive": x.get("delay.PACT"),
        "precision_kept": x.get("delay.PREC") == precision,
        "r": refused,
    }


def links():
    x.put("delay.DLY", 0)
    x.put("delay.OUT", "x:target.VAL PP")
    x.put("source", 4.5)
    x.put("delay.INP", "x:source.VAL")
    x.put("delay.PROC", 1)
    target = x.get("target")
    x.wait("cpout", 45)  # the CP link of a base record to ours
    x.put("delay.INP", "")
    x.put("delay.OUT", "")
    x.put("delay.REQ", 5)
    return {"target": target, "kept": x.get("target"), "value": x.get("delay.VAL")}


def refusals():
    x.put("delay.DLY", 0)
    x.put("delay.DLY", -1)
    try:
        x.put("delay.VAL", 3)
        read_only = False
    except epics.ca.CASeverityException:
        read_only = True
    return {"delay": x.get("delay.DLY"), "read_only": read_only, "menu": x.get("delay.MODE", text=True)}


def errors():
    x.put("delay.DLY", 0)
    completed = x.put("delay.REQ", 666)
    severity, status = x.get("delay.SEVR"), x.get("delay.STAT")
    x.put("delay.TEXT", "fail")
    x.put("delay.REQ", 13)
    x.put("delay.REQ", 1)
    return {"completed": completed, "severity": severity, "status": status, "recovered": x.get("delay.SEVR")}


def alarms():
    x.put("delay.DLY", 0)
    for field, value in {"HIHI": 100, "HIGH": 50, "LOW": -50, "LOLO": -100, "HYST": 5}.items():
        x.put(f"delay.{field}", value)
    for field, value in {"HHSV": "MAJOR", "HSV": "MINOR", "LSV": "MINOR", "LLSV": "MAJOR"}.items():
        x.put(f"delay.{field}", value)
    found = []
    for value in (0, 60, 100, 96, 94, 47, 44, -60, -101, 0):
        x.put("delay.REQ", value)
        found.append([x.get("delay.STAT", text=True), x.get("delay.SEVR", text=True)])
    for field in ("HHSV", "HSV", "LSV", "LLSV"):
        x.put(f"delay.{field}", "NO_ALARM")
    x.put("delay.REQ", 0)
    return found


def metadata():
    control = x.pv("delay.VAL").get_ctrlvars()
    names = ("units", "precision", "lower_disp_limit", "upper_disp_limit", "lower_ctrl_limit", "upper_ctrl_limit")
    x.put("delay.STAE", "Lively")
    return {
        **{name: control[name] for name in names},
        "states": list(x.pv("delay.STAE").get_ctrlvars()["enum_strs"]),
        "state": x.get("delay.STAE"),
    }


def arrays_and_long_strings():
    x.put("delay.WAVE", [1.5, 2.5, 3.5])
    x.put("delay.TEXT$", "long text" * 9)
    return {
        "wave": list(x.get("delay.WAVE")),
        "room": x.pv("delay.WAVE").nelm,
        "text": x.get("delay.TEXT$", text=True),
    }


def devices():
    for name in ("answer", "question", "broken"):
        x.put(f"{name}.PROC", 1)
    return [x.get("answer"), x.get("question"), x.get("broken.SEVR")]


def interrupt_scan():
    x.put("delay.SCAN", "I/O Intr")
    before = x.get("delay.COUN")
    x.put("delay.STAE", 0)
    x.wait("delay.COUN", before + 1)
    x.put("delay.SCAN", "Passive")
    return {"scan": x.get("delay.SCAN", text=True)}


if __name__ == "__main__":
    json.dump(globals()[sys.argv[1]](), sys.stdout)
