"""An error at the prompt is one line that names the thing and the nearest match."""

from types import SimpleNamespace

import bluesky.plans as bp
import pytest
from ophyd.sim import det
from ophyd.utils import LimitError
from prompt_toolkit import PromptSession
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from instrument.config.errors import UserError
from instrument.framework.prompt import LastError, once_shown, one_line, plan_hint


def raised(function):
    with pytest.raises(Exception) as caught:  # noqa: PT011  any exception: its line is what is tested
        function()
    return caught.value


def test_a_user_error_is_told_in_its_own_words():
    assert one_line(UserError("m1 is offline")) == "m1 is offline"


def test_the_user_error_behind_another_error_is_told():
    def chained():
        try:
            raise UserError("m1 is offline")
        except UserError as error:
            raise RuntimeError("FailedStatus") from error

    assert one_line(raised(chained)) == "m1 is offline"


def test_a_misspelt_name_gets_the_nearest():
    error = raised(lambda: eval("scalr1"))
    assert (
        one_line(error, lambda: ["scaler1", "m1"]) == "NameError: name 'scalr1' is not defined; did you mean 'scaler1'?"
    )


def test_a_misspelt_plan_gets_the_nearest():
    assert one_line(raised(lambda: bp.cuont)).endswith("did you mean 'count'?")


def test_a_misspelt_argument_gets_the_nearest():
    def typed():
        return bp.count([det], nmu=3)

    assert one_line(raised(typed)).endswith("got an unexpected keyword argument 'nmu'; did you mean 'num'?")


def test_a_message_of_many_lines_becomes_one():
    assert one_line(LimitError("a\n  b")) == "LimitError: a b"


def test_a_plan_that_was_not_run_says_how_to_run_it():
    plan = bp.count([det])
    assert plan_hint(plan) == "count is a plan that has not run; run it with RE(count(...))"
    plan.close()


def test_last_error_prints_the_traceback(capsys):
    last = LastError()
    last.keep(raised(lambda: 1 / 0))
    last()
    assert "ZeroDivisionError" in capsys.readouterr().out


def test_what_may_wait_for_the_first_prompt_begins_when_it_is_shown_and_once():
    called = []
    with create_pipe_input() as typed:
        prompt = PromptSession(input=typed, output=DummyOutput())
        once_shown(SimpleNamespace(pt_app=prompt), lambda: called.append(prompt.app.is_running))
        assert called == []
        for line in ("first", "second"):
            typed.send_text(f"{line}\n")
            assert prompt.prompt("In: ") == line
    assert called == [True]


def test_a_shell_that_draws_no_prompt_lets_nothing_wait():
    called = []
    once_shown(SimpleNamespace(pt_app=None), lambda: called.append(True))
    assert called == [True]
