"""Storage rings."""

from __future__ import annotations

from ophyd import Component, Device, EpicsSignal, EpicsSignalRO


class StorageRing(Device):
    """The current in a storage ring.

    `beam` belongs to the simulated one: `ring.beam.put("lost")` takes the beam away, `ring.beam.put("stored")` gives it
    back. (Not `mv`: a suspender that watches the current would hold that move, too.)
    """

    current = Component(EpicsSignalRO, "current", kind="hinted", auto_monitor=True)
    beam = Component(EpicsSignal, "beam", string=True, kind="config")
