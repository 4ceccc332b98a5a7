"""Checks of the life of terminals: a real PTY, sizes, signals, honest endings, nothing left."""

from shadow.core.commands import Exited, Killed, Signalled
from shadow.core.errors import NotADirectory, NotFound, PathRefused, Rejected, Unsupported
from shadow.core.ids import CommandId, TerminalId
from shadow.core.terminals import (
    MAX_CELLS_A_SIDE,
    Resized,
    TerminalSize,
    TerminalSpec,
)
from shadow.testing.contract import (
    CheckSkipped,
    each_refused,
    expect,
    expect_equal,
    refused,
)
from shadow.testing.shown import attached, open_terminal, script, told
from shadow.testing.site import Site


async def check_a_program_has_a_terminal(site: Site) -> None:
    """The program has a terminal as stdin, stdout and stderr, which is its controlling one."""
    line = "test -t 0 && test -t 1 && test -t 2 && echo three; tty < /dev/tty >/dev/null && echo controlling; tty"
    shown, _ = await told(site, await script(site, line))
    expect(shown.startswith(b"three\r\ncontrolling\r\n/dev/"), f"It said {shown!r}.")


async def check_bytes_are_shown_as_written(site: Site) -> None:
    """In raw mode every byte that is written is shown as it is, with its offset."""
    content = bytes(range(256)) * 40
    await site.executor.write_file(site.path("bytes"), content)
    shown, end = await told(site, await script(site, "stty raw -echo; cat bytes"))
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
        await shown.attachment.write(b"sh -c 'echo sleep''ing; exec sleep 1000'\n")
        await shown.until(b"sleeping\r\n")  # earlier, the shell may be between forking and handing the terminal over
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
        expect_equal((await told(site, await script(site, line)))[1].ending, ending, f"the ending of {line!r}")
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
