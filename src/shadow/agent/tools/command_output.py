"""What a command writes: told live in bounded pieces, and answered within a bound that says where the rest is."""

import signal
from collections.abc import Sequence

from shadow.agent.toolbox import Bench
from shadow.agent.tools.shown import shown_output, whole_end, whole_start
from shadow.core.commands import (
    Command,
    CommandResult,
    Exited,
    Gap,
    Killed,
    LimitReached,
    Lost,
    Output,
    Signalled,
    TimedOut,
)
from shadow.core.events import MAX_EXCERPT_CHARS, CommandOutput
from shadow.execution.excerpts import read_range

MAX_OUTPUT_BYTES = 24 * 1024
"""Of a command's output in one answer."""
MAX_TOLD_CHARS = 256 * 1024
"""Of text in the events of one call; after that only the newest line or two of each look are told."""
LATE_EXCERPT_CHARS = 200
SHORTEST_LOOK_S, LONGEST_LOOK_S = 0.2, 2.0
LOOK_SHARE = 0.02
"""Of the time gone by: a command that takes long is looked at less often."""


class LiveOutput:
    """Follows a command and tells what it wrote since ``start``, a few times a second at most, however much it is."""

    def __init__(self, bench: Bench, *, call_id: str, start: int = 0) -> None:
        self._bench = bench
        self._call_id = call_id
        # A call that is made again goes on where what was told of it ends.
        self._offset = max(start, bench.told_to.pop(call_id, 0))
        self._left = MAX_TOLD_CHARS

    async def follow(self, command: Command, *, wait_s: float | None = None) -> Command:
        """The command at its end, or as it stands after ``wait_s``."""
        began = self._bench.clock()
        while command.ending is None:
            gone_s = self._bench.clock() - began
            look_s = min(LONGEST_LOOK_S, max(SHORTEST_LOOK_S, gone_s * LOOK_SHARE))
            if wait_s is not None:
                if gone_s >= wait_s:
                    break
                look_s = min(look_s, wait_s - gone_s)
            command = await self._bench.executor.wait(command.id, timeout_s=look_s)
            await self.tell(command)
        return command

    async def tell(self, command: Command) -> None:
        start, end = self._offset, command.output_end
        if end <= start:
            return
        room = min(MAX_EXCERPT_CHARS, max(LATE_EXCERPT_CHARS, self._left))
        begin = max(start, command.output_start, end - room)
        self._tell(command, begin, _bytes(await read_range(self._bench.executor, command, begin, end)))

    async def tell_result(self, result: CommandResult) -> None:
        """The same, without asking for what is there already."""
        if result.command.output_end <= MAX_EXCERPT_CHARS and result.complete:
            self._tell(result.command, 0, _bytes(result.output))
        else:
            await self.tell(result.command)

    def _tell(self, command: Command, begin: int, data: bytes) -> None:
        """``data`` begins at ``begin`` and goes to the end of what the command had written."""
        start, end = self._offset, command.output_end
        if command.ending is None:
            kept = whole_end(data)
            end, data = end - (len(data) - kept), data[:kept]
        if end <= start:
            return
        if begin < start:
            begin, data = start, data[start - begin :]
        text = shown_output(data[whole_start(data) :] if begin > start else data)
        self._offset = end
        self._left -= len(text)
        self._bench.told(CommandOutput(call_id=self._call_id, command_id=command.id, start=start, end=end, text=text))


def _bytes(output: Sequence[Output | Gap]) -> bytes:
    return b"".join(item.data for item in output if isinstance(item, Output))


def shown_result(result: CommandResult) -> str:
    """The output as text; what is missing is named in its place, with how to get it where that can be."""
    command = result.command
    shown: list[str] = []
    data, begins_cut = b"", False
    for item in (*result.output, None):
        if isinstance(item, Output):
            data += item.data
            continue
        end = whole_end(data) if item is not None else len(data)
        start = whole_start(data) if begins_cut else 0
        if end > start:
            shown.append(shown_output(data[start:end]))
        if item is not None:
            shown.append(_left_out(command, item.start - (len(data) - end), item.end))
        data, begins_cut = b"", True
    return "\n".join(text.removesuffix("\n") for text in shown)


def _left_out(command: Command, start: int, end: int) -> str:
    lost = min(end, command.output_start)
    notes: list[str] = []
    if start < lost:
        notes.append(f"[Bytes {start} to {lost} are gone: the command wrote more than is kept of it.]")
    if max(start, lost) < end:
        start = max(start, lost)
        notes.append(
            f"[Bytes {start} to {end} are left out here: "
            f'read_command with command_id="{command.id}", offset={start} reads them.]'
        )
    return "\n".join(notes)


async def read_page(bench: Bench, command: Command, *, offset: int) -> tuple[str, int]:
    """At most ``MAX_OUTPUT_BYTES`` from ``offset`` on, and where the next page begins."""
    start = max(offset, command.output_start)
    end = min(start + MAX_OUTPUT_BYTES, command.output_end)
    items = await read_range(bench.executor, command, start, end)
    data = _bytes(items)
    gone = [item for item in items if isinstance(item, Gap)]  # dropped since we asked
    if end < command.output_end or command.ending is None:
        kept = whole_end(data) or len(data)
        end, data = end - (len(data) - kept), data[:kept]
    lost = gone[-1].end if gone else start
    text = shown_output(data).removesuffix("\n")
    return (f"{_left_out(command, offset, start)}\n{text}" if offset < lost else text), end


def ending_line(command: Command) -> str:
    """How the command stands, as the first line of an answer."""
    match command.ending:
        case None:
            return "still running"
        case Exited(code=code):
            return f"exit code: {code}"
        case Signalled(signal=number):
            return f"ended by signal {number} ({_signal_name(number)})"
        case TimedOut(after_s=after_s):
            return (
                f"timed out after {after_s:g} s: the command and every process that it started were ended. Nobody can answer "
                "a prompt: use options that ask nothing. If it only needs longer, give a larger timeout_s; what never ends "
                "by itself (a server) needs background=true."
            )
        case Killed():
            return "stopped: the command and every process that it started were ended"
        case LimitReached(limit=limit):
            return (
                f"ended: the workspace's limit of {limit.replace('_', ' ')} was reached. Do it with less, or in parts."
            )
        case Lost(reason=reason):
            return (
                f"lost: nobody can know how the command ended ({reason}). Look at what it should have changed before you "
                "run it again."
            )


def has_failed(command: Command) -> bool:
    """Whether what was asked for was not done; an exit code is an answer."""
    return isinstance(command.ending, TimedOut | LimitReached | Lost)


def exit_code(command: Command) -> int | None:
    return command.ending.code if isinstance(command.ending, Exited) else None


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"
