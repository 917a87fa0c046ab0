r"""Ctrl-C and Ctrl-\ at the prompt that people see (prompt_toolkit's), started by `make session`, through tmux."""

import re
import shutil

import psutil
import pytest

from tests.faults.session import until
from tests.tmux import Tmux

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="NOT RUN: tmux is missing")


@pytest.fixture
def tmux(tmp_path):
    tmux = Tmux(tmp_path)
    yield tmux
    tmux.close()


def test_the_keys(tmux):
    tmux.prompt(1)
    ioc = tmux.beamline().pid
    # at the prompt: what is typed is dropped, the session lives
    tmux.run("send-keys", "-l", "a half-typed line")
    tmux.press("C-c")
    until(lambda: "KeyboardInterrupt" in "".join(tmux.shown()[-3:]) or tmux.shown()[-1] == "In [1]:")
    tmux.press("C-\\")
    assert tmux.answer(1, "1 + 1") == ["Out[1]: 2"]
    # in a move
    tmux.prompt(2)
    tmux.run("send-keys", "-l", "RE(bps.mv(m2, 20))")
    tmux.press("Enter")
    until(lambda: float(tmux.pv("gp:m2.RBV")) > 0.3)
    tmux.press("C-c")
    tmux.prompt(3)
    assert [line for line in tmux.after("In [2]: RE(bps.mv(m2, 20))") if line != "^C"] == [
        "Ctrl-C: ending the run in good order; Ctrl-C again ends it at once.",
        "the plan was aborted (Ctrl-C); motors are told to stop, the data so far is kept",
    ]
    until(lambda: tmux.pv("gp:m2.DMOV") == "1")
    assert 0.3 < float(tmux.pv("gp:m2.RBV")) < 20
    # paused, and ended
    tmux.run("send-keys", "-l", "RE(bp.scan([noisy], m2, 0, 20, 41))")
    tmux.press("Enter")
    until(lambda: any(line.startswith("|         2 |") for line in tmux.shown()))
    tmux.press("C-\\")
    tmux.prompt(4)
    shown = tmux.shown()
    assert any(line.endswith("Pausing...") for line in shown)  # behind the echo of the key, or a bar
    assert any(re.search("[│┤].*[⠁-⣿]", line) for line in shown)  # the curve so far
    assert (
        shown[-2]
        == "paused: RE.resume() goes on, RE.stop() or RE.abort('why') ends it in good order, RE.halt() at once"
    )
    shown = tmux.answer(4, "RE.abort('the wrong sample')")
    assert shown[0] == "Aborting: running cleanup and marking exit_status as 'abort'..."
    assert tmux.answer(5, "cat[-1].metadata['stop']['reason']") == ["Out[5]: 'the wrong sample'"]
    assert tmux.answer(6, "RE(bp.scan([noisy], m2, 0, 0.02, 3))")[-1].startswith("Out[6]: ('")
    # nothing of this reached the IOC
    assert tmux.beamline().pid == ioc
    tmux.press("C-d")
    until(lambda: not psutil.pid_exists(ioc), "the end of the session and its IOC")
