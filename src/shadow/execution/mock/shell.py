"""The little of a shell that the mock has: simple commands in a row, quotes, redirections. What else a line holds is refused.

Never a guess: a line that bash would read in a way that this module does not know raises ``NoShell``.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

_PART = r"""(?:[\w%:,.@+^/=\-\u0080-\U0010ffff]|'[^']*'|"(?:[^"$`\\!]|\\["\\$`])*"|\\[^\n])"""
_WORD = re.compile(rf"{_PART}(?:{_PART}|[#!~])*")
"""What bash expands (variables, patterns, braces, a home directory) is none; nor is a comment."""
_REDIRECTION = re.compile(r"(?P<from>[12]?)(?P<how>>>|>|<)(?:[ \t]*)(?P<to>&[12])?")
_BETWEEN = re.compile(r"[ \t]*(?P<kind>;|&&|\|\||\n)[ \t\n]*")
_UNKNOWN = frozenset(
    (
        *(
            "alias",
            "bg",
            "builtin",
            "case",
            "command",
            "coproc",
            "declare",
            "do",
            "done",
            "elif",
            "else",
            "esac",
            "eval",
        ),
        *("exec", "export", "fc", "fg", "fi", "for", "function", "getopts", "hash", "if", "in", "jobs", "kill", "let"),
        *("local", "logout", "mapfile", "popd", "pushd", "readarray", "readonly", "return", "select", "set", "shift"),
        *("shopt", "source", "suspend", "test", "then", "time", "times", "trap", "type", "typeset", "ulimit", "umask"),
        *("unalias", "unset", "until", "wait", "while", "break", "continue", "."),
    )
)
"""Words that bash reads itself, and the mock does not."""


class NoShell(ValueError):
    """Only a real shell can run the line."""


@dataclass(frozen=True, slots=True)
class Redirection:
    channel: Literal[0, 1, 2]
    how: Literal[">", ">>", "<"]
    to: str | Literal[1, 2]
    """A file, or the other channel."""


@dataclass(slots=True)
class SimpleCommand:
    after: Literal["", ";", "&&", "||"]
    """What stands between it and the one before."""
    words: list[str] = field(default_factory=list[str])
    redirections: list[Redirection] = field(default_factory=list[Redirection])


def parse(line: str) -> list[SimpleCommand]:
    """Raises: NoShell."""
    commands = list(_commands(line.strip()))
    for command in commands:
        if not command.words:
            raise NoShell("a command without a program")
        if command.words[0] in _UNKNOWN or "=" in command.words[0]:
            raise NoShell(f"{command.words[0]!r}")
    return commands


def _commands(line: str) -> Iterator[SimpleCommand]:
    current = SimpleCommand(after="")
    position = 0
    while position < len(line):
        between = _BETWEEN.match(line, position)
        if between is not None:
            yield current
            position = between.end()
            kind: Literal[";", "&&", "||"] = ";"
            if between["kind"] in ("&&", "||"):
                kind = "&&" if between["kind"] == "&&" else "||"
            if position == len(line) and kind == ";":
                return
            current = SimpleCommand(after=kind)
            continue
        redirection = _REDIRECTION.match(line, position)
        if redirection is not None:
            position = _redirect(current, redirection, line)
            continue
        word = _WORD.match(line, position)
        if word is None:
            raise NoShell(f"{line[position : position + 20]!r}")
        current.words.append(_unquote(word[0]))
        position = _after_blanks(line, word.end())
    yield current


def _redirect(command: SimpleCommand, redirection: re.Match[str], line: str) -> int:
    """Add it, and return where the line goes on."""
    how = redirection["how"]
    channel: Literal[0, 1, 2] = 0 if how == "<" else 2 if redirection["from"] == "2" else 1
    position = redirection.end()
    target: str | Literal[1, 2]
    if redirection["to"]:
        if how != ">":
            raise NoShell(redirection[0])
        target = 1 if redirection["to"] == "&1" else 2
    else:
        word = _WORD.match(line, position)
        if word is None or (how == "<" and redirection["from"]):
            raise NoShell(line[redirection.start() :][:20])
        target, position = _unquote(word[0]), word.end()
    kind: Literal[">", ">>", "<"] = "<" if how == "<" else ">>" if how == ">>" else ">"
    command.redirections.append(Redirection(channel, kind, target))
    return _after_blanks(line, position)


def _after_blanks(line: str, position: int) -> int:
    while position < len(line) and line[position] in " \t":
        position += 1
    return position


def _unquote(word: str) -> str:
    return "".join(shlex.split(word))
