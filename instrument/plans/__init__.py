"""Plans: generators that only yield messages. Devices come in as arguments.

What is exported here is what a session offers at its prompt, with its own devices filled in
(`instrument.plans.defaults.with_devices`).
"""

from instrument.plans.counting import ct, timescan
from instrument.plans.images import ad_vs_motor, darks_flats, locate_image_peak
from instrument.plans.lineup import lineup2, lup
from instrument.plans.moves import mv, mvr, set_dial, set_lm, set_user, umv, umvr
from instrument.plans.peak_finder import (
    change_noisy_parameters,
    findpeak_multipass,
    repeat_findpeak,
    two_pass_scan,
)
from instrument.plans.scans import a2scan, ascan, d2scan, dmesh, dscan, lookupscan, mesh
from instrument.plans.snapshot import snapshot
from instrument.plans.snapshot_restore import snapshot_restore, snapshot_undo

__all__ = [
    "a2scan",
    "ad_vs_motor",
    "ascan",
    "change_noisy_parameters",
    "ct",
    "d2scan",
    "darks_flats",
    "dmesh",
    "dscan",
    "findpeak_multipass",
    "lineup2",
    "locate_image_peak",
    "lookupscan",
    "lup",
    "mesh",
    "mv",
    "mvr",
    "repeat_findpeak",
    "set_dial",
    "set_lm",
    "set_user",
    "snapshot",
    "snapshot_restore",
    "snapshot_undo",
    "timescan",
    "two_pass_scan",
    "umv",
    "umvr",
]
