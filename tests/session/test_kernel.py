"""A session in a Jupyter kernel follows the same rule: a bare statement that is a plan is run."""

import re
import signal

import pytest
from jupyter_client.manager import start_new_kernel

from tests.terminal import clean_environment

DEADLINE = 120.0  # s, generous: the machine may be busy


class Notebook:
    """A kernel, and what its cells show."""

    def __init__(self, directory):
        environment = clean_environment(directory, JUPYTER_PLATFORM_DIRS="1", PYDEVD_DISABLE_FILE_VALIDATION="1")
        self.manager, self.client = start_new_kernel(
            startup_timeout=DEADLINE, kernel_name="python3", cwd=str(directory), env=environment
        )

    def run(self, cell, while_it_runs=None):
        """What a cell prints, and what it is worth."""
        shown = []

        def take(message):
            content = message["content"]
            if message["msg_type"] == "stream":
                shown.append(content["text"])
            elif message["msg_type"] in ("execute_result", "display_data"):
                shown.append(f"Out: {content['data'].get('text/plain', '')}\n")
            elif message["msg_type"] == "error":
                shown.append("\n".join(content["traceback"]))
            if while_it_runs is not None:
                while_it_runs("".join(shown))

        self.client.execute_interactive(cell, timeout=DEADLINE, output_hook=take)
        return re.sub(r"\r[^\n]*\r", "", "".join(shown))  # without progress bars

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


def test_what_is_wrong_is_one_line(notebook):
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

    assert "paused: RE.resume() goes on" in notebook.run("timescan 0.3 0 3", press)
    shown = notebook.run("RE.resume()")
    assert "|         3 |" in shown, shown


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
