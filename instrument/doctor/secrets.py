"""Secrets taken out of text that somebody else is to read.

What is recognised: passwords in URIs, `key: value` and `KEY=value` where the key's name says that it is a secret (in
YAML, JSON, logs, the environment, a command line), `Authorization` headers, tokens by their shape (JSON web tokens,
those of GitHub, GitLab, AWS, Slack), private keys, and every value that is secret in the environment, wherever it is.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping

GONE = "<removed>"

_NAMES = (
    r"pass(?:word|wd|phrase|code)?|pwd|secret|tokens?|api[-_ ]?keys?|access[-_ ]?keys?|(?:private|public)[-_ ]?keys?|"
    r"credentials?|auth(?:orization)?|cookie|session[-_]?id"
)
_NAME = rf"[\w.-]*(?:{_NAMES})(?:[-_]?(?:key|id|hash|value|\d+))?"
_IS_SECRET = re.compile(rf"(?:^|[\W_])(?:{_NAMES})(?:$|[\W_])|(?:apikey|password|token|secret)", re.IGNORECASE)
_PLAIN = rf"(?!['\"|>\[{{]|{GONE})"  # what follows is neither quoted, nor nested, nor gone already
_MANY_LINES = re.IGNORECASE | re.DOTALL
_SHORTEST = 6  # characters of a secret value that is looked for everywhere: shorter ones are words

_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL), GONE),
    # scheme://user:password@host, the password up to the last @ before the path
    (re.compile(r"(\b[a-zA-Z][\w+.-]*://[^\s:/@'\"]*:)[^\s'\"]*(?=@[^\s@'\"]*)"), rf"\1{GONE}"),
    (re.compile(r"(\bauthorization['\"]?\s*[:=]\s*['\"]?)(?:\w+\s+)?[^\s'\",}]+", re.IGNORECASE), rf"\1{GONE}"),
    (re.compile(r"(\b(?:bearer|basic|apikey)\s+)(?=[\w+/.~=-]*[\d+/=])[\w+/.~=-]{8,}", re.IGNORECASE), rf"\1{GONE}"),
    # key: | with indented lines below
    (
        re.compile(
            rf"(?m)^([ \t]*)(-[ \t]+)?({_NAME}[ \t]*:[ \t]*[|>][-+\d]*[ \t]*\n)(?:\1[ \t]+.*(?:\n|\Z))+", re.IGNORECASE
        ),
        rf"\1\2\3\1  {GONE}\n",
    ),
    # "key": "value", key = 'value', also with an escaped quote in it, and over several lines; what os.environ["key"] is
    # set to, and the argument after "key"
    (
        re.compile(
            rf"(\b{_NAME}(?:['\"]?\s*[:=]|['\"]\s*(?:\]\s*=|,))\s*[rbuf]{{0,2}})(['\"])"
            r"(?:\\.|(?!\2).)*\2",
            _MANY_LINES,
        ),
        rf"\1\2{GONE}\2",
    ),
    # a line `key: all the rest`
    (re.compile(rf"(?m)^([ \t]*(?:-[ \t]+)?{_NAME}[ \t]*:[ \t]+){_PLAIN}.+$", re.IGNORECASE), rf"\1{GONE}"),
    # %env KEY value, also as IPython logs it; setenv KEY value; set -x KEY value
    (re.compile(rf"(magic\(['\"](?:set_)?env['\"],\s*['\"]{_NAME}[\s=]+)[^'\"\n]+", re.IGNORECASE), rf"\1{GONE}"),
    (re.compile(rf"(\b(?:(?:set_?)?env|set[ \t]+-\w+)[ \t]+{_NAME}[ \t]+){_PLAIN}[^\n]+", re.IGNORECASE), rf"\1{GONE}"),
    # --key value, {{key: value, ...}}, KEY=value; a mapping that follows is left to its own keys
    (re.compile(rf"(--{_NAME}[\s=]+)[^\s'\"]+", re.IGNORECASE), rf"\1{GONE}"),
    (re.compile(rf"(\b{_NAME}[ \t]*:[ \t]+){_PLAIN}[^,}}\n]+", re.IGNORECASE), rf"\1{GONE}"),
    (re.compile(rf"(\b{_NAME}(?:['\"]\])?[ \t]*[=:][ \t]*){_PLAIN}[^\s&]+", re.IGNORECASE), rf"\1{GONE}"),
    (re.compile(r"\beyJ[\w-]{5,}\.[\w-]{5,}\.[\w-]*"), GONE),
    (re.compile(r"\b(?:gh[pousr]_|github_pat_|glpat-|xox[abpr]-|AKIA|ASIA)[\w-]{10,}"), GONE),
)


class Redactor:
    """Takes secrets out of texts.

    Args:
        environment: Variables whose names say that they are secret have values that are removed wherever they stand.
        known: Further values that are secret, such as the contents of key files.
        home: Is written `~`.
        user: The name of the account; removed from paths.
    """

    def __init__(
        self,
        environment: Mapping[str, str] | None = None,
        *,
        known: Iterable[str] = (),
        home: str | None = None,
        user: str | None = None,
    ) -> None:
        self._environment = dict(os.environ if environment is None else environment)
        values = {value for name, value in self._environment.items() if is_secret(name)} | set(known)
        self._values = sorted((v for v in values if len(v) >= _SHORTEST and not _is_path(v)), key=len, reverse=True)
        home = self._environment.get("HOME", "") if home is None else home
        self._home = home.rstrip("/")
        user = user or self._environment.get("USER") or self._environment.get("LOGNAME") or ""
        self._user = (
            re.compile(rf"(?<=[/=@ ]){re.escape(user)}(?=[/@:\s]|$)") if len(user) > 2 and user != "root" else None
        )

    def clean(self, text: str) -> str:
        """The text without secrets."""
        for value in self._values:
            text = text.replace(value, GONE)
        for pattern, replacement in _PATTERNS:
            text = pattern.sub(replacement, text)
        if self._home:
            text = re.sub(rf"{re.escape(self._home)}(?=[/\s:'\",)\]]|$)", "~", text)
        return self._user.sub("<user>", text) if self._user else text

    def environment(self) -> str:
        """The environment's variables that say how a session behaves, one to a line, without secrets."""
        lines = [
            f"{name}={GONE if is_secret(name) else value}"
            for name, value in sorted(self._environment.items())
            if _TELLING.match(name)
        ]
        return self.clean("\n".join(lines) + "\n")


_TELLING = re.compile(
    r"EPICS|VIRTUAL_BEAMLINE|INSTRUMENT|MPL|DISPLAY|WAYLAND|XDG_RUNTIME|QT_|PYTHON|VIRTUAL_ENV|CONDA_(DEFAULT_ENV|PREFIX)|"
    r"TILED|BLUESKY|OPHYD|DATABROKER|INTAKE|HDF5|LANG|LC_|TZ$|TERM$|SHELL$|PATH$|LD_LIBRARY_PATH|OMP_NUM|JUPYTER|IPYTHON"
)


def is_secret(name: str) -> bool:
    """Whether a variable's or a key's name says that its value is secret."""
    return _IS_SECRET.search(name) is not None


def _is_path(value: str) -> bool:
    return value.startswith(("/", "~", "./"))
