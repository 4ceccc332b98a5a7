"""Versions of files on this host: two contents never have the same one, however fast they follow each other."""

import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from threading import Event, Thread

import pytest

from shadow.core.errors import Changed
from shadow.core.files import ANY_VERSION
from shadow.execution.host.files import HostFiles
from shadow.execution.host.versions import Reading, settled, stamp, version_of
from shadow.execution.host.writing import Draft

pytestmark = pytest.mark.anyio

TICKS = 5
SECOND_NS = 1_000_000_000


@pytest.fixture
def files(tmp_path: Path) -> HostFiles:
    return HostFiles(tmp_path)


def stamped(path: Path, *, written_ns: int, changed_ns: int) -> os.stat_result:
    found = path.stat()
    return os.stat_result(tuple(found)[:10], {"st_mtime_ns": written_ns, "st_ctime_ns": changed_ns})


def looking(*looks: Callable[[], os.stat_result]) -> tuple[list[int], Callable[[], os.stat_result]]:
    """What looks so the first time, the second time, and so on; and how often it was looked at."""
    seen = [0]

    def look() -> os.stat_result:
        seen[0] += 1
        return looks[min(seen[0], len(looks)) - 1]()

    return seen, look


def test_a_file_that_was_written_in_this_tick_is_looked_at_again(tmp_path: Path) -> None:
    (path := tmp_path / "f").write_bytes(b"x")

    def now() -> os.stat_result:
        tick = time.clock_gettime_ns(TICKS)
        return stamped(path, written_ns=tick, changed_ns=tick)

    last = stamped(path, written_ns=SECOND_NS, changed_ns=SECOND_NS)
    seen, look = looking(now, lambda: last)
    assert settled(look) is last
    assert seen == [2]


def test_a_file_that_is_written_in_every_tick_has_no_version(tmp_path: Path) -> None:
    (path := tmp_path / "f").write_bytes(b"x")

    def now() -> os.stat_result:
        tick = time.clock_gettime_ns(TICKS)
        return stamped(path, written_ns=tick, changed_ns=tick)

    seen, look = looking(now)
    assert settled(look) is None
    assert seen[0] < 10


@pytest.mark.parametrize("ahead_ns", [-SECOND_NS, 3600 * SECOND_NS])
def test_nobody_waits_for_what_was_written_before_or_by_another_clock(tmp_path: Path, ahead_ns: int) -> None:
    (path := tmp_path / "f").write_bytes(b"x")
    at = time.time_ns() + ahead_ns
    seen, look = looking(lambda: stamped(path, written_ns=at, changed_ns=at))
    assert settled(look) is not None
    assert seen == [1]


async def test_nobody_waits_for_what_we_wrote(files: HostFiles, tmp_path: Path) -> None:
    for _ in range(20):
        await files.write_file("f", b"x")
        found = (tmp_path / "f").stat()
        assert found.st_mtime_ns != found.st_ctime_ns
        assert settled(iter([found]).__next__) is found  # looked at once


def test_what_we_write_is_stamped_finer_than_a_tick(tmp_path: Path) -> None:
    with (tmp_path / "f").open("wb", buffering=0) as file:
        for _ in range(20):
            file.write(b"x")
            before = time.time_ns()
            stamped_ns = stamp(file.fileno())
            assert before <= stamped_ns <= time.time_ns()
            assert os.fstat(file.fileno()).st_mtime_ns == stamped_ns


async def test_what_is_expected_is_looked_at_once_more_when_it_is_replaced(files: HostFiles, tmp_path: Path) -> None:
    """Both found it unchanged when they began; a program changes it in the other case."""
    seen = (await files.write_file("f", b"seen")).version
    first, second = (Draft(files.paths, files.locks, "f", expected=seen) for _ in range(2))
    for draft in (first, second):
        draft.open()
        draft.write(b"mine")
    written = first.commit()
    with pytest.raises(Changed):
        second.commit()
    third = Draft(files.paths, files.locks, "f", expected=written.version)
    third.open()
    (tmp_path / "f").write_bytes(b"else")
    with pytest.raises(Changed):
        third.commit()
    for draft in (first, second, third):
        draft.close()
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("f", b"else")]


async def test_a_write_in_place_right_behind_ours_shows(files: HostFiles, tmp_path: Path) -> None:
    for number in range(100):
        written = await files.write_file("f", b"%04d" % number)
        assert written.version
        with (tmp_path / "f").open("r+b") as file:
            file.write(b"mine")
        with pytest.raises(Changed):
            await files.write_file("f", b"over", expected=written.version)
        with pytest.raises(Changed):
            await files.delete("f", expected=written.version)
        assert (tmp_path / "f").read_bytes() == b"mine"


async def test_no_two_contents_have_one_version(files: HostFiles, tmp_path: Path) -> None:
    """While a program writes in place, always the same size, as fast as it can."""
    (path := tmp_path / "f").write_bytes(b"00000000")
    done = Event()

    def write() -> None:
        number = 0
        fd = os.open(path, os.O_WRONLY)
        while not done.is_set():
            number += 1
            os.pwrite(fd, b"%08d" % number, 0)
            if number % 50 == 0:
                done.wait(0.02)
        os.close(fd)

    writer = Thread(target=write)
    writer.start()
    seen: dict[str, bytes] = {}
    try:
        for _ in range(200):
            read = await files.read_file("f")
            if read.version:
                assert seen.setdefault(read.version, read.content) == read.content
    finally:
        done.set()
        writer.join()
    at_rest = await files.read_file("f")
    assert at_rest.version
    assert seen.setdefault(at_rest.version, at_rest.content) == at_rest.content


async def test_what_was_changed_while_it_was_read_has_no_version(files: HostFiles, tmp_path: Path) -> None:
    (path := tmp_path / "f").write_bytes(b"a\n" * 3 * 1024 * 1024)
    await files.stat("f")
    with path.open("rb") as file:
        reading = Reading(file.fileno())
        assert reading.version()
        with path.open("r+b") as writer:
            writer.write(b"b")
        assert reading.version() == ""


async def test_a_renamed_and_a_replaced_file_are_not_what_was_seen(files: HostFiles, tmp_path: Path) -> None:
    seen = (await files.write_file("f", b"same")).version
    (tmp_path / "g").write_bytes(b"same")
    (tmp_path / "g").replace(tmp_path / "f")
    with pytest.raises(Changed) as refusal:
        await files.search_replace("f", old="same", new="mine", expected=seen)
    assert refusal.value.mend
    (tmp_path / "f").unlink()
    (tmp_path / "f").symlink_to("g")
    (tmp_path / "g").write_bytes(b"same")
    with pytest.raises(Changed):
        await files.move("f", "h", expected=seen)
    target = (await files.stat("f")).version
    assert target == version_of((tmp_path / "g").stat())
    await files.write_file("f", b"mine", expected=target)
    assert ((tmp_path / "f").is_symlink(), (tmp_path / "g").read_bytes()) == (True, b"mine")


async def test_a_directory_that_goes_meanwhile_is_not_made_again(files: HostFiles, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/f").write_bytes(b"x")

    async def pieces() -> AsyncIterator[bytes]:
        yield b"new"
        await files.delete("d", recursive=True)

    with pytest.raises(Changed):
        await files.write_file("d/f", pieces(), expected=ANY_VERSION)
    assert list(tmp_path.iterdir()) == []
