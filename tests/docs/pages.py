"""Pages of docs/ as what they are to their readers: things to type, in order, and what is shown then.

A block of `console` has lines `$ command` for one shell, a block of `pycon` lines `>>> statement` for a session that
is started for it in the shell's directory; each is followed by what is shown, `...` for what differs from time to time.

    python -m tests.docs.pages PAGE ...            what each shows that is not as on the page
    python -m tests.docs.pages --write PAGE ...    writes it there, with `...` for what looks like differing each time
"""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.terminal import ROOT, clean_environment

DOCS = ROOT / "docs"
DEADLINE = 500  # s, generous: the machine may be busy
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
MARK = "\x1e"
_BLOCK = re.compile(r"(?ms)^```(console|pycon)\n(.*?)^```$")
# Beside what IPython adds: what a busy machine tells of devices that answered late, and of beamlines of other tests.
_NO_PART = re.compile(r"(?m)^Out\[\d+\]: ?|^.* (?:is|are) (?:back|offline)\b.*\n|^.* of other sessions or shells .*\n")
_SHELL_BEGINS = 'mark() { printf "\\036%s\\036\\n" "$1"; }\n'
_SHELL_ENDS = "mark env\nenv -0\n"


@dataclass
class Typed:
    """One thing to type.

    Attributes:
        page: Where it is written.
        source: What is typed.
        want: What is to be shown.
        got: What was shown.
    """

    page: str
    source: str
    want: str
    got: str = ""

    @property
    def agrees(self) -> bool:
        # A last line `...` may stand for nothing, too.
        wants = (self.want, re.sub(r"(?m)^\.\.\.\n\Z", "", self.want))
        return any(doctest.OutputChecker().check_output(want, self.got, FLAGS) for want in wants)

    def __str__(self) -> str:
        return f"{self.page}: {self.source.strip()}\n--- page:\n{self.want}--- shown:\n{self.got}"


def steps(page: Path) -> list[tuple[str, list[Typed]]]:
    """The blocks of a page; what follows each other in one language is one step."""
    found: list[tuple[str, list[Typed]]] = []
    for language, text in _BLOCK.findall(page.read_text()):
        prompt, more = ("$ ", "> ") if language == "console" else (">>> ", "... ")
        typed: list[Typed] = []
        for line in text.splitlines():
            if line.startswith(prompt):
                typed.append(Typed(page.name, line.removeprefix(prompt) + "\n", ""))
            elif line.startswith(more) and typed and not typed[-1].want:
                typed[-1].source += line.removeprefix(more) + "\n"
            elif line == more.rstrip() and typed and not typed[-1].want:
                typed[-1].source += "\n"
            else:
                typed[-1].want += f"{line}\n"
        if found and found[-1][0] == language:
            found[-1][1].extend(typed)
        else:
            found.append((language, typed))
    return found


def run(pages: list[Path], directory: Path, config: Path | None = None) -> list[Typed]:
    """Type all of it, the pages one after the other; what follows a shell is where it was, with what it exported.

    Args:
        pages: What to type.
        directory: Where the first shell begins.
        config: An iconfig.yml for the sessions and commands.
    """
    bin_directory = Path(sys.executable).parent
    environment = clean_environment(
        directory,
        PATH=f"{bin_directory}{os.pathsep}{os.environ['PATH']}",
        PYTHONPATH=str(ROOT),
        COLUMNS="120",
        **({"INSTRUMENT_CONFIG": str(config)} if config else {}),
    )
    here, done = directory, []
    merged: list[tuple[str, list[Typed]]] = []
    for page in pages:
        for language, typed in steps(page):
            if merged and merged[-1][0] == language:
                merged[-1][1].extend(typed)
            else:
                merged.append((language, typed))
    for language, typed in merged:
        if language == "console":
            lines = "".join(f"{one.source}mark {number}\n" for number, one in enumerate(typed))
            words = ["bash", "--noprofile", "--norc", "-s"]
            shown = _shown(words, f"{_SHELL_BEGINS}mark begin\n{lines}{_SHELL_ENDS}", here, environment)
            shown, *exported = shown.split(f"{MARK}env{MARK}\n")
            # What comes next is typed in the same terminal.
            environment = dict(one.split("=", 1) for one in exported[0].split("\0") if "=" in one)
            here = Path(environment["PWD"])
        else:
            lines = "".join(f"{one.source}\nprint('{MARK}{number}{MARK}')\n" for number, one in enumerate(typed))
            words = [sys.executable, "-m", "instrument.cli", "session"]
            shown = _shown(words, f"print('{MARK}begin{MARK}')\n{lines}", here, environment)
        # Without its line's end where another thread tells something at that moment.
        parts = re.split(f"{MARK}(?:begin|\\d+){MARK}\n?", shown)[1:]
        for one, got in zip(typed, parts, strict=False):
            one.got = _NO_PART.sub("", got)
        done += typed
    return done


def _shown(words: list[str], lines: str, directory: Path, environment: dict[str, str]) -> str:
    return subprocess.run(
        words,
        cwd=directory,
        env=environment,
        input=lines,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=DEADLINE,
        check=False,
    ).stdout


# --- writing what is shown into a page -------------------------------------------------------------------------------

DIFFERS = (
    (r"\x1b\[[0-9;]*m", ""),
    (r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22}\b", "..."),
    (r"'[0-9a-f]{8}'", "'...'"),
    (r"\([0-9a-f]{7}\)", "(...)"),
    (r"\b[A-Z][a-z]{2}-\d\d:\d\d:\d\d", "..."),
    (r"\b\d{4}-\d\d-\d\d \d\d:\d\d(:\d\d(\.\d+)?)?", "..."),
    (r"\b\d\d:\d\d:\d\d(\.\d+)?", "..."),
    (r"/tmp/[\w/.-]+/", ".../"),
    (r" at 0x[0-9a-f]+", " at ..."),
    (r"(?m)\b(?=[a-f]*\d)[0-9a-f]{7}$", "..."),
    (r"\b\d+\.\d s\b", "... s"),
    (r"\+- \S+?(?=,|$)", "+- ..."),
    (r"=\d+\.\d+", "=..."),
    (r"\b(pid|about|in) \d[\d.]*(?= s\b|\)|,|$)", r"\1 ..."),
    (r"(?m)^(\| +\d+ \|).*$", r"\1 ..."),
    (r"(?m)^([ \w]+) = \S+  \S+/s$", r"\1 = ..."),
    (r"-?\d+\.\d\d+(e[+-]?\d+)?|\d+e[+-]?\d+", "..."),
    (r"(?m)^[=+-][=+ -]+$", lambda ruler: f"{ruler[0][:3]}..."),
)
_MOST = 9  # lines shown


def masked(text: str) -> str:
    """What is shown, with `...` for what differs from time to time, and the middle of what is long left out."""
    for pattern, instead in DIFFERS:
        text = re.sub(pattern, instead, text)
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    if len(lines) > _MOST:
        lines = [*lines[:5], "...", *lines[-2:]]
    return "".join(f"{line}\n" for line in lines)


def fill(page: Path, typed: list[Typed]) -> None:
    """Write into a page what each really showed, where that is not what the page has."""
    before, text = "", page.read_text()
    for one in typed:
        if one.page != page.name:
            continue
        first = one.source.splitlines()[0]
        start = min(found for prompt in (">>> ", "$ ") if (found := text.find(f"\n{prompt}{first}\n")) >= 0)
        whole = text[start + 1 :]
        typed_lines = "".join(whole.splitlines(keepends=True)[: one.source.count("\n")])
        assert whole.startswith(f"{typed_lines}{one.want}"), one
        want = one.want if one.agrees else masked(one.got)
        before += text[: start + 1] + typed_lines + want
        text = whole.removeprefix(f"{typed_lines}{one.want}")
        before, text = before[:-1], "\n" + text
    page.write_text(before + text)


if __name__ == "__main__":
    import shutil
    import tempfile

    from tests.docs.test_pages import needs_seed, seeded

    with tempfile.TemporaryDirectory() as name:
        place, words = Path(name), [word for word in sys.argv[1:] if word != "--write"]
        shutil.copytree(DOCS / "code", place, dirs_exist_ok=True)
        pages = [Path(word).resolve() for word in words]
        found = run(pages, place, seeded(place) if needs_seed(pages) else None)
        for page in pages:
            if "--write" in sys.argv:
                fill(page, found)
            else:
                print(*(one for one in found if one.page == page.name and not one.agrees), sep="\n")
