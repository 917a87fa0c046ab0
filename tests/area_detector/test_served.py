"""Nothing is served that only pretends: each PV acts, computes, or is declared as a fact about the thing."""

import ast
import re
from pathlib import Path

import pytest

import virtual_beamline.area_detector
from tests.virtual_beamline.conftest import wait_for
from virtual_beamline.area_detector.detector import make_ports
from virtual_beamline.area_detector.port import RECORD_TYPES, Detector
from virtual_beamline.physics import World

# What is a fact, or a record of what was said, and as such neither computed nor used.
FACTS = {
    "SerialNumber": "the simulated camera has none, as ADSimDetector says",
    "FirmwareVersion": "likewise",
    "ADCoreVersion": "the release that it acts like",
    "PoolMaxMem": "0: there is no limit",
    "BayerPattern": "of cameras with a Bayer sensor; this one has none",
    "Codec": "empty: no frame is compressed in memory",
    "FileFormat": "each writer has one",
    "Name": "what somebody calls it",
    "SWMRSupported": "by the HDF5 library that is used",
    "MaxSizeX": "the sensor's size",
    "MaxSizeY": "likewise",
    "Temperature": "what the record TemperatureActual goes to",
}
# Setpoints whose readback is what the last array was, until the next one, as in ADCore.
OF_THE_LAST_ARRAY = {"NDimensions", "Dimensions"}


def ports():
    detector = Detector("ad:")
    make_ports(detector, World(1))
    return detector.ports.values()


def names_in_code():
    """Names that the code reads, and those that it sets; a part of a name that is computed is a wildcard."""
    read, written = set(), set()
    for path in Path(virtual_beamline.area_detector.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Subscript):
                found = written if isinstance(node.ctx, ast.Store) else read
                found |= patterns(node.slice)
            elif isinstance(node, ast.MatchValue):
                read |= patterns(node.value)
            elif isinstance(node, ast.Compare):
                for each in ast.walk(node):
                    read |= patterns(each)
            elif isinstance(node, ast.Call):
                called = {each.attr for each in ast.walk(node.func) if isinstance(each, ast.Attribute)}
                if called & {"set", "set_soon", "set_back", "take"}:
                    written |= {re.escape(keyword.arg) for keyword in node.keywords if keyword.arg}
                elif node.args and (called == {"choice"} or any(name.startswith("_") for name in called)):
                    read |= patterns(node.args[0])
            elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple):  # a list of names to compute
                written.update(*map(patterns, node.value.elts))
            elif isinstance(node, ast.Dict | ast.DictComp):  # self.set(**{...})
                for key in node.keys if isinstance(node, ast.Dict) else [node.key]:
                    written |= patterns(key)
    return read, written


def patterns(node):
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return {re.escape(node.value)} if node.value else set()
    if isinstance(node, ast.IfExp):
        return patterns(node.body) | patterns(node.orelse)
    if isinstance(node, ast.JoinedStr):
        parts = [re.escape(part.value) if isinstance(part, ast.Constant) else r"\w+" for part in node.values]
        return {"".join(parts)} if any(isinstance(part, ast.Constant) for part in node.values) else set()
    return set()


def test_each_setpoint_is_used_and_each_readback_is_computed():
    read, written = names_in_code()

    def found(name, among):
        return any(re.fullmatch(pattern, name) for pattern in among)

    dead = []
    for port in ports():
        for name, parameter in port.by_name.items():
            if name in FACTS or name in OF_THE_LAST_ARRAY:
                continue
            # A statistic may have a setpoint, too: what is put shows until the next array.
            if not (found(name, written) or (parameter.setpoint and found(name, read))):
                dead.append(f"{port.prefix}{name}")
    assert dead == []


def test_facts_are_facts_of_something():
    assert set(FACTS) | OF_THE_LAST_ARRAY <= {name for port in ports() for name in port.by_name}


def test_no_pv_is_served_twice_or_longer_than_a_pv_name():
    names = [spec.name for port in ports() for spec in port.records()]
    assert len(names) == len(set(names))
    assert max(map(len, names)) <= 60
    for port in ports():
        for spec in port.records():
            assert spec.description, spec.name
            assert len(spec.description) <= 40, spec


def test_all_pvs_are_there_without_an_alarm_and_with_a_time(ad):
    import epics

    names = [spec.name for port in ports() for spec in port.records()]
    pvs = {name: epics.PV(f"{name}.SEVR{{}}", auto_monitor=False, form="time") for name in names}
    wait_for(lambda: all(pv.connected for pv in pvs.values()), what="connection of all")
    alarms, times = set(), set()
    for name, pv in pvs.items():
        found = pv.get_with_metadata(form="time", use_monitor=False)
        failed = name.endswith(":WriteStatus") and ad.text(name.removeprefix(ad.prefix)) != "Write OK"
        alarms |= {name} if bool(found["value"]) != failed else set()
        times |= {name} if found["timestamp"] < 1e9 else set()
    # Tests' directories are gone; what waits for a link that somebody may set has not been processed yet.
    waiting = re.compile(r"FilePathExists_RBV$|Link$|SetAcquireBusy$")
    assert {name for name in alarms | times if not waiting.search(name)} == set()


def is_setting(port, parameter):
    """Whether its readback stays at what is put: not that of a command, nor that of what the last array was."""
    if parameter.name in {"DataType", "ColorMode"}:
        return port.name == "SIM1"
    return (
        parameter.setpoint in RECORD_TYPES
        and bool(parameter.readback)
        and parameter.choices[:1] != ("Done",)
        and parameter.name not in OF_THE_LAST_ARRAY | {"Acquire", "NDArrayPort", "NDArrayAddress", "FilePath"}
    )


SETTINGS = [
    (port.prefix, parameter) for port in ports() for parameter in port.by_name.values() if is_setting(port, parameter)
]


@pytest.mark.parametrize("prefix", sorted({prefix for prefix, _ in SETTINGS}))
def test_each_readback_follows_its_setpoint(ad, prefix):
    """With another valid value, and back."""
    for each, parameter in SETTINGS:
        if each != prefix:
            continue
        limited = LIMITED.get(f"{prefix}{parameter.name}", ())
        name = f"{prefix.removeprefix('ad:')}{parameter.name}"
        before = ad.get(f"{name}_RBV", text=parameter.setpoint in {"stringout", "waveform"})
        if parameter.choices:
            other = (before + 1) % len(parameter.choices)
        elif isinstance(before, str):
            other = f"{before}x"
        else:
            other = before + 2
        ad.put(name, other, wait=False)
        ad.wait(f"{name}_RBV", before if other in limited else other, text=isinstance(other, str))
        ad.put(name, before, wait=False)
        ad.wait(f"{name}_RBV", before, text=isinstance(before, str))


# What a value that is out of range is cut to, or refused for: the readback does not follow.
LIMITED = {
    "ad:cam1:SizeX": (1026,),
    "ad:cam1:SizeY": (1026,),
    "ad:Proc1:SaveBackground": (1,),  # there is no array yet, or it is not valid afterwards
    "ad:Proc1:SaveFlatField": (1,),
}
