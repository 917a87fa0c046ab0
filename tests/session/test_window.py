"""The live plot in a window: drawn by Qt on the main thread while a scan runs, used again, alive at the prompt."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests.faults.session import until
from tests.tmux import Tmux

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="NOT RUN: tmux is missing")

# Typed by %run -i: keeps by whom and when a window was drawn, and tells of drawings while a scan runs.
WATCH = """
import threading
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.backends.backend_qtagg import FigureCanvasQTAgg as Canvas
from PyQt5.QtCore import QTimer

drawn = []

def watched(method):
    def draw(canvas, *args):
        drawn.append((threading.current_thread() is threading.main_thread(), RE.state))
        if drawn.count((True, "running")) > 5:
            Path("live").touch()
        return method(canvas, *args)
    return draw

Canvas.draw, Canvas.blit = watched(Canvas.draw), watched(Canvas.blit)

def window():
    (number,) = plt.get_fignums()
    return plt.figure(number).canvas.manager.window
"""
FIRST_TWO_COLOURS = (31, 119, 180), (255, 127, 14)  # of matplotlib's lines


@pytest.fixture
def tmux(tmp_path):
    qt = [sys.executable, "-c", "import PyQt5.QtWidgets"]  # which punx brings along
    if subprocess.run(qt, check=False, capture_output=True).returncode:
        pytest.skip("NOT RUN: PyQt5 is missing, or what it needs of the system (libGL)")
    # without a display matplotlib would choose a backend without windows, but Qt needs none
    (tmp_path / "matplotlibrc").write_text("backend_fallback: False\n")
    tmux = Tmux(tmp_path, MPLBACKEND="QtAgg", QT_QPA_PLATFORM="offscreen")
    yield tmux
    tmux.close()


def test_the_window_of_the_live_plot(tmux, tmp_path):
    (tmp_path / "watch.py").write_text(WATCH)
    tmux.answer(1, "%run -i watch.py")
    # it is drawn while the scan runs, and Ctrl-C is heard meanwhile
    tmux.prompt(2)
    tmux.type("RE(bp.scan([noisy], m2, 0, 20, 81))")
    until((tmp_path / "live").exists, "a window that is drawn")
    tmux.press("C-c")
    tmux.prompt(3)
    assert "the run was aborted (Ctrl-C); motors are told to stop, the data so far is kept" in tmux.shown()
    assert tmux.answer(3, "{main for main, _ in drawn}, window().isVisible()")[-1] == "Out[3]: ({True}, True)"
    # it lives while the prompt waits
    tmux.answer(4, "QTimer.singleShot(300, lambda: Path('alive').touch())")
    until((tmp_path / "alive").exists, "a window that lives at the prompt")
    # it is used again, and shows both scans
    tmux.answer(5, "first = window(); RE(bp.scan([noisy], m2, -0.5, 0, 3))")
    assert tmux.answer(6, "window() is first, window().grab().save('window.png')")[-1] == "Out[6]: (True, True)"
    pixels = np.asarray(Image.open(tmp_path / "window.png").convert("RGB"))
    for colour in FIRST_TWO_COLOURS:
        assert np.count_nonzero((pixels == colour).all(axis=-1)) > 50, colour
    tmux.leave()
