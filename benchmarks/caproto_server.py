"""A pure-Python CA server with one number, `caproto:float1`, for the comparison with the virtual beamline's IOC."""

from __future__ import annotations

from caproto.server import PVGroup, pvproperty, run


class OneNumber(PVGroup):
    """What it serves."""

    float1 = pvproperty(value=0.0, name="float1")


if __name__ == "__main__":
    run(OneNumber(prefix="caproto:").pvdb, interfaces=["127.0.0.1"], log_pv_names=False)
