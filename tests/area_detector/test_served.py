"""Nothing is served that only pretends: each PV acts, computes, or is declared as a fact about the thing."""

import ast
import re
from pathlib import Path

import pytest

import virtual_beamline.area_detector
from tests.virtual_beamline.conftest import wait_for
from virtual_beamline.area_detector.detector import make_ports
from virtual_beamline.area_detector.port import Detector
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
                read |= patterns(node.slice)
            elif isinstance(node, ast.MatchValue):
                read |= patterns(node.value)
            elif isinstance(node, ast.Compare):
                for each in ast.walk(node):
                    read |= patterns(each)
            elif isinstance(node, ast.Call):
                called = getattr(node.func, "attr", getattr(node.func, "id", ""))
                if called in {"set", "set_soon", "set_back"}:
                    written |= {re.escape(keyword.arg) for keyword in node.keywords if keyword.arg}
                elif called == "choice" and node.args:
                    read |= patterns(node.args[0])
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
            if not found(name, read if parameter.setpoint else written):
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

    specs = [spec for port in ports() for spec in port.records()]
    names = [spec.name for spec in specs]
    scalars = [spec.name for spec in specs if spec.type not in {"waveform", "fanout"}]  # pyepics gets no time of others
    pvs = [epics.PV(f"{name}.SEVR{{}}", auto_monitor=False) for name in names]
    times = [epics.PV(f"{name}.VAL{{}}", auto_monitor=False, form="time") for name in scalars]
    wait_for(lambda: all(pv.connected for pv in (*pvs, *times)), what="connection of all")
    alarms = {pv.pvname: pv.get() for pv in pvs}
    expected = {"FilePathExists"}  # tests leave directories that are gone
    assert {name for name, severity in alarms.items() if severity and not any(e in name for e in expected)} == set()
    assert [pv.pvname for pv in times if (pv.get_timevars() or {}).get("timestamp", 0) < 1e9] == []


SETTINGS = [
    (port.prefix, parameter)
    for port in ports()
    for parameter in port.by_name.values()
    if parameter.setpoint in {"ao", "longout", "bo", "mbbo", "stringout", "waveform"}
    and parameter.readback
    and parameter.name not in OF_THE_LAST_ARRAY | {"Acquire", "NDArrayPort", "NDArrayAddress", "Reset", "FilePath"}
]


@pytest.mark.parametrize("prefix", sorted({prefix for prefix, _ in SETTINGS}))
def test_each_readback_follows_its_setpoint(ad, prefix):
    """With another valid value, and back."""
    for each, parameter in SETTINGS:
        if each != prefix:
            continue
        name = f"{prefix.removeprefix('ad:')}{parameter.name}"
        before = ad.get(f"{name}_RBV", text=parameter.setpoint in {"stringout", "waveform"})
        if parameter.choices:
            other = (before + 1) % len(parameter.choices)
        elif isinstance(before, str):
            other = f"{before}x"
        else:
            other = before + 2
        ad.put(name, other, wait=False)
        ad.wait(
            f"{name}_RBV", before if other in LIMITED.get(parameter.name, ()) else other, text=isinstance(other, str)
        )
        ad.put(name, before, wait=False)
        ad.wait(f"{name}_RBV", before, text=isinstance(before, str))


# What a value that is out of range is cut to, or refused for: the readback does not follow.
LIMITED = {"SizeX": (1026,), "SizeY": (1026,)}
