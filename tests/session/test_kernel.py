"""A session in a Jupyter kernel follows the same rule: a bare statement that is a plan is run."""

import base64
import io
import re
import signal

import numpy as np
import pytest
from jupyter_client.manager import start_new_kernel
from PIL import Image

from tests.terminal import clean_environment

DEADLINE = 120.0  # s, generous: the machine may be busy


class Notebook:
    """A kernel, and what its cells show."""

    def __init__(self, directory):
        environment = clean_environment(
            directory,
            MPLBACKEND="module://matplotlib_inline.backend_inline",  # as every kernel has it
            JUPYTER_PLATFORM_DIRS="1",
            PYDEVD_DISABLE_FILE_VALIDATION="1",
        )
        self.displays = {}  # of the last cell: what was shown in each place that is written again
        self.manager, self.client = start_new_kernel(
            startup_timeout=DEADLINE, kernel_name="python3", cwd=str(directory), env=environment
        )

    def run(self, cell, while_it_runs=None):
        """What a cell prints, and what it is worth."""
        shown = []
        self.displays.clear()

        def take(message):
            content = message["content"]
            if message["msg_type"] in ("display_data", "update_display_data") and content["transient"]:
                self.displays.setdefault(content["transient"]["display_id"], []).append(content["data"])
            elif message["msg_type"] == "stream":
                shown.append(content["text"])
            elif message["msg_type"] in ("execute_result", "display_data"):
                shown.append(f"Out: {content['data'].get('text/plain', '')}\n")
            elif message["msg_type"] == "error":
                shown.append("\n".join(content["traceback"]))
            if while_it_runs is not None:
                while_it_runs("".join(shown))

        self.client.execute_interactive(cell, timeout=DEADLINE, output_hook=take)
        return "".join(shown)

    def close(self):
        self.client.execute_interactive("from instrument.session import current; current().close()", timeout=DEADLINE)
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    notebook = Notebook(tmp_path_factory.mktemp("kernel"))
    notebook.run("from instrument.collection import *")
    yield notebook
    notebook.close()


def test_statements_that_are_plans_are_run(notebook):
    assert notebook.run("mv(m1, 0.1)\nmv m1 0.2\nfor x in (0.3, 0.4):\n    mv(m1, x);\nm1.position") == "Out: 0.4\n"
    notebook.run("def back(motor):\n    yield from mv(motor, 0)")
    assert notebook.run("back(m1)") == ""
    assert notebook.run("m1.position") == "Out: 0.0\n"


def test_a_scan_shows_its_table_and_is_recorded(notebook):
    shown = notebook.run("ascan m1 0 0.2 2 0.1")
    assert "ascan: 3 points of scaler1 noisy, m1 0 to 0.2, about" in shown
    assert shown.count("\n|         ") == 3
    assert notebook.run("cat[-1].metadata['start']['plan_name']") == "Out: 'ascan'\n"


def test_a_plot_grows_below_the_cell_and_a_bar_leaves_nothing(notebook):
    notebook.run("plotselect noisy")
    shown = notebook.run("ascan m1 0 0.5 10 0.2")
    assert "\r" not in shown
    assert shown.count("\n|         ") == 9
    places = list(notebook.displays.values())
    pictures = [data for data in places if any("image/png" in one for one in data)]
    bars = [data for data in places if any("<progress " in one.get("text/html", "") for one in data)]
    assert (len(pictures), len(bars), len(places)) == (1, 1, 2)
    (growing,), (bar,) = pictures, bars
    assert growing[0] == {"text/plain": ""}  # its place is above the table
    images = [np.asarray(Image.open(io.BytesIO(base64.b64decode(one["image/png"])))) for one in growing[1:]]
    assert len(images) > 2
    assert not np.array_equal(images[0], images[-1])
    assert min(np.ptp(image[..., :3]) for image in images) > 200  # black on white
    done = [int(re.search(r'value="(\d+)" max="11"', one["text/html"])[1]) for one in bar if "text/html" in one]
    assert done == sorted(done)
    assert done[0] < done[-1]  # 0 at first if a second passes before the first point
    assert bar[-1] == {"text/plain": ""}
    # the next scan is drawn over it, below its own cell; pyplot shows neither once more
    assert "Figure" not in notebook.run("dscan m1 -0.2 0.2 5 0.1")
    assert sum(any("image/png" in one for one in data) for data in notebook.displays.values()) == 1
    assert notebook.run("len(bec.windows.figure_of('noisy').axes[0].lines) >= 2") == "Out: True\n"


def test_a_move_shows_where_the_motor_is_in_one_place(notebook):
    shown = notebook.run("umv m1 0.6; umv m1 0")
    assert [line.partition(" -> ")[2] for line in shown.splitlines()] == ["0.6 degrees", "0 degrees"]
    assert [data[-1] for data in notebook.displays.values()] == [{"text/plain": ""}] * 2


def test_what_is_wrong_is_one_line(notebook):
    assert notebook.run("ascan(m1 0 1 3)") == "ascan(m1 0 1 3) is no Python; did you mean ascan(m1, 0, 1, 3)?"
    assert notebook.run("mv m17 1") == "no device is named 'm17'; did you mean 'm7'?"
    assert notebook.run("p = mv(m1, 3)\np = 1") == (
        "`p = mv(m1, 3)`: the plan mv was never run; type mv(...) as a statement of its own, or RE(...) it\n"
    )


def test_a_paused_scan_goes_on_under_the_cell_that_resumes_it(notebook):
    pressed = []

    def press(shown):
        if "|         1 |" in shown and not pressed:
            pressed.append(True)
            notebook.manager.signal_kernel(signal.SIGQUIT)

    assert "paused: RE.resume() goes on" in notebook.run("timescan 0.4 0 7", press)
    shown = notebook.run("RE.resume()")
    assert "|         7 |" in shown, shown


def test_the_stop_button_ends_a_plan_in_good_order(notebook):
    pressed = []

    def press(shown):
        if "|         2 |" in shown and not pressed:
            pressed.append(True)
            notebook.manager.interrupt_kernel()

    shown = notebook.run("timescan 0.1", press)
    assert shown.splitlines()[-1] == (
        "the run was aborted (Ctrl-C); motors are told to stop, the data so far is kept"
    ), shown
    assert notebook.run("cat[-1].metadata['stop']['exit_status']") == "Out: 'abort'\n"
