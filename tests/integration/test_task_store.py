"""Tasks and their logs in SQLite: gapless under everybody at once, whole after a crash, typed where the disk is not."""

import asyncio
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadow.core.conversation import AssistantMessage, ToolResult, Usage, UserMessage
from shadow.core.errors import Broken, Conflict, Denied, LimitExceeded, NotFound, ShadowError
from shadow.core.events import (
    CallAdded,
    FileChange,
    ModelAnswered,
    RunFinished,
    RunStarted,
    TaskEvent,
    TextAdded,
    TodoChanged,
    TodoItem,
    ToolFinished,
    WorkDelivered,
)
from shadow.core.tasks import Task, TaskId, TaskState
from shadow.db.codec import decode_event, encode_event
from shadow.db.store import FILE, TaskStore, open_store
from tests.support.conversations import assistant_messages

pytestmark = pytest.mark.anyio
ID = TaskId("task_one")


def task(id_: str = ID, *, title: str = "Mend it", created_at: float = 1.0) -> Task:
    return Task(
        id=TaskId(id_),
        title=title,
        state=TaskState.STARTING,
        model="scripted:x",
        repository="/r",
        created_at=created_at,
        updated_at=created_at,
    )


async def append_many(store: TaskStore, times: int, *, each: int = 1) -> None:
    for number in range(times):
        await store.append(ID, [TextAdded(text=f"{number}.{part}") for part in range(each)])


async def append_until_full(store: TaskStore) -> None:
    for _ in range(100):
        await store.append(ID, [TextAdded(text="x" * 20_000)])


async def assert_gapless(store: TaskStore, count: int) -> None:
    recorded = await store.all_events(ID)
    assert [r.seq for r in recorded] == list(range(1, count + 1))
    assert (await store.task(ID)).events == count


def appending_process(directory: Path, times: int) -> "subprocess.Popen[bytes]":
    """Another process that opens the database, says so, and appends pairs."""
    program = f"""
import asyncio, sys
from pathlib import Path
from shadow.core.events import TextAdded
from shadow.db.store import open_store

async def main():
    async with open_store(Path({str(directory)!r})) as store:
        print("open", flush=True)
        for number in range({times}):
            await store.append({ID!r}, [TextAdded(text=f"{{number}} begins"), TextAdded(text=f"{{number}} ends")])
            print(number, flush=True)

asyncio.run(main())
"""
    return subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)


# The log


async def test_a_log_is_numbered_from_one_and_read_in_pages(tmp_path: Path) -> None:
    async with open_store(tmp_path, clock=lambda: 7.0) as store:
        await store.add_task(task())
        first = await store.append(ID, [TextAdded(text="a"), TextAdded(text="b")])
        assert [(r.seq, r.at) for r in first] == [(1, 7.0), (2, 7.0)]
        assert await store.append(ID, []) == []
        await append_many(store, 3)
        assert [r.seq for r in await store.events(ID, after=1, limit=2)] == [2, 3]
        assert await store.events(ID, after=5) == []
        await assert_gapless(store, 5)


async def test_nothing_is_appended_to_a_task_that_is_not_there(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        with pytest.raises(NotFound):
            await store.append(TaskId("task_none"), [TextAdded(text="a")])
        with pytest.raises(NotFound):
            await store.change_task(TaskId("task_none"), title="x")


async def test_many_writers_of_one_log_leave_no_gap(tmp_path: Path) -> None:
    async with open_store(tmp_path) as one, open_store(tmp_path) as other:
        await one.add_task(task())
        await asyncio.gather(*(append_many(store, 20, each=3) for store in (one, one, other, other)))
        await assert_gapless(one, 4 * 20 * 3)


async def test_many_processes_write_one_log_without_a_gap(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        await store.add_task(task())
        processes = [appending_process(tmp_path, 15) for _ in range(3)]
        await append_many(store, 15, each=2)
        for process in processes:
            await asyncio.to_thread(process.communicate, timeout=60)
            assert process.returncode == 0
        await assert_gapless(store, 4 * 15 * 2)


async def test_processes_that_make_the_database_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    program = f"""
import asyncio
from pathlib import Path
from shadow.db.store import open_store

async def main():
    input()
    async with open_store(Path({str(tmp_path)!r})):
        pass

asyncio.run(main())
"""
    processes = [subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE) for _ in range(6)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
    for process in processes:
        await asyncio.to_thread(process.communicate, timeout=60)
    assert [process.returncode for process in processes] == [0] * len(processes)
    rows = sqlite3.connect(tmp_path / FILE).execute("select version from schema").fetchall()
    assert len(rows) == 1


@pytest.mark.parametrize("after", [1, 7])
async def test_a_killed_writer_leaves_what_it_was_told_was_kept_and_no_half(tmp_path: Path, after: int) -> None:
    async with open_store(tmp_path) as store:
        await store.add_task(task())
    process = appending_process(tmp_path, 100_000)
    assert process.stdout is not None
    confirmed = -1
    for line in process.stdout:
        confirmed = int(line) if line.strip().isdigit() else -1
        if confirmed == after:
            break
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    async with open_store(tmp_path) as store:
        texts = [r.event.text for r in await store.all_events(ID) if isinstance(r.event, TextAdded)]
        assert len(texts) >= 2 * (confirmed + 1)
        assert texts == [f"{n} {part}" for n in range(len(texts) // 2) for part in ("begins", "ends")]
        await append_many(store, 1)
        await assert_gapless(store, len(texts) + 1)


# Tasks


async def test_tasks_are_found_by_the_beginning_of_their_id(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        for id_ in ("task_aa1", "task_aa2", "task_b%_"):
            await store.add_task(task(id_))
        assert (await store.task("task_aa1")).id == "task_aa1"
        assert (await store.task("aa2")).id == "task_aa2"
        assert (await store.task("b")).id == "task_b%_"
        with pytest.raises(Conflict):
            await store.task("a")
        for nothing in ("", "c", "%", "_", "b__", "\udcff", "é", "task_aa11"):
            with pytest.raises(NotFound):
                await store.task(nothing)


async def test_tasks_are_listed_newest_first(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        for number in range(5):
            await store.add_task(task(f"task_{number}", created_at=number))
        assert [t.id for t in await store.list_tasks(limit=3)] == ["task_4", "task_3", "task_2"]


@pytest.mark.parametrize(
    "title", ["\ud800 half", "nul \0 nul", "\\ud800 \\u005c \\", "日本語 🎉", "'; drop table tasks --"]
)
async def test_any_text_comes_back_as_it_was(tmp_path: Path, title: str) -> None:
    async with open_store(tmp_path) as store:
        await store.add_task(task(title=title))
        await store.change_task(ID, summary=title, state=TaskState.IDLE)
        found = await store.task(ID)
        assert (found.title, found.summary, found.state) == (title, title, TaskState.IDLE)
        await store.append(ID, [TextAdded(text=title)])
        assert (await store.all_events(ID))[0].event == TextAdded(text=title)


text = st.text() | st.sampled_from(["\ud800", "\0", "\udcff\udcfe"])
events = st.one_of(
    st.builds(TextAdded, text=text, reasoning=st.booleans()),
    st.builds(CallAdded, call_id=text, name=text, arguments=text),
    st.builds(ModelAnswered, message=assistant_messages(), took_ms=st.floats(0, 1e6), cost_usd=st.none() | text),
    st.builds(RunStarted, run=st.integers(0, 9), message=st.builds(UserMessage, text=text)),
    st.builds(
        ToolFinished,
        result=st.builds(
            ToolResult,
            call_id=text,
            name=text,
            content=text,
            is_error=st.booleans(),
            exit_code=st.none() | st.integers(0, 255),
        ),
        took_ms=st.floats(0, 1e6),
    ),
    st.builds(
        TodoChanged,
        items=st.lists(st.builds(TodoItem, text=text, status=st.sampled_from(["pending", "in_progress", "done"]))).map(
            tuple
        ),
    ),
    st.builds(
        WorkDelivered,
        how=st.sampled_from(["branch", "push", "patch"]),
        where=text,
        commit=text,
        commits=st.integers(0, 9),
        changes=st.lists(st.builds(FileChange, path=text, added=st.none() | st.integers(0), removed=st.none())).map(
            tuple
        ),
    ),
    st.builds(
        RunFinished,
        run=st.integers(0, 9),
        status=text,
        summary=text,
        usage=st.builds(Usage, input_tokens=st.integers(0, 2**40)),
        cost_usd=st.none() | text,
        took_ms=st.floats(0, 1e9),
    ),
)


@given(events)
def test_every_event_comes_back_from_its_row(event: TaskEvent) -> None:
    body = encode_event(event)
    assert body.isascii()
    assert decode_event(event.kind, body) == event


def test_what_a_provider_needs_to_see_again_comes_back() -> None:
    message = AssistantMessage(parts=(), model="m", provider_data={"signature": ["a", 1, None, {"b": True}]})
    event = ModelAnswered(message=message, took_ms=1.0)
    assert decode_event(event.kind, encode_event(event)) == event


@pytest.mark.parametrize("body", ["", "{}", '{"kind": "from_tomorrow"}', '{"kind": "text_added"}', "[1]"])
def test_an_event_of_tomorrow_or_a_damaged_one_is_told_as_such(body: str) -> None:
    with pytest.raises(Broken):
        decode_event("text_added", body)


# The file


async def test_the_database_is_for_its_user_alone(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    async with open_store(tmp_path) as store:
        await store.add_task(task())
        assert {path.stat().st_mode & 0o777 for path in tmp_path.glob(f"{FILE}*")} == {0o600}


@pytest.mark.parametrize("name", ["a b", "a?mode=ro", "a%20b", "a#b", "é"])
async def test_a_data_directory_may_have_any_name(tmp_path: Path, name: str) -> None:
    async with open_store(tmp_path / name) as store:
        await store.add_task(task())
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name / FILE).stat().st_size


async def test_a_damaged_file_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"this is no database" * 1000)
    with pytest.raises(Broken) as caught:
        async with open_store(tmp_path):
            pass
    assert caught.value.mend


async def test_a_file_that_is_damaged_in_the_middle_is_told_as_such(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        await store.add_task(task())
        await append_many(store, 50, each=20)
    with (tmp_path / FILE).open("r+b") as file:
        file.seek(8192)
        file.write(b"\xa5" * (os.path.getsize(file.name) - 8192))
    with pytest.raises(Broken):
        async with open_store(tmp_path) as store:
            await store.all_events(ID)


async def test_the_schema_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        await store.add_task(task())
    with sqlite3.connect(tmp_path / FILE) as connection:
        connection.execute("update schema set version = 99")
    connection.close()
    with pytest.raises(Broken, match="99"):
        async with open_store(tmp_path):
            pass


async def test_a_data_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Denied):
        async with open_store(tmp_path / "file"):
            pass


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of 512 KiB of its own."""
    if os.geteuid() != 0:
        pytest.skip("mounts a file system: root alone can")
    path = Path(tempfile.mkdtemp(prefix="shadow-disk-"))
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", path], capture_output=True, check=False
    )
    try:
        if mounted.returncode != 0:
            pytest.skip(f"mount refuses: {mounted.stderr.decode()}")
        yield path
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", "--lazy", path], check=True)
        shutil.rmtree(path)


async def test_a_full_disk_is_a_limit_and_what_is_there_stays_readable(small_disk: Path) -> None:
    async with open_store(small_disk) as store:
        await store.add_task(task())
        with pytest.raises(LimitExceeded):
            await append_until_full(store)
        kept = (await store.task(ID)).events
        assert kept > 3
        await assert_gapless(store, kept)


async def test_a_full_disk_before_the_database_is_there_is_a_limit(small_disk: Path) -> None:
    (small_disk / "filler").write_bytes(b"")
    with pytest.raises(OSError, match="No space"):
        (small_disk / "filler").write_bytes(b"x" * 1024 * 1024)
    with pytest.raises(LimitExceeded):
        async with open_store(small_disk):
            pass


async def test_a_database_that_cannot_be_written_can_be_read_or_is_denied(small_disk: Path) -> None:
    async with open_store(small_disk) as store:
        await store.add_task(task())
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(ShadowError) as caught:
        async with open_store(small_disk) as store:
            await store.append(ID, [TextAdded(text="a")])
    assert isinstance(caught.value, Denied)
    assert caught.value.mend
