"""How a command or terminal ended: in a word, as our exit code, and explained where it needs to be."""

import signal

from shadow.cli.limits import LIMIT_NAMES
from shadow.cli.outcome import COMMAND_TIMED_OUT, EXEC_FAILED, LIMIT_REACHED, say
from shadow.core.commands import Command, Ending, Exited, Killed, LimitReached, Lost, Signalled, TimedOut
from shadow.core.terminals import Terminal


def state(ending: Ending | None) -> str:
    match ending:
        case None:
            return "running"
        case Exited(code=code):
            return f"exited {code}"
        case Signalled(signal=number):
            return f"signal {number}"
        case TimedOut(after_s=after_s):
            return f"timed out after {after_s:g} s"
        case Killed():
            return "killed"
        case LimitReached(limit=limit):
            return f"limit of {LIMIT_NAMES[limit]}"
        case Lost():
            return "lost"


def exit_code(ending: Ending | None) -> int:
    match ending:
        case Exited(code=code):
            return code
        case Signalled(signal=number):
            return 128 + number
        case TimedOut():
            return COMMAND_TIMED_OUT
        case Killed():
            return 128 + signal.SIGKILL
        case LimitReached():
            return LIMIT_REACHED
        case Lost() | None:
            return EXEC_FAILED


def explain(ended: Command | Terminal) -> None:
    noun = "command" if isinstance(ended, Command) else "terminal"
    match ended.ending:
        case TimedOut(after_s=after_s):
            say(f"shadow: the time was up after {after_s:g} s; the {noun}'s tree was ended.", style="yellow")
        case LimitReached(limit=limit):
            what = LIMIT_NAMES[limit]
            say(f"shadow: the workspace's limit of {what} was reached; the {noun} was ended.", style="yellow")
        case Lost(reason=reason):
            say(f"shadow: nobody can know how the {noun} ended: {reason}", style="red")
        case None:
            say(f"shadow: {noun} {ended.id} still runs.", style="yellow")
        case Exited() | Signalled() | Killed():
            pass
    if ended.survivors:
        say(f"shadow: processes that could not be ended: {', '.join(map(str, ended.survivors))}", style="yellow")
