"""A device whose motors are components, for a session of the tests."""

from ophyd import Component, Device, EpicsMotor


class Slits(Device):
    """Two motors of the virtual beamline; the first moves what moves the simulated peak."""

    top = Component(EpicsMotor, "m1", labels=("motor",))
    bottom = Component(EpicsMotor, "m9", labels=("motor",))


DEVICES = """
tests.session.devices.Slits:
  - {name: slits, prefix: "gp:"}
"""
