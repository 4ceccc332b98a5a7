"""Laying a tar stream down in a directory, entry by entry: never outside it, never through a link, each file as a whole."""

import hashlib
import os
import stat
from contextlib import suppress

from shadow.core.errors import AlreadyExists, LimitExceeded, NotFound, PathRefused, Rejected
from shadow.core.trees import MAX_TREE_BYTES, MAX_TREE_ENTRIES, TreeReceipt
from shadow.execution.host.failures import error_from_os
from shadow.execution.host.paths import LinklessPaths, Place, decode_path, keeps_changing, show_path
from shadow.execution.host.reading import PIECE_BYTES, open_regular, read_at
from shadow.execution.host.tar_reader import Entry, EntryKind, TarReader, split_name
from shadow.execution.host.threads import Stop
from shadow.execution.host.writing import Draft, PathLocks, temporary_name

MAX_REMEMBERED_BYTES = 32 * 1024 * 1024
"""Of the paths of directories whose mode can only be set at the end."""
_OWNER_ALL = stat.S_IRWXU


class Unpacking:
    """One archive into the directory ``base``. All methods block; they raise Shadow's errors and ``Stopped``."""

    def __init__(
        self,
        paths: LinklessPaths,
        locks: PathLocks,
        base: str,
        *,
        max_entries: int = MAX_TREE_ENTRIES,
        max_bytes: int = MAX_TREE_BYTES,
    ) -> None:
        self._paths = paths
        self._locks = locks
        self._base = base
        self._reader = TarReader(max_bytes=max_bytes)
        self._entries_left = max_entries
        self._bytes_left = max_bytes
        self._draft: Draft | None = None
        self._entry: Entry | None = None
        self._missing = 0
        """How much of the content of the file in ``_draft`` is still to come."""
        self._written = set[bytes]()
        """Digests of the names of files that this archive brought: a link may only be to those."""
        self._modes: dict[str, int] = {}
        self._remembered = 0
        self._files = self._directories = self._links = self._size_bytes = 0

    def feed(self, data: bytes, stop: Stop) -> None:
        try:
            for item in self._reader.feed(data):
                stop.check()
                if isinstance(item, Entry):
                    self._begin(item, stop)
                else:
                    self._write(item)
        except OSError as error:
            raise error_from_os(error, self._where()) from error

    def finish(self) -> TreeReceipt:
        """Raises: Rejected: the archive is not whole."""
        self._reader.finish()
        for path in sorted(self._modes, reverse=True):  # what is deeper first
            self._set_mode(path, self._modes[path])
        return TreeReceipt(
            files=self._files, directories=self._directories, links=self._links, size_bytes=self._size_bytes
        )

    def close(self) -> None:
        if self._draft is not None:
            self._draft.close()
            self._draft = None

    def _where(self) -> str:
        return self._base if self._entry is None else self._path(self._entry.names)

    def _path(self, names: tuple[bytes, ...]) -> str:
        return decode_path(b"/".join((os.fsencode(self._base), *names)))

    def _begin(self, entry: Entry, stop: Stop) -> None:
        if not self._entries_left:
            raise LimitExceeded("The archive has too many entries.", mend="Send it in parts.")
        self._entries_left -= 1
        self._entry = entry
        match entry.kind:
            case EntryKind.FILE:
                self._open(entry)
                if not entry.size_bytes:
                    self._commit()
            case EntryKind.DIRECTORY:
                if entry.names:  # the directory itself keeps its mode
                    self._make_directory(entry)
                    self._directories += 1
            case EntryKind.SYMLINK:
                self._link(entry)
                self._links += 1
            case EntryKind.HARD_LINK:
                self._copy(entry, stop)

    # Files

    def _open(self, entry: Entry) -> Draft:
        self._draft = Draft(self._paths, self._locks, self._path(entry.names), mode=entry.mode)
        self._draft.open()
        self._missing = entry.size_bytes
        return self._draft

    def _write(self, data: memoryview) -> None:
        assert self._draft is not None
        self._draft.write(data)
        self._missing -= len(data)
        if not self._missing:
            self._commit()

    def _commit(self) -> None:
        assert self._draft is not None
        assert self._entry is not None
        self._size_bytes += self._draft.commit().size_bytes
        self._draft.close()
        self._draft = None
        self._files += 1
        self._written.add(_digest(self._entry.names))

    def _copy(self, entry: Entry, stop: Stop) -> None:
        """A hard link becomes a file of its own: what the workspace does to one of them is not done to the other."""
        source = split_name(entry.target)
        if _digest(source) not in self._written:
            raise Rejected(
                f"The archive links {show_path(entry.path)} to {show_path(decode_path(b'/'.join(source)))}, which is no "
                "file that it brought before.",
                mend="Make it with 'tar --hard-dereference'.",
            )
        path = self._path(source)
        with self._paths.resolve(path) as place:
            fd = open_regular(place, path)
        if fd is None:
            raise keeps_changing(path)
        try:
            self._take_bytes(os.fstat(fd).st_size)
            draft, offset = self._open(entry), 0
            while piece := read_at(fd, offset, PIECE_BYTES):
                stop.check()
                draft.write(piece)
                offset += len(piece)
            self._commit()
        finally:
            os.close(fd)

    def _take_bytes(self, count: int) -> None:
        """Links are the one thing in an archive that makes it larger than it is."""
        self._bytes_left -= count
        if self._bytes_left < 0:
            raise LimitExceeded("What the archive's hard links stand for is too large.")

    # Symlinks

    def _link(self, entry: Entry) -> None:
        path = self._path(entry.names)
        with self._paths.resolve(path, create_parents=True) as place:
            if place.found is not None and stat.S_ISDIR(place.found.st_mode):
                raise AlreadyExists(f"{show_path(path)} is a directory: a symlink cannot replace it.")
            try:
                _put_link(place, entry.target)
            except BaseException:
                place.forget_parents()
                raise

    # Directories

    def _make_directory(self, entry: Entry) -> None:
        path = self._path(entry.names)
        with self._paths.resolve(path, create_parents=True) as place:
            if place.found is not None and stat.S_ISLNK(place.found.st_mode):
                raise PathRefused(f"{show_path(path)} is a symbolic link: nothing is written through it.")
            if place.found is not None and not stat.S_ISDIR(place.found.st_mode):
                raise AlreadyExists(f"{show_path(path)} is there and is not a directory.")
            try:
                if place.found is None:
                    with suppress(FileExistsError):  # somebody was quicker: if it is a directory, it will do
                        os.mkdir(place.name, 0o700, dir_fd=place.parent)
            except BaseException:
                place.forget_parents()
                raise
            # Its content comes after it: what its owner may not do waits for the end.
            _change_mode(place, entry.mode | _OWNER_ALL)
        self._modes.pop(path, None)  # the last word counts
        if entry.mode & _OWNER_ALL != _OWNER_ALL:
            self._remembered += len(path)
            if self._remembered > MAX_REMEMBERED_BYTES:
                raise LimitExceeded("The archive has too many directories that their owner may not change.")
            self._modes[path] = entry.mode

    def _set_mode(self, path: str, mode: int) -> None:
        try:
            with self._paths.resolve(path) as place:
                _change_mode(place, mode)
        except OSError as error:
            raise error_from_os(error, path) from error
        except NotFound:
            pass  # removed by somebody since: nothing is left to have a mode


def _put_link(place: Place, target: bytes) -> None:
    try:
        os.symlink(target, place.name, dir_fd=place.parent)
    except FileExistsError:
        name = temporary_name()
        os.symlink(target, name, dir_fd=place.parent)
        try:
            os.rename(name, place.name, src_dir_fd=place.parent, dst_dir_fd=place.parent)
        except BaseException:
            os.unlink(name, dir_fd=place.parent)
            raise


def _change_mode(place: Place, mode: int) -> None:
    """Of a directory, by its descriptor: what the name stands for may have changed."""
    fd = os.open(place.name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place.parent)
    try:
        os.chmod(f"/proc/self/fd/{fd}", mode)
    finally:
        os.close(fd)


def _digest(names: tuple[bytes, ...]) -> bytes:
    """A million names would not fit."""
    return hashlib.blake2b(b"/".join(names), digest_size=16).digest()
