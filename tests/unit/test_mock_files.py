"""The mock's tree does what the host's files do: both get the same calls and must answer alike."""

import asyncio
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shadow.core.errors import LimitExceeded, ShadowError
from shadow.core.files import ANY_VERSION, FileContent, FileStat, Replacement
from shadow.execution.host.files import HostFiles
from shadow.execution.mock.files import MockFiles
from shadow.execution.mock.tree import Link, Pipe, Tree

NAMES = st.sampled_from(["a", "b", "c", "ä", "\udcff"])
PARTS = st.one_of(NAMES, st.sampled_from([".", "", "link", "up"]))
PLAIN = st.lists(PARTS, min_size=1, max_size=4).map("/".join).filter(bool)
PATHS = st.lists(PARTS | st.just(".."), min_size=1, max_size=4).map("/".join).filter(bool)
ODD = st.sampled_from(["/", "/etc", "a/", "a/.", "link/", "n" * 256, "a\0b", "\ud800", "a/" * 3000 + "b", "..", "."])
PATH = st.one_of(PATHS, PATHS, PATHS, ODD)
# Where parents are made on the way, what `x/..` leaves behind is nobody's rule.
WRITTEN = st.one_of(PLAIN, PLAIN, ODD)
TARGETS = st.one_of(PLAIN, st.sampled_from(["/etc", "..", "link", "a/b", "/workspace/a", "nowhere"]))
FLAG = st.booleans()
SEEN = "seen"
"""In place of the version of what is there."""
EXPECTED = st.sampled_from([None, None, None, ANY_VERSION, SEEN, SEEN, "another"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), WRITTEN, st.sampled_from([b"", b"x", b"one\ntwo\n"]), FLAG, FLAG, EXPECTED),
        st.tuples(st.just("make_directory"), WRITTEN, FLAG),
        st.tuples(st.just("move"), PATH, PATH, FLAG, EXPECTED),
        st.tuples(st.just("delete"), PATH, FLAG, EXPECTED),
        st.tuples(st.just("link"), NAMES | st.sampled_from(["link", "up"]), TARGETS),
        st.tuples(st.just("pipe"), NAMES),
        st.tuples(st.just("stat"), PATH, FLAG),
        st.tuples(st.just("read"), PATH),
        st.tuples(st.just("replace"), PATH, st.sampled_from(["x", "o", "one\n"]), EXPECTED),
        st.tuples(st.just("list"), PATH, FLAG, st.integers(1, 3)),
    ),
    max_size=14,
)


def shown(stat: FileStat) -> tuple[object, ...]:
    """What must be the same on every file system."""
    size = stat.size_bytes if stat.kind == "file" else None
    return stat.path, stat.kind, size, stat.target


def unversioned(told: FileContent | Replacement) -> object:
    """A version is told, and says more on one file system than on another."""
    assert told.version
    return replace(told, version="")


class OnHost:
    def __init__(self, root: Path) -> None:
        self.root, self.files = root, HostFiles(root, shown_root="/workspace")

    async def step(self, name: str, *given: object) -> object:
        match name, given:
            case "write", (path, content, parents, exclusive, wanted):
                expected = wanted and await self.version(wanted, path)
                return shown(
                    await self.files.write_file(
                        path, content, create_parents=parents, exclusive=exclusive, expected=expected
                    )
                )
            case "make_directory", (path, parents):
                return shown(await self.files.make_directory(path, create_parents=parents))
            case "move", (source, target, overwrite, wanted):
                expected = wanted and await self.version(wanted, source, follow=False)
                return shown(await self.files.move(source, target, overwrite=overwrite, expected=expected))
            case "delete", (path, recursive, wanted):
                expected = wanted and await self.version(wanted, path, follow=False)
                return await self.files.delete(path, recursive=recursive, expected=expected)
            case "link", (path, target):
                if not os.path.lexists(self.root / path):
                    os.symlink(target, self.root / path)
                return None
            case "pipe", (path,):
                if not os.path.lexists(self.root / path):
                    os.mkfifo(self.root / path)
                return None
            case "stat", (path, follow):
                return shown(await self.files.stat(path, follow=follow))
            case "read", (path,):
                return unversioned(await self.files.read_file(path))
            case "replace", (path, old, wanted):
                expected = wanted and await self.version(wanted, path)
                return unversioned(await self.files.search_replace(path, old=old, new="new", expected=expected))
            case "list", (path, recursive, limit):
                page = await self.files.list_directory(path, recursive=recursive, limit=limit)
                return [shown(entry) for entry in page.entries], page.next_after
            case _:
                raise AssertionError(name)

    async def version(self, wanted: str, path: str, *, follow: bool = True) -> str:
        try:
            return (await self.files.stat(path, follow=follow)).version or "none" if wanted == SEEN else wanted
        except ShadowError:
            return wanted


class InMemory:
    def __init__(self) -> None:
        tree = Tree(limit_bytes=10**6, limit_entries=1000, now=0.0)
        self.files = MockFiles(tree, clock=lambda: 0.0, limit_bytes=10**6)

    async def step(self, name: str, *given: object) -> object:
        files = self.files
        match name, given:
            case "write", (path, content, parents, exclusive, wanted):
                return shown(
                    await files.write_file(
                        path,
                        content,
                        mode=None,
                        create_parents=parents,
                        exclusive=exclusive,
                        expected=wanted and self.version(wanted, path),
                    )
                )
            case "make_directory", (path, parents):
                return shown(files.make_directory(path, create_parents=parents))
            case "move", (source, target, overwrite, wanted):
                expected = wanted and self.version(wanted, source, follow=False)
                return shown(files.move(source, target, overwrite=overwrite, expected=expected))
            case "delete", (path, recursive, wanted):
                expected = wanted and self.version(wanted, path, follow=False)
                return files.delete(path, recursive=recursive, expected=expected)
            case "link", (path, target):
                if files.tree.resolve(path, follow=False).found is None:
                    files.make_node(path, Link(target=target, modified_at=0.0))
                return None
            case "pipe", (path,):
                if files.tree.resolve(path, follow=False).found is None:
                    files.make_node(path, Pipe(mode=0o644, modified_at=0.0))
                return None
            case "stat", (path, follow):
                return shown(files.stat(path, follow=follow))
            case "read", (path,):
                return unversioned(files.read_file(path, offset=0, limit_bytes=100))
            case "replace", (path, old, wanted):
                expected = wanted and self.version(wanted, path)
                return unversioned(files.search_replace(path, old=old, new="new", expected=expected))
            case "list", (path, recursive, limit):
                page = files.list_directory(path, recursive=recursive, after=None, limit=limit)
                return [shown(entry) for entry in page.entries], page.next_after
            case _:
                raise AssertionError(name)

    def version(self, wanted: str, path: str, *, follow: bool = True) -> str:
        try:
            return self.files.stat(path, follow=follow).version or "none" if wanted == SEEN else wanted
        except ShadowError:
            return wanted


async def answer(subject: OnHost | InMemory, step: tuple[object, ...]) -> object:
    try:
        return await subject.step(*step)  # type: ignore[arg-type]
    except ShadowError as error:
        return error.code


@settings(max_examples=250, deadline=None)
@given(STEPS)
def test_every_call_is_answered_as_the_host_answers_it(steps: list[tuple[object, ...]]) -> None:
    async def compare(root: Path) -> None:
        host, mock = OnHost(root), InMemory()
        for step in steps:
            assert await answer(mock, step) == await answer(host, step), step
        everything = ("list", ".", True, 1000)
        assert await mock.step(*everything) == await host.step(*everything)

    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(compare(Path(directory)))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("wdm"), PATHS, PATHS), max_size=30))
def test_what_is_counted_is_what_is_there(steps: list[tuple[str, str, str]]) -> None:
    files = InMemory().files
    for what, path, other in steps:
        try:
            match what:
                case "w":
                    files.write(path, other.encode("utf-8", "surrogateescape"))
                case "d":
                    files.delete(path, recursive=True)
                case _:
                    files.move(path, other, overwrite=True)
        except ShadowError:
            pass
    entries = files.list_directory(".", recursive=True, after=None, limit=1000).entries
    assert files.tree.entries == len(entries)
    assert files.tree.size_bytes == sum(entry.size_bytes for entry in entries)


def test_a_full_disk_refuses_and_leaves_the_old_file() -> None:
    tree = Tree(limit_bytes=10, limit_entries=3, now=0.0)
    files = MockFiles(tree, clock=lambda: 0.0, limit_bytes=10)
    files.write("a", b"12345")
    with pytest.raises(LimitExceeded):
        files.write("a", b"x" * 11)
    with pytest.raises(LimitExceeded):
        files.write("b/c/d", b"")
    assert files.open("a")[0] == b"12345"
    assert [entry.path for entry in files.list_directory(".", recursive=True, after=None, limit=9).entries] == ["a"]
    files.write("b/c", b"12345")
    files.delete("b", recursive=True)
    files.write("d", b"67890")
