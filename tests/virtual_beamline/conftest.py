"""A stock CA client for the tests of the IOC."""

import time

import pytest

DEADLINE = 30.0  # s, generous: the machine may be busy


def wait_for(condition, timeout=DEADLINE, what="condition"):
    """Wait until ``condition()`` is true and give its value."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what} not met within {timeout} s"
        time.sleep(0.01)
    return value


class Client:
    """Unmonitored gets and completed puts of PVs below one prefix."""

    def __init__(self, prefix):
        self.prefix = prefix
        self._pvs = {}

    def pv(self, name):
        import epics

        if name not in self._pvs:
            # {} (an empty channel filter) makes another channel of the same PV: with an unmonitored pyepics PV on a
            # channel, ophyd's monitors on that channel never get a value, and its devices do not connect.
            channel = f"{self.prefix}{name if '.' in name else f'{name}.VAL'}{{}}"
            self._pvs[name] = epics.PV(channel, auto_monitor=False, connection_timeout=DEADLINE)
        pv = self._pvs[name]
        assert pv.wait_for_connection(timeout=DEADLINE), pv.pvname
        return pv

    def get(self, name, text=False):
        value = self.pv(name).get(use_monitor=False, as_string=text, timeout=DEADLINE)
        assert value is not None, name
        return value

    def put(self, name, value, wait=True, timeout=DEADLINE):
        """Put with completion; true if the IOC took it in time."""
        return self.pv(name).put(value, wait=wait, timeout=timeout) == 1

    def start_put(self, name, value):
        """A put with completion that is not waited for; gives the list that an element is added to when it is done."""
        done = []
        self.pv(name).put(value, wait=False, callback=lambda **_: done.append(time.monotonic()))
        return done

    def wait(self, name, value, timeout=DEADLINE, text=False):
        seen = []

        def check():
            seen[:] = [self.get(name, text)]
            return seen[0] == value

        try:
            wait_for(check, timeout)
        except AssertionError:
            pytest.fail(f"{name} is {seen[0]!r}, not {value!r}")


def connected_motor(motor):
    """A motor of stock ophyd, connected: its first values may come before ophyd has subscribed to them."""
    for signal, changed in ((motor.user_readback, motor._pos_changed), (motor.motor_done_move, motor._move_changed)):
        signal.unsubscribe(signal.subscribe(changed, run=True))
    motor.wait_for_connection(timeout=DEADLINE)
    return motor


@pytest.fixture(scope="session")
def gp(virtual_beamline):
    return Client(virtual_beamline.prefix)


@pytest.fixture
def client_of():
    return Client
