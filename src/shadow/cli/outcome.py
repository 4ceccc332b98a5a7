"""How a command of the CLI ends: its coroutine is run, its errors become one message (or JSON) and an exit code."""

import errno
import json
import os
import sys
from collections.abc import Callable, Coroutine
from typing import NoReturn, cast

import typer

from shadow.core.errors import Broken, LimitExceeded, Rejected, SettingsRefused, ShadowError, Unsupported
from shadow.terminal.neutral import printable

STDOUT = 1

DONE = 0
FAILED = 1
WRONG_USAGE = 2
CANNOT_HERE = 3
LIMIT_REACHED = 123
COMMAND_TIMED_OUT = 124
EXEC_FAILED = 125
INTERRUPTED = 130
OUTPUT_CLOSED = 141  # 128 + SIGPIPE, as a shell reports it


_OF_OUTPUT = (errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""What a write may fail with; an operation on a file names the file besides."""


class WrongUsage(Rejected):
    """The command line makes no sense."""

    code = "wrong_usage"


def finish(work: Callable[[], Coroutine[None, None, int]], *, as_json: bool = False, failed: int = FAILED) -> NoReturn:
    """Run ``work`` to its exit code and leave with it. ``failed`` is the code for errors that have no other."""
    raise typer.Exit(_run(work, as_json=as_json, failed=failed))


def _run(work: Callable[[], Coroutine[None, None, int]], *, as_json: bool, failed: int) -> int:
    import asyncio  # not above: `shadow --help` does without

    try:
        code = asyncio.run(work())
        sys.stdout.flush()
    except BaseException as raised:  # noqa: BLE001 - the last place that can say what happened
        error = first_cause(raised)
    else:
        return code
    if isinstance(error, KeyboardInterrupt | asyncio.CancelledError):
        return INTERRUPTED
    if isinstance(error, OSError) and error.errno in _OF_OUTPUT and error.filename is None:
        return output_failed(error, failed=failed)
    if isinstance(error, typer.Exit):
        return error.exit_code
    if not isinstance(error, Exception):
        raise error
    if not isinstance(error, ShadowError):
        error = _unexpected(error)
    report(error, as_json=as_json)
    return exit_code(error, failed=failed)


def output_failed(error: OSError, *, failed: int = FAILED) -> int:
    """Our exit code where stdout cannot be written; says why, unless its reader just went away."""
    # Without this the interpreter tries once more while it ends, and complains.
    os.dup2(os.open(os.devnull, os.O_WRONLY), STDOUT)
    if isinstance(error, BrokenPipeError):
        return OUTPUT_CLOSED
    report(LimitExceeded(f"The output cannot be written: {error.strerror}.", mend="Make room where it goes."))
    return failed


def first_cause(raised: BaseException) -> BaseException:
    """The error that counts in what a task group raised."""
    while isinstance(raised, BaseExceptionGroup):
        raised = cast("BaseExceptionGroup[BaseException]", raised).exceptions[0]
    return raised


def _unexpected(error: Exception) -> ShadowError:
    if os.environ.get("SHADOW_LOG_LEVEL") == "debug":
        import traceback

        traceback.print_exception(error)
    return Broken(
        f"Shadow failed: {type(error).__name__}: {error}.",
        mend="This is a fault of Shadow; SHADOW_LOG_LEVEL=debug shows where.",
    )


def exit_code(error: ShadowError, *, failed: int = FAILED) -> int:
    if isinstance(error, WrongUsage | SettingsRefused):
        return WRONG_USAGE
    if isinstance(error, Unsupported):
        return CANNOT_HERE
    return failed


def report(error: ShadowError, *, as_json: bool = False) -> None:
    """Say what went wrong: as JSON on stdout, the one document there; for people on stderr."""
    if as_json:
        body: dict[str, object] = {"code": error.code, "message": error.message, "mend": error.mend}
        print_json({"error": body | {"details": error.details}})
        return
    say(f"shadow: {error.message}", style="red")
    if error.mend:
        say(f"  {error.mend}")


def print_json(document: object) -> None:
    sys.stdout.write(json.dumps(document, indent=2, default=str) + "\n")


def say(line: str, *, style: str | None = None) -> None:
    """A line on stderr for a person."""
    colours = {"red": "31", "yellow": "33", "green": "32", "bold": "1", "dim": "2"}
    safe = printable(line)
    if style and wants_colour(sys.stderr.isatty()):
        safe = f"\x1b[{colours[style]}m{safe}\x1b[0m"
    print(safe, file=sys.stderr, flush=True)


def wants_colour(is_terminal: bool) -> bool:
    return is_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
