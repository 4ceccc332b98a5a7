"""Checks of reading terminals and typing into them: offsets without holes, any number of either, recordings."""

import asyncio
import json
import secrets

from shadow.core.commands import MIN_LOG_LIMIT_BYTES, Gap
from shadow.core.errors import Conflict, Denied, NotFound, Rejected
from shadow.core.ids import CommandId, make_id
from shadow.core.terminals import (
    ScreenSnapshot,
    TerminalSize,
)
from shadow.testing.contract import (
    ContractViolation,
    eventually,
    expect,
    expect_equal,
    refused,
    together,
)
from shadow.testing.shown import Shown, attached, ended, lines_to, script, told
from shadow.testing.site import Site

LINES = 60_000


async def check_a_reader_goes_on_from_its_offset(site: Site) -> None:
    """Whoever comes again with an offset gets exactly what it has not seen."""
    terminal = await script(site, f"stty -echo; seq 1 {LINES}; read; seq 1 100")
    async with attached(site, terminal) as first:
        await first.until(b"%d\r\n" % (LINES // 2))
        seen = first.data
    async with attached(site, terminal, after=len(seen)) as second:
        await second.attachment.write(b"\n")
        rest = await second.to_the_end()
    expect_equal(seen + rest, lines_to(LINES) + lines_to(100), "both together")


async def check_an_offset_ahead_is_rejected(site: Site) -> None:
    """Nobody can go on from what was not written yet."""
    terminal = await script(site, "read")
    with refused(Rejected, what="an offset ahead"):
        async with site.executor.attach_terminal(terminal.id, after=10_000):
            pass


async def check_all_readers_see_the_same(site: Site) -> None:
    """Twenty readers at once, come at different times, each see every byte."""
    terminal = await script(site, f"read; seq 1 {LINES // 4}; read; seq 1 {LINES // 4}")
    wanted = lines_to(LINES // 4)

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
        expect(lines_to(10 * LINES) in shown, "Something is missing for the reader that kept up.")
        late = await slow.until(b"done\r\n")
        gaps = [event for event in slow.events if isinstance(event, Gap)]
        expect(gaps, f"Nothing was skipped for a reader that stood still; it was sent {len(late)} bytes.")


async def check_a_full_log_is_a_gap(site: Site) -> None:
    """What the log had to drop is a Gap for whoever comes later; what it kept follows exactly."""
    terminal = await script(site, f"seq 1 {LINES}", log_limit_bytes=MIN_LOG_LIMIT_BYTES)
    end = await ended(site, terminal)
    expect(end.output_start > 0, "The log has dropped nothing.")
    async with attached(site, terminal) as shown:
        kept = await shown.to_the_end()
    gaps = [event for event in shown.events if isinstance(event, Gap)]
    expect_equal(gaps, [Gap(start=0, end=end.output_end - len(kept))], "the gaps")
    expect(lines_to(LINES).endswith(kept) and kept, "What was kept is not the end of what was written.")


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


async def check_a_reader_only_reads(site: Site) -> None:
    """Attached with ``read_only``, one sees everything, and can neither type nor resize."""
    terminal = await script(site, "stty -echo; echo ready; read line; echo got $line; stty size")
    async with site.executor.attach_terminal(terminal.id, read_only=True, lag_bytes=None) as reader:
        with refused(Denied, what="typing"):
            await reader.write(b"mine\r")
        with refused(Denied, what="resizing"):
            await reader.resize(TerminalSize(columns=33, rows=11))
        shown = Shown(reader)
        await shown.until(b"ready")
        await site.executor.write_terminal(terminal.id, b"theirs\r", writer="w", offset=0)
        data = await shown.to_the_end()
    expect(b"got theirs\r\n24 80\r\n" in data, f"It saw {data!r}.")


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


async def check_a_straggler_keeps_writing(site: Site) -> None:
    """What is left running when the program ends still appends, and the end was told before."""
    terminal = await script(
        site, "trap '' HUP; (trap '' HUP; while [ ! -e go ]; do sleep 0.02; done; echo late) & echo early"
    )
    data, end = await told(site, terminal)
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


NEEDS = {check: ("terminals",) for name, check in list(globals().items()) if name.startswith("check_")}
