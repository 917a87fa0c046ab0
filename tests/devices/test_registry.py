"""From specifications to devices: what is checked before anything is made, and how devices are found."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from pathlib import Path

import ophyd
import pytest

from instrument.config import ConfigError, UserError, load
from instrument.devices import registry
from instrument.devices.motors import Motor


def specs_of(directory: Path, devices: str, iconfig: str = ""):
    """Specifications from the text of a devices.yml."""
    (directory / "iconfig.yml").write_text(iconfig)
    (directory / "devices.yml").write_text(textwrap.dedent(devices))
    return load(directory).devices


def lines(problems, directory: Path) -> list[str]:
    return [str(problem).removeprefix(f"{directory}/") for problem in problems]


def test_every_mistake_is_told_before_anything_is_made(tmp_path):
    specs = specs_of(
        tmp_path,
        """\
        ophyd.EpicsMotr:
        - {name: a1}
        instrument.devices.motor.Motor:
        - {name: a2}
        instrumnt.devices.motors.Motor:
        - {name: a3}
        ophyd.utils.nothing.at.All:
        - {name: a4}
        ophyd.__version__:
        - {name: a5}
        instrument.devices.motors.Motor:
        - {name: b1, prefix: "gp:m1", lables: [motor]}
        - {prefix: "gp:m2"}
        - {name: RE, prefix: "gp:m3"}
        - {name: b4, prefix: "gp:m4", settle_time: 0.1, baselin: true}
        instrument.devices.scaler.Scaler:
        - {name: c1, prefix: "gp:scaler1", channel: [I0]}
        ophyd.EpicsSignal:
        - {name: d1, prefix: "gp:x"}
        instrument.devices.factories.motors:
        - {first: 1, last: 2}
        """,
    )
    assert lines(registry.check(specs, {"RE", "sd"}), tmp_path) == [
        "devices.yml:1: ophyd.EpicsMotr: ophyd has no class 'EpicsMotr'; did you mean 'ophyd.EpicsMotor'?",
        "devices.yml:3: instrument.devices.motor.Motor: instrument.devices has no module 'motor'; "
        "did you mean 'instrument.devices.motors.Motor'?",
        "devices.yml:5: instrumnt.devices.motors.Motor: there is no package 'instrumnt' on this machine; "
        "did you mean 'instrument.devices.motors.Motor'?",
        "devices.yml:7: ophyd.utils.nothing.at.All: ophyd.utils has no module 'nothing'",
        "devices.yml:9: ophyd.__version__: ophyd.__version__ is neither a class nor a function",
        "devices.yml:12: b1.lables: Motor takes no such keyword; did you mean 'labels'?",
        "devices.yml:13: instrument.devices.motors.Motor.name: Motor needs this keyword",
        "devices.yml:14: RE.name: is the name of something else at the prompt; choose another",
        "devices.yml:15: b4.baselin: Motor takes no such keyword; did you mean 'baseline'?",
        "devices.yml:17: c1.channel: Scaler takes no such keyword; did you mean 'channels'?",
        "devices.yml:19: d1.prefix: EpicsSignal takes no such keyword",
        "devices.yml:19: d1.read_pv: EpicsSignal needs this keyword",
        "devices.yml:21: instrument.devices.factories.motors.prefix: motors needs this keyword",
    ]


def test_a_mistake_makes_no_device(tmp_path):
    specs = specs_of(tmp_path, "ophyd.Signal:\n- {name: s1}\n- {name: s2, vaule: 1}\n")
    with pytest.raises(ConfigError, match="did you mean 'value'"):
        registry.build(specs)


def test_what_shows_only_in_the_making_is_told_with_its_line(tmp_path):
    specs = specs_of(
        tmp_path,
        """\
        ophyd.Signal:
        - {name: m2}
        ophyd.EpicsMotor:
        - {name: x, prefix: "none:m1", kind: hinte}
        instrument.devices.factories.motors:
        - {prefix: "none:m", first: 1, last: 2}
        - {prefix: "none:m", first: 3, last: 3, names: "m-{}"}
        """,
    )
    with pytest.raises(ConfigError) as caught:
        registry.build(specs, {"m1"})
    assert lines(caught.value.problems, tmp_path) == [
        "devices.yml:4: x: cannot be made: KeyError: 'hinte'",
        "devices.yml:6: instrument.devices.factories.motors: made 'm1', the name of something else at the prompt",
        "devices.yml:6: instrument.devices.factories.motors: made a second 'm2'; the first is on line 2 of devices.yml",
        "devices.yml:7: instrument.devices.factories.motors: made a device with an unusable name: "
        "'m-3' is no Python name; use letters, digits and underscores",
    ]


def test_disabled_devices_are_not_made(tmp_path):
    specs = specs_of(tmp_path, "ophyd.Signal:\n- {name: s1}\nno.such.Thing:\n- {name: s2, enabled: false}\n")
    devices = registry.build(specs)
    assert list(devices) == ["s1"]
    assert [spec.name for spec in devices.disabled] == ["s2"]


@pytest.fixture
def name_of_sim_motor():
    """`ophyd.sim.motor` is one object for all tests of a process; making it a device renames it."""
    from ophyd.sim import motor

    name = motor.name
    yield name
    motor.name = name


def test_bits_devices_are_made(tmp_path, name_of_sim_motor):
    specs = specs_of(
        tmp_path,
        """\
        apsbits.utils.sim_creator.predefined_device:
        - {creator: ophyd.sim.motor, name: sim_motor}
        apsbits.utils.sim_creator.motors:
        - {prefix: "ioc:m", first: 1, last: 3, labels: ["motor", "baseline"]}
        apstools.devices.SimulatedApsPssShutterWithStatus:
        - name: shutter
          labels: ["shutters"]
        apstools.devices.motor_factory.mb_creator:
        - name: gantry
          prefix: "12idc:"
          class_name: Gantry
          motors: {hor: m6, ver: m4}
        ophyd.EpicsSignalRO:
        - {name: beam, read_pv: "x:beam", auto_monitor: False}
        """,
    )
    devices = registry.build(specs)
    assert list(devices) == ["sim_motor", "m1", "m2", "m3", "shutter", "gantry", "beam"]
    assert devices["gantry"].ver.prefix == "12idc:m4"
    assert [device.name for device in devices.baseline] == ["m1", "m2", "m3"]
    assert devices["m2"].prefix == "ioc:m2"
    assert registry.Registry(devices).find("shutters") is devices["shutter"]
    apstools_mistake = "apstools.devices.SimulatedApsPssShutterWithStatus:\n- {name: s, delay: 1}\n"
    (problem,) = registry.check(specs_of(tmp_path, apstools_mistake))
    assert problem.suggestion == "delay_s"


def test_our_own_devices_cost_no_heavy_import():
    code = """
        import os, sys
        from instrument.config import load
        from instrument.devices import registry
        specs = load().devices
        assert registry.check(specs) == []
        devices = registry.build(specs)
        assert len(devices) == len(specs)
        heavy = {"apstools", "databroker", "pandas", "dask", "scipy", "matplotlib"} & sys.modules.keys()
        print(sorted(heavy), flush=True)
        os._exit(0)  # ophyd's exit handlers can crash while channels are connecting
    """
    output = subprocess.check_output([sys.executable, "-c", textwrap.dedent(code)], text=True, timeout=60)
    assert output.strip() == "[]"


def test_all_devices_are_built_in_the_time_of_a_few_stock_motors(tmp_path):
    """Measured without an IOC, whose answers would be counted with what is built first."""
    (tmp_path / "devices.yml").write_text((Path(registry.__file__).parents[1] / "config/devices.yml").read_text())
    (tmp_path / "iconfig.yml").write_text("virtual_beamline: {prefix: 'none:'}\n")
    specs = load(tmp_path).devices
    assert specs[0].kwargs["prefix"] == "none:m1"
    times = []
    for _ in range(3):
        began = time.perf_counter()
        devices = registry.build(specs)
        ours = time.perf_counter() - began
        began = time.perf_counter()
        motors = [ophyd.EpicsMotor(f"none:stock{n}", name=f"stock{n}") for n in range(20)]
        times.append(ours / (time.perf_counter() - began))
        for device in (*devices.values(), *motors):
            device.destroy()
    assert min(times) < 3


@pytest.fixture
def some(tmp_path):
    devices = registry.build(
        specs_of(
            tmp_path,
            """\
            instrument.devices.motors.Motor:
            - {name: m1, prefix: "none:m1", labels: [motor, stage]}
            - {name: m2, prefix: "none:m2", labels: [motor]}
            instrument.devices.swait.UserCalcs:
            - {name: calcs, prefix: "none:"}
            """,
        )
    )
    yield registry.Registry(devices)
    for device in devices.values():
        device.destroy()


def test_devices_are_found_by_name_and_label(some):
    assert some["m1"].name == "m1"
    assert some["m1.user_readback"] is some["m1"].user_readback
    assert some.find("m2") is some.find(name="m2") is some["m2"]
    assert some.find("stage") is some["m1"]
    assert [device.name for device in some.findall("motor")] == ["m1", "m2"]
    assert some.findall(label="m1", allow_none=True) == []
    assert some.labels == ["motor", "stage"]
    assert list(some) == some.device_names == ["m1", "m2", "calcs"]
    assert "m1" in some
    assert "m3" not in some


@pytest.mark.parametrize(
    ("attempt", "told"),
    [
        (lambda r: r["calc"], "no device is named 'calc'; did you mean 'calcs'?"),
        (lambda r: r["m1.user_redback"], "m1 has no 'user_redback'; did you mean 'user_readback'?"),
        (lambda r: r["zzz"], r"no device is named 'zzz'; devices\(\) lists them"),
        (lambda r: r.find("motr"), "no device has the name or label 'motr'; did you mean 'motor'?"),
        (lambda r: r.find("motor"), r"2 devices have 'motor': m1, m2; findall\(\) gives them"),
    ],
)
def test_what_is_not_found_is_told_with_the_nearest_match(some, attempt, told):
    with pytest.raises(UserError, match=told):
        attempt(some)


def test_finding_makes_no_component(some):
    some.findall("motor")
    _ = some.labels, repr(some)
    assert list(some["calcs"]._signals) == ["enable"]
    assert "steps_per_revolution" not in some["m1"]._signals


def test_shortcuts_lead_into_devices(some):
    found = registry.shortcuts(some, {"rb": "m1.user_readback", "first": "m1", "off": "m9.user_readback"})
    assert found == {"rb": some["m1"].user_readback, "first": some["m1"]}
    with pytest.raises(UserError, match=r"shortcut rb: m1 has no 'user_redback' .*; did you mean 'user_readback'\?"):
        registry.shortcuts(some, {"rb": "m1.user_redback"})


def test_the_motor_factory_makes_our_motors(tmp_path):
    devices = registry.build(
        specs_of(tmp_path, "apsbits.utils.sim_creator.motors:\n- {prefix: 'none:m', first: 2, last: 1}\n")
    )
    assert [(name, type(device), device.prefix) for name, device in devices.items()] == [
        ("m1", Motor, "none:m1"),
        ("m2", Motor, "none:m2"),
    ]
