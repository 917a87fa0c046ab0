"""No PV of a plugin pretends: what a client can write is looked at, what it can only read is computed."""

import numpy as np
import pytest

from virtual_beamline.area_detector.attribute_plugin import Attributes
from virtual_beamline.area_detector.color_convert import ColorConvert
from virtual_beamline.area_detector.detector import make_ports
from virtual_beamline.area_detector.ndarray import RGB1, NDArray
from virtual_beamline.area_detector.overlay import Overlay
from virtual_beamline.area_detector.port import Detector, Port
from virtual_beamline.area_detector.process import Process
from virtual_beamline.area_detector.roi import Roi
from virtual_beamline.area_detector.stats import Stats
from virtual_beamline.area_detector.time_series import TimeSeries
from virtual_beamline.area_detector.transform import Transform
from virtual_beamline.physics import World

LABELS = {"Name", *(f"{number}:Name" for number in range(1, 9))}
"""What is there for people to write something in."""
BASE = {"EnableCallbacks", "NDArrayAddress"}
"""What the base class looks at when arrays come from a port."""
# What switches on all that a plugin can do, in the order in which a client would.
SETTINGS = {
    Roi: [("EnableScale", 1)],
    Stats: [("ComputeProfiles", 1), ("ComputeHistogram", 1), ("Reset", 1), ("SigmaValue", 1.0), ("HistMax", 200.0)],
    TimeSeries: [
        ("TSNumPoints", 2),
        ("TSTimePerPoint", 1.0),
        ("TSAveragingTime", 1.0),
        ("TSRead", 1),
        ("TSAcquire", 1),
    ],
    Process: [
        ("SaveBackground", 1),
        ("SaveFlatField", 1),
        *((f"Enable{what}", 1) for what in ("Background", "FlatField", "OffsetScale", "LowClip", "HighClip", "Filter")),
        ("NumFilter", 2),
        ("FilterType", 1),
        ("AutoResetFilter", 1),
        ("FilterCallbacks", 1),
        ("AutoOffsetScale", 1),
    ],
    Transform: [("Type", 1)],
    ColorConvert: [("ColorModeOut", 1), ("FalseColor", 1)],
    Overlay: [
        *((f"{number}:Use", 1) for number in range(1, 9)),
        *((f"{number}:Shape", shape) for shape in range(4) for number in range(1, 9)),
        *((f"{number}:{of}", 9) for number in range(1, 9) for of in ("PositionX", "CenterY", "SizeX", "SizeY")),
    ],
    Attributes: [
        ("TSNumPoints", 2),
        *((f"{number}:AttrName", "NDArrayUniqueId") for number in range(1, 9)),
        ("Reset", 1),
        ("TSControl", 0),
        ("TSRead", 1),
    ],
}


@pytest.mark.parametrize("kind", SETTINGS, ids=lambda kind: kind.__name__)
def test_each_parameter_is_looked_at_or_computed(kind, monkeypatch):
    detector = Detector("x:")
    make_ports(detector, World(1))
    port = next(port for port in detector.ports.values() if type(port) is kind)
    looked_at, computed = set(), set()
    get, take, write = Port.__getitem__, Port.take, kind.write
    writing = []

    def spy_get(self, name):
        if self is port:
            looked_at.add(name)
        return get(self, name)

    def spy_take(self, **values):
        if self is port:
            others = set(values) - set(writing)
            computed.update(others)
            if others:
                looked_at.update(writing)  # what a client writes changes something else
        return take(self, **values)

    def spy_write(self, name, value):
        writing.append(name)
        write(self, name, value)
        writing.remove(name)

    monkeypatch.setattr(Port, "__getitem__", spy_get)
    monkeypatch.setattr(Port, "take", spy_take)
    monkeypatch.setattr(kind, "write", spy_write)
    mono = np.arange(64 * 48, dtype=np.uint8).reshape(48, 64)
    arrays = [NDArray(mono, 1), NDArray(mono, 2), NDArray(np.stack([mono] * 3, axis=2), 3, RGB1)]
    if kind is TimeSeries:
        arrays = [NDArray(np.arange(22.0), 1)] * 3
    port.process(arrays[0])
    for name, value in SETTINGS[kind]:
        port.put(name, value)
        if name.endswith("Shape"):
            port.process(arrays[0])
    for array in arrays:
        port.expect(array)
        port.process(array)
    if kind is Stats:
        detector.ports[f"{port.name}_TS"].put("TSRead", 1)
    own = {parameter.name: parameter for parameter in kind.__dict__["parameters"]}
    written = {name for name, each in own.items() if each.setpoint}
    ignored = written - looked_at - computed - LABELS - BASE
    assert not ignored
    never = own.keys() - written - computed - looked_at
    assert not never
