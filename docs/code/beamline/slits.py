"""Two blades, moved as a gap and a centre."""

from ophyd import Component, EpicsMotor, PseudoPositioner, PseudoSingle
from ophyd.pseudopos import pseudo_position_argument, real_position_argument


class Slits(PseudoPositioner):
    """A gap between two motors; `prefix` is that of the IOC."""

    top = Component(EpicsMotor, "m3")
    bottom = Component(EpicsMotor, "m4")
    gap = Component(PseudoSingle, egu="mm")
    center = Component(PseudoSingle, egu="mm")

    @pseudo_position_argument
    def forward(self, pseudo):
        """From gap and centre to the blades."""
        half = pseudo.gap / 2
        return self.RealPosition(top=pseudo.center + half, bottom=pseudo.center - half)

    @real_position_argument
    def inverse(self, real):
        """From the blades to gap and centre."""
        center = (real.top + real.bottom) / 2
        return self.PseudoPosition(gap=real.top - real.bottom, center=center)
