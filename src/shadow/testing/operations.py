"""Checks of operations: a repeat is answered with the first result and does nothing; who was fenced off is refused."""

import signal
from collections.abc import Awaitable, Callable

from shadow.core.commands import Exited, StdinMode, shell
from shadow.core.errors import StaleEpoch
from shadow.core.ids import Operation
from shadow.testing.contract import each_refused, expect, expect_equal, together
from shadow.testing.site import Site


async def _same_twice(call: Callable[[], Awaitable[object]], what: str) -> None:
    first = await call()
    expect_equal(await call(), first, f"the answer to a repeat of {what}")


async def check_a_repeated_start_starts_once(site: Site) -> None:
    """A start that is repeated is answered with the same command, and one process ran."""
    operation = site.operation()
    spec = site.spec(*shell("echo ran >> log; read"), stdin=StdinMode.OPEN)
    first = await site.executor.start(spec, operation=operation)
    site.started.append(first.id)
    again = await site.executor.start(spec, operation=operation)
    expect_equal(again.id, first.id, "the command")
    await site.executor.write_stdin(first.id, b"\n", offset=0)
    await site.wait(first.id)
    late = await site.executor.start(spec, operation=operation)
    expect_equal(late.id, first.id, "the command, asked again after its end")
    expect_equal(await site.bash("cat log"), b"ran\n", "what ran")


async def check_repeats_at_the_same_time_start_once(site: Site) -> None:
    """Of starts with one operation at the same time one happens, and all get its command."""
    operation = site.operation()
    spec = site.spec(*shell("echo ran >> log"))
    commands = await together(site.executor.start(spec, operation=operation) for _ in range(8))
    expect_equal(len({command.id for command in commands}), 1, "how many commands there are")
    await site.wait(commands[0].id)
    expect_equal(await site.bash("cat log"), b"ran\n", "what ran")


async def check_a_repeated_run_runs_once(site: Site) -> None:
    """A run that is repeated gives the same command with its ending and output, and nothing runs again."""
    operation = site.operation()
    spec = site.spec(*shell("echo ran >> log; echo ran; exit 3"))
    first = await site.executor.run(spec, operation=operation)
    again = await site.executor.run(spec, operation=operation)
    expect_equal(
        (again.command.id, again.ending, again.stdout),
        (first.command.id, Exited(code=3), b"ran\n"),
        "the second answer",
    )
    expect_equal(await site.bash("cat log"), b"ran\n", "what ran")


async def check_other_operations_start_again(site: Site) -> None:
    """The same command with another operation, and without one, is started again."""
    spec = site.spec(*shell("echo ran >> log"))
    for operation in (site.operation(), site.operation(), None, None):
        await site.wait((await site.executor.start(spec, operation=operation)).id)
    expect_equal(await site.bash("cat log"), b"ran\n" * 4, "what ran")


async def check_a_repeated_write_writes_once(site: Site) -> None:
    """A write that is repeated does not overwrite what was written since."""
    path, first = site.path("file"), site.operation()
    answer = await site.executor.write_file(path, b"first", operation=first)
    await site.executor.write_file(path, b"second, longer", operation=site.operation())
    again = await site.executor.write_file(path, b"first", operation=first)
    expect_equal(again, answer, "the answer to the repeat")
    expect_equal((await site.executor.read_file(path)).content, b"second, longer", "the file")


async def check_a_repeated_exclusive_write_succeeds(site: Site) -> None:
    """An exclusive write that is repeated is answered as the first, not refused for its own file."""
    operation = site.operation()
    await _same_twice(
        lambda: site.executor.write_file(site.path("file"), b"x", exclusive=True, operation=operation), "write_file"
    )


async def check_a_repeated_replacement_replaces_once(site: Site) -> None:
    """A replacement that is repeated is answered as the first, and the text is replaced once."""
    path, operation = site.path("file"), site.operation()
    await site.executor.write_file(path, b"a")
    await _same_twice(
        lambda: site.executor.search_replace(path, old="a", new="aab", operation=operation), "search_replace"
    )
    expect_equal((await site.executor.read_file(path)).content, b"aab", "the file")


async def check_a_repeated_move_moves_once(site: Site) -> None:
    """A move that is repeated is answered as the first, and does not take a new file at the old place."""
    operation = site.operation()
    await site.bash("echo first > a")

    async def move() -> object:
        return await site.executor.move(site.path("a"), site.path("b"), operation=operation)

    await _same_twice(move, "move")
    await site.bash("echo second > a; rm b")
    await move()
    expect_equal(await site.bash("ls; cat a"), b"a\nsecond\n", "what is there")


async def check_a_repeated_delete_deletes_once(site: Site) -> None:
    """A delete that is repeated is answered as the first, and does not delete a new file of that name."""
    operation = site.operation()
    await site.bash("echo first > a")
    await site.executor.delete(site.path("a"), operation=operation)
    await site.executor.delete(site.path("a"), operation=operation)
    await site.bash("echo second > a")
    await site.executor.delete(site.path("a"), operation=operation)
    expect_equal(await site.bash("cat a"), b"second\n", "the new file")


async def check_a_repeated_directory_is_made_once(site: Site) -> None:
    """Making a directory, repeated, does not make one that was removed since."""
    operation = site.operation()
    await _same_twice(lambda: site.executor.make_directory(site.path("d"), operation=operation), "make_directory")
    await site.bash("rmdir d")
    await site.executor.make_directory(site.path("d"), operation=operation)
    expect_equal(await site.bash("ls"), b"", "what is there")


async def check_a_repeated_signal_is_sent_once(site: Site) -> None:
    """A signal that is repeated is sent once."""
    line = "n=0; trap 'n=$((n+1)); echo n$n' USR1; (trap '' USR1; echo ready; exec sleep 1000) & while :; do wait; done"
    command = await site.start_bash(line, until=b"ready")
    operation = site.operation()
    await site.executor.signal(command.id, signal.SIGUSR1, operation=operation)
    await site.read_until(command.id, b"n1\n")
    for _ in range(3):
        await site.executor.signal(command.id, signal.SIGUSR1, operation=operation)
    await site.executor.signal(command.id, signal.SIGUSR1, operation=site.operation())
    await site.read_until(command.id, b"n2\n")
    await site.executor.signal(command.id, signal.SIGTERM)
    await site.wait(command.id)
    counted = b"".join([getattr(item, "data", b"") for item in await site.output(command.id)])
    expect(b"n3" not in counted, f"A repeated signal was sent again: {counted!r}.")


async def check_a_repeated_kill_kills_once(site: Site) -> None:
    """A kill that is repeated is answered again, and is no error."""
    command, operation = await site.start_bash("read"), site.operation()
    first = await site.executor.kill(command.id, operation=operation)
    again = await site.executor.kill(command.id, operation=operation)
    expect_equal((again.id, again.ending), (first.id, first.ending), "the answer to the repeat")


async def check_an_older_epoch_is_refused(site: Site) -> None:
    """Every mutating call with an older epoch is refused with StaleEpoch, and does nothing."""
    await site.bash("echo kept > file")
    command = await site.start_bash("read; exit 5")
    executor, path = site.executor, site.path("file")

    def stale() -> Operation:
        return site.operation(epoch=executor.epoch - 1)

    touch = site.spec("touch", "touched")
    await each_refused(
        {
            "write_file": executor.write_file(path, b"evil", operation=stale()),
            "search_replace": executor.search_replace(path, old="kept", new="evil", operation=stale()),
            "make_directory": executor.make_directory(site.path("directory"), operation=stale()),
            "move": executor.move(path, site.path("moved"), operation=stale()),
            "delete": executor.delete(path, operation=stale()),
            "start": executor.start(touch, operation=stale()),
            "run": executor.run(touch, operation=stale()),
            "signal": executor.signal(command.id, signal.SIGKILL, operation=stale()),
            "kill": executor.kill(command.id, operation=stale()),
        },
        StaleEpoch,
        what="with an older epoch",
    )
    expect_equal(await site.bash("ls; cat file"), b"file\nkept\n", "what is there")
    await executor.write_stdin(command.id, b"\n", offset=0)
    expect_equal((await site.wait(command.id)).ending, Exited(code=5), "the ending of the command")


async def check_a_newer_epoch_is_adopted(site: Site) -> None:
    """A call with a newer epoch goes through; from then on older epochs are refused, an executor's own too."""
    executor, own, newer = site.executor, site.executor.epoch, site.executor.epoch + 1
    path = site.path("file")
    await executor.write_file(path, b"new", operation=site.operation(epoch=newer))
    expect_equal((await executor.health()).epoch, newer, "the epoch by health")
    expect_equal(executor.epoch, own, "the epoch of an executor that did not take over")
    await each_refused(
        {
            "write_file": executor.write_file(path, b"old", operation=site.operation(epoch=own)),
            "write_file without an operation": executor.write_file(path, b"old"),
            "start": executor.start(site.spec("touch", "touched"), operation=site.operation(epoch=own)),
            "start without an operation": executor.start(site.spec("touch", "touched")),
        },
        StaleEpoch,
        what="with the epoch before",
    )
    expect_equal((await executor.read_file(path)).content, b"new", "the file")
    entries = (await executor.list_directory(site.directory)).entries
    expect_equal([entry.path for entry in entries], [path], "what is there")


NEEDS = dict.fromkeys(
    (check_a_repeated_signal_is_sent_once,),
    ("programs",),
)
ALONE = frozenset({check_a_newer_epoch_is_adopted})
