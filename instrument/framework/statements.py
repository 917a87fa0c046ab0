"""What a statement at the prompt means: a plan is run, a command needs no parentheses.

One rule: in an interactive cell every bare expression statement that is a plan is run, in loops and with a trailing `;`
too. Anywhere else a plan is a value: `yield from` it, `RE(...)` it, or assign it. A plan that nobody ran is told.

    mv(m1, 3)                       run                 p = mv(m1, 3)                  a value
    for x in (1, 2): mv(m1, x)      run, run            def my_plan():
    mv m1 3                         run                     yield from mv(m1, 3)       part of a plan

See docs/explanations/decisions/bare-plans-run.md for what was refused.
"""

from __future__ import annotations

import ast
import builtins
import difflib
import functools
import inspect
import io
import keyword
import re
import tokenize
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from types import GeneratorType
from typing import TYPE_CHECKING, Any, Literal

from bluesky import Msg
from bluesky.utils import Plan

from instrument.config.errors import UserError
from instrument.framework.forgotten import is_library

if TYPE_CHECKING:
    from tokenize import TokenInfo

    from IPython.core.interactiveshell import InteractiveShell

RUN = "__run_statement__"  # what the transformed cells call; a builtin of the shell, so that %reset leaves it
NEVER_ITERATED = re.compile(r"plan `(\w+)` was never iterated")
PLACE = re.compile(r'^ *File "(.*)", line (\d+), in (.+)$')
TEXT_COMMANDS = ("comment", "newfile", "newsample", "newproposal")  # whose argument is the rest of the line
OPERATES = r"(?:[-+*/%@&|^]|//|\*\*|<<|>>)?=|:"  # what Python assigns and annotates with
TEXT_LINE = re.compile(rf"([ \t]*)({'|'.join(TEXT_COMMANDS)})[ \t]+(?!{OPERATES})([^(\s].*?)\s*")
NAMING_COMMANDS = ("save_position", "goto_position", "positions")  # whose first word is a name, as in goto_position in
NO_VARIABLE = re.compile(r"[-+]?\.?\d.*")  # what a word begins with that is a number, or text
GOES_ON = re.compile("multi-line|triple-quoted")  # in what Python says of a string or a bracket that is not closed
ENDS = (tokenize.NEWLINE, tokenize.NL, tokenize.COMMENT, tokenize.ENDMARKER)  # of a statement
SHOWN = (bool, int, float, complex, str, bytes)  # kinds of a plan's result that are worth showing


# -- what a statement is ---------------------------------------------------------------------------------------------


class BareStatements(ast.NodeTransformer):
    """Wraps each expression statement of a cell, but not those inside of functions and classes."""

    def visit(self, node: ast.AST) -> ast.AST:
        """`value` becomes `__run_statement__(value)`, with the name if it is nothing but a name."""
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            return node
        if not isinstance(node, ast.Expr) or isinstance(node.value, ast.Constant):
            return self.generic_visit(node)
        arguments = [node.value]
        if isinstance(node.value, ast.Name):
            arguments.append(ast.Constant(node.value.id))
        call = ast.Call(ast.Name(RUN, ast.Load()), arguments, [])
        return ast.fix_missing_locations(ast.copy_location(ast.Expr(ast.copy_location(call, node.value)), node))


def is_plan(value: object) -> bool:
    """Is it a plan: what bluesky marks as one, or a generator that a function (no expression) has made?"""
    if isinstance(value, Plan):
        return True
    return isinstance(value, GeneratorType) and value.gi_code.co_name != "<genexpr>"


def name_of(plan: Any) -> str:
    """The name of the function that made a plan."""
    return getattr(getattr(plan, "_iter", plan), "__name__", type(plan).__name__)


class RunStatement:
    """Runs a statement's value if it is a plan, or a command that is named and nothing else.

    Args:
        run: Runs a plan and returns what the plan returned.
        commands: The commands of the session by name.
    """

    def __init__(self, run: Callable[[Any], Any], commands: Mapping[str, Callable[..., Any]]) -> None:
        self._run = run
        self._commands = commands

    def __call__(self, value: Any, name: str | None = None) -> Any:
        """What the statement is worth; of a plan, its result if a person can read it."""
        if name is not None and value is self._commands.get(name):
            value = self._called(name, value)
        if not is_plan(value):
            return value
        iterator = getattr(value, "_iter", value)
        if isinstance(iterator, GeneratorType) and inspect.getgeneratorstate(iterator) != inspect.GEN_CREATED:
            raise UserError(f"this plan has run already: make it again with {name_of(value)}(...)")
        result = self._run(value if isinstance(value, Plan) else _only_messages(value))
        return result if isinstance(result, SHOWN) and not _is_uid(result) else None

    def misspelt(self, name: str) -> None:
        """Refuse a line that begins with something like a command.

        Raises:
            UserError: Always.
        """
        (near,) = difflib.get_close_matches(name, self._commands, 1)
        raise UserError(f"there is no command {name!r}; did you mean {near!r}?")

    def _called(self, name: str, command: Callable[..., Any]) -> Any:
        try:
            signature = inspect.signature(command)
            signature.bind()
        except TypeError:
            raise UserError(f"{usage(name, command)}; {name}? tells more") from None
        return command()


def usage(name: str, command: Callable[..., Any]) -> str:
    """How a command is typed, without its options."""
    words = []
    for parameter in inspect.signature(command).parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            words.append(f"{parameter.name}...")
        elif parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
            words.append(parameter.name if parameter.default is parameter.empty else f"[{parameter.name}]")
    return " ".join([name, *words])


def _is_uid(result: object) -> bool:
    return isinstance(result, str) and re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", result) is not None


def _only_messages(generator: Generator[Any, Any, Any]) -> Generator[Msg, Any, Any]:
    """`generator` as a plan that carries its name.

    Raises:
        UserError: It yields something else than messages.
    """

    def plan() -> Generator[Msg, Any, Any]:
        name, step = name_of(generator), functools.partial(generator.send, None)
        while True:
            try:
                message = step()
            except StopIteration as end:
                return end.value
            if not isinstance(message, Msg):
                generator.close()
                raise UserError(f"{name}(...) is no plan: it yields {message!r}, where a plan yields messages")
            try:
                step = functools.partial(generator.send, (yield message))
            except GeneratorExit:
                generator.close()
                raise
            except BaseException as error:
                step = functools.partial(generator.throw, error)

    made = plan()
    made.__name__ = name_of(generator)  # type: ignore[attr-defined]  for the start document
    return made


# -- lines without parentheses ---------------------------------------------------------------------------------------


class SpecLines:
    """IPython's token transformer that turns `ascan m1 -1 1 20 0.5` into `ascan(m1, -1, 1, 20, 0.5)`.

    Only where the line is no Python, and begins with a command that the user has not given another meaning. Words are
    Python expressions without spaces; those that name nothing are text.

    Args:
        namespace: The user's names.
        commands: The commands of the session by name.
    """

    def __init__(self, namespace: dict[str, Any], commands: Mapping[str, Callable[..., Any]]) -> None:
        self._namespace = namespace
        self._commands = commands

    def find(self, tokens_by_line: Sequence[Sequence[TokenInfo]]) -> _SpecLine | None:
        """The first such line of a cell."""
        for line in tokens_by_line:
            for begin in _statements(line):
                inside = begin > 0 and line[begin - 1].string == ":"
                if inside and any(keyword.iskeyword(word.string) for word in line[begin + 1 : begin + 2]):
                    continue  # `lambda positions: positions and positions[0]`
                found = self._statement(line[begin:])
                if found is not None:
                    return found
        return None

    def _statement(self, tokens: Sequence[TokenInfo]) -> _SpecLine | None:
        if len(tokens) < 2 or tokens[0].type != tokenize.NAME or not _begins_argument(*tokens[:3]):
            return None
        name, statement = tokens[0].string, _statement(tokens)
        if name in self._commands and self._namespace.get(name) is self._commands[name]:
            code = self._call(statement)
        elif (
            name not in self._namespace
            and not hasattr(builtins, name)
            and not keyword.iskeyword(name)
            and not keyword.issoftkeyword(name)
            and difflib.get_close_matches(name, self._commands, 1)
        ):
            code = f"{RUN}.misspelt({name!r})"
        else:
            return None
        return _SpecLine(tokens[0].start, statement[-1].end, code)

    def _call(self, tokens: Sequence[TokenInfo]) -> str:
        """The call that a command and its words stand for."""
        name, first, last = tokens[0].string, tokens[1], tokens[-1]
        if name in TEXT_COMMANDS and first.start[0] == last.end[0]:
            return _text_call(name, first.line[first.start[1] : last.end[1]])
        words = _words(tokens[1:])
        sources = [self._word(word) for word in words]
        if name in NAMING_COMMANDS and (keyword.iskeyword(words[0]) or NO_VARIABLE.fullmatch(words[0])):
            sources[0] = repr(words[0].rstrip(","))
        return f"{name}({', '.join(sources)})"

    def called(self, tokens: Sequence[TokenInfo]) -> tuple[str | None, int]:
        """The call that a command and its words stand for, with or without brackets around them; and where it ends."""
        name, rest = tokens[0].string, list(tokens[1:])
        if name not in self._commands or self._namespace.get(name) is not self._commands[name] or not rest:
            return None, 0
        bracketed = rest[0].string in ("(", "[")
        depth, words = 0, []
        for token in rest[1:] if bracketed else rest:
            depth += (token.string in "([{") - (token.string in ")]}") if token.type == tokenize.OP else 0
            if depth < 0:
                break
            words.append(token)
        if not words:
            return None, 0
        closing = rest[len(words) + 1 :] if bracketed else []
        end = (closing[0] if closing else words[-1]).end[1]
        given = [word.rstrip(",") for word in _words(_statement(words)) if word != ","]
        if not all(_parses(word.partition("=")[2] or word, "eval") for word in given):
            return None, 0
        return f"{name}({', '.join(map(self._word, given))})", end

    def _word(self, word: str) -> str:
        """A word as Python source."""
        word = word.rstrip(",")
        keyword_argument = re.fullmatch(r"([A-Za-z_]\w*)=([^=].*)", word)
        if keyword_argument:
            return f"{keyword_argument[1]}={self._word(keyword_argument[2])}"
        try:
            tree = ast.parse(word, mode="eval")
        except SyntaxError:
            return repr(word)
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        return word if all(self._is_known(name, called="(" in word) for name in names) else repr(word)

    def _is_known(self, name: str, *, called: bool) -> bool:
        """Does a name in a word mean something here? `open` and the like only in an expression, as in `max(a,b)`."""
        if name not in self._namespace:
            return called and hasattr(builtins, name)
        return called or not str(getattr(self._namespace[name], "__module__", "")).startswith(("IPython", "builtins"))


def right_form(error: SyntaxError, lines: SpecLines) -> str | None:
    """What a line that is no Python was meant to be, if there is a command in it and the rest becomes Python with it.

    Args:
        error: As Python raised it.
        lines: Rewrites lines without parentheses.

    Returns:
        `RE(ascan(m1, 0, 1, 2))` of `RE(ascan m1 0 1 2)`; None if nothing like that helps.
    """
    text = (error.text or "").strip()
    try:
        tokens = [t for t in tokenize.generate_tokens(io.StringIO(text).readline) if t.string.strip()]
    except (tokenize.TokenError, SyntaxError):
        return None
    for index, token in enumerate(tokens):
        begin = token.start[1]
        candidate, end = lines.called(tokens[index:])
        if candidate is None or token.start[0] > 1:
            continue
        for meant in (f"{text[:begin]}{candidate}{text[end:]}", f"{text[:begin]}{candidate}"):
            try:
                ast.parse(meant)
            except SyntaxError:
                continue
            return meant
    return None


class _SpecLine:
    """One line to be rewritten: its place in the cell (row from 1, column), and the code for it."""

    priority = 10

    def __init__(self, start: tuple[int, int], end: tuple[int, int], code: str) -> None:
        self.start_line, self.start_col = start[0] - 1, start[1]
        self._end = end
        self._code = code

    def sortby(self) -> tuple[int, int]:
        """IPython's order of transformers: the first in the cell."""
        return self.start_line, self.priority

    def transform(self, lines: list[str]) -> list[str]:
        """The cell with this line rewritten."""
        row, column = self._end
        before, rest = lines[self.start_line][: self.start_col], lines[row - 1][column:]
        return [*lines[: self.start_line], f"{before}{self._code}{rest}", *lines[row:]]


def _statements(line: Sequence[TokenInfo]) -> Iterator[int]:
    """Where a statement may begin in a logical line."""
    depth, expect = 0, True
    for index, token in enumerate(line):
        if token.type in (tokenize.INDENT, tokenize.DEDENT, tokenize.NL, tokenize.COMMENT):
            continue
        if expect:
            yield index
        depth += (token.string in "([{") - (token.string in ")]}") if token.type == tokenize.OP else 0
        expect = depth == 0 and token.type == tokenize.OP and token.string in (";", ":")


def _parses(source: str, mode: Literal["exec", "eval"] = "exec") -> bool:
    """Is it Python?"""
    try:
        ast.parse(source, mode=mode)
    except (SyntaxError, ValueError):  # ValueError: a null byte
        return False
    return True


def _begins_argument(name: TokenInfo, first: TokenInfo, second: TokenInfo | None = None) -> bool:
    """Is `first` the first word after a command's name, so that the line is no Python?"""
    if first.start[0] != name.end[0] or first.start == name.end:
        return False
    if first.type == tokenize.NAME:
        constant = first.string in ("None", "True", "False")
        return constant or not keyword.iskeyword(first.string) or name.string in NAMING_COMMANDS
    if first.type in (tokenize.NUMBER, tokenize.STRING):
        return True
    return first.string in ("-", "+") and second is not None and second.start == first.end


def _statement(tokens: Sequence[TokenInfo]) -> list[TokenInfo]:
    """The first statement of these tokens, without the ends of lines and the comments inside of its brackets."""
    statement: list[TokenInfo] = []
    depth = 0
    for token in tokens:
        if token.type in (tokenize.NL, tokenize.COMMENT) and depth:
            continue
        if token.type in ENDS or (token.string == ";" and not depth):
            break
        statement.append(token)
        if token.type == tokenize.OP:
            depth += (token.string in "([{") - (token.string in ")]}")
    return statement


def _words(tokens: Sequence[TokenInfo]) -> list[str]:
    """The words of a statement; what is in brackets or quotes is one."""
    words: list[str] = []
    depth, end = 0, None
    for token in tokens:
        if end is not None and (token.start == end or depth):
            gap = token.start[1] - end[1] if token.start[0] == end[0] else 1
            words[-1] += " " * gap + token.string
        else:
            words.append(token.string)
        if token.type == tokenize.OP:
            depth += (token.string in "([{") - (token.string in ")]}")
        end = token.end
    return words


def text_lines(commands: Mapping[str, Callable[..., Any]], namespace: dict[str, Any]) -> Callable[[list[str]], Any]:
    """IPython's line transformer for commands that take the rest of their line as it is, quotes and all."""

    def transform(lines: list[str]) -> list[str]:
        if len(lines) > 1 and _parses("".join(lines)):
            return lines  # `comment in notes` is Python's there, and `comment` may be any variable
        done: list[str] = []
        for line in lines:
            found = TEXT_LINE.fullmatch(line)
            if found is not None and namespace.get(found[2]) is commands.get(found[2]) and not _goes_on(done):
                done.append(f"{found[1]}{_text_call(found[2], found[3])}\n")
            else:
                done.append(line)
        return done

    return transform


def _text_call(command: str, text: str) -> str:
    """The call of a command whose argument is a text as it was typed, with or without quotes around it."""
    if text[0] in "\"'" and text[-1] == text[0] and len(text) > 1:
        text = text[1:-1]
    return f"{command}({text!r})"


def _goes_on(lines: Sequence[str]) -> bool:
    """Does the next line belong to a string, a bracket or a statement that these lines have begun?"""
    if not lines:
        return False
    if lines[-1].rstrip("\n").endswith("\\"):
        return True
    try:
        for _ in tokenize.generate_tokens(iter(lines).__next__):
            pass
    except (tokenize.TokenError, SyntaxError) as error:  # also of what is no Python but a line for IPython, or for us
        return GOES_ON.search(str(error)) is not None
    return False


# -- plans that nobody ran -------------------------------------------------------------------------------------------


def forgotten(message: str) -> str | None:
    """The line that is shown for bluesky's warning about a plan that was never iterated; None for other warnings.

    Args:
        message: The warning's text: a stack, the place where the plan was made last.
    """
    found = NEVER_ITERATED.search(message)
    if found is None:
        return None
    function, source = "<module>", ""
    lines = message.splitlines()
    if not any(map(PLACE.match, lines)):  # of a dry run
        return f"the plan {found[1]} was never run; write `yield from {found[1]}(...)`"
    for index, line in enumerate(lines):
        place = PLACE.match(line)
        if place is not None and not is_library(place[1]):
            function, after = place[3], lines[index + 1].strip() if index + 1 < len(lines) else ""
            source = "" if PLACE.match(after) or NEVER_ITERATED.search(after) else after
    name = found[1]
    made = f"`{source}`" if source else f"{name}(...)"
    if function.startswith("<"):
        return f"{made}: the plan {name} was never run; type {name}(...) as a statement of its own, or RE(...) it"
    return f"{made} in {function}: the plan {name} was never run; write `yield from {name}(...)`"


def install(
    shell: InteractiveShell,
    run: Callable[[Any], Any],
    commands: Mapping[str, Callable[..., Any]],
    tell: Callable[[str], object],
) -> SpecLines:
    """Give a shell these rules; doing it again replaces them.

    Args:
        shell: Terminal, kernel, or fed by a pipe.
        run: Runs a plan and returns what the plan returned.
        commands: The commands of the session by name.
        tell: Shows a line, from any thread.

    Returns:
        What rewrites lines without parentheses.
    """
    transforms = shell.input_transformer_manager
    shell.ast_transformers[:] = [t for t in shell.ast_transformers if not isinstance(t, BareStatements)]
    shell.ast_transformers.append(BareStatements())
    transforms.token_transformers[:] = [t for t in transforms.token_transformers if not isinstance(t, SpecLines)]
    lines = SpecLines(shell.user_ns, commands)
    transforms.token_transformers.append(lines)  # type: ignore[arg-type]
    transforms.line_transforms.append(text_lines(commands, shell.user_ns))
    statement = RunStatement(run, commands)
    shell.builtin_trap.auto_builtins[RUN] = statement

    # IPython's, of lines that it has split itself; matplotlib, if it is imported just then, tells it as its own.
    warnings.filterwarnings("ignore", message="`make_tokens_by_line` received")
    plain = warnings.showwarning

    def show(message: Warning | str, *where: Any, **more: Any) -> None:
        line = forgotten(str(message))
        if line is None:
            plain(message, *where, **more)
        else:
            tell(line)

    warnings.showwarning = show
    return lines
