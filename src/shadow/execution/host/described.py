"""Commands and terminals as the holder describes them, turned into values."""

from collections.abc import Mapping
from typing import Any

from shadow.core.commands import Command, Ending, Exited, Killed, LimitReached, Lost, Signalled, TimedOut
from shadow.core.errors import NotFound
from shadow.core.ids import CommandId, TerminalId
from shadow.core.limits import LimitKind
from shadow.core.terminals import Terminal, TerminalSize

_ENDINGS = {"exited": Exited, "signalled": Signalled, "timed_out": TimedOut, "killed": Killed, "lost": Lost}


def command_of(value: Mapping[str, Any]) -> Command:
    return Command(id=CommandId(value["id"]), stdin_accepted=value["stdin_accepted"], **_shared(value))


def terminal_of(value: Mapping[str, Any]) -> Terminal:
    return Terminal(id=TerminalId(value["id"]), size=size_of(value), **_shared(value))


def size_of(value: Mapping[str, Any]) -> TerminalSize:
    """Raises: NotFound: this is not of a terminal."""
    if value["size"] is None:
        raise NotFound("A command has no terminal.")
    columns, rows = value["size"]
    return TerminalSize(columns=columns, rows=rows)


def _shared(value: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "argv": tuple(value["argv"]),
        "cwd": value["cwd"],
        "pid": value["pid"],
        "started_at": value["started_at"],
        "ended_at": value["ended_at"],
        "ending": _ending(value["ending"]) if value["ending"] is not None else None,
        "output_start": value["output_start"],
        "output_end": value["output_end"],
        "output_closed": value["output_closed"],
        "descendants": value["descendants"],
        "survivors": tuple(value["survivors"]),
    }


def _ending(value: Mapping[str, Any]) -> Ending:
    if value["kind"] == "limit_exceeded":
        return LimitReached(limit=LimitKind(value["limit"]))
    return _ENDINGS[value["kind"]](**value)
