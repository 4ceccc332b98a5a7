"""SIGTERM to a sidecar: what was begun is finished or cut within the deadline, whatever its clients do; the next one goes on."""

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from shadow.core.commands import CommandSpec, shell
from shadow.core.errors import NotFound
from shadow.http.admission import HttpLimits
from shadow.http.server import EXIT_S
from tests.support.holders import gone
from tests.support.raw_http import HEAD, wire_to
from tests.support.sidecar_processes import sidecar_pid, workspace
from tests.support.waiting import until

pytestmark = pytest.mark.anyio

DEADLINE_S = HttpLimits().grace_s + EXIT_S + 3
"""Three more: the machine has other things to do."""


async def test_a_client_that_never_reads_does_not_hold_it_up(tmp_path: Path) -> None:
    async with workspace(tmp_path) as (holder, executor), AsyncExitStack() as open_:
        command = await executor.start(CommandSpec(argv=shell("head -c 30000000 /dev/zero; sleep 100")))
        for rest, more in (
            ("output", b"Accept: application/vnd.shadow.frames\r\n"),
            ("output", b""),
            ("recording", b""),
        ):
            wire = await open_.enter_async_context(wire_to(tmp_path / "sidecar.sock"))
            await wire.say(request("GET", f"/v1/commands/{command.id}/{rest}", more))
            assert b" 200 " in await wire.reader.readline()
        pid = await sidecar_pid(holder)
        os.kill(pid, signal.SIGTERM)
        await gone(pid, within_s=DEADLINE_S)
        assert (await executor.health()).sidecar_restarts == 1
        assert (await executor.get_command(command.id)).ending is None


def begun(directory: Path, operation: str) -> Callable[[], bool]:
    return lambda: operation.encode() in (directory / "state" / "journal.jsonl").read_bytes()


async def test_a_body_that_does_not_go_on_is_cut_and_nothing_is_written(tmp_path: Path) -> None:
    async with workspace(tmp_path) as (holder, executor), wire_to(tmp_path / "sidecar.sock") as wire:
        await executor.health()
        head = b"Shadow-Operation: op_half\r\nContent-Length: 2000000\r\n"
        await wire.say(request("PUT", "/v1/files?path=half", head) + b"x" * 1_000_000)
        await until(begun(tmp_path, "op_half"))
        pid = await sidecar_pid(holder)
        os.kill(pid, signal.SIGTERM)
        # Not a word: nobody may take an answer that was made up for the outcome.
        assert await wire.end() == b""
        await gone(pid, within_s=DEADLINE_S)
        with pytest.raises(NotFound):
            await executor.stat("half")


async def test_a_body_that_goes_on_gets_its_answer(tmp_path: Path) -> None:
    async with workspace(tmp_path) as (holder, executor), wire_to(tmp_path / "sidecar.sock") as wire:
        await executor.health()
        head = b"Shadow-Operation: op_whole\r\nContent-Length: 2000000\r\n"
        await wire.say(request("PUT", "/v1/files?path=whole", head) + b"x" * 1_000_000)
        await until(begun(tmp_path, "op_whole"))
        pid = await sidecar_pid(holder)
        os.kill(pid, signal.SIGTERM)
        await until(lambda: b"sidecar.stopping" in (tmp_path / "state" / "holder.log").read_bytes())
        await wire.say(b"y" * 1_000_000)
        assert (await wire.answer())[0] == 200
        await gone(pid, within_s=DEADLINE_S)
        assert (tmp_path / "root" / "whole").read_bytes() == b"x" * 1_000_000 + b"y" * 1_000_000


async def test_what_waits_is_told_at_once(tmp_path: Path) -> None:
    socket = tmp_path / "sidecar.sock"
    async with workspace(tmp_path) as (holder, executor), wire_to(socket) as wait, wire_to(socket) as run:
        command = await executor.start(CommandSpec(argv=("sleep", "100")))
        await wait.say(request("GET", f"/v1/commands/{command.id}/wait"))
        body = b'{"argv": ["sleep", "100"]}'
        await run.say(request("POST", "/v1/commands?wait_s=50", b"Content-Length: %d\r\n" % len(body)) + body)

        async def both() -> bool:
            return len(await executor.list_commands()) == 2

        await until(both)
        os.kill(await sidecar_pid(holder), signal.SIGTERM)
        assert await wait.refusal() == (503, "unavailable")
        assert await run.refusal() == (504, "outcome_unknown")
        # Nothing of what ran is lost.
        assert [command.ending for command in await executor.list_commands()] == [None, None]


async def test_a_second_sidecar_takes_what_came_meanwhile(tmp_path: Path) -> None:
    async with workspace(tmp_path) as (holder, executor):
        await executor.health()
        os.kill(await sidecar_pid(holder), signal.SIGTERM)
        healths = await asyncio.gather(*(executor.health() for _ in range(20)))
        assert {health.epoch for health in healths} == {1}


def request(method: str, target: str, headers: bytes = b"") -> bytes:
    return f"{method} {target} HTTP/1.1\r\n".encode() + HEAD + headers + b"\r\n"
