"""Where one check works: an executor and a directory that is the check's alone, removed with all that it started."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import cast

from shadow.core.commands import (
    DEFAULT_LOG_LIMIT_BYTES,
    Channel,
    Command,
    CommandResult,
    CommandSpec,
    Gap,
    Output,
    Overflow,
    StdinMode,
    shell,
)
from shadow.core.errors import NotFound, ShadowError, StaleEpoch
from shadow.core.ids import CommandId, Operation, OperationId, TerminalId, make_id
from shadow.execution.interface import ToolExecutor
from shadow.testing.contract import DEADLINE_S, ContractViolation, closed_after, eventually, expect, expect_equal

RESULT_LIMIT_BYTES = 4 * 1024 * 1024


@dataclass(slots=True)
class Site:
    executor: ToolExecutor
    directory: str
    started: list[CommandId] = field(default_factory=list[CommandId])
    terminals: list[TerminalId] = field(default_factory=list[TerminalId])

    def path(self, name: str) -> str:
        return f"{self.directory}/{name}"

    def operation(self, *, epoch: int | None = None) -> Operation:
        """A fresh one, at the executor's own epoch unless told."""
        id_ = OperationId(make_id("op", entropy=secrets.token_bytes(16)))
        return Operation(id=id_, epoch=self.executor.epoch if epoch is None else epoch)

    def spec(
        self,
        *argv: str,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: StdinMode = StdinMode.CLOSED,
        timeout_s: float | None = None,
        log_limit_bytes: int = DEFAULT_LOG_LIMIT_BYTES,
        overflow: Overflow = Overflow.DROP_OLDEST,
    ) -> CommandSpec:
        """A command in the check's own directory."""
        return CommandSpec(
            argv=argv,
            cwd=self.directory if cwd is None else cwd,
            env=dict(env or {}),
            stdin=stdin,
            timeout_s=timeout_s,
            log_limit_bytes=log_limit_bytes,
            overflow=overflow,
        )

    async def run(self, spec: CommandSpec, *, output_limit_bytes: int = RESULT_LIMIT_BYTES) -> CommandResult:
        """Run to the end; a command that does not end in time breaks the contract."""
        result = await self.executor.run(spec, wait_s=DEADLINE_S, output_limit_bytes=output_limit_bytes)
        self.started.append(result.command.id)
        expect(result.ending is not None, f"{spec.argv[:3]} did not end within {DEADLINE_S:.0f} s.")
        return result

    async def bash(self, line: str) -> bytes:
        """The standard output of a shell line that must succeed."""
        result = await self.run(self.spec(*shell(line)))
        expect(result.exit_code == 0, f"{line!r} ended with {result.ending}; stderr: {result.stderr[-500:]!r}.")
        return result.stdout

    async def start(self, spec: CommandSpec) -> Command:
        command = await self.executor.start(spec)
        self.started.append(command.id)
        return command

    async def start_bash(self, line: str, *, until: bytes | None = None, stdin: StdinMode = StdinMode.OPEN) -> Command:
        """Start a shell line and, with ``until``, wait for its standard output to hold that."""
        command = await self.start(self.spec(*shell(line), stdin=stdin))
        if until is not None:
            await self.read_until(command.id, until)
        return command

    async def read_until(self, command_id: CommandId, wanted: bytes, *, after: int = 0) -> bytes:
        """Follow the output until it holds ``wanted``, and return what was read."""
        seen = b""
        try:
            async with asyncio.timeout(DEADLINE_S), closed_after(self.follow(command_id, after=after)) as items:
                async for item in items:
                    if isinstance(item, Output):
                        seen += item.data
                    if wanted in seen:
                        return seen
        except TimeoutError:
            raise ContractViolation(f"{wanted!r} was not written in time; so far: {seen[-200:]!r}.") from None
        raise ContractViolation(f"The output ended without {wanted!r}: {seen[-200:]!r}.")

    def follow(self, command_id: CommandId, *, after: int = 0) -> AsyncIterator[Output | Gap]:
        return self.executor.read_output(command_id, after=after, follow=True)

    async def output(self, command_id: CommandId, *, after: int = 0, follow: bool = True) -> list[Output | Gap]:
        """All items from ``after`` on, checked to be without holes."""
        items = [item async for item in self.executor.read_output(command_id, after=after, follow=follow)]
        expect_contiguous(items, after=after)
        return items

    async def wait(self, command_id: CommandId) -> Command:
        """The command at its end, which must come in time."""
        command = await self.executor.wait(command_id, timeout_s=DEADLINE_S)
        expect(command.ending is not None, f"{command.argv[:3]} did not end within {DEADLINE_S:.0f} s.")
        return command

    async def runs(self, pid: int, *, program: str = "sleep") -> bool:
        """Whether ``pid`` is alive and runs ``program``, as a later command sees it; a zombie's command line is empty."""
        line = await self.bash(f"tr '\\0' ' ' < /proc/{pid}/cmdline 2>/dev/null; true")
        return program.encode() in line

    async def gone(self, pid: int, *, program: str = "sleep") -> None:
        async def probe() -> bool:
            return not await self.runs(pid, program=program)

        await eventually(probe, what=f"process {pid} ends with its command", deadline_s=10.0)

    async def pid_in(self, name: str) -> int:
        """The pid that a process wrote to the file ``name``."""

        async def probe() -> bytes:
            try:
                content = (await self.executor.read_file(self.path(name))).content
            except NotFound:
                return b""
            return content if content.endswith(b"\n") else b""

        return int(await eventually(probe, what=f"{name} holds a pid"))

    async def clear(self) -> None:
        """End what the check started and remove its directory."""
        async with asyncio.timeout(DEADLINE_S):
            try:
                for command_id in self.started:
                    await self.executor.kill(command_id)
                for terminal_id in self.terminals:
                    with suppress(NotFound):  # the check may have closed it
                        await self.executor.close_terminal(terminal_id)
                await self.executor.delete(self.directory, recursive=True)
            except (NotFound, StaleEpoch):  # a check that fences its own executor off has the workspace for itself
                return


@asynccontextmanager
async def make_site(executor: ToolExecutor) -> AsyncGenerator[Site, None]:
    directory = make_id("contract", entropy=secrets.token_bytes(10))
    await executor.make_directory(directory)
    site = Site(executor=executor, directory=directory)
    try:
        yield site
    except BaseException as failure:
        try:
            await site.clear()
        except (ShadowError, ContractViolation, TimeoutError) as left:  # the check's own failure says more
            failure.add_note(f"What the check left could not be removed: {left}")
        raise
    await site.clear()


def expect_contiguous(items: list[Output | Gap], *, after: int) -> None:
    """Each item begins where the one before ended, and none is empty."""
    offset = after
    for item in items:
        begins = item.offset if isinstance(item, Output) else item.start
        expect_equal(begins, offset, f"the offset of an item of the output after {offset}")
        expect(item.end > begins, f"An item of the output at {begins} is empty.")
        offset = item.end


def data_of(items: list[Output | Gap], channel: Channel | None = None) -> bytes:
    """The bytes of one channel, or of both; gaps are a violation."""
    for item in items:
        expect(isinstance(item, Output), f"Output is missing: {item}.")
    outputs = cast("list[Output]", items)
    return b"".join(item.data for item in outputs if channel is None or item.channel is channel)


async def content_of(pieces: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in pieces])
