"""Checks of feeding a command's standard input."""

import asyncio
import hashlib

from shadow.core.commands import Exited, StdinMode, shell
from shadow.core.errors import Conflict
from shadow.testing.contract import each_refused, eventually, expect, expect_equal, refused
from shadow.testing.site import Site, data_of


async def check_input_reaches_the_command(site: Site) -> None:
    """What is written reaches the command, and the bytes accepted are counted from the start."""
    command = await site.start(site.spec("cat", stdin=StdinMode.OPEN))
    expect_equal(await site.executor.write_stdin(command.id, b"one "), 4, "bytes accepted")
    await site.read_until(command.id, b"one ")
    expect_equal(await site.executor.write_stdin(command.id, b"two"), 7, "bytes accepted")
    await site.read_until(command.id, b"one two")
    expect_equal((await site.executor.get_command(command.id)).stdin_accepted, 7, "bytes accepted, by get_command")
    expect_equal((await site.executor.get_command(command.id)).ending, None, "the ending while input is open")


async def check_closing_input_is_seen(site: Site) -> None:
    """Closing the input is end-of-file, with the last bytes or without any."""
    for last in (b"", b"last"):
        command = await site.start(site.spec("cat", stdin=StdinMode.OPEN))
        await site.executor.write_stdin(command.id, b"first ")
        await site.executor.write_stdin(command.id, last, close=True)
        expect_equal((await site.wait(command.id)).ending, Exited(code=0), "the ending")
        expect_equal(data_of(await site.output(command.id)), b"first " + last, "the output")


async def check_any_byte_is_input(site: Site) -> None:
    """Input is bytes: NUL, control characters and what is no UTF-8 arrive as they are."""
    content = bytes(range(256)) * 3
    command = await site.start(site.spec("cat", stdin=StdinMode.OPEN))
    await site.executor.write_stdin(command.id, content, close=True)
    expect_equal(data_of(await site.output(command.id)), content, "what came back")


async def check_large_input_waits_for_the_command(site: Site) -> None:
    """Input larger than any pipe is taken as the command reads it, and arrives whole."""
    content = b"".join(b"%08d\n" % n for n in range(400_000))
    command = await site.start(site.spec(*shell("sha256sum"), stdin=StdinMode.OPEN))
    accepted = await site.executor.write_stdin(command.id, content, close=True)
    expect_equal(accepted, len(content), "bytes accepted")
    await site.wait(command.id)
    told = data_of(await site.output(command.id)).split()[0].decode()
    expect_equal(told, hashlib.sha256(content).hexdigest(), "the digest of what arrived")


async def check_repeats_are_skipped(site: Site) -> None:
    """Input that says where it begins is taken once: what was accepted is skipped, the rest is taken."""
    command = await site.start(site.spec("cat", stdin=StdinMode.OPEN))
    executor = site.executor
    expect_equal(await executor.write_stdin(command.id, b"abc", offset=0), 3, "bytes accepted")
    expect_equal(await executor.write_stdin(command.id, b"abc", offset=0), 3, "bytes accepted after a repeat")
    expect_equal(await executor.write_stdin(command.id, b"cdef", offset=2), 6, "bytes accepted after an overlap")
    expect_equal(await executor.write_stdin(command.id, b"b", offset=1), 6, "bytes accepted after an old part")
    expect_equal(await executor.write_stdin(command.id, b"", offset=6, close=True), 6, "bytes accepted at the end")
    expect_equal(data_of(await site.output(command.id)), b"abcdef", "what arrived")


async def check_closing_may_be_repeated(site: Site) -> None:
    """The last input with its close may be repeated from its offset, though the input is closed by then."""
    command = await site.start(site.spec("cat", stdin=StdinMode.OPEN))
    for _ in range(2):
        accepted = await site.executor.write_stdin(command.id, b"abc", offset=0, close=True)
        expect_equal(accepted, 3, "bytes accepted")
    expect_equal(data_of(await site.output(command.id)), b"abc", "what arrived")


async def check_input_ahead_is_a_conflict(site: Site) -> None:
    """Input that begins behind what was accepted would leave a hole: Conflict, and nothing is taken."""
    command = await site.start(site.spec("cat", stdin=StdinMode.OPEN))
    await site.executor.write_stdin(command.id, b"abc")
    with refused(Conflict, what="input ahead of what was accepted"):
        await site.executor.write_stdin(command.id, b"x", offset=5)
    await site.executor.write_stdin(command.id, b"", close=True)
    expect_equal(data_of(await site.output(command.id)), b"abc", "what arrived")


async def check_closed_input_is_a_conflict(site: Site) -> None:
    """New input after the close, to a command without input, or to one that has ended, is a Conflict."""
    executor = site.executor
    closed = await site.start_bash("cat; echo eof; sleep 1000")
    await executor.write_stdin(closed.id, b"x", close=True)
    await site.read_until(closed.id, b"eof")
    without = await site.start(site.spec("sleep", "1000"))
    ended = await site.start(site.spec("true", stdin=StdinMode.OPEN))
    await site.wait(ended.id)
    await each_refused(
        {
            "input after the close": executor.write_stdin(closed.id, b"more"),
            "input for a command without": executor.write_stdin(without.id, b"x"),
            "input for a command that has ended": executor.write_stdin(ended.id, b"x"),
        },
        Conflict,
        what="to write_stdin",
    )


async def check_input_that_nobody_reads_any_more(site: Site) -> None:
    """When the command closes its input while it is fed, the writer is told, and the command goes on."""
    command = await site.start_bash("head -c 5; exec <&-; echo closed; sleep 1000 & wait")
    with refused(Conflict, what="megabytes for a command that reads five bytes"):
        await site.executor.write_stdin(command.id, b"x" * 4_000_000)
    await site.read_until(command.id, b"closed")
    expect_equal((await site.executor.get_command(command.id)).ending, None, "the ending after that")


async def check_a_cancelled_write_is_resumed_by_its_offset(site: Site) -> None:
    """A write that was cancelled while the pipe was full is repeated from the start, and every byte arrives once."""
    content = b"".join(b"%08d\n" % n for n in range(100_000))
    command = await site.start_bash("echo ready; until [ -e go ]; do sleep 0.02; done; exec sha256sum", until=b"ready")
    writing = asyncio.ensure_future(site.executor.write_stdin(command.id, content, offset=0))

    async def some() -> bool:
        expect(not writing.done(), "Nobody reads, and a write larger than the pipe has ended.")
        return (await site.executor.get_command(command.id)).stdin_accepted > 0

    await eventually(some, what="the pipe takes some input")
    writing.cancel()
    await asyncio.wait([writing])
    await site.executor.write_file(site.path("go"), b"")
    accepted = await site.executor.write_stdin(command.id, content, offset=0, close=True)
    expect_equal(accepted, len(content), "bytes accepted")
    told = data_of(await site.output(command.id))
    expect(hashlib.sha256(content).hexdigest().encode() in told, "What arrived is not what was written.")


NEEDS = dict.fromkeys(
    (
        check_input_that_nobody_reads_any_more,
        check_a_cancelled_write_is_resumed_by_its_offset,
    ),
    ("programs",),
)
