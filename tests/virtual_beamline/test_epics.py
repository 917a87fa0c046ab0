"""The machinery of record types: an example record in an IOC of its own, a stock client in another process."""

import json
import math
import os
import shlex
import subprocess
import sys

import pytest

from virtual_beamline.epics import CalcError, EpicsBaseError, Expression, _base, base


@pytest.fixture(scope="module")
def ioc(tmp_path_factory):
    log = (tmp_path_factory.mktemp("delay") / "log").open("w+")
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.virtual_beamline.delay_ioc"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
    )
    environment = {}
    for line in process.stdout:
        if line.startswith("export "):
            name, value = shlex.split(line)[1].split("=", 1)
            environment[name] = value
            if name == "VIRTUAL_BEAMLINE":
                break

    def ask(question):
        done = subprocess.run(
            [sys.executable, "-m", "tests.virtual_beamline.epics_client", question],
            check=False,
            capture_output=True,
            text=True,
            env={**os.environ, **environment},
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    ask.log = log
    yield ask
    process.communicate("")
    log.close()


def test_a_put_with_completion_ends_when_the_record_says_so_and_so_does_the_forward_link(ioc):
    assert ioc("asynchronous_completion") == {"early": 0, "waited": True, "value": 7, "after": 1}


def test_a_put_on_the_way_redirects(ioc):
    assert ioc("redirection") == {"never_at_the_first": True}


def test_a_record_can_hold_itself_active_and_refuse_puts_meanwhile(ioc):
    answer = ioc("hold_makes_it_active")
    assert (answer["active"], answer["inactive"], answer["precision_kept"]) == (1, 0, True)


def test_links_can_be_set_and_taken_away_at_run_time(ioc):
    assert ioc("links") == {"target": 4.5, "kept": 4.5, "value": 5}


def test_refused_puts_restore_the_value(ioc):
    assert ioc("refusals") == {"delay": 0, "read_only": True, "menu": "Jump"}


def test_an_exception_is_logged_with_the_record_and_ends_the_processing_in_alarm(ioc):
    answer = ioc("errors")
    assert answer == {"completed": True, "severity": 3, "status": 15, "recovered": 0}
    ioc.log.flush()
    ioc.log.seek(0)
    text = ioc.log.read()
    assert "x:delay: processing failed" in text
    assert "RuntimeError: evil" in text
    assert "x:delay: special failed" in text
    assert "RuntimeError: on purpose" in text
    assert "x:delay: its timed behaviour failed" in text
    assert "RuntimeError: unlucky" in text


def test_limit_alarms_have_severities_and_hysteresis(ioc):
    none, high, hihi = ["NO_ALARM", "NO_ALARM"], ["HIGH", "MINOR"], ["HIHI", "MAJOR"]
    low, lolo = ["LOW", "MINOR"], ["LOLO", "MAJOR"]
    #                          0     60    100   96    94    47    44    -60  -101  0
    assert ioc("alarms") == [none, high, hihi, hihi, high, high, none, low, lolo, none]


def test_clients_see_units_precision_limits_and_states(ioc):
    assert ioc("metadata") == {
        "units": "mm",
        "precision": 3,
        "lower_disp_limit": -5,
        "upper_disp_limit": 5,
        "lower_ctrl_limit": -4,
        "upper_ctrl_limit": 4,
        "states": ["Calm", "Lively"],
        "state": 1,
    }


def test_arrays_and_long_strings(ioc):
    assert ioc("arrays_and_long_strings") == {"wave": [1.5, 2.5, 3.5], "room": 5, "text": "long text" * 9}


def test_io_intr_is_a_choice_of_scan(ioc):
    assert ioc("interrupt_scan") == {"scan": "Passive"}


def test_records_of_base_can_read_from_python(ioc):
    assert ioc("devices") == [42, "what is it?", 3]
    ioc.log.flush()
    ioc.log.seek(0)
    assert "x:broken: reading its device failed" in ioc.log.read()


# -- in this process: base's libraries are loaded, no IOC runs ---------------------------------------------------


def test_another_release_of_base_is_refused_in_one_line(monkeypatch):
    monkeypatch.setattr(_base.importlib.metadata, "version", lambda _: "7.0.9.99.1.0")
    with pytest.raises(
        EpicsBaseError, match=r"7\.0\.9\.99\.1\.0 is not supported.*pip install epicscorelibs==7\.0\.10"
    ):
        _base.EpicsBase().load()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("from virtual_beamline.epics import _ioc; _ioc._COMMON_FIELDS.remove('UTAG')", "its common fields are"),
        (
            "from virtual_beamline.epics import _base; import ctypes\n"
            "class Wrong(ctypes.Structure): _fields_ = [*_base.Link._fields_, ('more', ctypes.c_long)]\n"
            "from virtual_beamline.epics import _ioc; _ioc.Link = Wrong",
            "a link has 80 bytes, not 88",
        ),
        (
            "from virtual_beamline.epics import _record\n"
            "right = _record.size_and_alignment\n"
            "_record.size_and_alignment = lambda kind, size, link: "
            "(1, 1) if kind == 'DOUBLE' else right(kind, size, link)",
            "EPICS base finds x:delay.VAL",
        ),
    ],
)
def test_a_base_that_is_laid_out_differently_is_refused(damage, message):
    script = f"""
{damage}
from tests.virtual_beamline.delay_ioc import Delay, DATABASE
from virtual_beamline.epics import boot, EpicsBaseError
import os
try:
    boot([Delay], DATABASE)
except EpicsBaseError as error:
    print(error, flush=True)
os._exit(0)
"""
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True, timeout=60)
    assert message in done.stdout, done.stderr
    assert "pip install --force-reinstall epicscorelibs==" in done.stdout


def test_a_database_that_base_refuses_is_an_error():
    script = (
        "from virtual_beamline.epics import boot; import os\n"
        "try: boot([], 'record(nothing, \"x\") {}')\n"
        "except Exception as error: print(type(error).__name__, error, flush=True)\n"
        "os._exit(0)"
    )
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("EpicsBaseError EPICS base refuses the database")


@pytest.fixture
def loaded():
    base.load()


@pytest.mark.usefixtures("loaded")
def test_expressions_keep_val_assignments_and_errors():
    assert Expression("VAL+A").evaluate([2], 5) == 7
    double = Expression("B:=A*2;B+1")
    assert double.evaluate([4, 0], 0) == 9
    assert double.arguments[:2] == [4, 8]
    assert math.isnan(Expression("0/0").evaluate([], 0))
    for text in ("", "   ", "A+", "(A", "FOO(A)"):
        with pytest.raises(CalcError):
            Expression(text)


def test_the_mirrors_are_of_the_release_that_is_pinned():
    import tomllib
    from pathlib import Path

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert f"epicscorelibs=={_base.SUPPORTED_VERSION}" in project["project"]["dependencies"]
