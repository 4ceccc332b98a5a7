"""Watching on the host's files: batches, bounds, what the kernel refuses, and that nothing stays open."""

import asyncio
import os
import random
import shutil
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shadow.core.errors import LimitExceeded, NotFound
from shadow.core.watching import ChangeKind, ChangesMissed, FileChange, FileChanges, Watching
from shadow.execution.host.change_batch import MAX_CHANGES, MAX_CHANGES_BYTES, Batch
from shadow.execution.host.executor import open_host
from shadow.execution.host.watching import MAX_WATCHERS, HostWatches
from shadow.execution.interface import WatchEvent
from shadow.execution.streams import closing
from tests.support.descriptors import open_descriptors

DEADLINE_S = 20.0


@asynccontextmanager
async def started(watches: HostWatches, path: str = ".") -> AsyncGenerator[AsyncIterator[WatchEvent]]:
    async with closing(watches.watch(path)) as events:
        async with asyncio.timeout(DEADLINE_S):
            assert await anext(events) == Watching()
        yield events


async def collect(events: AsyncIterator[WatchEvent], until: Callable[[list[WatchEvent]], object]) -> list[WatchEvent]:
    seen: list[WatchEvent] = []
    async with asyncio.timeout(DEADLINE_S):
        while not until(seen):
            seen.append(await anext(events))
    return seen


def changes(seen: list[WatchEvent]) -> list[FileChange]:
    return [change for event in seen if isinstance(event, FileChanges) for change in event.changes]


def holds(path: str) -> Callable[[list[WatchEvent]], bool]:
    return lambda seen: any(change.path == path for change in changes(seen))


# Batches


def told(batch: Batch) -> list[tuple[str, str]]:
    return [(change.kind.value, change.path) for change in batch]


def test_a_batch_tells_each_path_and_kind_once_where_it_was_last() -> None:
    batch = Batch()
    for kind, path in (
        (ChangeKind.CREATED, "a"),
        (ChangeKind.MODIFIED, "a"),
        (ChangeKind.MODIFIED, "b"),
        (ChangeKind.DELETED, "a"),
        (ChangeKind.MODIFIED, "b"),
        (ChangeKind.CREATED, "a"),
    ):
        batch.add(kind, path, is_directory=False)
    assert told(batch) == [("deleted", "a"), ("modified", "b"), ("created", "a")]


@given(st.lists(st.tuples(st.sampled_from(ChangeKind), st.text(max_size=3000)), max_size=400))
def test_a_batch_is_bounded_and_then_tells_nothing_else(added: list[tuple[ChangeKind, str]]) -> None:
    batch = Batch()
    for kind, path in added:
        batch.add(kind, path, is_directory=False)
        assert sum(len(change.path) for change in batch) <= MAX_CHANGES_BYTES
        assert batch.missed is None or told(batch) == []
    batch.add(ChangeKind.CREATED, "x" * MAX_CHANGES_BYTES, is_directory=False)
    batch.add(ChangeKind.CREATED, "y", is_directory=False)
    assert batch.missed
    assert told(batch) == []


def test_a_batch_of_too_many_changes_is_missed() -> None:
    batch = Batch()
    for number in range(MAX_CHANGES):
        batch.add(ChangeKind.CREATED, str(number), is_directory=False)
    assert len(told(batch)) == MAX_CHANGES
    batch.add(ChangeKind.CREATED, "one more", is_directory=False)
    assert (batch.missed, told(batch)) == ("too many changes at once", [])


# What is told adds up


def snapshot(root: Path) -> dict[str, bytes | None]:
    """Every path, with its content where it is a file."""
    found: dict[str, bytes | None] = {}
    for parent, directories, files in os.walk(root):
        for name in directories:
            found[os.path.relpath(os.path.join(parent, name), root)] = None
        for name in files:
            path = os.path.join(parent, name)
            found[os.path.relpath(path, root)] = Path(path).read_bytes()
    return found


def act(root: Path, chance: random.Random) -> None:
    """One random change, whatever the state is."""
    names = ["a", "b", "c"]
    here = root / Path(*chance.choices(names, k=chance.randint(1, 3)))
    there = root / Path(*chance.choices(names, k=chance.randint(1, 3)))
    try:
        match chance.randint(0, 6):
            case 0 | 1:
                here.parent.mkdir(parents=True, exist_ok=True)
                here.write_bytes(chance.randbytes(4))
            case 2:
                here.mkdir(parents=True)
            case 3:
                here.unlink()
            case 4:
                shutil.rmtree(here)
            case _:
                os.rename(here, there)
    except OSError:
        pass  # it cannot be done to what is there


def within(path: str, top: str) -> bool:
    return path == top or path.startswith(top + "/")


def follow(known: dict[str, bool], change: FileChange) -> dict[str, bool]:
    """What somebody knows who hears of changes and never looks: each path, and whether it is a directory."""
    moved = dict[str, bool]()
    if change.source is not None:
        if change.source not in known:  # it was looked at after this happened
            return {**known, change.path: change.is_directory}
        beneath = {path: kind for path, kind in known.items() if within(path, change.source)}
        moved = {change.path + path[len(change.source) :]: kind for path, kind in beneath.items()}
        known = {path: kind for path, kind in known.items() if path not in beneath}
    if change.kind in (ChangeKind.DELETED, ChangeKind.RENAMED):
        known = {path: kind for path, kind in known.items() if not within(path, change.path)}
    if change.kind in (ChangeKind.CREATED, ChangeKind.RENAMED):
        moved[change.path] = change.is_directory
    return known | moved


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("most", [1, 40], ids=["one by one", "in bursts"])
def test_who_follows_what_is_told_knows_what_is_there(most: int, seed: int, tmp_path: Path) -> None:
    """Random creations, writes, deletions and renames: the follower knows every name in the end, and where to look."""

    async def run() -> None:
        chance = random.Random(seed)
        for _ in range(30):
            act(tmp_path, chance)
        async with started(HostWatches(tmp_path)) as events:
            before = snapshot(tmp_path)
            known = {path: content is None for path, content in before.items()}
            for round_ in range(8):
                for _ in range(chance.randint(1, most)):
                    act(tmp_path, chance)
                    if chance.random() < 0.1:
                        await asyncio.sleep(chance.random() * 0.08)
                mark = f"mark{round_}"
                (tmp_path / mark).touch()
                seen = await collect(events, lambda seen, mark=mark: holds(mark)(seen) or not _none_missed(seen))
                if not _none_missed(seen):  # what is told from now on leads to what is there
                    (tmp_path / f"{mark}.again").touch()
                    seen += await collect(events, holds(f"{mark}.again"))
                assert _none_missed(seen) or most > 1
                now = snapshot(tmp_path)
                for event in seen:
                    if isinstance(event, FileChanges):
                        for change in event.changes:
                            known = follow(known, change)
                    else:
                        known, before = {path: content is None for path, content in now.items()}, now
                assert known == {path: content is None for path, content in now.items()}
                touched = {change.path for change in changes(seen)}
                different = {path for path in now if path not in before or before[path] != now[path]}
                assert {path for path in different if not any(within(path, top) for top in touched)} == set()
                before = now

    asyncio.run(run())


# Limits and ends


@pytest.mark.anyio
async def test_nothing_stays_open_whenever_a_watcher_leaves(tmp_path: Path) -> None:
    for number in range(50):
        (tmp_path / f"d{number}/e").mkdir(parents=True)
    watches, before = HostWatches(tmp_path), open_descriptors()
    async with started(watches):
        assert open_descriptors() > before

    async def come_and_go() -> None:
        async with closing(watches.watch(".")) as events:
            await anext(events)

    for turns in range(24):
        task = asyncio.create_task(come_and_go())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
    with pytest.raises(NotFound):
        await anext(watches.watch("missing"))
    (tmp_path / "gone").mkdir()
    async with started(watches, "gone") as events:
        (tmp_path / "gone").rmdir()
        async with asyncio.timeout(DEADLINE_S):
            assert [event async for event in events] == []
    assert open_descriptors() <= before


@pytest.mark.anyio
async def test_the_number_of_watchers_is_bounded(tmp_path: Path) -> None:
    watches = HostWatches(tmp_path)
    async with started(watches):
        others = [watches.watch(".") for _ in range(MAX_WATCHERS - 1)]
        try:
            for other in others:
                await anext(other)
            with pytest.raises(LimitExceeded):
                await anext(watches.watch("."))
        finally:
            for other in others:
                await other.aclose()
        async with started(watches):
            pass


_WITHIN_LIMITS = """
import asyncio, sys
from pathlib import Path
from shadow.core.errors import LimitExceeded
from shadow.execution.host.watching import HostWatches
async def main():
    root = Path(sys.argv[1])
    for number in range(3):
        (root / f"d{number}").mkdir()
    watches = HostWatches(root)
    events = watches.watch(".")
    print(await anext(events))
    for number in range(30):
        (root / f"more{number}").mkdir()
    try:
        async for event in events:
            print(event)
    except LimitExceeded as error:
        print(error)
    try:
        await anext(watches.watch("."))
    except LimitExceeded as error:
        print(error)
    waiting = []
    (root / "empty").mkdir()
    try:
        for number in range(9):
            waiting.append(watches.watch("empty"))
            await anext(waiting[-1])
    except LimitExceeded as error:
        print(error)
    for other in waiting:
        await other.aclose()
asyncio.run(main())
"""


def test_the_hosts_limits_are_told_with_the_mend(tmp_path: Path) -> None:
    """In a user namespace of its own, whose limits are its own."""
    limits = "echo 20 > /proc/sys/user/max_inotify_watches && echo 3 > /proc/sys/user/max_inotify_instances"
    script = f'{limits} && exec "$0" -c "$1" "$2"'
    argv = ["unshare", "--user", "--map-root-user", "sh", "-c", script, sys.executable, _WITHIN_LIMITS, str(tmp_path)]
    ended = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    if "unshare" in ended.stderr or "Permission denied" in ended.stderr or "Read-only" in ended.stderr:
        pytest.skip(f"needs a user namespace with limits of its own: {ended.stderr.strip()}")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("fs.inotify.max_user_watches") == 2
    assert ended.stdout.count("fs.inotify.max_user_instances") == 1


# Pauses


@pytest.mark.anyio
async def test_pauses_are_told_once_and_nothing_of_them_one_by_one(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    watches = HostWatches(tmp_path)
    async with started(watches) as events:
        with watches.paused():
            (tmp_path / "during").touch()
            with watches.paused():
                (tmp_path / "new/deep").mkdir(parents=True)
            (tmp_path / "gone").rmdir()
        seen = await collect(events, lambda seen: seen)
        (tmp_path / "new/deep/later").touch()
        seen += await collect(events, holds("new/deep/later"))
    assert seen[0] == ChangesMissed(reason="a git operation")
    assert _none_missed(seen[1:])
    assert not holds("during")(seen)


@pytest.mark.anyio
async def test_a_watch_that_begins_within_a_pause_is_told_after_it(tmp_path: Path) -> None:
    watches = HostWatches(tmp_path)
    with watches.paused():
        events = watches.watch(".")
        assert await anext(events) == Watching()
        following = asyncio.ensure_future(anext(events))
        (tmp_path / "during").touch()
        done, _ = await asyncio.wait([following], timeout=0.4)
        assert not done
    async with asyncio.timeout(DEADLINE_S):
        assert await following == ChangesMissed(reason="a git operation")
    await events.aclose()


@pytest.mark.anyio
async def test_a_git_operation_that_fails_ends_its_pause(tmp_path: Path) -> None:
    root = tmp_path / "files"
    root.mkdir()
    subprocess.run(["git", "init", "-q", root], check=True)
    async with open_host(root, tmp_path / "state") as executor:
        async with closing(executor.watch()) as events:
            await anext(events)
            with pytest.raises(NotFound):
                await executor.git_checkout("nowhere")
            async with asyncio.timeout(DEADLINE_S):
                assert await anext(events) == ChangesMissed(reason="a git operation")
            (root / "file").touch()
            await collect(events, holds("file"))


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.booleans(), min_size=1, max_size=6))
def test_who_reads_late_misses_nothing_silently(tmp_path_factory: pytest.TempPathFactory, floods: list[bool]) -> None:
    """More changes than the kernel keeps, while nobody reads: told as missed, and then all is watched, new directories too."""

    async def run() -> None:
        root = tmp_path_factory.mktemp("root")
        async with started(HostWatches(root)) as events:
            for number, flood in enumerate(floods):
                target = root / f"d{number}"
                target.mkdir()
                if flood:
                    for count in range(MAX_CHANGES + 1):
                        (target / str(count)).touch()
                (target / "deep").mkdir()
                mark = f"d{number}/deep/mark"
                await asyncio.sleep(0)
                (root / mark).touch()
                seen = await collect(events, lambda seen, mark=mark: holds(mark)(seen) or not _none_missed(seen))
                if flood:
                    assert not _none_missed(seen)
                (root / f"d{number}/deep/again").touch()
                await collect(events, holds(f"d{number}/deep/again"))

    asyncio.run(run())


def _none_missed(seen: list[WatchEvent]) -> bool:
    return not any(isinstance(event, ChangesMissed) for event in seen)
