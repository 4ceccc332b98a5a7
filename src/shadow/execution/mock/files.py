"""The file methods of ``ToolExecutor`` on a tree in memory. Content is replaced as a whole: no reader sees a part."""

from collections.abc import AsyncIterable, Callable
from dataclasses import replace
from hashlib import sha256

from shadow.core.errors import AlreadyExists, Conflict, LimitExceeded, NotAFile, NotFound, PathRefused, Rejected
from shadow.core.files import (
    MAX_LISTING_LIMIT,
    FileContent,
    FileLines,
    FileStat,
    Listing,
    Replacement,
    check_version,
)
from shadow.execution.lines import LineCutter, check_range
from shadow.execution.mock.tree import Directory, File, Link, Node, Place, Tree, file_stat, walk
from shadow.execution.occurrences import check_size, check_texts, find_unique
from shadow.execution.path_text import show_path

PIECE_BYTES = 1024 * 1024


class MockFiles:
    """Modes are kept and shown, not enforced: everything in here may read everything, as root may."""

    def __init__(self, tree: Tree, *, clock: Callable[[], float], limit_bytes: int) -> None:
        self.tree = tree
        self._clock = clock
        self._limit_bytes = limit_bytes

    # Reading

    def stat(self, path: str, *, follow: bool) -> FileStat:
        node, place = self.tree.find(path, follow=follow)
        return replace(file_stat(place.path, node), version=version_of(node))

    def open(self, path: str) -> tuple[bytes, str]:
        """The content of a regular file, and its path with links resolved. Raises: NotAFile, NotFound, …"""
        node, place = self.tree.find(path)
        return _regular(node, path).content, place.path

    def read_file(self, path: str, *, offset: int, limit_bytes: int) -> FileContent:
        check_range(offset=offset, limit_bytes=limit_bytes)
        content, where = self.open(path)
        return FileContent(
            path=where,
            content=content[offset : offset + limit_bytes],
            offset=offset,
            size_bytes=len(content),
            version=_version(content),
        )

    def read_lines(self, path: str, *, first: int, last: int | None, limit_bytes: int) -> FileLines:
        cutter = LineCutter(first=first, last=last, limit_bytes=limit_bytes)
        content, where = self.open(path)
        if content:
            cutter.feed(content)
        return replace(cutter.result(where), version=_version(content))

    def list_directory(self, path: str, *, recursive: bool, after: str | None, limit: int) -> Listing:
        if not 1 <= limit <= MAX_LISTING_LIMIT:
            raise Rejected(f"limit must lie between 1 and {MAX_LISTING_LIMIT}, not {limit}.")
        directory, where = self.tree.directory(path)
        prefix = "" if where == "." else where + "/"
        trail = _names_after(prefix, after)
        entries: list[FileStat] = []
        below = walk(directory) if recursive else (((name,), node) for name, node in sorted(directory.entries.items()))
        for names, node in below:
            if trail and names <= trail:
                continue
            if len(entries) == limit:
                return Listing(entries=tuple(entries), next_after=entries[-1].path)
            entries.append(file_stat(prefix + "/".join(names), node))
        return Listing(entries=tuple(entries), next_after=None)

    # Writing

    async def write_file(
        self,
        path: str,
        content: bytes | AsyncIterable[bytes],
        *,
        mode: int | None,
        create_parents: bool,
        exclusive: bool,
        expected: str | None,
    ) -> FileStat:
        if mode is not None and not 0 <= mode <= 0o7777:
            raise Rejected(f"mode must lie between 0 and 0o7777, not {mode:#o}.")
        if exclusive and expected is not None:
            raise Rejected("A file cannot be expected to be there and not to be there.")
        # Refused before the content is read.
        self._writable(path, create_parents=create_parents, exclusive=exclusive, expected=expected)
        whole = bytes(content) if isinstance(content, bytes | bytearray | memoryview) else await self._gather(content)
        return self.write(path, whole, mode=mode, create_parents=create_parents, exclusive=exclusive, expected=expected)

    def write(
        self,
        path: str,
        content: bytes,
        *,
        mode: int | None = None,
        create_parents: bool = True,
        exclusive: bool = False,
        expected: str | None = None,
    ) -> FileStat:
        place = self._writable(path, create_parents=create_parents, exclusive=exclusive, expected=expected)
        if mode is None:
            mode = place.found.mode if place.found is not None else 0o644
        file = File(content=content, mode=mode, modified_at=self._clock())
        self.tree.put(place, file, now=file.modified_at)
        return replace(file_stat(place.path, file), version=_version(content))

    async def _gather(self, pieces: AsyncIterable[bytes]) -> bytes:
        gathered = bytearray()
        async for piece in pieces:
            gathered += piece
            self.check_room(len(gathered))
        return bytes(gathered)

    def check_room(self, size: int) -> None:
        """Before ``size`` bytes are made in memory. Raises: LimitExceeded."""
        if size > self._limit_bytes:
            raise LimitExceeded(f"The disk is full: it holds {self._limit_bytes} bytes.")

    def _writable(self, path: str, *, create_parents: bool, exclusive: bool, expected: str | None) -> Place:
        """Like ``open(2)``: with ``exclusive`` a link is something that is there, otherwise its target is meant."""
        place = self.tree.resolve(path, follow=not exclusive, create_parents=create_parents)
        check_version(None if place.found is None else version_of(place.found), expected, show_path(path))
        if place.found is not None:
            if exclusive:
                raise AlreadyExists(f"{show_path(path)} exists already.")
            _regular(place.found, path)
        elif place.names_directory:
            raise NotAFile(f"{show_path(path)} names a directory.", mend="Leave out the slash at the end.")
        return place

    def search_replace(self, path: str, *, old: str, new: str, expected: str | None) -> Replacement:
        wanted, replacement = check_texts(old, new)
        content, where = self.open(path)
        check_version(_version(content), expected, show_path(path))
        check_size(len(content), path)
        position = find_unique(content, wanted, path)
        written = self.write(path, content[:position] + replacement + content[position + len(wanted) :])
        return Replacement(
            path=where,
            line=content.count(b"\n", 0, position) + 1,
            size_bytes=written.size_bytes,
            version=written.version,
        )

    def make_directory(self, path: str, *, create_parents: bool) -> FileStat:
        place = self.tree.resolve(path, follow=False, create_parents=create_parents)
        if isinstance(place.found, Link):
            return self._linked_directory(path)
        if place.found is None:
            made = Directory(mode=0o755, modified_at=self._clock())
            self.tree.put(place, made, now=made.modified_at)
            return file_stat(place.path, made)
        if not isinstance(place.found, Directory):
            raise AlreadyExists(f"{show_path(path)} is there and is not a directory.")
        return file_stat(place.path, place.found)

    def _linked_directory(self, path: str) -> FileStat:
        place = self.tree.resolve(path)
        if not isinstance(place.found, Directory):
            raise AlreadyExists(f"{show_path(path)} is there and is no link to a directory.")
        return file_stat(place.path, place.found)

    def make_node(self, path: str, node: Node) -> None:
        """A link, a pipe: what only commands make. Raises: AlreadyExists, …"""
        place = self.tree.resolve(path, follow=False)
        if place.found is not None:
            raise AlreadyExists(f"{show_path(path)} exists already.")
        self.tree.put(place, node, now=self._clock())

    def move(self, source: str, target: str, *, overwrite: bool, expected: str | None = None) -> FileStat:
        old, new = self.tree.resolve(source, follow=False), self.tree.resolve(target, follow=False)
        _check_not_root(old, "moved")
        _check_not_root(new, "replaced")
        if old.found is None:
            raise NotFound(f"{show_path(source)} is not there.")
        check_version(version_of(old.found), expected, show_path(source))
        if new.found is not None:
            self._check_replaceable(old.found, new.found, target, overwrite=overwrite)
        if isinstance(old.found, Directory) and any(directory is old.found for _, directory in new.way):
            raise Rejected(f"{show_path(source)} cannot be moved into itself.")
        if new.found is not old.found:
            self.tree.rename(old, new, now=self._clock())
        return file_stat(new.path, old.found)

    def _check_replaceable(self, old: Node, new: Node, target: str, *, overwrite: bool) -> None:
        if not overwrite:
            raise AlreadyExists(f"{show_path(target)} exists already.", mend="Pass overwrite, or choose another name.")
        if old is new:
            return
        if isinstance(new, Directory):
            raise AlreadyExists(f"{show_path(target)} is a directory.", mend="Delete it first.")
        if isinstance(old, Directory):
            raise AlreadyExists(
                f"{show_path(target)} exists, and a directory cannot replace it.", mend="Delete it first."
            )

    def delete(self, path: str, *, recursive: bool, expected: str | None = None) -> None:
        place = self.tree.resolve(path, follow=False)
        _check_not_root(place, "deleted")
        if place.found is None:
            raise NotFound(f"{show_path(path)} is not there.")
        check_version(version_of(place.found), expected, show_path(path))
        if isinstance(place.found, Directory) and place.found.entries and not recursive:
            raise Conflict(f"The directory {show_path(path)} is not empty.", mend="Delete it recursively.")
        self.tree.remove(place, now=self._clock())


def version_of(node: Node) -> str:
    """Empty for what is no regular file."""
    return _version(node.content) if isinstance(node, File) else ""


def _version(content: bytes) -> str:
    """Of what is in memory a hash costs little."""
    return sha256(content).hexdigest()[:32]


def _regular(node: Node, path: str) -> File:
    """Raises: NotAFile."""
    if isinstance(node, File):
        return node
    if isinstance(node, Directory):
        raise NotAFile(f"{show_path(path)} is a directory.", mend="List it, or name a file in it.")
    raise NotAFile(f"{show_path(path)} is no regular file but a pipe, a socket or a device.")


def _check_not_root(place: Place, what: str) -> None:
    if place.is_root:
        raise PathRefused(f"The root of the workspace cannot be {what}.")


def _names_after(prefix: str, after: str | None) -> tuple[str, ...]:
    """The names below the listed directory that lead to the entry after which to go on."""
    if after is None:
        return ()
    if not after.startswith(prefix) or len(after) == len(prefix):
        raise Rejected(f"after={show_path(after)} is not an entry of this listing.", mend="Pass next_after as it came.")
    return tuple(after[len(prefix) :].split("/"))
