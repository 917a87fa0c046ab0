"""The scaler record over Channel Access: what its documentation promises, field by field."""

from __future__ import annotations

import itertools
import math
import statistics
import time

import pytest

from tests.virtual_beamline.conftest import wait_for

NAMES = ["timebase", "I0", "scint", "diode", "I00", "I000"]


class Scaler:
    """`gp:scaler1` by the names of its fields."""

    def __init__(self, client, name="scaler1"):
        self.client = client
        self.name = name

    def __getattr__(self, field):
        if not field.isupper() and not field[0].isupper():
            raise AttributeError(field)
        return self.client.get(f"{self.name}.{field}")

    def put(self, wait=True, **values):
        for field, value in values.items():
            self.client.put(f"{self.name}.{field}", value, wait=wait)

    def rate(self, channel, value=None):
        if value is not None:
            self.client.put(f"{self.name}:rate{channel}", value)
        return self.client.get(f"{self.name}:rate{channel}")

    def start(self):
        return self.client.start_put(f"{self.name}.CNT", 1)

    def count(self, **values):
        self.put(**values)
        assert self.client.put(f"{self.name}.CNT", 1)
        return [getattr(self, f"S{channel}") for channel in range(1, 17)]


@pytest.fixture
def scaler(gp):
    device = Scaler(gp)
    rates = {channel: device.rate(channel) for channel in range(2, 17)}

    def reset():
        device.put(CONT=0, CNT=0)
        device.put(FREQ=1e7, TP=0.1, TP1=1, DLY=0, DLY1=0, RATE=10, RAT1=0, COUT="", COUTP="", FLNK="", PREC=3, EGU="")
        for channel in range(2, 33):
            device.put(**{f"G{channel}": 0, f"PR{channel}": 0})
        for channel, rate in rates.items():
            if device.rate(channel) != rate:
                device.rate(channel, rate)

    reset()
    yield device
    reset()
    device.put(TP=1)


@pytest.fixture
def watch(scaler):
    import epics

    pvs = []

    def start(field):
        values = []
        pv = epics.PV(
            f"{scaler.client.prefix}{scaler.name}.{field}",
            auto_monitor=True,
            callback=lambda value, timestamp, **_: values.append((value, timestamp)),
        )
        pvs.append(pv)
        wait_for(lambda: values)
        values.clear()
        return values

    yield start
    for pv in pvs:
        pv.disconnect()


def test_the_time_base_counts_exactly_the_preset_time(scaler):
    for preset in (0.05, 0.2):
        counts = scaler.count(TP=preset)
        assert counts[0] == preset * 1e7
        assert (scaler.T, scaler.VAL, scaler.CNT) == (preset, preset, 0)


def test_counting_takes_as_long_as_it_says(scaler):
    scaler.put(TP=0.2)
    durations = []
    for _ in range(5):
        begun = time.monotonic()
        done = scaler.start()
        wait_for(lambda done=done: done)
        durations.append(done[0] - begun)
    # The soft scaler of synApps added 0.1 s to each; the quickest is least disturbed by what else this machine does.
    assert 0.2 <= min(durations) < 0.28


def test_channels_count_at_their_mean_rates(scaler):
    for channel in range(2, 17):
        scaler.rate(channel, 1000 * channel)
    counts = scaler.count(TP=0.5)
    for channel, count in enumerate(counts[1:], start=2):
        mean = 500 * channel
        assert abs(count - mean) < 6 * math.sqrt(mean)
    assert scaler.count()[1:] != counts[1:]


def test_counts_scatter_as_radiation_does(scaler):
    scaler.rate(2, 1000)
    counts = [scaler.count(TP=0.02)[1] for _ in range(100)]
    assert statistics.mean(counts) == pytest.approx(20, abs=3)
    assert 8 < statistics.variance(counts) < 40


def test_a_rate_can_change_while_counting(scaler):
    scaler.rate(3, 0)
    scaler.put(TP=30)
    done = scaler.start()
    wait_for(lambda: scaler.S1 > 0)
    assert scaler.S3 == 0
    scaler.rate(3, 1e5)
    wait_for(lambda: scaler.S3 > 0)
    scaler.put(CNT=0, wait=False)
    wait_for(lambda: done)


@pytest.mark.parametrize("rate", [-5.0, math.nan])
def test_a_rate_that_cannot_be_counts_nothing(scaler, rate):
    scaler.client.put(f"{scaler.name}:rate5", rate)
    assert scaler.count()[4] == 0


def test_channels_without_an_input_count_nothing(scaler):
    scaler.count()
    assert [getattr(scaler, f"S{channel}") for channel in (7, 16, 17, 32)] == [0, 0, 0, 0]
    assert scaler.NCH == 16


def test_the_channels_have_their_names(scaler):
    texts = [scaler.client.get(f"{scaler.name}.NM{channel}", text=True) for channel in range(1, 8)]
    assert texts == [*NAMES, ""]
    scaler.put(NM7="pin")
    assert scaler.client.get(f"{scaler.name}.NM7", text=True) == "pin"
    scaler.put(NM7="")


# -- presets ----------------------------------------------------------------------------------------------------


def test_a_preset_on_any_gated_channel_ends_the_count(scaler):
    scaler.rate(4, 10_000)
    counts = scaler.count(TP=20, PR4=1000)
    assert counts[3] == 1000
    assert 0.05 < scaler.T < 0.2
    assert counts[0] == pytest.approx(scaler.T * 1e7)
    assert counts[1] == pytest.approx(5000 * scaler.T, abs=6 * math.sqrt(5000 * 0.2))


def test_the_first_preset_to_be_reached_ends_the_count(scaler):
    scaler.rate(4, 10_000)
    scaler.rate(5, 100_000)
    counts = scaler.count(TP=20, PR4=1000, PR5=2000)
    assert counts[4] == 2000
    assert counts[3] < 1000
    counts = scaler.count(TP=0.01)
    assert counts[0] == 100_000
    assert counts[4] < 2000


def test_a_gate_that_is_closed_ignores_its_preset(scaler):
    scaler.rate(4, 1e6)
    scaler.put(PR4=1000)
    scaler.put(G4=0)
    assert scaler.count(TP=0.1)[3] > 1000
    assert scaler.T == 0.1


def test_presets_and_gates_follow_each_other(scaler):
    scaler.put(PR5=70)
    assert (scaler.G5, scaler.D5) == (1, 1)
    scaler.put(G5=0)
    assert (scaler.G5, scaler.D5, scaler.PR5) == (0, 0, 70)
    scaler.put(G6=1)
    assert (scaler.PR6, scaler.D6) == (1000, 1)
    scaler.put(G1=0)
    scaler.put(TP=0.25)
    assert (scaler.PR1, scaler.G1) == (2_500_000, 1)
    scaler.put(PR1=5_000_000)
    assert scaler.TP == 0.5
    scaler.put(FREQ=1e6)
    assert (scaler.TP, scaler.PR1) == (0.5, 500_000)


def test_without_the_time_gate_another_preset_is_waited_for(scaler):
    scaler.rate(2, 5000)
    scaler.put(TP=0.01)
    scaler.put(G1=0)
    counts = scaler.count(PR2=1000)
    assert counts[1] == 1000
    assert scaler.T > 0.1


def test_without_any_gate_the_count_goes_on_until_it_is_stopped(scaler):
    scaler.put(TP=0.01)
    scaler.put(G1=0)
    done = scaler.start()
    wait_for(lambda: scaler.T > 0.3)
    assert not done
    scaler.put(CNT=0, wait=False)
    wait_for(lambda: done)


def test_a_preset_of_zero_ends_the_count_at_once(scaler):
    assert scaler.count(TP=0)[0] == 0
    assert scaler.T == 0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("TP", 430),
        ("TP", -1),
        ("TP", math.nan),
        ("FREQ", 0),
        ("FREQ", math.nan),
        ("TP1", -1),
        ("DLY", -1),
        ("RATE", -1),
    ],
)
def test_what_cannot_be_counted_is_refused(scaler, field, value):
    before = getattr(scaler, field)
    scaler.put(**{field: value})
    assert getattr(scaler, field) == before
    assert scaler.PR1 == round(scaler.TP * scaler.FREQ)


def test_a_slower_clock_allows_longer_counts(scaler):
    scaler.put(FREQ=1000)
    scaler.put(TP=100_000)
    assert (scaler.TP, scaler.PR1) == (100_000, 100_000_000)
    assert scaler.count(TP=0.1)[0] == 100


# -- start and stop ---------------------------------------------------------------------------------------------


def test_a_put_with_completion_ends_with_the_count_and_not_before(scaler):
    scaler.put(TP=1)
    done = scaler.start()
    wait_for(lambda: scaler.T > 0.2)
    assert scaler.CNT == 1
    assert not done
    wait_for(lambda: done)
    assert (scaler.CNT, scaler.T) == (0, 1)


def test_a_stop_keeps_the_counts_so_far(scaler):
    scaler.put(TP=100, RATE=0)
    done = scaler.start()
    scaler.client.wait(f"{scaler.name}.CNT", 1)
    begun = time.monotonic()
    wait_for(lambda: time.monotonic() > begun + 0.2)
    scaler.put(CNT=0, wait=False)
    wait_for(lambda: done)
    assert scaler.T > 0.15
    assert scaler.S1 == pytest.approx(scaler.T * 1e7)
    assert scaler.S2 == pytest.approx(5000 * scaler.T, rel=0.3)
    kept = [scaler.S1, scaler.S2]
    scaler.put(CNT=0)
    assert [scaler.S1, scaler.S2] == kept


def test_counting_begins_at_zero(scaler, watch):
    scaler.count(TP=0.2)
    values = watch("S1")
    scaler.put(TP=0.5)
    scaler.count()
    assert values[0][0] == 0


def test_counts_are_shown_at_the_display_rate(scaler, watch):
    scaler.put(TP=1, RATE=20)
    values = watch("S2")
    scaler.count()
    wait_for(lambda: len(values) > 7)
    gaps = [after[1] - before[1] for before, after in itertools.pairwise(values)]
    assert 0.04 < statistics.median(gaps) < 0.095  # at boot it is 0.1 s
    counts = [value for value, _ in values]
    assert counts == sorted(counts)


def test_without_a_display_rate_counts_are_shown_at_the_end(scaler, watch):
    scaler.put(TP=0.5, RATE=0)
    values = watch("T")
    scaler.count()
    wait_for(lambda: values and values[-1][0] == 0.5)
    assert [value for value, _ in values if value] == [0.5]


def test_the_display_rate_is_at_most_sixty(scaler):
    scaler.put(RATE=1000, RAT1=1000)
    assert (scaler.RATE, scaler.RAT1) == (60, 60)


def test_counting_waits_for_the_delay(scaler):
    scaler.put(DLY=0.5, TP=0.1)
    begun = time.monotonic()
    scaler.count()
    assert time.monotonic() - begun >= 0.6
    assert scaler.T == 0.1


def test_a_stop_in_the_delay_ends_it(scaler):
    scaler.put(DLY=600)
    done = scaler.start()
    scaler.client.wait(f"{scaler.name}.CNT", 1)
    scaler.put(CNT=0, wait=False)
    wait_for(lambda: done)
    assert scaler.CNT == 0


def test_cnt_is_told_to_other_records_before_and_after_the_delay(gp, scaler):
    gp.put("gp:float18", 0)
    gp.put("gp:float19", 0)
    scaler.put(COUT=f"{gp.prefix}gp:float18", COUTP=f"{gp.prefix}gp:float19", DLY=1, TP=1)
    done = scaler.start()
    gp.wait("gp:float19", 1)
    assert gp.get("gp:float18") == 0
    gp.wait("gp:float18", 1)
    wait_for(lambda: done)
    assert (gp.get("gp:float18"), gp.get("gp:float19")) == (0, 0)


def test_the_forward_link_is_processed_once_when_the_count_is_done(gp, scaler):
    gp.put("userCalcOut19.CALC", "VAL+1")
    scaler.put(FLNK=f"{gp.prefix}userCalcOut19")
    before = gp.get("userCalcOut19")
    scaler.put(TP=1)
    done = scaler.start()
    wait_for(lambda: scaler.T > 0)
    assert gp.get("userCalcOut19") == before
    wait_for(lambda: done)
    assert gp.get("userCalcOut19") == before + 1


# -- background counting ----------------------------------------------------------------------------------------


def wait_until_background_may_count(scaler):
    """The result of a count is held for ten seconds."""
    wait_for(lambda: scaler.S1 == 2_000_000, timeout=40, what="background count")


def test_background_counting_goes_on_and_gives_way_to_a_count(scaler, watch):
    scaler.put(TP1=0.2, DLY1=0.1, RAT1=0)
    states = watch("CNT")
    scaler.put(CONT=1)
    begun = time.monotonic()
    scaler.count(TP=0.1)
    assert scaler.S1 == 1_000_000
    wait_until_background_may_count(scaler)
    assert time.monotonic() - begun > 10, "the result of a count is held for ten seconds"
    rounds = watch("S2")
    wait_for(lambda: sum(value == 0 for value, _ in rounds) >= 3, what="rounds of background counting")
    assert [value for value, _ in states] == [1, 0], "CNT tells of the count alone"
    assert scaler.count(TP=0.05)[0] == 500_000
    scaler.put(CONT=0)


def test_background_counts_are_shown_at_their_own_rate(scaler, watch):
    scaler.put(TP1=100, RAT1=20)
    scaler.put(CONT=1)
    values = watch("S2")
    wait_for(lambda: len(values) > 10, timeout=30)
    scaler.put(CONT=0)
    gaps = [after[1] - before[1] for before, after in itertools.pairwise(values[1:])]
    assert 0.04 < statistics.median(gaps) < 0.095
    last = scaler.S2
    scaler.count(TP=0.01)
    assert last > 0


def test_without_a_background_time_the_presets_hold(scaler):
    scaler.rate(4, 1e5)
    scaler.put(TP=100, PR4=5000, TP1=0)
    scaler.put(CONT=1)
    wait_for(lambda: scaler.S4 == 5000, timeout=40)
    assert scaler.CNT == 0


# -- display ----------------------------------------------------------------------------------------------------


def test_units_and_decimals_are_told(scaler):
    scaler.put(EGU="counts", PREC=5)
    metadata = scaler.client.pv(f"{scaler.name}.T").get_ctrlvars()
    assert (metadata["units"], metadata["precision"]) == ("s", 5)
    assert scaler.client.pv(f"{scaler.name}.S1").get_ctrlvars()["units"] == "counts"
    assert scaler.client.pv(f"{scaler.name}.FREQ").get_ctrlvars()["units"] == "Hz"


@pytest.mark.parametrize("field", ["S1", "T", "D1", "NCH", "VAL"])
def test_results_cannot_be_written(scaler, field):
    import epics

    with pytest.raises(epics.ca.CASeverityException, match="Write access denied"):
        scaler.put(**{field: 5})
