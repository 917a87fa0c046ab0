"""Plans: generators that only yield messages. Devices come in as arguments.

What is exported here is what a session offers at its prompt, with its own devices filled in
(`instrument.plans.defaults.with_devices`).
"""

from instrument.plans.lineup import lup
from instrument.plans.peak_finder import (
    change_noisy_parameters,
    findpeak_multipass,
    repeat_findpeak,
    two_pass_scan,
)
from instrument.plans.snapshot import snapshot

__all__ = ["change_noisy_parameters", "findpeak_multipass", "lup", "repeat_findpeak", "snapshot", "two_pass_scan"]
