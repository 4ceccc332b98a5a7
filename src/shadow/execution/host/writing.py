"""Writing files as a whole or not at all: an unnamed file takes the bytes, a link or a rename puts it in place."""

import contextlib
import errno
import os
import re
import stat
import threading
from collections.abc import Generator
from dataclasses import replace

from shadow.core.errors import AlreadyExists, NotAFile, PathRefused, Rejected
from shadow.core.files import FileStat, check_version
from shadow.execution.host.paths import MAX_SWAPS, Place, WorkspacePaths, keeps_changing, show_path
from shadow.execution.host.reading import check_regular
from shadow.execution.host.stats import file_stat
from shadow.execution.host.versions import check_place, stamp, version_of

_TEMPORARY_NAME = re.compile(rb"\.shadow-[0-9a-f]{16}\.tmp")
_NO_UNNAMED_FILES = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT)


class PathLocks:
    """One lock for each path that somebody changes at the moment; a thread may take the same one again."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locks: dict[str, tuple[threading.RLock, int]] = {}

    @contextlib.contextmanager
    def hold(self, path: str) -> Generator[None]:
        with self._guard:
            lock, users = self._locks.get(path) or (threading.RLock(), 0)
            self._locks[path] = (lock, users + 1)
        try:
            with lock:
                yield
        finally:
            with self._guard:
                lock, users = self._locks[path]
                if users == 1:
                    del self._locks[path]
                else:
                    self._locks[path] = (lock, users - 1)


class Swapped(Exception):
    """The file is not the one any more that the new content was made from."""


class Draft:
    """New content for one path. ``open``, then ``write`` as often as needed, then ``commit``; ``close`` in any case.

    What was not committed leaves nothing behind. All methods block; they raise Shadow's errors and ``OSError``.
    ``expected``: the version of the file that it replaces, see ``versions``.
    ``unnamed=False`` does without ``O_TMPFILE``, as on file systems that lack it.
    """

    def __init__(
        self,
        paths: WorkspacePaths,
        locks: PathLocks,
        path: str,
        *,
        mode: int | None = None,
        create_parents: bool = True,
        exclusive: bool = False,
        expected: str | None = None,
        unnamed: bool = True,
    ) -> None:
        if mode is not None and not 0 <= mode <= 0o7777:
            raise Rejected(f"mode must lie between 0 and 0o7777, not {mode:#o}.")
        if exclusive and expected is not None:
            raise Rejected("A file cannot be expected to be there and not to be there.")
        self._paths = paths
        self._locks = locks
        self._path = path
        self._mode = mode
        self._create_parents = create_parents
        self._exclusive = exclusive
        self._expected = expected
        self._unnamed = unnamed
        self._place: Place | None = None
        self._fd = -1
        self._temporary: bytes | None = None
        self._committed = False

    def open(self) -> None:
        """Find the place and open a file for the bytes."""
        for _ in range(MAX_SWAPS):
            place = self._place = self._resolve()
            if self._mode is None and place.found is not None:
                self._mode = stat.S_IMODE(place.found.st_mode)
            try:
                self._open_beside(place)
            except OSError:
                if os.fstat(place.parent).st_nlink:
                    raise
            else:
                return
            # The directory was removed meanwhile: some file systems say so, others that it may not be changed.
            self._place = None
            place.forget_parents()
            place.close()
        raise keeps_changing(self._path)

    def _open_beside(self, place: Place) -> None:
        # A file that has a name while it is written is nobody else's business.
        first_mode = 0o666 if self._mode is None else 0o600
        if self._unnamed and os.path.isdir("/proc/self/fd"):
            try:
                self._fd = os.open(b".", os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, first_mode, dir_fd=place.parent)
            except OSError as error:
                if error.errno not in _NO_UNNAMED_FILES:
                    raise
        if self._fd < 0:
            name = temporary_name()
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
            self._fd = os.open(name, flags, first_mode, dir_fd=place.parent)
            self._temporary = name

    def write(self, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data).cast("B")
        while view:
            view = view[os.write(self._fd, view) :]

    def commit(self, *, expected: os.stat_result | None = None) -> FileStat:
        """Put the file in place. Raises: Changed; Swapped: where ``expected`` is given and is not what is there now."""
        assert self._place is not None
        if self._mode is not None:
            os.fchmod(self._fd, self._mode)
        stamped_ns = stamp(self._fd)
        with self._locks.hold(self._place.path):
            if expected is not None:
                now = os.stat(self._place.name, dir_fd=self._place.parent, follow_symlinks=False)
                if _identity(now) != _identity(expected):
                    raise Swapped
            check_place(self._place.parent, self._place.name, self._expected, self._path)
            try:
                self._put(self._place)
            except FileNotFoundError:
                if self._temporary is not None or not self._create_parents:
                    raise
                check_version(None, self._expected, show_path(self._path))
                # The directory was removed meanwhile, perhaps by another write that failed and cleaned up.
                self._place.close()
                self._place = None  # what follows may fail, and there is nothing to undo then
                self._place = self._resolve()
                self._put(self._place)
        self._committed = True
        written = os.fstat(self._fd)
        version = (
            version_of(written) if written.st_mtime_ns == stamped_ns else ""
        )  # else somebody wrote into it already
        return replace(file_stat(self._place.path, written), version=version)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if self._place is None:
            return
        if self._temporary is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._temporary, dir_fd=self._place.parent)
            self._temporary = None
        if not self._committed:
            self._place.forget_parents()
        self._place.close()
        self._place = None

    def _resolve(self) -> Place:
        """Like ``open(2)``: with ``exclusive`` a link is something that is there, otherwise its target is meant."""
        place = self._paths.resolve(self._path, follow=not self._exclusive, create_parents=self._create_parents)
        try:
            self._check(place)
        except BaseException:
            place.forget_parents()
            place.close()
            raise
        return place

    def _check(self, place: Place) -> None:
        now = None if place.found is None else version_of(place.found)
        check_version(now, self._expected, show_path(self._path))
        if place.found is not None:
            if self._exclusive:
                raise AlreadyExists(f"{show_path(self._path)} exists already.")
            if not stat.S_ISLNK(place.found.st_mode):  # found only where links are not followed: it is replaced
                check_regular(place.found, self._path)
        elif place.names_directory:
            raise NotAFile(f"{show_path(self._path)} names a directory.", mend="Leave out the slash at the end.")

    def _put(self, place: Place) -> None:
        if self._exclusive or (place.found is None and self._temporary is None):
            try:
                self._link(place, place.name)
            except FileExistsError:
                if self._exclusive:
                    raise
            else:
                return
        if self._temporary is None:  # an unnamed file cannot replace another: give it a name for a moment
            name = temporary_name()
            self._link(place, name)
            self._temporary = name
        os.rename(self._temporary, place.name, src_dir_fd=place.parent, dst_dir_fd=place.parent)
        self._temporary = None

    def _link(self, place: Place, name: bytes) -> None:
        if self._temporary is not None:
            os.link(self._temporary, name, src_dir_fd=place.parent, dst_dir_fd=place.parent, follow_symlinks=False)
        else:
            os.link(f"/proc/self/fd/{self._fd}", name, dst_dir_fd=place.parent, follow_symlinks=True)


def write_whole(draft: Draft, *parts: bytes) -> FileStat:
    """Open, write, commit and close in one go."""
    try:
        draft.open()
        for part in parts:
            draft.write(part)
        return draft.commit()
    finally:
        draft.close()


def _identity(found: os.stat_result) -> tuple[int, int, int, int, int]:
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def temporary_name() -> bytes:
    """For what is about to be renamed into place."""
    return b".shadow-%s.tmp" % os.urandom(8).hex().encode()


def is_temporary_name(name: bytes) -> bool:
    return _TEMPORARY_NAME.fullmatch(name) is not None


def check_path_is_not_root(place: Place, what: str) -> None:
    """Raises: PathRefused."""
    if place.is_root:
        raise PathRefused(f"The root of the workspace cannot be {what}.")
