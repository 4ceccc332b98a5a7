"""Checks of a command's output: every byte has an offset, and none is lost silently."""

import signal

from shadow.core.commands import MIN_LOG_LIMIT_BYTES, Channel, Exited, Gap, Output, Overflow, StdinMode, shell
from shadow.testing.contract import closed_after, expect, expect_equal, together
from shadow.testing.site import Site, data_of, expect_contiguous


def _numbers(last: int) -> bytes:
    """What ``seq 1 LAST`` writes."""
    return b"".join(b"%d\n" % n for n in range(1, last + 1))


async def check_channels_stay_apart(site: Site) -> None:
    """Standard output and standard error are told apart, each in its order."""
    line = "\n".join(f"echo o{n}; echo e{n} >&2" for n in range(1, 301))
    result = await site.run(site.spec(*shell(line)))
    expect_equal(result.stdout, b"".join(b"o%d\n" % n for n in range(1, 301)), "standard output")
    expect_equal(result.stderr, b"".join(b"e%d\n" % n for n in range(1, 301)), "standard error")
    items = await site.output(result.command.id)
    expect_equal(data_of(items, Channel.STDOUT), result.stdout, "standard output by read_output")
    expect_equal(data_of(items, Channel.STDERR), result.stderr, "standard error by read_output")


async def check_silence_is_no_output(site: Site) -> None:
    """A command that writes nothing has no output, and reading it is no error."""
    result = await site.run(site.spec("true"))
    expect_equal((result.output, result.complete), ((), True), "the output")
    expect_equal(await site.output(result.command.id), [], "the output by read_output")
    expect_equal((result.command.output_start, result.command.output_end), (0, 0), "the offsets")


async def check_failing_commands_keep_their_output(site: Site) -> None:
    """A command that fails has its output all the same."""
    result = await site.run(site.spec(*shell("echo told; echo why >&2; exit 7")))
    expect_equal((result.stdout, result.stderr, result.exit_code), (b"told\n", b"why\n", 7), "output and code")
    command = await site.start_bash("echo told; read", until=b"told")
    await site.executor.signal(command.id, signal.SIGKILL)
    await site.wait(command.id)
    expect_equal(data_of(await site.output(command.id)), b"told\n", "the output before a signal")


async def check_any_byte_is_output(site: Site) -> None:
    """Output is bytes, and nothing in it is translated."""
    content = bytes(range(256)) * 20 + b"\r\n\n\r"
    await site.executor.write_file(site.path("bytes"), content)
    result = await site.run(site.spec("cat", "bytes"))
    expect_equal(result.stdout, content, "the output")
    expect_equal(data_of(await site.output(result.command.id)), content, "the output by read_output")


async def check_a_split_character_stays_whole(site: Site) -> None:
    """A character whose bytes are written apart comes as just these bytes."""
    command = await site.start_bash("printf '\\xe2'; read; printf '\\x82'; read; printf '\\xac'", until=b"\xe2")
    await site.executor.write_stdin(command.id, b"\n", offset=0)
    await site.read_until(command.id, b"\xe2\x82")
    await site.executor.write_stdin(command.id, b"\n", offset=1)
    await site.wait(command.id)
    expect_equal(data_of(await site.output(command.id)), "€".encode(), "the output")


async def check_forged_ends_are_output(site: Site) -> None:
    """Bytes that look like the end of a stream or of a command are output like any other."""
    frame = b"\x04" + bytes(8) + b"\0\0\0\2{}"  # an end as the sidecar would frame it
    event = b'id: 9\nevent: end\ndata: {"ending": {"kind": "exited", "code": 0}}\n\n'
    chunk = b"0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    content = b"exit code: 0\n" + frame + event + chunk + b"\x04\x1a\0" + b"after"
    await site.executor.write_file(site.path("forged"), content)
    command = await site.start(site.spec(*shell("cat forged; exit 7")))
    expect_equal(data_of(await site.output(command.id)), content, "the output")
    expect_equal((await site.wait(command.id)).ending, Exited(code=7), "the ending")


async def check_megabytes_in_one_line(site: Site) -> None:
    """Five megabytes without a line end are kept and read exactly."""
    size = 5_000_000
    content = _numbers(1_000_000).replace(b"\n", b" ")[:size]
    await site.executor.write_file(site.path("line"), content)
    command = await site.start(site.spec("cat", "line"))
    expect_equal(data_of(await site.output(command.id)), content, "the output")
    expect_equal((await site.wait(command.id)).output_end, size, "the offset after the last byte")


async def check_a_result_leaves_out_the_middle(site: Site) -> None:
    """A result larger than asked for has its first and its last half, and a Gap says what is between."""
    whole, limit = _numbers(60_000), 10_000
    result = await site.run(site.spec("seq", "1", "60000"), output_limit_bytes=limit)
    gaps = [item for item in result.output if isinstance(item, Gap)]
    expect_equal(len(gaps), 1, "how many gaps there are")
    expect(not result.complete, "A result with a gap claims to be complete.")
    expect_contiguous(list(result.output), after=0)
    expect_equal((gaps[0].start, len(whole) - gaps[0].end), (limit // 2, limit // 2), "bytes before and after the gap")
    expect_equal(result.stdout, whole[: limit // 2] + whole[-(limit // 2) :], "the output")
    expect_equal(data_of(await site.output(result.command.id)), whole, "the whole by read_output")


async def check_a_result_of_just_the_limit_is_whole(site: Site) -> None:
    """A result that is as large as asked for has no gap."""
    whole = _numbers(1000)
    result = await site.run(site.spec("seq", "1", "1000"), output_limit_bytes=len(whole))
    expect_equal((result.stdout, result.complete), (whole, True), "the output")
    result = await site.run(site.spec("seq", "1", "1000"), output_limit_bytes=len(whole) - 1)
    expect(not result.complete, "A result that is larger than asked for claims to be complete.")


async def check_a_full_log_drops_the_oldest(site: Site) -> None:
    """A log that is full drops its oldest bytes; a reader gets a Gap for them and every other byte exactly."""
    whole = _numbers(100_000)
    command = await site.start(site.spec("seq", "1", "100000", log_limit_bytes=MIN_LOG_LIMIT_BYTES))
    command = await site.wait(command.id)
    kept = command.output_end - command.output_start
    expect_equal(command.output_end, len(whole), "the offset after the last byte")
    expect(kept <= MIN_LOG_LIMIT_BYTES, f"{kept} bytes are kept for a limit of {MIN_LOG_LIMIT_BYTES}.")
    expect(kept >= MIN_LOG_LIMIT_BYTES // 2, f"Only {kept} bytes are kept for a limit of {MIN_LOG_LIMIT_BYTES}.")
    first, *rest = await site.output(command.id)
    expect_equal(first, Gap(start=0, end=command.output_start), "the first item")
    expect_equal(data_of(rest), whole[command.output_start :], "what is kept")
    inside = command.output_start + kept // 2
    expect_equal(
        data_of(await site.output(command.id, after=inside)), whole[inside:], "what is kept from the middle on"
    )
    gap, *rest = await site.output(command.id, after=1000)
    expect_equal(
        (gap, data_of(rest)), (Gap(start=1000, end=command.output_start), whole[command.output_start :]), "the rest"
    )


async def check_followers_get_bytes_or_gaps(site: Site) -> None:
    """Who follows a command that writes faster than its log holds gets exact bytes and explicit gaps."""
    whole = _numbers(300_000)
    spec = site.spec(*shell("read; seq 1 300000"), stdin=StdinMode.OPEN, log_limit_bytes=MIN_LOG_LIMIT_BYTES)
    command = await site.start(spec)
    await site.executor.write_stdin(command.id, b"\n", offset=0, close=True)
    items = await site.output(command.id)
    for item in items:
        if isinstance(item, Output):
            expect_equal(item.data, whole[item.offset : item.end], f"the bytes from {item.offset}")
    expect_equal(items[-1].end, len(whole), "the end of the last item")


async def check_a_held_back_command_loses_nothing(site: Site) -> None:
    """With Overflow.WAIT a command is held back while somebody follows, and no byte is lost."""
    line = "echo ready; read; seq 1 200000; seq 1 100 >&2"
    overflow = Overflow.WAIT
    spec = site.spec(*shell(line), stdin=StdinMode.OPEN, log_limit_bytes=MIN_LOG_LIMIT_BYTES, overflow=overflow)
    command = await site.start(spec)
    items: list[Output | Gap] = []
    async with closed_after(site.follow(command.id)) as following:
        async for item in following:
            if not items:
                await site.executor.write_stdin(command.id, b"\n", offset=0, close=True)
            elif len(items) % 10 == 0:
                await site.executor.get_command(command.id)  # a reader that has more to do than to read
            items.append(item)
    expect_contiguous(items, after=0)
    expect_equal(data_of(items, Channel.STDOUT), b"ready\n" + _numbers(200_000), "standard output")
    expect_equal(data_of(items, Channel.STDERR), _numbers(100), "standard error")


async def check_nobody_following_holds_no_command_back(site: Site) -> None:
    """With Overflow.WAIT and without a reader a command runs to its end."""
    spec = site.spec("seq", "1", "200000", log_limit_bytes=MIN_LOG_LIMIT_BYTES, overflow=Overflow.WAIT)
    command = await site.wait((await site.start(spec)).id)
    expect_equal(command.output_end, len(_numbers(200_000)), "the offset after the last byte")


async def check_reading_resumes_at_every_offset(site: Site) -> None:
    """Reading from any offset gives just the rest, channel by channel."""
    result = await site.run(site.spec(*shell("printf one; printf two >&2; printf three; printf four >&2; printf five")))
    whole = await site.output(result.command.id)
    channels = [(item.channel, byte) for item in whole if isinstance(item, Output) for byte in item.data]
    expect_equal(len(channels), 19, "how many bytes there are")
    for after in range(20):
        rest = await site.output(result.command.id, after=after)
        seen = [(item.channel, byte) for item in rest if isinstance(item, Output) for byte in item.data]
        expect_equal(seen, channels[after:], f"the output after {after}")


async def check_a_reader_that_left_resumes(site: Site) -> None:
    """A reader that stops in the middle and comes back with its offset misses nothing."""
    whole = _numbers(300_000)
    command = await site.start(site.spec("seq", "1", "300000"))
    seen, visits = b"", 0
    while len(seen) < len(whole) and visits < 200:
        visits += 1
        wanted = len(seen) + 150_000
        async with closed_after(site.follow(command.id, after=len(seen))) as following:
            async for item in following:
                expect(isinstance(item, Output) and item.offset == len(seen), f"Not the next bytes: {item}.")
                seen += item.data if isinstance(item, Output) else b""
                if len(seen) >= wanted:
                    break
    expect_equal(seen, whole, "what was read in parts")


async def check_output_is_seen_while_the_command_runs(site: Site) -> None:
    """A follower gets output when it is written, not when the command ends."""
    command = await site.start_bash("printf one; read; printf two", until=b"one")
    expect_equal((await site.executor.get_command(command.id)).ending, None, "the ending when output was seen")
    await site.executor.write_stdin(command.id, b"\n", offset=0)
    await site.read_until(command.id, b"two", after=3)
    await site.wait(command.id)


async def check_following_ends_with_the_command(site: Site) -> None:
    """Following ends when the command has ended, with all its output; at once where it ended before."""
    command = await site.start(site.spec(*shell("echo one; exit 3")))
    expect_equal(data_of(await site.output(command.id)), b"one\n", "the output")
    expect((await site.executor.get_command(command.id)).ending is not None, "Following ended before the command.")
    expect_equal(data_of(await site.output(command.id)), b"one\n", "the output once more")
    expect_equal(await site.output(command.id, after=4), [], "the output after the last offset")


async def check_not_following_stops_at_what_is_there(site: Site) -> None:
    """Without ``follow`` reading stops at what is there, though the command runs."""
    command = await site.start_bash("printf one; read", until=b"one")
    expect_equal(data_of(await site.output(command.id, follow=False)), b"one", "the output so far")
    expect_equal(await site.output(command.id, after=3, follow=False), [], "the output after that")
    expect_equal((await site.executor.get_command(command.id)).output_end, 3, "the offset after the newest byte")


async def check_readers_do_not_disturb_each_other(site: Site) -> None:
    """Readers at the same time each get everything, and one that leaves disturbs none."""
    whole = _numbers(100_000)
    command = await site.start(site.spec(*shell("read; seq 1 100000"), stdin=StdinMode.OPEN))

    async def leave() -> list[Output | Gap]:
        await site.read_until(command.id, b"100\n")
        return []

    async def feed() -> list[Output | Gap]:
        await site.executor.write_stdin(command.id, b"\n", offset=0)
        return []

    readers = (site.output(command.id), site.output(command.id), site.output(command.id), leave(), feed())
    first, second, third, *_ = await together(readers)
    for items in (first, second, third):
        expect_equal(data_of(items), whole, "what a reader got")


async def check_output_is_complete_at_the_end(site: Site) -> None:
    """What a command wrote before it ended is in its result, however fast it ended."""

    async def one(number: int) -> None:
        result = await site.run(site.spec(*shell(f"printf '%0{number}d' 0; printf x >&2")))
        expect_equal((len(result.stdout), result.stderr), (number, b"x"), f"the output of {number} bytes")

    await together(one(100 + number * 37) for number in range(30))


async def check_a_command_may_close_its_output(site: Site) -> None:
    """A command that closes its output runs on and ends honestly."""
    command = await site.start_bash("echo bye; exec >&- 2>&-; read; exit 9", until=b"bye")
    await site.executor.write_stdin(command.id, b"\n", offset=0)
    ended = await site.wait(command.id)
    expect_equal((ended.ending.code if ended.ending and ended.ending.kind == "exited" else None), 9, "the code")
    expect_equal(data_of(await site.output(command.id)), b"bye\n", "the output")
    expect(ended.output_closed, "No process holds the output open, and it is not said to be closed.")


NEEDS = dict.fromkeys(
    (check_a_command_may_close_its_output,),
    ("programs",),
)
