"""The client of git does not believe a sidecar: forged answers are the sidecar's fault, and bounded."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from shadow.core.errors import Broken
from shadow.core.git import GitCheckpoint
from shadow.execution.sidecar_client.client import SidecarClient
from tests.support.sidecars import client, forged

pytestmark = pytest.mark.anyio

ID = "a" * 40
HEAD = {"branch": "main", "commit": ID}
STATUS = {"root": ".", "head": HEAD, "upstream": None, "ahead": None, "behind": None, "in_progress": None,
          "entries": [], "truncated": False}  # fmt: skip
ENTRY = {"path": "a", "old_path": None, "index": None, "work_tree": "untracked"}
CHANGE = {"path": "a", "old_path": None, "kind": "added", "added": 1, "removed": 0, "binary": False}
CHECKPOINT: dict[str, Any] = {"name": "c", "branch": "main", "head": ID, "commit": ID}
Call = Callable[[SidecarClient], Coroutine[Any, Any, object]]

status: Call = lambda one: one.git_status(limit=1)  # noqa: E731
changes: Call = lambda one: one.git_file_changes(limit=1)  # noqa: E731


@asynccontextmanager
async def answering(directory: Path, answer: object) -> AsyncGenerator[SidecarClient]:
    body = json.dumps(answer).encode()

    async def speak(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body)
        await writer.drain()

    async with forged(directory / "sock", speak) as endpoint, client(endpoint) as one:
        yield one


async def test_an_honest_answer_is_taken(tmp_path: Path) -> None:
    async with answering(tmp_path, {**STATUS, "entries": [ENTRY]}) as one:
        assert (await one.git_status(limit=1)).entries[0].path == "a"


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        (status, {**STATUS, "entries": [ENTRY, ENTRY]}),
        (status, {**STATUS, "entries": [{**ENTRY, "path": "../x"}]}),
        (status, {**STATUS, "entries": [{**ENTRY, "old_path": "/etc/passwd"}]}),
        (status, {**STATUS, "entries": [{**ENTRY, "work_tree": "eaten"}]}),
        (status, {**STATUS, "root": "a/../.."}),
        (status, {**STATUS, "head": {"branch": "--upload-pack=x", "commit": ID}}),
        (status, {**STATUS, "head": {"branch": None, "commit": None}}),
        (status, {**STATUS, "head": {"branch": "main", "commit": "HEAD; rm -rf /"}}),
        (status, {**STATUS, "ahead": -1}),
        (changes, {"changes": [CHANGE, CHANGE], "base": ID, "truncated": False}),
        (changes, {"changes": [{**CHANGE, "path": "a/../../b"}], "base": ID, "truncated": False}),
        (changes, {"changes": [{**CHANGE, "added": 2**80}], "base": ID, "truncated": False}),
        (lambda one: one.git_diff(limit_bytes=3), {"content": "four", "base": None, "truncated": False}),
        (lambda one: one.git_diff(), {"content": "", "base": "main", "truncated": False}),
        (lambda one: one.git_log(limit=1), {"commits": [{"id": ID}], "truncated": False}),
        (lambda one: one.git_branches(limit=1), {"head": HEAD, "branches": "all", "truncated": False}),
        (lambda one: one.git_create_branch("b"), HEAD),
        (lambda one: one.git_checkout("b"), HEAD),
        (lambda one: one.git_commit("m"), {"branch": "main", "commit": None}),
        (lambda one: one.git_commit("m"), []),
        (lambda one: one.git_checkpoint("c"), {**CHECKPOINT, "name": "d"}),
        (lambda one: one.git_checkpoint("c"), {**CHECKPOINT, "commit": "refs/heads/main"}),
        (lambda one: one.git_checkpoint("c"), {**CHECKPOINT, "branch": "-x"}),
        (lambda one: one.git_checkpoint("c"), {**CHECKPOINT, "branch": None, "head": None}),
        (lambda one: one.git_checkpoint("c"), {**CHECKPOINT, "head": "a" * 64}),
        (lambda one: one.git_restore(GitCheckpoint(**CHECKPOINT)), {**HEAD, "commit": "b" * 40}),
        (lambda one: one.git_restore(GitCheckpoint(**CHECKPOINT)), {**HEAD, "branch": None}),
    ],
)
async def test_a_forged_answer_is_the_sidecars_fault(tmp_path: Path, call: Call, answer: object) -> None:
    async with answering(tmp_path, answer) as one:
        with pytest.raises(Broken):
            await call(one)
