"""Stored keys in real processes: typed at the command line, used by the server's agents, encrypted anew while it runs."""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.git_servers import make_repository
from tests.support.model_replies import Answer, Call
from tests.support.model_wires import ANTHROPIC
from tests.support.people import Person
from tests.support.servers import Caller, logged_in, running
from tests.support.shadow_cli import ShadowCli

pytestmark = pytest.mark.anyio

ENDS_WITHIN_S = 90.0
DONE = Answer([Call("finish", {"summary": "Did it.", "success": True})])
BAD_KEY = "sk-nobodys-0123456789"


def files_with(directory: Path, secret: bytes) -> list[Path]:
    found: list[Path] = []
    for parent, _, names in os.walk(directory):
        for path in (Path(parent) / name for name in names):
            with suppress(OSError):  # sockets, and what ended meanwhile
                if path.is_file() and secret in path.read_bytes():
                    found.append(path)
    return found


async def outcomes(caller: Caller, task: str, count: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    async with asyncio.timeout(ENDS_WITHIN_S):
        async for entry in caller.events(task):
            if entry["event"]["kind"] == "run_finished":
                found.append(entry["event"])
                if len(found) == count:
                    break
    return found


async def shadow(cli: ShadowCli, *arguments: str, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    return await asyncio.to_thread(cli.run, *arguments, stdin=stdin)


async def test_a_stored_key_is_used_by_the_server_and_is_nowhere_to_be_read(tmp_path: Path) -> None:
    source = make_repository(tmp_path / "project", {"a.txt": b"one\n"})
    home = tmp_path / "home"
    home.mkdir()
    here = ShadowCli(home)
    async with ANTHROPIC.serve([DONE] * 3) as provider, running(home, SHADOW_LOG_LEVEL="debug") as server:
        async with logged_in(server) as caller:
            assert caller.token is not None
            cli = ShadowCli(tmp_path, {"SHADOW_SERVER": server.url, "SHADOW_SERVER_TOKEN": caller.token})
            add = ("key", "add", "anthropic", "--base-url", provider.url)
            refused = await shadow(cli, *add, stdin=f"{BAD_KEY}\n".encode())
            assert (refused.returncode, b"refuses the key" in refused.stderr) == (1, True), refused
            stored = await shadow(cli, *add, stdin=f"{provider.key}\n".encode())
            assert stored.returncode == 0, stored
            listed = await shadow(cli, "key", "list")
            assert b"6789" in listed.stdout
            asked = {
                "repository": str(source),
                "instruction": "Do it.",
                "model": ANTHROPIC.model,
                "options": {"keep": True},
            }
            task = (await caller.call("POST", "/v1/tasks", asked))["id"]
            assert [one["status"] for one in await outcomes(caller, task, 1)] == ["done"]
            # Encrypted anew by another process, and the old sealing key dropped: the next run finds it all the same.
            rotated = await shadow(here, "--server", "none", "key", "rotate", "--forget-old")
            assert rotated.returncode == 0, rotated
            await caller.call("POST", f"/v1/tasks/{task}/messages", {"text": "And again."}, expect=201)
            assert [one["status"] for one in await outcomes(caller, task, 2)] == ["done"] * 2
            tried = await shadow(cli, "key", "test", "anthropic")
            assert tried.returncode == 0, tried
            # Without its file the server says what is missing, and makes no other.
            (home / "data/sealing-keys").rename(tmp_path / "kept")
            lost = await shadow(cli, "key", "test", "anthropic", "--json")
            assert (lost.returncode, b"sealing_key_missing" in lost.stdout) == (1, True), lost
            assert not (home / "data/sealing-keys").exists()
            (tmp_path / "kept").rename(home / "data/sealing-keys")
            assert (await shadow(cli, "key", "remove", "anthropic")).returncode == 0
            assert (await shadow(cli, "key", "remove", "anthropic")).returncode == 1
            for said in (refused, stored, listed, rotated, tried, lost):
                assert provider.key.encode() not in said.stdout + said.stderr
                assert BAD_KEY.encode() not in said.stdout + said.stderr
            for secret in (provider.key, BAD_KEY):
                assert files_with(home, secret.encode()) == [], "it stands in the data directory, or in the log"
            await caller.call("DELETE", f"/v1/tasks/{task}")
    cleaned = here.run("workspace", "rm", "--all", "--yes")
    assert cleaned.returncode == 0, cleaned


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[ShadowCli]:
    cli = ShadowCli(tmp_path)
    yield cli
    assert cli.run("workspace", "rm", "--all", "--yes").returncode == 0


async def test_this_hosts_own_user_keeps_keys_without_a_server(cli: ShadowCli, tmp_path: Path) -> None:
    source = make_repository(tmp_path / "project", {"a.txt": b"one\n"})
    async with ANTHROPIC.serve([DONE]) as provider:
        key = provider.key.encode()
        done = await shadow(cli, "key", "add", "anthropic", "--base-url", provider.url, stdin=key)
        assert done.returncode == 0, done
        recording = tmp_path / "recording"
        ran = await shadow(cli, "run", str(source), "Do it", "--model", ANTHROPIC.model, "--record", str(recording))
        assert ran.returncode == 0, ran
        assert key not in recording.read_bytes()
        assert files_with(tmp_path, key) == []
    empty = await shadow(cli, "key", "add", "openai", stdin=b"\n")
    assert empty.returncode == 2, empty
    odd = await shadow(cli, "key", "add", "openai-chat", stdin=key)
    assert (odd.returncode, b"Choose from" in odd.stderr) == (1, True), odd


def test_a_key_that_is_typed_is_not_shown(cli: ShadowCli) -> None:
    secret = "sk-typed-0123456789"
    with Person(cli, "key", "add", "anthropic", "--no-check") as person:
        person.sees("Key for anthropic")
        person.type(f"{secret}\n")
        assert person.leaves() == 0
        assert secret.encode() not in bytes(person.sent)
    assert cli.json("key", "list")["keys"][0]["hint"] == "6789"
