"""Checks of terminals: a real PTY, offsets without holes, any number of readers, honest endings."""

import asyncio
import json
import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from shadow.core.commands import MIN_LOG_LIMIT_BYTES, Exited, Gap, Killed, Signalled
from shadow.core.errors import Conflict, NotADirectory, NotFound, PathRefused, Rejected, Unsupported
from shadow.core.ids import CommandId, TerminalId, make_id
from shadow.core.terminals import (
    MAX_CELLS_A_SIDE,
    Resized,
    ScreenSnapshot,
    Terminal,
    TerminalEnded,
    TerminalOutput,
    TerminalSize,
    TerminalSpec,
)
from shadow.execution.interface import TerminalAttachment, TerminalEvent
from shadow.testing.contract import (
    DEADLINE_S,
    CheckSkipped,
    ContractViolation,
    each_refused,
    eventually,
    expect,
    expect_equal,
    refused,
    together,
)
from shadow.testing.site import Site

LINES = 60_000


class Shown:
    """What one reader has seen so far, checked to be without holes."""

    def __init__(self, attachment: TerminalAttachment) -> None:
        self.attachment = attachment
        self.events: list[TerminalEvent] = []
        self._items = aiter(attachment)
        self._offset: int | None = None

    @property
    def data(self) -> bytes:
        return b"".join(event.data for event in self.events if isinstance(event, TerminalOutput))

    @property
    def end(self) -> TerminalEnded:
        last = self.events[-1]
        if not isinstance(last, TerminalEnded):
            raise ContractViolation("The last that a reader saw is not the end.")
        return last

    async def until(self, wanted: bytes, *, after: int = 0) -> bytes:
        """Read on until what was shown from the ``after``th byte on holds ``wanted``."""
        try:
            async with asyncio.timeout(DEADLINE_S):
                while wanted not in self.data[after:]:
                    self._take(await anext(self._items))
        except TimeoutError:
            raise ContractViolation(f"{wanted!r} was not shown in time; so far: {self.data[-300:]!r}.") from None
        except StopAsyncIteration:
            raise ContractViolation(f"The terminal ended without {wanted!r}: {self.data[-300:]!r}.") from None
        return self.data

    async def until_resized(self, size: TerminalSize) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not any(isinstance(event, Resized) and event.size == size for event in self.events):
                self._take(await anext(self._items))

    async def to_the_end(self) -> bytes:
        async with asyncio.timeout(DEADLINE_S):
            async for event in self._items:
                self._take(event)
        expect(isinstance(self.events[-1], TerminalEnded), "A reader's events stopped without an end.")
        return self.data

    def _take(self, event: TerminalEvent) -> None:
        start = event.start if isinstance(event, Gap) else event.offset
        if self._offset is not None and not isinstance(event, Resized):
            expect_equal(start, self._offset, f"the offset of {type(event).__name__}")
        if not self.events:
            expect(isinstance(event, Resized | ScreenSnapshot), f"A reader first sees {type(event).__name__}, no size.")
        match event:
            case Gap() | TerminalOutput():
                expect(event.end > start, f"{type(event).__name__} at {start} is empty.")
                self._offset = event.end
            case _:
                self._offset = max(start, self._offset or 0)
        self.events.append(event)


async def open_terminal(site: Site, *argv: str, **given: object) -> Terminal:
    spec = TerminalSpec(argv=argv or ("bash", "--norc", "--noprofile"), cwd=site.directory, **given)  # pyright: ignore[reportArgumentType]
    terminal = await site.executor.create_terminal(spec)
    site.terminals.append(terminal.id)
    return terminal


async def script(site: Site, line: str, **given: object) -> Terminal:
    return await open_terminal(site, "bash", "--norc", "-c", line, **given)


@asynccontextmanager
async def attached(
    site: Site, terminal: Terminal, *, after: int | None = 0, snapshots: bool = False, lag_bytes: int | None = None
) -> AsyncGenerator[Shown]:
    async with site.executor.attach_terminal(
        terminal.id, after=after, snapshots=snapshots, lag_bytes=lag_bytes
    ) as attachment:
        yield Shown(attachment)


async def _ended(site: Site, terminal: Terminal) -> Terminal:
    async def probe() -> Terminal | None:
        now = await site.executor.get_terminal(terminal.id)
        return now if now.ending is not None else None

    return await eventually(probe, what="the terminal's program ends")


async def _told(site: Site, terminal: Terminal) -> tuple[bytes, Terminal]:
    """All that it showed, and how it stood at its end."""
    async with attached(site, terminal) as shown:
        return await shown.to_the_end(), shown.end.terminal


def _numbers(last: int) -> bytes:
    return b"".join(b"%d\r\n" % n for n in range(1, last + 1))


async def check_a_program_has_a_terminal(site: Site) -> None:
    """The program has a terminal as stdin, stdout and stderr, which is its controlling one."""
    line = "test -t 0 && test -t 1 && test -t 2 && echo three; tty < /dev/tty >/dev/null && echo controlling; tty"
    shown, _ = await _told(site, await script(site, line))
    expect(shown.startswith(b"three\r\ncontrolling\r\n/dev/"), f"It said {shown!r}.")


async def check_bytes_are_shown_as_written(site: Site) -> None:
    """In raw mode every byte that is written is shown as it is, with its offset."""
    content = bytes(range(256)) * 40
    await site.executor.write_file(site.path("bytes"), content)
    shown, end = await _told(site, await script(site, "stty raw -echo; cat bytes"))
    expect_equal(shown, content, "what was shown")
    expect_equal((end.output_start, end.output_end), (0, len(content)), "the offsets")


async def check_typing_reaches_the_program(site: Site) -> None:
    """What is typed reaches the program, is echoed by the terminal, and ^D is end-of-file."""
    terminal = await open_terminal(site, "cat")
    async with attached(site, terminal) as shown:
        await shown.attachment.write("grüße\n".encode())
        await shown.until("grüße\r\ngrüße\r\n".encode())
        await shown.attachment.write(b"\x04")
        await shown.to_the_end()
    expect_equal(shown.end.terminal.ending, Exited(code=0), "the ending")


async def check_interrupt_reaches_the_foreground(site: Site) -> None:
    """^C interrupts what runs in the foreground of a shell, and the shell lives on."""
    terminal = await open_terminal(site, env={"PS1": "ready> "})
    async with attached(site, terminal) as shown:
        await shown.until(b"ready> ")
        await shown.attachment.write(b"sleep 1000\n")
        await shown.until(b"sleep 1000\r\n")
        await asyncio.sleep(0.1)  # for the shell to have started it; too early only means that the shell is interrupted
        await shown.attachment.write(b"\x03")
        await shown.until(b"^C")
        await shown.attachment.write(b"echo al''ive\n")
        await shown.until(b"alive\r\n")


async def check_a_size_is_seen_and_changed(site: Site) -> None:
    """The program sees the size that was asked for, hears of a change by SIGWINCH, and so do readers."""
    size, other = TerminalSize(columns=91, rows=17), TerminalSize(columns=132, rows=50)
    line = "trap 'stty size; echo changed' WINCH; stty size; echo before; while :; do sleep 0.02; done"
    terminal = await script(site, line, size=size)
    expect_equal(terminal.size, size, "the size")
    async with attached(site, terminal) as shown:
        await shown.until(b"17 91\r\nbefore\r\n")
        expect_equal(shown.events[0], Resized(offset=0, size=size), "the first that a reader sees")
        changed = await site.executor.resize_terminal(terminal.id, other)
        expect_equal(changed.size, other, "the size that a change returns")
        await shown.until(b"50 132\r\nchanged\r\n")
        await shown.until_resized(other)
    expect_equal((await site.executor.get_terminal(terminal.id)).size, other, "the size later")


async def check_impossible_sizes_are_rejected(site: Site) -> None:
    """A size without cells, or beyond all screens, is Rejected."""
    terminal = await script(site, "read")
    for size in ((0, 24), (80, 0), (MAX_CELLS_A_SIDE + 1, 24), (80, MAX_CELLS_A_SIDE + 1), (-1, 24)):
        wrong = TerminalSize(columns=size[0], rows=size[1])
        with refused(Rejected, what=f"a terminal of {size}"):
            await site.executor.create_terminal(TerminalSpec(size=wrong))
        with refused(Rejected, what=f"a change to {size}"):
            await site.executor.resize_terminal(terminal.id, wrong)


async def check_what_cannot_start_is_refused(site: Site) -> None:
    """A program or directory that is not there is NotFound, a file no directory, and nothing is left behind."""
    await site.executor.write_file(site.path("file"), b"")
    before = await site.executor.list_terminals()
    create = site.executor.create_terminal
    with refused(NotFound, what="a program that is not there"):
        await create(TerminalSpec(argv=("no-such-program",)))
    with refused(NotFound, what="a directory that is not there"):
        await create(TerminalSpec(cwd=site.path("none")))
    with refused(NotADirectory, what="a file as directory"):
        await create(TerminalSpec(cwd=site.path("file")))
    with refused(PathRefused, what="a directory outside"):
        await create(TerminalSpec(cwd="../.."))
    with refused(Rejected, what="no program"):
        await create(TerminalSpec(argv=()))
    with refused(Rejected, what="a NUL in an argument"):
        await create(TerminalSpec(argv=("echo", "a\0b")))
    expect_equal(len(await site.executor.list_terminals()), len(before), "how many terminals there are")


async def check_endings_are_honest(site: Site) -> None:
    """A program that exits, is signalled or is killed ends as just that."""
    for line, ending in (("exit 7", Exited(code=7)), ("kill -9 $$", Signalled(signal=9))):
        expect_equal((await _told(site, await script(site, line)))[1].ending, ending, f"the ending of {line!r}")
    terminal = await script(site, "echo up; sleep 1000")
    async with attached(site, terminal) as shown:
        await shown.until(b"up")
        killed = await site.executor.kill_terminal(terminal.id)
        expect_equal(killed.ending, Killed(), "the ending of what was killed")
        await shown.to_the_end()
    expect_equal(shown.end.terminal.ending, Killed(), "the ending that a reader sees")


async def check_a_kill_takes_the_tree(site: Site) -> None:
    """Killing a terminal ends everything that was started in it, in sessions of its own too."""
    line = "setsid sleep 1000 & nohup sleep 1000 >/dev/null 2>&1 & (sleep 1000 &) ; echo up; sleep 1000"
    terminal = await script(site, line)
    async with attached(site, terminal) as shown:
        await shown.until(b"up")
    killed = await site.executor.kill_terminal(terminal.id)
    expect_equal((killed.descendants, killed.survivors), (0, ()), "what is left of it")


async def check_a_hang_up_comes_first(site: Site) -> None:
    """With grace, a program hears SIGHUP and may still write."""
    terminal = await script(
        site, "trap '' TERM; trap 'echo hung up; exit 5' HUP; echo up; while :; do sleep 0.02; done"
    )
    async with attached(site, terminal) as shown:
        await shown.until(b"up")
        await site.executor.kill_terminal(terminal.id, grace_s=10.0)
        await shown.to_the_end()
    expect(b"hung up" in shown.data, f"It was not told; it showed {shown.data!r}.")


async def check_signals_go_to_the_foreground(site: Site) -> None:
    """A signal goes to what runs in the foreground; nothing happens where the program has ended."""
    terminal = await open_terminal(site, env={"PS1": "ready> "})
    async with attached(site, terminal) as shown:
        await shown.until(b"ready> ")
        await shown.attachment.write(
            b"bash -c 'trap \"echo heard; exit\" USR1; echo wai''ting; while :; do sleep 0.02; done'\n"
        )
        await shown.until(b"waiting\r\n")
        await site.executor.signal_terminal(terminal.id, 10)
        await shown.until(b"heard\r\n")
        await shown.attachment.write(b"exit 4\n")
        await shown.to_the_end()
    expect_equal(shown.end.terminal.ending, Exited(code=4), "the ending of the shell")
    expect_equal((await site.executor.signal_terminal(terminal.id, 9)).ending, Exited(code=4), "the ending after all")
    with refused(Rejected, what="a signal that is none"):
        await site.executor.signal_terminal(terminal.id, 4000)


async def check_terminals_are_not_commands(site: Site) -> None:
    """A terminal is in the list of terminals, and neither found nor touched by the calls for commands; and the reverse."""
    terminal, command = await script(site, "read"), await site.start_bash("read")
    expect(terminal.id in [t.id for t in await site.executor.list_terminals()], "It is not listed.")
    expect(terminal.id not in [str(c.id) for c in await site.executor.list_commands()], "It is listed as a command.")
    wrong, other = CommandId(terminal.id), TerminalId(command.id)
    await each_refused(
        {
            "get": site.executor.get_command(wrong),
            "wait": site.executor.wait(wrong, timeout_s=0.0),
            "signal": site.executor.signal(wrong, 9),
            "kill": site.executor.kill(wrong),
            "stdin": site.executor.write_stdin(wrong, b"x"),
            "get_terminal": site.executor.get_terminal(other),
            "resize": site.executor.resize_terminal(other, TerminalSize()),
            "signal_terminal": site.executor.signal_terminal(other, 9),
            "kill_terminal": site.executor.kill_terminal(other),
            "close": site.executor.close_terminal(other),
            "write": site.executor.write_terminal(other, b"x", writer="w", offset=0),
        },
        NotFound,
        what="of the other kind",
    )
    with refused(NotFound, what="attaching to a command"):
        async with site.executor.attach_terminal(other):
            pass
    expect_equal((await site.executor.get_terminal(terminal.id)).ending, None, "the ending of the terminal")
    expect_equal((await site.executor.get_command(command.id)).ending, None, "the ending of the command")


async def check_unknown_terminals_are_not_found(site: Site) -> None:
    """An id of none, well-formed or not, is NotFound in every call."""
    for text in ("term_00000000000000000000", "nonsense", "../../etc", ""):
        none = TerminalId(text)
        await each_refused(
            {
                "get": site.executor.get_terminal(none),
                "resize": site.executor.resize_terminal(none, TerminalSize()),
                "signal": site.executor.signal_terminal(none, 15),
                "kill": site.executor.kill_terminal(none),
                "close": site.executor.close_terminal(none),
                "write": site.executor.write_terminal(none, b"x", writer="w", offset=0),
            },
            NotFound,
            what=f"of {text!r}",
        )
        with refused(NotFound, what=f"attaching to {text!r}"):
            async with site.executor.attach_terminal(none):
                pass


async def check_a_reader_goes_on_from_its_offset(site: Site) -> None:
    """Whoever comes again with an offset gets exactly what it has not seen."""
    terminal = await script(site, f"stty -echo; seq 1 {LINES}; read; seq 1 100")
    async with attached(site, terminal) as first:
        await first.until(b"%d\r\n" % (LINES // 2))
        seen = first.data
    async with attached(site, terminal, after=len(seen)) as second:
        await second.attachment.write(b"\n")
        rest = await second.to_the_end()
    expect_equal(seen + rest, _numbers(LINES) + _numbers(100), "both together")


async def check_an_offset_ahead_is_rejected(site: Site) -> None:
    """Nobody can go on from what was not written yet."""
    terminal = await script(site, "read")
    with refused(Rejected, what="an offset ahead"):
        async with site.executor.attach_terminal(terminal.id, after=10_000):
            pass


async def check_all_readers_see_the_same(site: Site) -> None:
    """Twenty readers at once, come at different times, each see every byte."""
    terminal = await script(site, f"read; seq 1 {LINES // 4}; read; seq 1 {LINES // 4}")
    wanted = _numbers(LINES // 4)

    async def read() -> bytes:
        async with attached(site, terminal) as shown:
            return await shown.to_the_end()

    readers = [asyncio.create_task(read()) for _ in range(10)]
    async with attached(site, terminal) as shown:
        await shown.attachment.write(b"\n")
        await shown.until(wanted[-200:])
        readers += [asyncio.create_task(read()) for _ in range(10)]
        await shown.attachment.write(b"\n")
        whole = await shown.to_the_end()
    expect_equal(whole.count(wanted), 2, "how often all lines came")
    for seen in await asyncio.gather(*readers):
        expect(seen == whole, f"A reader saw {len(seen)} bytes, another {len(whole)}.")


async def check_a_reader_that_stands_still_holds_back_nobody(site: Site) -> None:
    """A reader that asks for nothing keeps neither the program nor another reader waiting, and is skipped ahead."""
    terminal = await script(site, f"read; seq 1 {10 * LINES}; echo done; read", log_limit_bytes=64 * 1024 * 1024)
    async with (
        attached(site, terminal, lag_bytes=MIN_LOG_LIMIT_BYTES) as slow,
        attached(site, terminal) as quick,
    ):
        await slow.attachment.write(b"\n")
        await slow.until(b"1\r\n")
        shown = await quick.until(b"done\r\n")
        expect(_numbers(10 * LINES) in shown, "Something is missing for the reader that kept up.")
        late = await slow.until(b"done\r\n")
        gaps = [event for event in slow.events if isinstance(event, Gap)]
        expect(gaps, f"Nothing was skipped for a reader that stood still; it was sent {len(late)} bytes.")


async def check_a_full_log_is_a_gap(site: Site) -> None:
    """What the log had to drop is a Gap for whoever comes later; what it kept follows exactly."""
    terminal = await script(site, f"seq 1 {LINES}", log_limit_bytes=MIN_LOG_LIMIT_BYTES)
    end = await _ended(site, terminal)
    expect(end.output_start > 0, "The log has dropped nothing.")
    async with attached(site, terminal) as shown:
        kept = await shown.to_the_end()
    gaps = [event for event in shown.events if isinstance(event, Gap)]
    expect_equal(gaps, [Gap(start=0, end=end.output_end - len(kept))], "the gaps")
    expect(_numbers(LINES).endswith(kept) and kept, "What was kept is not the end of what was written.")


async def check_a_fresh_screen_of_a_long_session(site: Site) -> None:
    """Who comes without an offset to a long session gets a snapshot, and then what follows it."""
    terminal = await script(
        site, f"seq 1 {LINES}; echo last line; read; echo after it", size=TerminalSize(columns=40, rows=10)
    )
    async with attached(site, terminal) as shown:
        await shown.until(b"last line\r\n")
    async with attached(site, terminal, after=None) as fresh:
        await fresh.attachment.write(b"\n")
        data = await fresh.to_the_end()
    first = fresh.events[0]
    if not isinstance(first, ScreenSnapshot):
        raise ContractViolation(f"A fresh reader of a long session first sees {type(first).__name__}.")
    expect_equal(first.size, TerminalSize(columns=40, rows=10), "the size of the snapshot")
    expect(b"last line" in first.data and b"%d" % LINES in first.data, "The screen is not in the snapshot.")
    expect(len(first.data) < 200_000, f"A snapshot of ten lines and its scrollback has {len(first.data)} bytes.")
    expect(b"after it" in data and b"%d\r\n" % LINES not in data, f"After the snapshot came {data[:200]!r}.")


async def check_a_fresh_screen_of_a_short_session(site: Site) -> None:
    """Who comes without an offset to a short session gets all of it, as it was written."""
    terminal = await script(site, "echo one; echo two; read")
    async with attached(site, terminal) as shown:
        await shown.until(b"two\r\n")
    async with attached(site, terminal, after=None) as fresh:
        expect_equal(await fresh.until(b"two\r\n"), b"one\r\ntwo\r\n", "what was shown")


async def check_typing_twice_is_typing_once(site: Site) -> None:
    """A repeat of what a writer typed at an offset is taken once; what begins ahead is a Conflict."""
    terminal = await script(site, "stty raw -echo; echo ready; head -c 10")
    async with attached(site, terminal) as shown:
        await shown.until(b"ready")
        write = site.executor.write_terminal
        expect_equal(await write(terminal.id, b"abcde", writer="one", offset=0), 5, "bytes typed")
        expect_equal(await write(terminal.id, b"abcde", writer="one", offset=0), 5, "bytes typed, repeated")
        expect_equal(await write(terminal.id, b"defg", writer="one", offset=3), 7, "bytes typed, partly repeated")
        expect_equal(await write(terminal.id, b"", writer="one", offset=0), 7, "bytes typed, asked for")
        with refused(Conflict, what="what begins ahead"):
            await write(terminal.id, b"x", writer="one", offset=9)
        expect_equal(await write(terminal.id, b"123", writer="two", offset=0), 3, "bytes typed by another")
        data = await shown.to_the_end()
    expect(data.endswith(b"abcdefg123"), f"The program read {data!r}.")
    with refused(Conflict, what="typing after the end"):
        await site.executor.write_terminal(terminal.id, b"x", writer="one", offset=7)


async def check_many_writers_are_not_mixed_up(site: Site) -> None:
    """Several writers at once: each one's bytes arrive whole and in its own order."""
    terminal = await script(site, "stty raw -echo; echo ready; head -c 20000")
    async with attached(site, terminal) as shown:
        await shown.until(b"ready")

        async def type_(letter: bytes) -> None:
            async with site.executor.attach_terminal(terminal.id) as attachment:
                for number in range(100):
                    await attachment.write(letter * 49 + (b"." if number % 2 else b"!"))

        await together(type_(letter) for letter in (b"a", b"b", b"c", b"d"))
        data = (await shown.to_the_end())[-20_000:]
    for letter in b"abcd":
        expect_equal(data.count(letter), 4900, f"how often {chr(letter)} arrived")


async def check_large_input_waits_for_the_program(site: Site) -> None:
    """More than a PTY holds is taken as the program reads it, and arrives whole."""
    content = secrets.token_hex(100_000).encode()
    terminal = await script(
        site, f"stty raw -echo; echo ready; sleep 0.3; head -c {len(content)} | sha256sum; sha256sum typed"
    )
    await site.executor.write_file(site.path("typed"), content)
    async with attached(site, terminal) as shown:
        await shown.until(b"ready")
        await shown.attachment.write(content)
        data = await shown.to_the_end()
    digests = [word for word in data.split() if len(word) == 64]
    expect(len(digests) == 2 and digests[0] == digests[1], f"The digests differ: {digests}.")


async def check_a_repeated_start_is_one_terminal(site: Site) -> None:
    """The same operation twice is one terminal."""
    operation = site.operation()
    spec = TerminalSpec(argv=("bash", "-c", "echo once >> count; read"), cwd=site.directory)
    first = await site.executor.create_terminal(spec, operation=operation)
    site.terminals.append(first.id)
    second = await site.executor.create_terminal(spec, operation=operation)
    expect_equal(second.id, first.id, "the terminal of a repeat")


async def check_closing_forgets(site: Site) -> None:
    """A closed terminal is gone, with its processes and all that it showed."""
    terminal = await script(site, "echo $$ > pid; sleep 1000")
    await site.pid_in("pid")
    await site.executor.close_terminal(terminal.id)
    with refused(NotFound, what="a terminal that was closed"):
        await site.executor.get_terminal(terminal.id)
    expect(terminal.id not in [t.id for t in await site.executor.list_terminals()], "It is still listed.")


async def check_a_straggler_keeps_writing(site: Site) -> None:
    """What is left running when the program ends still appends, and the end was told before."""
    terminal = await script(
        site, "trap '' HUP; (trap '' HUP; while [ ! -e go ]; do sleep 0.02; done; echo late) & echo early"
    )
    data, end = await _told(site, terminal)
    expect_equal((b"early" in data, b"late" in data), (True, False), "what was shown by the end")
    await site.executor.write_file(site.path("go"), b"")

    async def probe() -> bool:
        return (await site.executor.get_terminal(terminal.id)).output_end > end.output_end

    await eventually(probe, what="a straggler's output is appended")
    async with attached(site, terminal, after=end.output_end) as shown:
        expect_equal(await shown.to_the_end(), b"late\r\n", "what came after the end")


async def check_a_recording_plays_back(site: Site) -> None:
    """A recording is asciicast v2: a header with the size, then all that was shown, with times that never go back."""
    size = TerminalSize(columns=50, rows=12)
    terminal = await script(
        site, "printf 'gr\\xc3'; sleep 0.05; printf '\\xbc\\xc3\\x9fe\\n'; read; echo end", size=size
    )
    async with attached(site, terminal) as shown:
        await shown.until("grüße".encode())
        await site.executor.resize_terminal(terminal.id, TerminalSize(columns=60, rows=20))
        await shown.attachment.write(b"\n")
        await shown.to_the_end()
    text = b"".join([piece async for piece in site.executor.record(terminal.id)]).decode()
    header, *events = [json.loads(line) for line in text.splitlines()]
    expect_equal((header["version"], header["width"], header["height"]), (2, 50, 12), "version and size in the header")
    times = [at for at, _, _ in events]
    expect(times == sorted(times), "Times go back.")
    expect_equal("".join(said for _, kind, said in events if kind == "o"), shown.data.decode(), "what it plays back")
    expect_equal([said for _, kind, said in events if kind == "r"], ["60x20"], "the changes of size")


async def check_commands_are_recorded_too(site: Site) -> None:
    """A command has a recording as a terminal has one."""
    result = await site.run(site.spec("bash", "-c", "echo out; echo err >&2; echo more"))
    text = b"".join([piece async for piece in site.executor.record(result.command.id)]).decode()
    header, *events = [json.loads(line) for line in text.splitlines()]
    expect_equal(header["version"], 2, "the version in the header")
    said = "".join(said for _, kind, said in events if kind == "o")
    expect_equal(sorted(said.split()), ["err", "more", "out"], "what it plays back")
    with refused(NotFound, what="the recording of nothing"):
        async for _ in site.executor.record(CommandId(make_id("cmd", entropy=secrets.token_bytes(12)))):
            pass


async def check_no_terminals_means_refusals(site: Site) -> None:
    """What claims no terminals refuses each call with Unsupported."""
    if site.executor.capabilities.terminals:
        raise CheckSkipped("the implementation claims terminals")
    none = TerminalId("term_00000000000000000000")
    executor = site.executor
    await each_refused(
        {
            "create": executor.create_terminal(TerminalSpec()),
            "list": executor.list_terminals(),
            "get": executor.get_terminal(none),
            "resize": executor.resize_terminal(none, TerminalSize()),
            "signal": executor.signal_terminal(none, 9),
            "kill": executor.kill_terminal(none),
            "close": executor.close_terminal(none),
            "write": executor.write_terminal(none, b"x", writer="w", offset=0),
        },
        Unsupported,
        what="without terminals",
    )
    with refused(Unsupported, what="attaching without terminals"):
        async with executor.attach_terminal(none):
            pass


NEEDS = {
    check: ("terminals",)
    for name, check in list(globals().items())
    if name.startswith("check_") and check is not check_no_terminals_means_refusals
}
