"""Terminals that survive: a killed sidecar, a killed holder, many readers, readers that stand still, what arrives in pieces."""

import asyncio
import hashlib
import os
import random
import signal
from pathlib import Path

import pytest

from shadow.core.commands import Exited, Gap, Lost
from shadow.core.errors import Conflict, Unavailable
from shadow.core.terminals import Resized, ScreenSnapshot, TerminalEnded, TerminalOutput, TerminalSize, TerminalSpec
from shadow.core.workspaces import Isolation, WorkspaceSpec, WorkspaceState
from shadow.execution.host.executor import open_host
from shadow.execution.interface import TerminalAttachment, TerminalEvent, ToolExecutor
from shadow.terminal.screen import Screen
from tests.support.local_workspaces import holder_pid, local_manager
from tests.support.sidecar_processes import sidecar_pid, workspace
from tests.support.waiting import until

pytestmark = pytest.mark.anyio

RAW = "stty raw -echo; "


def script(line: str, **given: object) -> TerminalSpec:
    return TerminalSpec(argv=("bash", "--norc", "-c", line), **given)  # pyright: ignore[reportArgumentType]


async def read_all(attachment: TerminalAttachment) -> tuple[bytes, list[TerminalEvent]]:
    events = [event async for event in attachment]
    offset = 0
    for event in events:
        if isinstance(event, TerminalOutput | Gap):
            assert (event.start if isinstance(event, Gap) else event.offset) == offset
            offset = event.end
    assert isinstance(events[-1], TerminalEnded)
    return b"".join(event.data for event in events if isinstance(event, TerminalOutput)), events


async def test_a_sidecar_killed_amid_output_costs_a_reader_no_byte(tmp_path: Path) -> None:
    chance = random.Random(5)
    total = 1_000_000
    async with workspace(tmp_path) as (holder, executor):
        spec = script(RAW + f"seq -f %015.0f {total}", log_limit_bytes=64 << 20)
        terminal = await executor.create_terminal(spec)
        digest, seen, pid, kills = hashlib.sha256(), 0, 0, 0
        async with asyncio.timeout(120), executor.attach_terminal(terminal.id, lag_bytes=None) as attachment:
            async for event in attachment:
                assert not isinstance(event, Gap)
                if isinstance(event, TerminalOutput):
                    assert event.offset == seen
                    seen = event.end
                    digest.update(event.data)
                if kills < 4 and seen > kills * 3_000_000 + chance.randrange(1_000_000):
                    pid = await sidecar_pid(holder, other_than=pid)
                    os.kill(pid, signal.SIGKILL)
                    kills += 1
        expected = hashlib.sha256(b"".join(b"%015d\n" % n for n in range(1, total + 1)))
        assert (seen, digest.hexdigest()) == (16 * total, expected.hexdigest())
        assert kills == 4


async def test_what_is_typed_while_the_sidecar_is_killed_is_typed_once(tmp_path: Path) -> None:
    async with workspace(tmp_path) as (holder, executor):
        size = 400_000
        typed = bytes(random.Random(6).choices(range(256), k=size))
        terminal = await executor.create_terminal(script(RAW + f"echo ready; head -c {size} | sha256sum"))
        async with asyncio.timeout(60), executor.attach_terminal(terminal.id) as attachment:
            reading = asyncio.create_task(read_all(attachment))
            pid = 0
            for start in range(0, size, 1000):
                if start % 100_000 == 50_000:
                    pid = await sidecar_pid(holder, other_than=pid)
                    os.kill(pid, signal.SIGKILL)
                await attachment.write(typed[start : start + 1000])
            shown, _ = await reading
        assert hashlib.sha256(typed).hexdigest().encode() in shown


async def test_a_terminal_outlives_its_readers_and_the_sidecar(tmp_path: Path) -> None:
    async with workspace(tmp_path) as (holder, executor):
        terminal = await executor.create_terminal(script("echo before; read; echo after"))
        os.kill(await sidecar_pid(holder), signal.SIGKILL)
        async with asyncio.timeout(20), executor.attach_terminal(terminal.id) as attachment:
            await attachment.write(b"\n")
            shown, _ = await read_all(attachment)
        assert shown.endswith(b"after\r\n")
        assert shown.startswith(b"before\r\n")


async def test_a_killed_holder_leaves_a_lost_terminal_with_its_history(tmp_path: Path) -> None:
    manager = local_manager(tmp_path, Isolation.NONE)
    status = await manager.create(WorkspaceSpec())
    try:
        async with await manager.attach(status.id) as executor:
            spec = script("seq 1 20000; echo up; sleep 1000", size=TerminalSize(columns=70, rows=20))
            terminal = await executor.create_terminal(spec)
            async with executor.attach_terminal(terminal.id) as attachment:
                seen = b""
                async for event in attachment:
                    seen += event.data if isinstance(event, TerminalOutput) else b""
                    if b"up\r\n" in seen:
                        break
        os.kill(holder_pid(tmp_path, status.id), signal.SIGKILL)

        async def stopped() -> bool:
            return (await manager.status(status.id)).state is WorkspaceState.STOPPED

        await until(stopped)
        async with await manager.attach(status.id) as executor:
            (lost,) = await executor.list_terminals()
            assert isinstance(lost.ending, Lost)
            assert (lost.id, lost.size) == (terminal.id, TerminalSize(columns=70, rows=20))
            async with executor.attach_terminal(lost.id) as attachment:
                shown, _ = await read_all(attachment)
            assert shown == seen
            async with executor.attach_terminal(lost.id, after=None) as attachment:
                first = await anext(aiter(attachment))
            assert isinstance(first, ScreenSnapshot)
            assert b"up" in first.data
            recording = b"".join([piece async for piece in executor.record(lost.id)])
            assert b'"up' in recording.replace(b"\\r\\n", b'"') or b"up" in recording
            with pytest.raises(Conflict):
                await executor.write_terminal(lost.id, b"x", writer="w", offset=0)
            await executor.close_terminal(lost.id)
            assert await executor.list_terminals() == []
    finally:
        await manager.destroy(status.id)


async def test_two_hundred_readers_of_which_one_stands_still(tmp_path: Path) -> None:
    async with workspace(tmp_path) as (_, executor):
        terminal = await executor.create_terminal(script(RAW + "read -n 1; seq 1 100000", log_limit_bytes=8 << 20))
        expected = b"".join(b"%d\n" % n for n in range(1, 100_001))
        ready = asyncio.Semaphore(0)

        async def read() -> bytes:
            async with executor.attach_terminal(terminal.id, lag_bytes=None) as attachment:
                ready.release()
                return (await read_all(attachment))[0]

        async with asyncio.timeout(100), executor.attach_terminal(terminal.id) as still:
            readers = [asyncio.create_task(read()) for _ in range(199)]
            for _ in readers:
                await ready.acquire()
            await still.write(b"x")
            for reader in readers:
                assert await reader == expected
            assert (await read_all(still))[0] == expected  # short enough to be kept for it


async def test_a_holder_that_is_gone_ends_a_reader(tmp_path: Path) -> None:
    root, state = tmp_path / "root", tmp_path / "state"
    root.mkdir()
    async with open_host(root, state) as executor:
        terminal = await executor.create_terminal(script("echo up; sleep 1000"))
        async with executor.attach_terminal(terminal.id) as attachment:
            events = aiter(attachment)
            while not isinstance(event := await anext(events), TerminalOutput):
                assert isinstance(event, Resized)
            await executor.aclose()
            async with asyncio.timeout(20):
                with pytest.raises(Unavailable):
                    await anext(events)


async def test_a_snapshot_looks_as_the_terminal_does(tmp_path: Path) -> None:
    """What a reader that saw everything has on its screen, and what one that came late has, are the same."""
    size = TerminalSize(columns=60, rows=16)
    line = (
        "for i in $(seq 1 3000); do printf '\\e[3%dmline %d grüße\\e[m\\n' $((i % 8)) $i; done;"
        " printf '\\e[?1049h\\e[2J\\e[5;10Hin the other screen\\e[?2004h\\e[?25l'; read -n 1; printf '\\e[?1049l'; echo end"
    )
    root, state = tmp_path / "root", tmp_path / "state"
    root.mkdir()
    async with open_host(root, state) as executor:
        terminal = await executor.create_terminal(script(line, size=size))
        early = Screen(size, scrollback_lines=100)
        async with asyncio.timeout(30), executor.attach_terminal(terminal.id) as first:
            async for event in first:
                if isinstance(event, TerminalOutput):
                    early.feed(event.data)
                    if b"\x1b[?25l" in event.data:
                        break
        async with asyncio.timeout(30), executor.attach_terminal(terminal.id, after=None) as second:
            events = aiter(second)
            snapshot = await anext(events)
            assert isinstance(snapshot, ScreenSnapshot)
            late = Screen(snapshot.size, scrollback_lines=100)
            late.feed(snapshot.data)
            assert late.text == early.text
            assert late.text[4].strip() == "in the other screen"
            await second.write(b"x")
            async for event in events:
                if isinstance(event, TerminalOutput):
                    late.feed(event.data)
            assert late.text[-2:] == ["end", ""]
            assert "line 3000 grüße" in late.text


async def test_keystrokes_of_two_clients_of_a_slow_program_wait(
    tmp_path: Path,
) -> None:
    async def type_until_full(executor: ToolExecutor, attachment: TerminalAttachment) -> int:
        """How much is taken before the PTY is full."""
        total = 0
        while True:
            try:
                async with asyncio.timeout(0.5):
                    await attachment.write(b"y" * 1000)
            except TimeoutError:
                return total
            total += 1000

    root, state = tmp_path / "root", tmp_path / "state"
    root.mkdir()
    async with open_host(root, state) as executor:
        terminal = await executor.create_terminal(script(RAW + "echo ready; sleep 1000"))
        async with asyncio.timeout(30), executor.attach_terminal(terminal.id) as attachment:
            events = aiter(attachment)
            while not isinstance(await anext(events), TerminalOutput):
                pass
            assert 1000 <= await type_until_full(executor, attachment) < 1_000_000
            # The rest of the workspace is not held up by that.
            assert (await executor.get_terminal(terminal.id)).ending is None
            await executor.kill_terminal(terminal.id)


async def test_a_program_may_let_go_of_its_terminal_and_open_it_again(tmp_path: Path) -> None:
    async with workspace(tmp_path) as (_, executor):
        terminal = await executor.create_terminal(
            script(
                "echo before; exec 0<&- 1>&- 2>&-; sleep 0.3; echo after > /dev/tty; [ $(head -c 1 < /dev/tty) = x ]"
            )
        )
        async with asyncio.timeout(20), executor.attach_terminal(terminal.id) as attachment:
            await asyncio.sleep(0.1)
            await attachment.write(b"x\n")
            shown, events = await read_all(attachment)
        assert (shown.startswith(b"before\r\n"), b"after\r\n" in shown) == (True, True)
        assert isinstance(events[-1], TerminalEnded)
        assert events[-1].terminal.ending == Exited(code=0)


async def test_a_hostile_flood_on_a_huge_screen_keeps_nobody_waiting(tmp_path: Path) -> None:
    """To redraw it takes minutes: the sidecar answers others meanwhile, and whoever wanted the picture can leave."""
    async with workspace(tmp_path) as (_, executor):
        size = TerminalSize(columns=1000, rows=1000)
        line = RAW + r"yes $'\e[9999S' | tr -d '\n' | head -c 200000; echo done > flooded; sleep 1000"
        terminal = await executor.create_terminal(script(line, size=size))

        async def flooded() -> bool:
            return (await executor.get_terminal(terminal.id)).output_end >= 200_000

        await until(flooded)

        async def look() -> None:
            async with executor.attach_terminal(terminal.id, after=None) as attachment:
                await anext(aiter(attachment))

        looking = asyncio.create_task(look())
        try:
            async with asyncio.timeout(10):
                for _ in range(10):
                    await executor.get_terminal(terminal.id)
                    await asyncio.sleep(0.05)
            assert not looking.done()
        finally:
            looking.cancel()
            await asyncio.wait((looking,))
