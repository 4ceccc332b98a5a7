"""``shadow workspace cp``: files and directories into a workspace and out of it, streamed."""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from shadow.cli.local_tree import (
    PIECE_BYTES,
    Directory,
    File,
    Link,
    LocalTree,
    Skipped,
    open_file,
    pieces,
    stays_within,
    typed,
    walk,
)
from shadow.cli.opening import find_to_use
from shadow.cli.outcome import DONE, FAILED, WrongUsage, print_json, say
from shadow.cli.text import size
from shadow.core.commands import CommandSpec
from shadow.core.errors import Broken, NotADirectory, NotFound, Rejected
from shadow.core.files import FileKind, FileStat
from shadow.execution.interface import ToolExecutor

AT_ONCE = 8


@dataclass
class Copied:
    """What a copy did so far; shown while it goes on, where stderr is a terminal."""

    files: int = 0
    directories: int = 0
    links: int = 0
    bytes: int = 0
    skipped: list[Skipped] = field(default_factory=list[Skipped])
    _shown_at: float = 0.0

    def add_file(self, count: int) -> None:
        self.files += 1
        self.bytes += count
        self.show()

    def skip(self, path: str, reason: str) -> None:
        self.skipped.append(Skipped(path, reason))

    def show(self, *, last: bool = False) -> None:
        if not sys.stderr.isatty() or (not last and time.monotonic() - self._shown_at < 0.1):
            return
        self._shown_at = time.monotonic()
        line = "" if last else f"{self.files} files, {size(self.bytes)}"
        print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)

    def document(self) -> dict[str, object]:
        return {key: value for key, value in asdict(self).items() if not key.startswith("_")}


def remote_part(text: str) -> tuple[str, str] | None:
    """``ID:PATH`` in two; ``None`` for a local path, which has a slash before its first colon, or no colon."""
    reference, colon, path = text.partition(":")
    return (reference, path or ".") if colon and reference and "/" not in reference else None


async def copy(source: str, target: str, *, as_json: bool) -> int:
    from_inside, to_inside = remote_part(source), remote_part(target)
    if (from_inside is None) == (to_inside is None):
        raise WrongUsage(
            "One of the two must be in a workspace, written ID:PATH, the other on this host.",
            mend="A local name with a colon is written ./NAME.",
        )
    reference = (from_inside or to_inside or ("", ""))[0]
    manager, workspace = await find_to_use(reference)
    async with await manager.attach(workspace.id) as executor:
        if from_inside:
            copied = await download(executor, from_inside[1], Path(target), into=target.endswith("/"))
        else:
            copied = await upload(executor, source, to_inside[1] if to_inside else ".")
    if as_json:
        print_json(copied.document())
    else:
        tell(copied)
    return FAILED if copied.skipped else DONE


def tell(copied: Copied) -> None:
    copied.show(last=True)
    for skipped in copied.skipped[:20]:
        say(f"left out: {skipped.path}: {skipped.reason}", style="yellow")
    if len(copied.skipped) > 20:
        say(f"left out: {len(copied.skipped) - 20} more; --json names all.", style="yellow")


# In


async def upload(executor: ToolExecutor, source: str, target: str) -> Copied:
    """As ``cp -r`` does it: into ``target`` where that is a directory, else to that name."""
    name = os.path.basename(source.rstrip("/"))
    if await _is_directory(executor, target) and name not in ("", ".", ".."):
        target = _beneath(target.rstrip("/"), name)
    if os.path.isdir(source):
        return await upload_content(executor, local_directory(source), target)
    if target.endswith("/"):
        raise NotADirectory(f"{target!r} is no directory of the workspace.", mend="Make it first.")
    copied = Copied()
    try:
        file = open_file(source, source)
    except OSError as error:
        raise typed(error, source) from error
    if isinstance(file, Skipped):
        raise Rejected(f"{source!r} is neither a file nor a directory.")
    await _upload_file(executor, file, target, copied)
    return copied


def local_directory(source: str) -> Path:
    """Raises: NotFound, NotADirectory, Denied."""
    try:
        os.listdir(source)
    except NotADirectoryError as error:
        raise NotADirectory(f"{source!r} is no directory.") from error
    except OSError as error:
        raise typed(error, source) from error
    return Path(source)


async def upload_content(executor: ToolExecutor, directory: Path, target: str = ".") -> Copied:
    """Everything below ``directory``, to the same names below ``target``. Symlinks stay what they hold."""
    copied = Copied()
    await executor.make_directory(target)
    async with _Several() as several:
        for entry in walk(directory):
            match entry:
                case Skipped():
                    copied.skipped.append(entry)
                case Directory():
                    await executor.make_directory(_beneath(target, entry.path))
                    copied.directories += 1
                case Link():
                    await _upload_link(executor, entry, _beneath(target, entry.path), copied)
                case File():
                    # The entry is bound now: the task begins after the next turn of the loop.
                    await several.do(
                        lambda file=entry: _upload_file(executor, file, _beneath(target, file.path), copied)
                    )
    return copied


def _beneath(directory: str, path: str) -> str:
    return path if directory in ("", ".") else f"{directory}/{path}"


async def _upload_file(executor: ToolExecutor, file: File, target: str, copied: Copied) -> None:
    try:
        first = os.read(file.descriptor, PIECE_BYTES)
        rest = os.read(file.descriptor, PIECE_BYTES) if first else b""
        content = pieces(file, first + rest) if rest else first
        stat = await executor.write_file(target, content, mode=file.mode)
    finally:
        os.close(file.descriptor)
    copied.add_file(stat.size_bytes)


async def _upload_link(executor: ToolExecutor, link: Link, target: str, copied: Copied) -> None:
    argv = ("ln", "-sfnT", "--", link.target, target)
    result = await executor.run(CommandSpec(argv=argv, timeout_s=30))
    if result.exit_code == 0:
        copied.links += 1
    else:
        copied.skip(link.path, result.stderr.decode(errors="replace").strip() or "the symlink could not be made")


async def _is_directory(executor: ToolExecutor, path: str) -> bool:
    try:
        return (await executor.stat(path)).kind is FileKind.DIRECTORY
    except NotFound:
        return False


# Out


async def download(executor: ToolExecutor, source: str, target: Path, *, into: bool = False) -> Copied:
    """As ``cp -r`` does it. Nothing is written outside ``target``, whatever the workspace says its files are called."""
    name = source.rstrip("/").rpartition("/")[2]
    stat = await executor.stat(source)
    if into and not target.is_dir():
        raise NotADirectory(f"{str(target)!r} is no directory.", mend="Make it first.")
    if target.is_dir() and name not in ("", ".", ".."):
        target = target / name
    copied = Copied()
    if stat.kind is FileKind.FILE:
        tree = LocalTree(target.parent)
        try:
            await _download_file(executor, stat, source, tree, target.name, copied)
        finally:
            tree.close()
    elif stat.kind is FileKind.DIRECTORY:
        tree = LocalTree(target)
        try:
            async with _Several() as several:
                async for entry in _listing(executor, source):
                    await _download_entry(executor, stat, entry, tree, copied, several)
        finally:
            tree.close()
    else:
        raise Rejected(f"{source!r} is neither a file nor a directory.")
    return copied


async def _listing(executor: ToolExecutor, source: str) -> AsyncIterator[FileStat]:
    after: str | None = None
    while True:
        listing = await executor.list_directory(source, recursive=True, after=after)
        for entry in listing.entries:
            yield entry
        if listing.next_after is None:
            return
        if listing.next_after == after:
            raise Broken("The workspace lists its files without end.")
        after = listing.next_after


async def _download_entry(
    executor: ToolExecutor, base: FileStat, entry: FileStat, tree: LocalTree, copied: Copied, several: "_Several"
) -> None:
    path = entry.path if base.path == "." else entry.path.removeprefix(f"{base.path}/")
    try:
        match entry.kind:
            case FileKind.DIRECTORY:
                tree.make_directory(path)
                copied.directories += 1
                if entry.error:
                    copied.skip(path, entry.error)
            case FileKind.SYMLINK if not stays_within(path, entry.target or ""):
                copied.skip(path, f"a symlink that may lead out of what is copied: {entry.target}")
            case FileKind.SYMLINK:
                tree.link(path, entry.target or "")
                copied.links += 1
            case FileKind.OTHER:
                copied.skip(path, "neither a file nor a directory nor a symlink")
            case FileKind.FILE:
                await several.do(lambda: _download_file(executor, entry, entry.path, tree, path, copied))
    except Rejected as error:
        copied.skip(path, error.message)


async def _download_file(
    executor: ToolExecutor, stat: FileStat, source: str, tree: LocalTree, path: str, copied: Copied
) -> None:
    try:
        copied.add_file(await tree.write(path, executor.stream_file(source), mode=stat.mode))
    except (NotFound, Rejected) as error:
        copied.skip(path, error.message)


class _Several:
    """A few pieces of work at a time; the first failure stops the rest."""

    def __init__(self) -> None:
        self._tasks = asyncio.TaskGroup()
        self._free = asyncio.Semaphore(AT_ONCE)

    async def __aenter__(self) -> "_Several":
        await self._tasks.__aenter__()
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self._tasks.__aexit__(*raised)  # pyright: ignore[reportArgumentType]

    async def do(self, work: Callable[[], Awaitable[None]]) -> None:
        await self._free.acquire()
        self._tasks.create_task(self._one(work))

    async def _one(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        finally:
            self._free.release()
