"""Search in a workspace: by content with ripgrep, by name with a fuzzy score.

ripgrep walks by path from a directory that was resolved by descriptor. It follows no links, but a directory that is swapped
for a link at the right moment may lead it astray: it sees no more than commands in the workspace see anyway.
"""

import asyncio
import contextlib
import os
import re
import stat
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from shadow.core.errors import Broken, NotFound, Rejected, Unavailable
from shadow.core.search import FileMatch, FileSearchResult, GrepLine, GrepQuery, GrepResult
from shadow.execution.fuzzy import rank
from shadow.execution.host.paths import MAX_SWAPS, WorkspacePaths, decode_path, encode_path, keeps_changing, show_path
from shadow.execution.host.reading import open_regular
from shadow.execution.host.ripgrep import (
    CHUNK_BYTES,
    find_ripgrep,
    ripgrep,
    selection_arguments,
)
from shadow.execution.host.ripgrep_json import FoundLine, RecordReader, Summary
from shadow.execution.host.threads import in_thread
from shadow.execution.queries import check_file_query, check_query

MAX_SEARCHED_PATHS = 500_000
FILE_SEARCH_TIMEOUT_S = 30.0
_MAX_ERRORS = 100
_IGNORE_FILE_ERROR = re.compile(rb"^rg: /proc/self/fd/\d+: line \d+: ", re.MULTILINE)


class HostSearch:
    """The search methods of ``ToolExecutor``. ``binary`` is the ripgrep to use instead of the one that is found."""

    def __init__(self, root: Path, *, shown_root: str | None = None, binary: Path | None = None) -> None:
        self._paths = WorkspacePaths(root, shown_root=shown_root)
        self._binary = binary

    async def grep(self, query: GrepQuery) -> GrepResult:
        check_query(query)
        arguments, ignore = selection_arguments(query.globs, include_ignored=query.include_ignored)
        arguments += ["--json", "--no-mmap", "--max-count", str(query.max_matches + 1)]
        arguments += ["--context", str(query.context)]
        arguments += ["--fixed-strings"] * query.literal + ["--ignore-case"] * query.ignore_case
        collector = _Collector(query)
        with self._open(query.path) as target:
            collector.where = target
            arguments += ["-e", query.pattern, "--", "-" if target.file is not None else "./"]
            running = ripgrep(
                self._found_binary(), arguments, directory=target.directory, stdin=target.file, ignore=ignore
            )
            async with running as rg:
                try:
                    async with asyncio.timeout(query.timeout_s):
                        while not collector.full and (chunk := await rg.stdout.read(CHUNK_BYTES)):
                            collector.feed(chunk)
                        if collector.full:
                            return collector.result(())
                        code, said = await rg.end()
                except TimeoutError:
                    collector.truncated = "time"
                    return collector.result(())
                if code:
                    target.check_there(query.path)
        if not collector.complete or _IGNORE_FILE_ERROR.search(said):
            raise _refusal(code, said)
        return collector.result(_complaints(said))

    async def search_files(self, query: str, *, path: str = ".", limit: int = 50) -> FileSearchResult:
        check_file_query(query, limit=limit)
        arguments, _ = selection_arguments((), include_ignored=False)
        with self._open(path, only_directories=True) as target:
            running = ripgrep(
                self._found_binary(), [*arguments, "--files", "--null", "--", "./"], directory=target.directory
            )
            async with running as rg:
                names, truncated = await _read_names(rg.stdout)
                if not truncated:
                    code, said = await rg.end()
                    if code:
                        target.check_there(path)
                    if code not in (0, 1, 2):  # 1: no file; 2: some directory could not be read
                        raise _refusal(code, said)
        prefix = target.prefix
        return await in_thread(None, _rank, query, names, prefix, limit=limit, truncated=truncated)

    def _found_binary(self) -> Path | None:
        return self._binary or find_ripgrep()

    @contextmanager
    def _open(self, path: str, *, only_directories: bool = False) -> "Generator[_Target]":
        for _ in range(MAX_SWAPS):
            with self._paths.resolve(path) as place, contextlib.ExitStack() as files:
                if place.found is None:
                    raise NotFound(f"{show_path(path)} is not there.")
                if only_directories or stat.S_ISDIR(place.found.st_mode):
                    directory, where = self._paths.open_directory(path)
                    files.callback(os.close, directory)
                    yield _Target(directory, b"" if where == "." else encode_path(where) + b"/", None)
                    return
                file = open_regular(place, path)
                if file is None:
                    continue
                files.callback(os.close, file)
                yield _Target(place.parent, encode_path(place.path), file)
                return
        raise keeps_changing(path)


@dataclass(frozen=True, slots=True)
class _Target:
    """Where to search: a directory, or one open file in it."""

    directory: int
    prefix: bytes
    """What stands before the names that ripgrep gives; the whole path of a file."""
    file: int | None

    def check_there(self, path: str) -> None:
        """Raises: NotFound: the directory was removed meanwhile, so that ripgrep saw nothing of it."""
        if not os.fstat(self.directory).st_nlink:
            raise NotFound(f"{show_path(path)} was removed during the search.")

    def path_of(self, said: bytes) -> str:
        if self.file is not None:
            return decode_path(self.prefix)
        return decode_path(self.prefix + said.removeprefix(b"./"))


@dataclass(slots=True)
class _Collector:
    """Takes found lines up to the bounds of the query."""

    query: GrepQuery
    where: _Target | None = None
    truncated: str | None = None
    complete: bool = False
    _reader: RecordReader = field(default_factory=RecordReader)
    _lines: list[GrepLine] = field(default_factory=list[GrepLine])
    _matches: int = 0
    _bytes: int = 0

    @property
    def full(self) -> bool:
        return self.truncated is not None

    def feed(self, chunk: bytes) -> None:
        for record in self._reader.feed(chunk):
            if isinstance(record, Summary):
                self.complete = True
            else:
                self._take(record)
            if self.full:
                return

    def result(self, errors: tuple[str, ...]) -> GrepResult:
        lines = sorted(self._lines, key=lambda line: (line.path.split("/"), line.number))
        return GrepResult(lines=tuple(lines), truncated=self.truncated, errors=errors)

    def _take(self, line: FoundLine) -> None:
        if line.is_match and self._matches == self.query.max_matches:
            self.truncated = "matches"
            return
        assert self.where is not None
        text = line.text[: self.query.max_line_bytes]
        if self._bytes + len(text) > self.query.max_bytes:
            self.truncated = "bytes"
            return
        self._matches += line.is_match
        self._bytes += len(text)
        cut = line.cut or len(text) < len(line.text)
        self._lines.append(
            GrepLine(path=self.where.path_of(line.path), number=line.number, text=text, is_match=line.is_match, cut=cut)
        )


def _complaints(said: bytes) -> tuple[str, ...]:
    lines = said.decode("utf-8", "replace").splitlines()
    return tuple(line.removeprefix("rg: ") for line in lines if line.strip())[:_MAX_ERRORS]


def _refusal(code: int, said: bytes) -> Rejected | Unavailable | Broken:
    """Why a search that gave no summary did not run."""
    own = _IGNORE_FILE_ERROR.search(said)
    text = (said[own.end() :] if own is not None else said.removeprefix(b"rg: ")).decode("utf-8", "replace").strip()
    if own is not None or (code == 2 and text):
        return Rejected(f"ripgrep refuses the search: {text}", mend="Correct the pattern or the glob.")
    if code < 0:
        return Unavailable(f"ripgrep was ended by signal {-code}.", mend="Search in a smaller part of the workspace.")
    return Broken(f"ripgrep ended with code {code}: {text}")


async def _read_names(stdout: asyncio.StreamReader) -> tuple[list[bytes], bool]:
    """The NUL-separated names, and whether there were more than are looked at."""
    names: list[bytes] = []
    rest = b""
    try:
        async with asyncio.timeout(FILE_SEARCH_TIMEOUT_S):
            while chunk := await stdout.read(CHUNK_BYTES):
                *whole, rest = (rest + chunk).split(b"\0")
                names += whole
                if len(names) > MAX_SEARCHED_PATHS:
                    return names[:MAX_SEARCHED_PATHS], True
    except TimeoutError:
        return names, True
    return names, False


def _rank(query: str, names: list[bytes], prefix: bytes, *, limit: int, truncated: bool) -> FileSearchResult:
    before = decode_path(prefix)
    best, count = rank(query, [decode_path(name[2:]) for name in names], limit=limit)  # each begins with ./
    return FileSearchResult(
        matches=tuple(FileMatch(path=before + path, score=score) for score, path in best),
        searched=len(names),
        truncated=truncated or count > limit,
    )
