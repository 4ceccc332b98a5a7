"""``shadow workspace exec``: a command's live output, stdin, signals and honest exit code."""

import asyncio
import base64
import signal
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

import typer

from shadow.cli.endings import exit_code, explain
from shadow.cli.live import Live
from shadow.cli.opening import find_to_use, seconds, variables
from shadow.cli.outcome import WrongUsage, print_json, say
from shadow.cli.streams import BlockingThread, is_fed, read_some
from shadow.cli.watching_over import check_alive, telling_of_its_end, watch_over
from shadow.core.commands import (
    Channel,
    Command,
    CommandSpec,
    Gap,
    Output,
    Overflow,
    StdinMode,
    check_spec,
    shell,
)
from shadow.core.errors import Conflict
from shadow.core.ids import CommandId, WorkspaceId
from shadow.execution.interface import ToolExecutor, WorkspaceManager

STDIN = 0
GRACE_S = 2.0
JSON_OUTPUT_BYTES = 1024 * 1024
LOST_BECAUSE = "the disk of the workspace is full, or it was read too slowly"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


async def execute(
    reference: str,
    *,
    argv: tuple[str, ...],
    line: str | None,
    cwd: str,
    env: Sequence[str],
    timeout: str | None,
    stdin: bool | None,
    raw: bool,
    as_json: bool,
) -> int:
    if bool(argv) == (line is not None):
        raise WrongUsage("Give a command behind `--`, or a shell line with -c.")
    feed = is_fed(STDIN) if stdin is None else stdin
    spec = CommandSpec(
        argv=argv or shell(line or ""),
        cwd=cwd,
        env=variables(env),
        stdin=StdinMode.OPEN if feed else StdinMode.CLOSED,
        timeout_s=seconds(timeout, option="--timeout"),
        overflow=Overflow.WAIT,
    )
    check_spec(spec)
    manager, workspace = await find_to_use(reference)
    sink = Collected() if as_json else Live(raw=raw, lost_because=LOST_BECAUSE)
    async with await manager.attach(workspace.id) as executor:
        try:
            command, code = await run(manager, workspace.id, executor, spec, sink)
        finally:
            if isinstance(sink, Live):
                await sink.finish()
    if isinstance(sink, Collected):
        print_json({"exit_code": code, "command": asdict(command)} | sink.document())
    else:
        explain(command)
    return code


@dataclass
class Collected:
    """The first mebibyte of each channel, for JSON."""

    data: dict[Channel, bytearray] = field(default_factory=lambda: {channel: bytearray() for channel in Channel})
    truncated: bool = False

    async def take(self, item: Output | Gap) -> None:
        if isinstance(item, Gap):
            self.truncated = True
            return
        kept = self.data[item.channel]
        room = JSON_OUTPUT_BYTES - len(kept)
        kept += item.data[:room]
        self.truncated |= len(item.data) > room

    def document(self) -> dict[str, object]:
        document: dict[str, object] = {"output_truncated": self.truncated}
        for channel, data in self.data.items():
            name = channel.name.lower()
            try:
                document[name] = data.decode()
            except UnicodeDecodeError:
                document[f"{name}_base64"] = base64.b64encode(data).decode()
        return document


class Signals:
    """The signals that would end us, in place of the end."""

    def __init__(self) -> None:
        self.first: int | None = None
        self._queue: asyncio.Queue[int] = asyncio.Queue()

    @contextmanager
    def held_back(self) -> Generator[None]:
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self._note, int(number))
        try:
            yield
        finally:
            for number in SIGNALS:
                loop.remove_signal_handler(number)

    def _note(self, number: int) -> None:
        self.first = self.first or number
        self._queue.put_nowait(number)

    async def next(self) -> int:
        return await self._queue.get()


async def run(
    manager: WorkspaceManager,
    workspace_id: WorkspaceId,
    executor: ToolExecutor,
    spec: CommandSpec,
    sink: Live | Collected,
) -> tuple[Command, int]:
    """Run ``spec`` to its end, which a signal to us brings about. Returns how it ended and our exit code."""
    signals = Signals()
    with signals.held_back():
        command = await executor.start(spec)
        async with asyncio.TaskGroup() as tasks:
            output = tasks.create_task(_follow(manager, workspace_id, executor, command.id, sink))
            helpers = [
                tasks.create_task(watch_over(manager, workspace_id)),
                tasks.create_task(_obey(signals, executor, command.id, output, tasks)),
            ]
            if spec.stdin is StdinMode.OPEN:
                helpers.append(tasks.create_task(_feed(manager, workspace_id, executor, command.id)))
            await asyncio.wait({output})
            for helper in helpers:
                helper.cancel()
        command = await executor.wait(command.id, timeout_s=GRACE_S)
    return command, 128 + signals.first if signals.first else exit_code(command.ending)


async def _follow(
    manager: WorkspaceManager,
    workspace_id: WorkspaceId,
    executor: ToolExecutor,
    command_id: CommandId,
    sink: Live | Collected,
) -> None:
    try:
        async with telling_of_its_end(lambda: check_alive(manager, workspace_id)):
            async for item in executor.read_output(command_id):
                await sink.take(item)
    except OSError:
        # Who read our output has gone, or cannot take it: the command ends, as a local one would.
        await executor.kill(command_id, grace_s=GRACE_S)
        raise


async def _obey(
    signals: Signals,
    executor: ToolExecutor,
    command_id: CommandId,
    output: asyncio.Task[None],
    tasks: asyncio.TaskGroup,
) -> None:
    """The first signal ends the command's tree; a second one ends us, whatever becomes of the command."""
    await signals.next()
    tasks.create_task(_end(executor, command_id, output))
    number = await signals.next()
    say(f"shadow: left at once; command {command_id} may still run (`shadow workspace show` tells).", style="yellow")
    raise typer.Exit(128 + number)


async def _end(executor: ToolExecutor, command_id: CommandId, output: asyncio.Task[None]) -> None:
    await executor.kill(command_id, grace_s=GRACE_S)
    await asyncio.wait({output}, timeout=GRACE_S)
    output.cancel()  # nobody takes it


async def _feed(
    manager: WorkspaceManager, workspace_id: WorkspaceId, executor: ToolExecutor, command_id: CommandId
) -> None:
    thread, sent = BlockingThread("input"), 0
    try:
        async with telling_of_its_end(lambda: check_alive(manager, workspace_id)):
            while True:
                pending = await thread.call(lambda: read_some(STDIN))
                at_end = not pending
                while pending:
                    accepted = await executor.write_stdin(command_id, pending, offset=sent)
                    pending, sent = pending[accepted - sent :], accepted
                if at_end:
                    await executor.write_stdin(command_id, b"", offset=sent, close=True)
                    return
    except Conflict:
        return  # the command takes no more
