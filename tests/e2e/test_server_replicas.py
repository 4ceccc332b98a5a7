"""Two servers over one PostgreSQL: the one that runs a task is killed, the other one finishes it, and readers see one sequence.

Both are on this host and share its data directory, where the workspaces are.
"""

import asyncio
import re
import signal
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_server import FINISH, Reader, begin, gone, script, shell
from tests.support.databases import cluster
from tests.support.git_servers import git, make_repository
from tests.support.model_replies import Answer, Call, Say
from tests.support.model_wires import COMPATIBLE
from tests.support.servers import Caller, Server, logged_in, running

pytestmark = pytest.mark.anyio

WITHIN_S = 60.0


@asynccontextmanager
async def replicas(tmp_path: Path, **env: str) -> AsyncGenerator[tuple[Server, Server, str]]:
    """And the URL of their database."""
    url = cluster().make_database()
    home = tmp_path / "home"
    home.mkdir()
    async with AsyncExitStack() as stack:
        one, other = [await stack.enter_async_context(running(home, SHADOW_DATABASE_URL=url, **env)) for _ in range(2)]
        yield one, other, url


async def runner_of(url: str, task: str, servers: tuple[Server, ...]) -> Server:
    """Whose worker runs the task."""
    name = re.search(r"/(\w+)\?", url)
    assert name
    query = f"SELECT worker FROM jobs WHERE task_id = '{task}' AND state = 'running'"
    worker = (await asyncio.to_thread(cluster().sql, query, database=name[1])).strip()
    found = [server for server in servers if server.process is not None and f":{server.process.pid}:" in f":{worker}:"]
    assert len(found) == 1, worker
    return found[0]


async def fails_over(tmp_path: Path, model: str, at: str, **env: str) -> list[dict[str, Any]]:
    """A task whose server is killed when its log has ``at``; returns the log, as its reader saw it."""
    source = make_repository(tmp_path / "project", {"a.txt": b"one\n"})
    async with replicas(tmp_path, **env) as (one, other, url), logged_in(one) as caller:
        task = await begin(caller, source, model)
        reader = Reader(caller, task)
        await reader.until(at)
        victim = await runner_of(url, task, (one, other))
        left = other if victim is one else one
        victim.end(signal.SIGKILL)
        elsewhere = Caller(caller.session, left.url, caller.token)
        follower = Reader(elsewhere, task)
        follower.found = reader.found
        finished = await follower.until("run_finished")
        assert finished["status"] == "done", finished
        page = await elsewhere.call("GET", f"/v1/tasks/{task}/events?limit=1000")
        assert page["events"][: len(follower.found)] == follower.found
        branch = (await elsewhere.call("GET", f"/v1/tasks/{task}"))["branch"]
        assert git(source, "show", f"{branch}:done.txt").strip() == "once"
        await elsewhere.call("DELETE", f"/v1/tasks/{task}")
        await gone(elsewhere, task)
        return follower.found


def kinds(found: list[dict[str, Any]]) -> list[str]:
    return [entry["event"]["kind"] for entry in found]


async def test_the_other_replica_finishes_what_a_tool_call_was_cut_off_in(tmp_path: Path) -> None:
    model = script(tmp_path, shell("echo begun; sleep 5; echo once >> done.txt"), FINISH)
    seen = kinds(await fails_over(tmp_path, model, "command_started"))
    assert (seen.count("run_started"), seen.count("work_delivered"), seen.count("tool_started")) == (1, 1, 2)


async def test_the_other_replica_finishes_what_was_cut_off_in_a_model_s_answer(tmp_path: Path) -> None:
    replies = [
        Answer([Say("I will write it down, word for word, and then say that I did.")], stall_after_events=5),
        Answer([Call("run_terminal_cmd", {"command": "echo once >> done.txt", "timeout_s": 30})]),
        Answer([Call("finish", {"summary": "Did it.", "success": True})]),
    ]
    async with COMPATIBLE.serve(replies) as provider:
        env = {"SHADOW_COMPATIBLE_BASE_URL": provider.url, "SHADOW_COMPATIBLE_API_KEY": provider.key}
        seen = kinds(await fails_over(tmp_path, COMPATIBLE.model, "text_added", **env))
        assert len(provider.requests) == len(replies)
    assert (seen.count("run_started"), seen.count("work_delivered"), seen.count("model_answered")) == (1, 1, 2)
