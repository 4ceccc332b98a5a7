"""Checks of starting commands, what they get, and how they stand."""

import asyncio

from shadow.core.commands import MAX_ARGUMENT_BYTES, CommandSpec, Exited, Signalled, StdinMode, shell
from shadow.core.errors import Denied, LimitExceeded, NotADirectory, NotFound, PathRefused, Rejected
from shadow.core.ids import CommandId
from shadow.testing.contract import DEADLINE_S, each_refused, expect, expect_equal, refused, together
from shadow.testing.site import Site

LIBRARY_SIGNALS = 0b11 << 31
"""32 and 33 belong to the C library, which leaves them ignored in what posix_spawn starts."""


async def check_arguments_are_not_interpreted(site: Site) -> None:
    """Arguments reach the program as they are: no shell, no expansion, empty ones too."""
    arguments = ("$HOME", "*", "; echo no", "a b", "", "'", '"', "\\n", "`id`", "$(id)", "~", "line\nend", "&&", "%2")
    result = await site.run(site.spec("printf", "<%s>", *arguments))
    expect_equal(result.stdout, "".join(f"<{argument}>" for argument in arguments).encode(), "the arguments")


async def check_arguments_keep_their_bytes(site: Site) -> None:
    """Unicode and bytes that are no UTF-8 reach the program in arguments and environment."""
    result = await site.run(site.spec("printf", "%s|", "é", "\U0001f600", "caf\udce9\udcff"))
    expect_equal(result.stdout, "é|\U0001f600|".encode() + b"caf\xe9\xff|", "the arguments")
    result = await site.run(site.spec("printenv", "BYTES", env={"BYTES": "\udcfe\udcff ü"}))
    expect_equal(result.stdout, b"\xfe\xff \xc3\xbc\n", "the variable")


async def check_a_shell_line_is_run_by_bash(site: Site) -> None:
    """A shell line has pipes, expansions and arrays."""
    result = await site.run(site.spec(*shell("a=(1 2 3); echo {x..z} ${#a[@]} | tr x X; exit 3")))
    expect_equal((result.stdout, result.exit_code), (b"X y z 3\n", 3), "output and code")


async def check_exit_codes_are_told(site: Site) -> None:
    """The exit code is the command's own, also where shells use it for signals; it is no error."""
    codes = (0, 1, 2, 42, 100, 124, 125, 126, 127, 128, 129, 130, 137, 143, 200, 254, 255)

    async def one(code: int) -> None:
        result = await site.run(site.spec(*shell(f"exit {code}")))
        expect_equal(result.ending, Exited(code=code), f"the ending of exit {code}")

    await together(one(code) for code in codes)


async def check_signals_are_told(site: Site) -> None:
    """A command that a signal ends is Signalled with its number, not an exit code."""

    async def one(number: int) -> None:
        result = await site.run(site.spec(*shell(f"kill -{number} $$; read")))
        expect_equal(result.ending, Signalled(signal=number), f"the ending by signal {number}")

    await together(one(number) for number in (1, 2, 6, 9, 10, 11, 13, 14, 15))


async def check_the_working_directory_is_the_root(site: Site) -> None:
    """A command runs in the workspace's root, or beneath it where it says so."""
    root = (await site.run(site.spec("pwd", cwd="."))).stdout.rstrip(b"\n")
    expect_equal(
        (await site.executor.run(CommandSpec(argv=("pwd",)), wait_s=DEADLINE_S)).stdout, root + b"\n", "the root"
    )
    await site.bash("mkdir -p sub/dir; ln -s sub/dir way")
    result = await site.run(site.spec("pwd", "-P", cwd=site.path("sub/dir")))
    expect_equal(result.stdout, root + b"/" + site.path("sub/dir").encode() + b"\n", "a directory beneath")
    result = await site.run(site.spec("pwd", "-P", cwd=site.path("way")))
    expect_equal(result.stdout, root + b"/" + site.path("sub/dir").encode() + b"\n", "a linked directory beneath")


async def check_missing_directories_are_not_found(site: Site) -> None:
    """A working directory that is not there, or is a file, is refused before anything starts."""
    await site.executor.write_file(site.path("file"), b"")
    with refused(NotFound, what="a missing working directory"):
        await site.start(site.spec("true", cwd=site.path("nowhere")))
    with refused(NotADirectory, NotFound, what="a file as working directory"):
        await site.start(site.spec("true", cwd=site.path("file")))
    for cwd in ("..", "/etc", "/"):
        with refused(PathRefused, what=f"the working directory {cwd}"):
            await site.start(site.spec("true", cwd=cwd))


async def check_variables_are_added(site: Site) -> None:
    """Variables are added to the base environment, replace what it has, and keep any text."""
    base = (await site.run(site.spec("env", "-0"))).stdout
    names = {line.partition(b"=")[0] for line in base.split(b"\0")}
    expect({b"PATH", b"HOME"} <= names, f"PATH or HOME is missing: {sorted(names)}.")
    added = {"EMPTY": "", "EQUALS": "a=b=c", "LINES": "a\nb", "HOME": "/elsewhere", "lower_1": "é"}
    lines = (await site.run(site.spec("env", "-0", env=added))).stdout.split(b"\0")
    for name, value in added.items():
        expect(f"{name}={value}".encode() in lines, f"{name} did not reach the command: {lines}.")
    expect(
        {line for line in base.split(b"\0") if not line.startswith(b"HOME=")} <= set(lines), "Base variables are gone."
    )


async def check_the_program_is_looked_up_in_its_own_path(site: Site) -> None:
    """The program is looked up in the PATH that the command gets; one with a slash from its directory."""
    await site.bash("mkdir bin; printf '#!/bin/bash\\necho mine' > bin/own-program; chmod +x bin/own-program")
    path = (await site.bash('printf %s "$PWD/bin:$PATH"')).decode()
    expect_equal((await site.run(site.spec("own-program", env={"PATH": path}))).stdout, b"mine\n", "by PATH")
    expect_equal((await site.run(site.spec("bin/own-program"))).stdout, b"mine\n", "by a path from the directory")
    with refused(NotFound, what="a program outside PATH"):
        await site.start(site.spec("own-program"))


async def check_missing_programs_are_not_found(site: Site) -> None:
    """A program that is not there is NotFound; what cannot be executed is refused too."""
    for program in ("no-such-program-anywhere", "./nowhere", "/nowhere/program", site.path("nowhere")):
        with refused(NotFound, what=f"the program {program}"):
            await site.start(site.spec(program))
    await site.bash("touch plain; mkdir directory")
    for program in ("./plain", "./directory"):
        with refused(Denied, Rejected, NotFound, what=f"the program {program}"):
            await site.start(site.spec(program))


async def check_impossible_commands_are_rejected(site: Site) -> None:
    """What no system could start is Rejected, and leaves no command behind."""
    before = {command.id for command in await site.executor.list_commands()}
    huge = "x" * (MAX_ARGUMENT_BYTES + 1)
    specs = {
        "no argument": site.spec(),
        "an empty program": site.spec(""),
        "NUL in an argument": site.spec("echo", "a\0b"),
        "NUL in a variable": site.spec("true", env={"A": "a\0b"}),
        "NUL in the directory": site.spec("true", cwd="a\0b"),
        "half a character in an argument": site.spec("echo", "a\ud800"),
        "half a character in a variable": site.spec("true", env={"A": "\ud800"}),
        "half a character in the directory": site.spec("true", cwd="\ud800"),
        "an argument too long": site.spec("true", huge),
        "a variable too long": site.spec("true", env={"A": huge}),
        "a variable without a name": site.spec("true", env={"": "x"}),
        "= in a variable's name": site.spec("true", env={"A=B": "x"}),
        "no time at all": site.spec("true", timeout_s=0),
        "less than no time": site.spec("true", timeout_s=-1),
        "a log of one byte": site.spec("true", log_limit_bytes=1),
    }
    await each_refused({what: site.executor.start(spec) for what, spec in specs.items()}, Rejected, what="at start")
    own = [command.id for command in await site.executor.list_commands() if command.cwd == site.directory]
    expect_equal([id_ for id_ in own if id_ not in before], [], "commands that are left")


async def check_too_many_arguments_are_refused(site: Site) -> None:
    """More arguments than the system takes are a typed error; many that fit are fine."""
    with refused(Rejected, LimitExceeded, what="100 MB of arguments"):
        await site.start(site.spec("true", *("x" * 120_000 for _ in range(100))))
    result = await site.run(site.spec("bash", "-c", "echo $#", "bash", *("x" * 100_000 for _ in range(5))))
    expect_equal(result.stdout, b"5\n", "how many arguments arrived")


async def check_input_is_closed_unless_asked_for(site: Site) -> None:
    """A command without input reads end-of-file at once."""
    result = await site.run(site.spec("cat"))
    expect_equal((result.exit_code, result.output), (0, ()), "code and output")


async def check_only_three_descriptors_are_open(site: Site) -> None:
    """A command gets descriptors 0, 1 and 2 and nothing else."""
    expect_equal(await site.bash("ls /proc/$$/fd; true"), b"0\n1\n2\n", "the descriptors")


async def check_signals_are_as_a_shell_would_set_them(site: Site) -> None:
    """A command starts with no signal ignored and none blocked."""
    result = await site.run(site.spec("grep", "-E", "^Sig(Ign|Blk)", "/proc/self/status"))
    masks = [int(line.split()[1], 16) & ~LIBRARY_SIGNALS for line in result.stdout.splitlines()]
    expect_equal(masks, [0, 0], "the masks of blocked and ignored signals")


async def check_a_started_command_is_described(site: Site) -> None:
    """start returns at once; get_command and list_commands tell how the command stands, wait how it ended."""
    command = await site.start_bash("echo ready; read; exit 5", until=b"ready")
    expect_equal((command.ending, command.ended_at, command.argv[0]), (None, None, "bash"), "the running command")
    standing = await site.executor.get_command(command.id)
    expect_equal((standing.id, standing.ending, standing.argv), (command.id, None, command.argv), "by get_command")
    expect(standing.pid is not None, "A running command has no pid.")
    expect(command.id in {other.id for other in await site.executor.list_commands()}, "The command is not listed.")
    await site.executor.write_stdin(command.id, b"\n", offset=0)
    ended = await site.wait(command.id)
    expect_equal(ended.ending, Exited(code=5), "the ending")
    expect(ended.ended_at is not None and ended.started_at <= ended.ended_at, "It ended before it started.")
    listed = {other.id: other.ending for other in await site.executor.list_commands()}
    expect_equal(listed.get(command.id), Exited(code=5), "the ending by list_commands")


async def check_the_pid_is_the_commands(site: Site) -> None:
    """The pid is the command's own, as its processes see it."""
    command = await site.start_bash("echo $$; read", until=b"\n")
    seen = await site.read_until(command.id, b"\n")
    expect_equal(command.pid, int(seen), "the pid")


async def check_commands_are_listed_oldest_first(site: Site) -> None:
    """Commands are listed in the order in which they were started."""
    ids = [(await site.start(site.spec("true"))).id for _ in range(5)]
    listed = [command.id for command in await site.executor.list_commands()]
    expect_equal([id_ for id_ in listed if id_ in ids], ids, "the order")


async def check_waiting_gives_up_after_its_time(site: Site) -> None:
    """wait returns the command as it stands after ``timeout_s``, and the command runs on."""
    command = await site.start_bash("read; echo done")
    expect_equal((await site.executor.wait(command.id, timeout_s=0.02)).ending, None, "the ending after the time")
    await site.executor.write_stdin(command.id, b"\n", offset=0)
    expect_equal((await site.wait(command.id)).ending, Exited(code=0), "the ending")


async def check_run_gives_up_after_its_time(site: Site) -> None:
    """run returns what there is after ``wait_s``, and the command runs on."""
    result = await site.executor.run(site.spec(*shell("echo early; read"), stdin=StdinMode.OPEN), wait_s=0.05)
    site.started.append(result.command.id)
    expect_equal((result.ending, result.exit_code), (None, None), "the ending after the time")
    await site.read_until(result.command.id, b"early\n")
    await site.executor.write_stdin(result.command.id, b"\n", offset=0)
    expect_equal((await site.wait(result.command.id)).ending, Exited(code=0), "the ending")


async def check_a_cancelled_wait_leaves_the_command(site: Site) -> None:
    """Cancelling a wait does nothing to the command."""
    command = await site.start_bash("read; exit 4", until=None)
    waiting = asyncio.ensure_future(site.executor.wait(command.id))
    await site.executor.get_command(command.id)
    waiting.cancel()
    await asyncio.wait([waiting])
    expect(waiting.cancelled(), "The wait was not cancelled.")
    expect_equal((await site.executor.get_command(command.id)).ending, None, "the ending after that")
    await site.executor.write_stdin(command.id, b"\n", offset=0)
    expect_equal((await site.wait(command.id)).ending, Exited(code=4), "the ending")


async def check_many_waits_all_get_the_end(site: Site) -> None:
    """Everybody who waits for a command gets its end, also who asks later."""
    command = await site.start_bash("read; exit 6")
    waits = [asyncio.ensure_future(site.wait(command.id)) for _ in range(5)]
    await site.executor.write_stdin(command.id, b"\n", offset=0)
    endings = [(await wait).ending for wait in waits]
    expect_equal([*endings, (await site.wait(command.id)).ending], [Exited(code=6)] * 6, "the endings")


async def check_unknown_commands_are_not_found(site: Site) -> None:
    """A command that nobody started is NotFound for every call."""
    executor, id_ = site.executor, CommandId("cmd_nobodystartedthis")

    async def read() -> None:
        async for _ in executor.read_output(id_):
            pass

    await each_refused(
        {
            "get_command": executor.get_command(id_),
            "wait": executor.wait(id_),
            "read_output": read(),
            "write_stdin": executor.write_stdin(id_, b"x"),
            "signal": executor.signal(id_, 15),
            "kill": executor.kill(id_),
        },
        NotFound,
        what="of an unknown command",
    )


async def check_many_commands_at_once(site: Site) -> None:
    """Many commands at the same time each get their own output and code, complete."""

    async def one(number: int) -> None:
        result = await site.run(site.spec(*shell(f"echo {number}; echo e{number} >&2; exit {number}")))
        expect_equal((result.stdout, result.stderr), (b"%d\n" % number, b"e%d\n" % number), f"the output of {number}")
        expect_equal(result.exit_code, number, f"the code of {number}")

    await together(one(number) for number in range(40))


NEEDS = dict.fromkeys(
    (
        check_a_shell_line_is_run_by_bash,
        check_signals_are_told,
        check_the_program_is_looked_up_in_its_own_path,
        check_too_many_arguments_are_refused,
        check_only_three_descriptors_are_open,
        check_signals_are_as_a_shell_would_set_them,
        check_the_pid_is_the_commands,
    ),
    ("programs",),
)
