"""A person's own plan that is called without `yield from` is told before the plan that calls it runs."""

import importlib.util
import linecache
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import bluesky.plans as bp
import bluesky.preprocessors as bpp
import pytest
from bluesky.utils import plan
from ophyd.sim import det, motor

from instrument.framework.engine import RunEngine
from instrument.framework.forgotten import forgotten_calls, is_library
from instrument.framework.statements import forgotten

PLANS = """\
import bluesky.preprocessors as bpp
from bluesky import plan_stubs as bps

def scan_it(place):
    yield from bps.null()

def numbers():
    return [1]

def right():
    yield from scan_it(1)
    made = scan_it(2)
    numbers()
    yield from made

def wrong():
    if numbers():
        scan_it(
            3)
    yield from right()

def deeper():
    yield from bps.null()
    yield from wrong()

@bpp.run_decorator()
def decorated():
    scan_it(4)
    yield from bps.null()

def nested():
    @bpp.run_decorator()
    def inner():
        scan_it(5)
        yield from bps.null()
    yield from inner()

def local(scan_it):
    scan_it(6)
    yield from bps.null()

def align():
    scan_it(7)
    yield from bps.null()

def to(_place):
    yield from bps.null()

def moves_a_device():
    yield from to(stage.align)

def of_a_module():
    yield from me.align()
"""


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    path = tmp_path_factory.mktemp("mine") / "mine.py"
    path.write_text(PLANS)
    spec = importlib.util.spec_from_file_location("mine", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.me, module.stage = module, SimpleNamespace(align=motor)
    return module


def told(function, line, argument):
    return (
        f"`scan_it({argument})` in {function} (mine.py, line {line}): the plan scan_it is never run; "
        "write `yield from scan_it(...)`"
    )


@pytest.mark.parametrize(
    ("make", "lines"),
    [
        (lambda m: m.wrong(), [told("wrong", 18, 3)]),
        (lambda m: m.deeper(), [told("wrong", 18, 3)]),  # of the plans that it calls
        (lambda m: bpp.finalize_wrapper(m.right(), m.wrong()), [told("wrong", 18, 3)]),  # of those it is given
        (lambda m: m.decorated(), [told("decorated", 28, 4)]),
        (lambda m: m.nested(), [told("inner", 34, 5)]),
        (lambda m: m.right(), []),
        (lambda m: m.local(print), []),
        (lambda m: m.moves_a_device(), []),  # which is called as a plan is
        (lambda m: m.of_a_module(), [told("align", 43, 7)]),
        (lambda _: bp.scan([det], motor, 0, 1, 3), []),
        (lambda _: [], []),
    ],
)
def test_a_call_without_yield_from_is_found(mine, make, lines):
    assert forgotten_calls(make(mine)) == lines


def test_it_is_told_when_the_plan_is_run_which_runs_all_the_same(mine, caplog):
    commands = []
    engine = RunEngine({}, context_managers=[])
    engine.msg_hook = lambda msg: commands.append(msg.command)
    engine(plan(mine.wrong)())
    assert caplog.messages == [told("wrong", 18, 3)]
    assert commands == ["null", "null"]


def test_a_file_that_was_edited_since_is_not_judged_by(tmp_path):
    path = tmp_path / "edited.py"
    path.write_text("def a():\n    yield\n\ndef b():\n    yield from a()\n")
    names = {}
    exec(compile(path.read_text(), str(path), "exec"), names)
    path.write_text("def a():\n    yield\n\ndef b():\n    yield\n    a()\n")
    linecache.checkcache(str(path))
    assert forgotten_calls(names["b"]()) == []


@pytest.mark.parametrize("directory", ["/home/me/instrument/user", "/home/me/bluesky", "/home/me/asyncio"])
def test_a_directory_of_ones_own_may_be_called_as_a_package_is(directory):
    """Stock: `mv(m1, 3)` in a clone of this project is told as if nobody had written it."""
    frames = [
        ("/home/me/env/lib/python3.11/site-packages/IPython/core/run.py", "run_code", "exec(code)"),
        (f"{directory}/plans.py", "here", "mv(m1, 3)"),
        (bp.__file__, "call", "return Plan(function)"),
    ]
    stack = "".join(f'  File "{file}", line 5, in {function}\n    {text}\n' for file, function, text in frames)
    assert forgotten(f"{stack}plan `mv` was never iterated, did you mean to use `yield from`?") == (
        "`mv(m1, 3)` in here: the plan mv was never run; write `yield from mv(...)`"
    )
    assert not is_library(f"{directory}/plans.py")
    script = str(Path(sys.executable).with_name("instrument"))
    ours = is_library.__code__.co_filename
    assert all(map(is_library, (frames[0][0], bp.__file__, threading.__file__, script, ours)))
