"""What tasks left, over HTTP: runs, artifacts as downloads, the work as a patch."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp
import pytest

from shadow.bootstrap import open_artifacts
from shadow.client.shadow import Shadow
from shadow.core.conversation import Usage, UserMessage
from shadow.core.errors import NotFound
from shadow.core.events import FileChange, RunFinished, RunStarted, TaskEvent, WorkDelivered
from shadow.core.tasks import TaskId
from shadow.db import events
from shadow.db.database import Database, open_database
from shadow.settings import Settings
from shadow.storage.artifacts import ArtifactStore
from tests.support.api_servers import serving_api

pytestmark = pytest.mark.anyio

LARGE = bytes(range(256)) * 8192
TASK = "task_alice"
WORK = WorkDelivered(
    how="branch",
    where="shadow/x in /r",
    commit="c" * 40,
    commits=1,
    changes=(FileChange(path="a", added=1, removed=0),),
)
DIFF = "diff --git a/a b/a\n--- a/a\n+++ b/a\n@@ -1 +1,2 @@\n one\n+Binary files are ä \udcff\n"


@dataclass(frozen=True, kw_only=True)
class World:
    session: aiohttp.ClientSession
    shadow: Shadow
    database: Database
    artifacts: ArtifactStore

    async def get(self, path: str, **headers: str) -> tuple[int, Mapping[str, str], bytes]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.session.get(f"/v1/tasks/{TASK}/{path}", headers=named) as response:
            return response.status, response.headers, await response.read()

    async def tell(self, *told: TaskEvent) -> None:
        async with self.database.write() as transaction:
            await events.append(transaction, TaskId(TASK), told)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncGenerator[World]:
    settings = Settings(data_dir=tmp_path / "data")
    async with (
        open_database(tmp_path, url="sqlite://") as database,
        serving_api(database, settings=settings) as api,
    ):
        alice, token = await api.user("alice")
        await api.add_task(TASK, owner=alice.id)
        async with (
            aiohttp.ClientSession(api.url, headers={"Authorization": f"Bearer {token}"}) as session,
            Shadow(api.url, token=token) as shadow,
        ):
            yield World(session=session, shadow=shadow, database=database, artifacts=open_artifacts(settings))


def begun(run: int) -> RunStarted:
    return RunStarted(run=run, message=UserMessage(text=f"say {run}"))


def ended(run: int) -> RunFinished:
    return RunFinished(
        run=run, status="done", summary="Did it.", usage=Usage(input_tokens=7), cost_usd="0.25", took_ms=1.5
    )


async def test_runs_come_in_pages(world: World) -> None:
    assert await world.shadow.tasks.runs(TaskId(TASK)) == []
    for run in range(1, 6):
        await world.tell(begun(run), WORK, *([ended(run)] if run < 5 else []))
    found = await world.shadow.tasks.runs(TaskId(TASK))
    assert [(run.run, run.message, run.status) for run in found[3:]] == [(4, "say 4", "done"), (5, "say 5", None)]
    assert found[0].usage == Usage(input_tokens=7)
    assert str(found[0].cost_usd) == "0.25"
    page = (await world.get("runs?limit=2"))[2]
    assert page.count(b'"started_at"') == 2
    assert f'"next":{found[1].seq}'.encode() in page
    rest = (await world.get(f"runs?after={found[1].seq}&limit=1000"))[2]
    assert rest.count(b'"started_at"') == 3
    assert b'"next":null' in rest


async def test_artifacts_are_listed_and_downloaded_in_pieces(world: World) -> None:
    tasks = world.shadow.tasks
    assert await tasks.artifacts(TaskId(TASK)) == []
    world.artifacts.put(TASK, "job_b.patch", LARGE)
    world.artifacts.put(TASK, "job_a.patch", b"")
    world.artifacts.put("task_other", "job_c.patch", b"not yours")
    found = await tasks.artifacts(TaskId(TASK))
    assert [(one.name, one.size_bytes) for one in found] == [("job_a.patch", 0), ("job_b.patch", len(LARGE))]
    pieces = [piece async for piece in tasks.artifact(TaskId(TASK), "job_b.patch")]
    assert b"".join(pieces) == LARGE
    assert max(map(len, pieces)) < len(LARGE)
    assert b'"next":"job_a.patch"' in (await world.get("artifacts?limit=1"))[2]
    assert b'"artifacts":[{"name":"job_b.patch"' in (await world.get("artifacts?after=job_a.patch"))[2]
    status, headers, body = await world.get("artifacts/job_b.patch")
    assert (status, body) == (200, LARGE)
    assert headers["Content-Disposition"] == 'attachment; filename="job_b.patch"'
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Content-Length"] == str(len(LARGE))
    for name in ("job_c.patch", "..", "%2e%2e%2fx", ".hidden", "x" * 300, "a%00b", "%ff", "JOB_B.patch"):
        assert (await world.get(f"artifacts/{name}"))[0] == 404, name


async def test_a_download_goes_on_where_it_was_cut(world: World) -> None:
    world.artifacts.put(TASK, "work.patch", LARGE)
    path = "artifacts/work.patch"
    _, headers, _ = await world.get(path)
    tag = headers["ETag"]
    status, headers, body = await world.get(path, Range="bytes=1000-", If_Range=tag)
    assert (status, body) == (206, LARGE[1000:])
    assert headers["Content-Range"] == f"bytes 1000-{len(LARGE) - 1}/{len(LARGE)}"
    assert (await world.get(path, Range="bytes=-3"))[2] == LARGE[-3:]
    status, headers, _ = await world.get(path, Range=f"bytes={len(LARGE)}-")
    assert (status, headers["Content-Range"]) == (416, f"bytes */{len(LARGE)}")
    assert (await world.get(path, If_None_Match=tag))[::2] == (304, b"")
    world.artifacts.put(TASK, "work.patch", LARGE[::-1])
    status, headers, body = await world.get(path, Range="bytes=1000-", If_Range=tag)
    assert (status, body) == (200, LARGE[::-1])
    assert headers["ETag"] != tag


async def test_what_is_put_meanwhile_does_not_mix_in(world: World) -> None:
    world.artifacts.put(TASK, "work.patch", b"a" * 64 * 1024 * 1024)
    pieces = world.shadow.tasks.artifact(TaskId(TASK), "work.patch")
    first = await anext(pieces)
    world.artifacts.put(TASK, "work.patch", b"b" * 64 * 1024 * 1024)
    count = len(first)
    async for piece in pieces:
        assert piece.count(b"a") == len(piece)
        count += len(piece)
    assert count == 64 * 1024 * 1024


async def test_the_patch_is_the_last_that_was_delivered(world: World) -> None:
    tasks = world.shadow.tasks
    with pytest.raises(NotFound):
        await anext(tasks.patch(TaskId(TASK)))
    await world.tell(replace(WORK, diff=DIFF))
    status, headers, body = await world.get("patch")
    assert (status, body) == (200, DIFF.encode("utf-8", "surrogateescape"))
    assert headers["Shadow-Commit"] == WORK.commit
    assert headers["Content-Disposition"] == f'attachment; filename="{TASK}.patch"'
    world.artifacts.put(TASK, "job_a.patch", LARGE)
    await world.tell(replace(WORK, how="patch", artifact="job_a.patch", diff=DIFF))
    assert b"".join([piece async for piece in tasks.patch(TaskId(TASK))]) == LARGE
    status, headers, _ = await world.get("patch")
    assert (status, headers["Content-Type"], headers["Shadow-Commit"]) == (200, "text/x-patch", WORK.commit)


@pytest.mark.parametrize("diff", ["", "+\ufffd\n", "diff --git a/a b/a\nBinary files a/a and b/a differ\n"])
async def test_a_patch_that_is_not_all_of_the_work_is_none(world: World, diff: str) -> None:
    await world.tell(replace(WORK, diff=diff))
    status, _, body = await world.get("patch")
    assert status == 404
    assert WORK.where.encode() in body


async def test_a_reader_that_leaves_holds_nothing(world: World) -> None:
    world.artifacts.put(TASK, "work.patch", b"a" * 64 * 1024 * 1024)
    path = world.artifacts._directory / TASK / "work.patch"  # noqa: SLF001 - who has it open shows by its name
    for _ in range(3):
        async with world.session.get(f"/v1/tasks/{TASK}/artifacts/work.patch") as response:
            assert len(await response.content.read(10)) > 0
            response.close()
    async with asyncio.timeout(20):
        while any(str(path) == target for target in open_files()):
            await asyncio.sleep(0.01)


def open_files() -> list[str]:
    found: list[str] = []
    for fd in Path("/proc/self/fd").iterdir():
        try:
            found.append(str(fd.readlink()))
        except OSError:
            continue
    return found
