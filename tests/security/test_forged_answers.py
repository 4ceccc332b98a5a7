"""A hostile sidecar against every call of its client: each ends soon, in a typed error, and takes little memory."""

import asyncio
import selectors
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import pytest

from shadow.core.commands import CommandSpec
from shadow.core.errors import Broken, NotFound, OutcomeUnknown, ShadowError, Unavailable
from shadow.core.git import GitCheckpoint, GitPerson
from shadow.core.ids import CommandId, TerminalId
from shadow.core.search import GrepQuery
from shadow.core.terminals import TerminalSize, TerminalSpec
from shadow.execution.interface import ToolExecutor
from shadow.execution.sidecar_client.client import SidecarClient
from tests.support.sidecars import CAPABILITIES, TOKEN, Waits, client, forged

CMD = CommandId("cmd_1")
TERM = TerminalId("term_0123456789abcdefghjk")
AGENT = GitPerson(name="Agent", email="agent@example.org")
SPEED = 500
ANSWERED_WITHIN_S = 600.0
"""By the client's clock: a minute for an answer, the time that a command or git may take, five repeats and what lies between."""


async def drain(pieces: AsyncIterator[object]) -> None:
    async for _ in pieces:
        pass


async def drain_terminal(one: SidecarClient) -> None:
    async with one.attach_terminal(TERM) as attachment:
        await drain(aiter(attachment))


async def some_bytes() -> AsyncIterator[bytes]:
    yield b"x" * 1000


CALLS: Mapping[str, Callable[[SidecarClient], Awaitable[object]]] = {
    "health": lambda one: one.health(),
    "renew_lease": lambda one: one.renew_lease(60),
    "stat": lambda one: one.stat("a"),
    "read_file": lambda one: one.read_file("a"),
    "read_lines": lambda one: one.read_lines("a"),
    "stream_file": lambda one: drain(one.stream_file("a", limit_bytes=1000)),
    "write_file": lambda one: one.write_file("a", b"x"),
    "search_replace": lambda one: one.search_replace("a", old="x", new="y"),
    "make_directory": lambda one: one.make_directory("a"),
    "move": lambda one: one.move("a", "b"),
    "delete": lambda one: one.delete("a"),
    "list_directory": lambda one: one.list_directory(),
    "download_tree": lambda one: drain(one.download_tree("a")),
    "upload_tree": lambda one: one.upload_tree("a", some_bytes()),
    "watch": lambda one: drain(one.watch("a")),
    "grep": lambda one: one.grep(GrepQuery(pattern="x")),
    "search_files": lambda one: one.search_files("x"),
    "start": lambda one: one.start(CommandSpec(argv=("true",))),
    "run": lambda one: one.run(CommandSpec(argv=("true",))),
    "list_commands": lambda one: one.list_commands(),
    "get_command": lambda one: one.get_command(CMD),
    "wait": lambda one: one.wait(CMD),
    "read_output": lambda one: drain(one.read_output(CMD)),
    "write_stdin": lambda one: one.write_stdin(CMD, b"x", offset=0),
    "signal": lambda one: one.signal(CMD, 15),
    "kill": lambda one: one.kill(CMD),
    "create_terminal": lambda one: one.create_terminal(TerminalSpec()),
    "list_terminals": lambda one: one.list_terminals(),
    "get_terminal": lambda one: one.get_terminal(TERM),
    "attach_terminal": lambda one: drain_terminal(one),
    "write_terminal": lambda one: one.write_terminal(TERM, b"x", writer="w", offset=0),
    "resize_terminal": lambda one: one.resize_terminal(TERM, TerminalSize()),
    "signal_terminal": lambda one: one.signal_terminal(TERM, 15),
    "kill_terminal": lambda one: one.kill_terminal(TERM),
    "close_terminal": lambda one: one.close_terminal(TERM),
    "record": lambda one: drain(one.record(CMD)),
    "git_status": lambda one: one.git_status(),
    "git_diff": lambda one: one.git_diff(),
    "git_file_changes": lambda one: one.git_file_changes(),
    "git_log": lambda one: one.git_log(),
    "git_branches": lambda one: one.git_branches(),
    "git_create_branch": lambda one: one.git_create_branch("b"),
    "git_checkout": lambda one: one.git_checkout("b"),
    "git_checkpoint": lambda one: one.git_checkpoint("cp"),
    "git_restore": lambda one: one.git_restore(GitCheckpoint(name="cp", branch="main", head="1" * 40, commit="2" * 40)),
    "git_drop_checkpoints": lambda one: one.git_drop_checkpoints(["cp"]),
    "git_commit": lambda one: one.git_commit("m", author=AGENT),
}
BODILESS = {"renew_lease", "delete", "close_terminal", "git_drop_checkpoints"}
"""What succeeds with any body: nothing of it is read but whether it ends."""
STREAMS = {"stream_file", "read_output", "download_tree", "watch", "record", "attach_terminal"}
PASSED_ON = {"download_tree"}
"""Bytes go on to the caller as they come, up to 64 GiB: its end shows whether it was a tree."""


def test_no_call_of_the_interface_is_left_out() -> None:
    assert set(CALLS) == set(ToolExecutor.__abstractmethods__) - {"capabilities", "epoch", "aclose"}


Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def answering(body: bytes, *, status: str = "200 OK", headers: str = "") -> Answer:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body)
        await writer.drain()

    return answer


def endless(piece: bytes, *, status: str = "200 OK", pause_s: float = 0.0) -> Answer:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 {status}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        while True:
            writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            await writer.drain()
            await asyncio.sleep(pause_s)

    return answer


async def head_without_end(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X-More: " + b"x" * 1000 + b"\r\n")
        await writer.drain()


async def never(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def caught(call: Awaitable[object]) -> BaseException | None:
    try:
        await call
    except Exception as error:  # noqa: BLE001 - the test judges what it is
        return error
    return None


ANSWERS: Mapping[str, Answer] = {
    "a redirect": answering(b"", status="307 Temporary Redirect", headers="Location: http://169.254.169.254/\r\n"),
    "an empty answer": answering(b""),
    "another type": answering(b'"text"'),
    "a list": answering(b"[]"),
    "other fields": answering(b'{"x": 1}'),
    "null": answering(b"null"),
    "half of it": answering(b'{"path": "a", "ki'),
    "no text": answering(b"\xff\xfe\x00"),
    "deep nesting": answering(b'{"entries":' * 100_000),
    "an infinite number": answering(b'{"size_bytes": 1e999, "uptime_s": NaN}'),
    "an error that is none": answering(b'{"error": {"code": 1}}', status="500 Oops"),
    "an error of another kind": answering(b'{"error": {"code": "../x", "message": ""}}', status="422 X"),
    "a head without end": head_without_end,
    "an error without end": endless(b" " * 65536, status="500 Oops"),
}


@pytest.mark.anyio
@pytest.mark.parametrize("what", ANSWERS)
async def test_a_lie_is_a_typed_error_of_every_call(what: str, tmp_path: Path) -> None:
    async with forged(tmp_path / "sock", ANSWERS[what]) as endpoint, client(endpoint, waits=Waits()) as one:
        async with asyncio.timeout(60):
            errors = {name: await caught(call(one)) for name, call in CALLS.items()}
    raw = {"stream_file"} if what not in ("a redirect", "a head without end") and "error" not in what else set[str]()
    taken = {name for name, error in errors.items() if error is None}
    assert taken <= BODILESS | raw
    wrong = {name: error for name, error in errors.items() if error is not None and not isinstance(error, ShadowError)}
    assert wrong == {}


@pytest.mark.anyio
@pytest.mark.parametrize("piece", [b" " * (1 << 20), b"[" * 65536, b'{"x":"' + b"y" * 65536])
async def test_a_body_without_end_is_cut_off(piece: bytes, tmp_path: Path) -> None:
    async with forged(tmp_path / "sock", endless(piece)) as endpoint, client(endpoint, waits=Waits()) as one:
        for name, call in CALLS.items():
            if name in PASSED_ON:
                continue
            async with asyncio.timeout(30):
                assert isinstance(await caught(call(one)), Broken), name


class FastSelector(selectors.DefaultSelector):
    """Sleeps as long as the loop's clock says, which goes ``SPEED`` times as fast as the world's."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return super().select(None if timeout is None else timeout / SPEED)


class FastLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        super().__init__(FastSelector())

    def time(self) -> float:
        return super().time() * SPEED


@pytest.mark.parametrize(
    "answer", [pytest.param(endless(b" ", pause_s=1.0), id="drips"), pytest.param(never, id="silent")]
)
def test_a_slow_answer_has_a_deadline_in_every_call(answer: Answer, tmp_path: Path) -> None:
    async def all_calls() -> dict[str, BaseException | None]:
        clock = asyncio.get_running_loop().time
        async with (
            forged(tmp_path / "sock", answer) as endpoint,
            SidecarClient(endpoint, token=TOKEN, capabilities=CAPABILITIES, epoch=1, clock=clock) as one,
        ):
            names: Sequence[str] = [name for name in CALLS if answer is never or name not in STREAMS]
            async with asyncio.timeout(ANSWERED_WITHIN_S):
                return dict(
                    zip(names, await asyncio.gather(*(caught(CALLS[name](one)) for name in names)), strict=True)
                )

    with asyncio.Runner(loop_factory=FastLoop) as runner:
        errors = runner.run(all_calls())
    assert {name: error for name, error in errors.items() if not isinstance(error, Unavailable | OutcomeUnknown)} == {}


ITEMS = {
    "numbers in place of entries": ("list_directory", b'{"entries":[%s],"next_after":null}', b"0,"),
    "lists in place of entries": ("git_status", b'{"entries":[%s],"root":"."}', b"[],"),
    "numbers in place of commands": ("list_commands", b'{"commands":[%s]}', b"0,"),
    "numbers in place of commits": ("git_log", b'{"commits":[%s],"truncated":false}', b"0,"),
    "numbers in place of lines": ("grep", b'{"lines":[%s],"truncated":null}', b"0,"),
    "fields that nobody knows": ("git_status", b'{"x":[%s]}', b"[],"),
}
_ASK = """
import asyncio, resource, sys
from pathlib import Path
from shadow.core.errors import Broken
from tests.security.test_forged_answers import CALLS
from tests.support.sidecars import client
from shadow.execution.sidecar_client.endpoint import UnixEndpoint
async def main():
    async with client(UnixEndpoint(Path(sys.argv[1]))) as one:
        try:
            await CALLS[sys.argv[2]](one)
        except Broken:
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
asyncio.run(main())
"""


@pytest.mark.anyio
@pytest.mark.parametrize("what", ITEMS)
async def test_a_huge_answer_takes_bounded_time_and_memory(what: str, tmp_path: Path) -> None:
    """Thirty megabytes of items that are none: a fault told for each of them took 13 GB and minutes."""
    call, shape, item = ITEMS[what]
    body = shape % (item * (30_000_000 // len(item)) + item[:-1])
    async with forged(tmp_path / "sock", answering(body)), asyncio.timeout(60):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _ASK, str(tmp_path / "sock"), call, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    assert int(out) < 2 * 1024 * 1024, "kibibytes at its highest"


@pytest.mark.anyio
async def test_an_error_cannot_pose_as_one_of_ours(tmp_path: Path) -> None:
    """Messages and details of a sidecar's errors are cut, and its codes are among those that we know."""
    body = b'{"error": {"code": "not_found", "message": "%s", "mend": "%s"}}' % (b"x" * 1_000_000, b"y" * 1_000_000)
    async with forged(tmp_path / "sock", answering(body, status="404 X")) as endpoint, client(endpoint) as one:
        error = await caught(one.stat("a"))
    assert isinstance(error, NotFound)
    assert len(str(error)) < 100_000
