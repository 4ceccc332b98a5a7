"""Paths of a workspace, resolved by descriptor: one walker, which nothing in the workspace can lead out of its root.

Every component is opened without following links, relative to the descriptor of the one before; links are read and
resolved here; ``..`` goes back along the way that was come. A rename or a link swapped in meanwhile may change *which* thing
below the root is met, never that it is below. Whoever acts on a ``Place`` does so by its descriptor and must not follow links.
"""

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from shadow.core.errors import Conflict, NotADirectory, NotFound, PathRefused
from shadow.execution.host.failures import error_from_os
from shadow.execution.path_text import decode_path, encode_path, show_path

MAX_LINKS = 40  # the kernel's own limit
MAX_STEPS = 16_384
MAX_SWAPS = 32
KEPT_DESCRIPTORS = 128
MILESTONE = (
    1024  # every so many levels one descriptor is kept besides, so that the way back is not walked from the base
)

_OPEN_THING = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_DIRECTORY = _OPEN_THING | os.O_DIRECTORY


def list_names(directory: int) -> list[bytes]:
    """The names in a directory, unsorted; ``directory`` may be an ``O_PATH`` descriptor."""
    readable = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
    try:
        return [os.fsencode(name) for name in os.listdir(readable)]
    finally:
        os.close(readable)


class Descent:
    """Where a walk stands below a directory: enter by name, leave by memory; any depth with few descriptors.

    Owns its descriptors, ``base`` too. Methods raise plain ``OSError``.
    """

    def __init__(self, base: int) -> None:
        self.names: list[bytes] = []
        self._fds: list[int | None] = [base]

    @property
    def fd(self) -> int:
        """``O_PATH`` descriptor of the directory where the walk stands."""
        fd = self._fds[-1]
        assert fd is not None
        return fd

    def enter(self, name: bytes) -> None:
        """Go into a directory that is here. A symbolic link is refused with ``ENOTDIR``."""
        self.adopt(name, os.open(name, _OPEN_DIRECTORY, dir_fd=self.fd))

    def adopt(self, name: bytes, fd: int) -> None:
        """Go into a directory that is here and open already."""
        self.names.append(name)
        self._fds.append(fd)
        self._let_go(len(self._fds) - 1 - KEPT_DESCRIPTORS)

    def leave(self) -> bytes:
        """Go back to the directory above and return the name of the one that was left."""
        name = self.names.pop()
        left = self._fds.pop()
        if left is not None:
            os.close(left)
        if self._fds[-1] is None:
            self._reopen()
        return name

    def rewind(self) -> None:
        """Go back to the base."""
        self._close_above(1)
        self.names.clear()

    def close(self) -> None:
        self._close_above(0)

    def _let_go(self, index: int) -> None:
        if index > 0 and index % MILESTONE:  # the base is a milestone too
            fd = self._fds[index]
            if fd is not None:
                os.close(fd)
                self._fds[index] = None

    def _reopen(self) -> None:
        """Walk down again, and keep the last ones, so that the next times are free."""
        start = max(index for index, fd in enumerate(self._fds) if fd is not None)
        for index in range(start + 1, len(self._fds)):
            above = self._fds[index - 1]
            assert above is not None
            self._fds[index] = os.open(self.names[index - 1], _OPEN_DIRECTORY, dir_fd=above)
            self._let_go(index - KEPT_DESCRIPTORS)

    def _close_above(self, count: int) -> None:
        for fd in self._fds[count:]:
            if fd is not None:
                os.close(fd)
        del self._fds[count:]


class Place:
    """What a path names: a name in an open directory. Nothing need be there. Closes the directory at its end."""

    def __init__(self, descent: Descent, name: bytes, found: os.stat_result | None, *, made: int) -> None:
        self._descent = descent
        self.name = name
        self.found = found
        """What was there when the path was resolved."""
        self.names_directory = False
        """Whether the path ended in a slash."""
        self._made = made

    @property
    def parent(self) -> int:
        """``O_PATH`` descriptor of the directory."""
        return self._descent.fd

    @property
    def is_root(self) -> bool:
        return self.name == b"."

    @property
    def path(self) -> str:
        """From the root, with every link on the way resolved."""
        return decode_path(b"/".join((*self._descent.names, self.name)))

    def forget_parents(self) -> None:
        """Remove the directories that were made on the way, where they are still empty."""
        while self._made:
            self._made -= 1
            try:
                os.rmdir(self._descent.leave(), dir_fd=self._descent.fd)
            except OSError:
                return  # somebody uses it already

    def close(self) -> None:
        self._descent.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class WorkspacePaths:
    """Resolves the paths of one workspace. ``shown_root`` is the root as commands in the workspace see it."""

    def __init__(self, root: Path, *, shown_root: str | None = None) -> None:
        self._root = os.fsencode(root.absolute())
        shown = (os.fsencode(shown_root),) if shown_root is not None else ()
        prefixes = (*shown, self._root, os.path.realpath(self._root))
        self._prefixes = tuple(dict.fromkeys(tuple(_components(prefix)) for prefix in prefixes))

    def resolve(self, path: str, *, follow: bool = True, create_parents: bool = False) -> Place:
        """The place that ``path`` names; a link in its last component is resolved too, with ``follow``.

        Raises: PathRefused, NotFound (a directory on the way), NotADirectory, Denied, LimitExceeded.
        """
        return self._resolve(path, _Walk(self, path, follow=follow, create_parents=create_parents))

    def _resolve(self, path: str, walk: "_Walk") -> Place:
        raw = encode_path(path)
        try:
            return walk.run(raw)
        except OSError as error:
            walk.abandon()
            raise error_from_os(error, path) from error
        except BaseException:
            walk.abandon()
            raise

    def open_directory(self, path: str) -> tuple[int, str]:
        """An ``O_PATH`` descriptor of a directory, for the caller to close, and its path with every link resolved.

        Raises: as ``resolve``, and Conflict.
        """
        for _ in range(MAX_SWAPS):
            with self.resolve(path) as place:
                if place.found is None:
                    raise NotFound(f"{show_path(path)} is not there.")
                if not stat.S_ISDIR(place.found.st_mode):
                    raise NotADirectory(f"{show_path(path)} is not a directory.")
                try:
                    return os.open(place.name, _OPEN_DIRECTORY, dir_fd=place.parent), place.path
                except NotADirectoryError:
                    continue  # swapped for something else since
                except OSError as error:
                    raise error_from_os(error, path) from error
        raise keeps_changing(path)

    def open_root(self) -> int:
        return os.open(self._root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def below_root(self, raw: bytes) -> Sequence[bytes] | None:
        """The components of an absolute path below the root; ``None`` where it lies elsewhere."""
        names = tuple(_components(raw))
        for prefix in self._prefixes:
            if names[: len(prefix)] == prefix:
                return names[len(prefix) :]
        return None


class LinklessPaths(WorkspacePaths):
    """Goes through no link: one on the way is refused, one at the end is itself meant."""

    def resolve(self, path: str, *, follow: bool = True, create_parents: bool = False) -> Place:
        return self._resolve(path, _Walk(self, path, follow=False, create_parents=create_parents, links=False))


def keeps_changing(path: str) -> Conflict:
    return Conflict(f"{show_path(path)} keeps changing.", mend="Try again when nothing else writes there.")


def _components(raw: bytes) -> list[bytes]:
    return [name for name in raw.split(b"/") if name not in (b"", b".")]


def _may_be_directory(found: os.stat_result) -> bool:
    return stat.S_ISDIR(found.st_mode) or stat.S_ISLNK(found.st_mode)


class _Walk:
    """One resolution, from the root on."""

    def __init__(
        self, paths: WorkspacePaths, path: str, *, follow: bool, create_parents: bool, links: bool = True
    ) -> None:
        self._paths = paths
        self._path = path
        self._follow = follow
        self._links = links
        self._create_parents = create_parents
        self._pending: list[bytes] = []
        self._descent: Descent | None = None
        self._made = 0  # how many of the last directories of the way were made by this walk
        self._fresh = False  # whether the directory to be entered next was

    def run(self, raw: bytes) -> Place:
        place = self._walk(raw)
        place.names_directory = raw.endswith((b"/", b"/."))
        if place.names_directory and place.found is not None and not _may_be_directory(place.found):
            raise NotADirectory(f"{show_path(self._path)} is not a directory.")
        return place

    def _walk(self, raw: bytes) -> Place:
        descent = self._descent = Descent(self._paths.open_root())
        links = 0
        self._queue(descent, raw)
        for _ in range(MAX_STEPS):
            if not self._pending:
                return self._here(descent)
            name = self._pending.pop()
            if name == b"..":
                if not descent.names:
                    raise self._leads_out()
                descent.leave()
                self._made = max(0, self._made - 1)
                continue
            found, target = self._step(descent, name)
            if target is not None:
                links += 1
                if links > MAX_LINKS:
                    raise PathRefused(f"{show_path(self._path)} goes through too many symbolic links.")
                self._queue(descent, target)
            elif found is not None or not self._pending:
                if not self._pending:
                    return Place(descent, name, found, made=self._made)
            else:
                self._make(descent, name)
        raise PathRefused(f"{show_path(self._path)} has too many parts.")

    def abandon(self) -> None:
        """Undo and close what a failed walk has done."""
        if self._descent is not None:
            place = Place(self._descent, b"", None, made=self._made)
            place.forget_parents()
            place.close()

    def _step(self, descent: Descent, name: bytes) -> tuple[os.stat_result | None, bytes | None]:
        """What ``name`` is, and where it points if it is a link to follow; goes into a directory if more is to come."""
        try:
            fd = os.open(name, _OPEN_THING, dir_fd=descent.fd)
        except FileNotFoundError:
            return None, None
        try:
            found = os.fstat(fd)
            if stat.S_ISLNK(found.st_mode):
                if self._pending and not self._links:
                    where = decode_path(b"/".join((*descent.names, name)))
                    raise PathRefused(f"{show_path(self._path)} goes through the symbolic link {show_path(where)}.")
                if self._pending or self._follow:
                    return found, os.readlink(b"", dir_fd=fd)
            elif self._pending:
                if not stat.S_ISDIR(found.st_mode):
                    where = decode_path(b"/".join((*descent.names, name)))
                    raise NotADirectory(f"{show_path(where)} is not a directory.")
                descent.adopt(name, fd)
                fd = -1
                self._made = self._made + 1 if self._fresh else 0
                self._fresh = False
            return found, None
        finally:
            if fd >= 0:
                os.close(fd)

    def _queue(self, descent: Descent, raw: bytes) -> None:
        """Put the parts of a path or of a link's target before what is still to be walked."""
        names: Sequence[bytes] | None = _components(raw)
        if raw.startswith(b"/"):
            names = self._paths.below_root(raw)
            if names is None:
                raise self._leads_out()
            descent.rewind()
            self._made = 0
        self._pending.extend(reversed(names))

    def _make(self, descent: Descent, name: bytes) -> None:
        if not self._create_parents:
            where = decode_path(b"/".join((*descent.names, name)))
            raise NotFound(f"The directory {show_path(where)} is not there.")
        try:
            os.mkdir(name, dir_fd=descent.fd)
            self._fresh = True
        except FileExistsError:
            pass  # somebody else made it just now: enter that
        self._pending.append(name)

    def _here(self, descent: Descent) -> Place:
        """The path ended on a directory that the walk stands in (``.``, ``a/..``, a link to such)."""
        found = os.fstat(descent.fd)
        if not descent.names:
            return Place(descent, b".", found, made=0)
        return Place(descent, descent.leave(), found, made=max(0, self._made - 1))

    def _leads_out(self) -> PathRefused:
        return PathRefused(
            f"{show_path(self._path)} leads out of the workspace.",
            mend="Give a path relative to the root of the workspace, without links that point elsewhere.",
            details={"path": self._path.encode("utf-8", "backslashreplace").decode()},
        )
