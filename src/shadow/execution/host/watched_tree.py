"""A directory and everything below that is not ignored, under inotify: what its events mean, as changes of paths.

By descriptor, and never through a link. All methods of ``WatchedTree`` block and belong to one caller at a time.
"""

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from shadow.core.errors import LimitExceeded
from shadow.core.watching import ChangeKind, FileChange
from shadow.execution.host import inotify
from shadow.execution.host.ignoring import Pattern, decide, parse_patterns
from shadow.execution.host.inotify import Event, Inotify
from shadow.execution.host.paths import Descent, WorkspacePaths, decode_path
from shadow.execution.host.threads import Stop
from shadow.execution.host.writing import is_temporary_name

MAX_CHANGES = 2000
MAX_CHANGES_BYTES = 256 * 1024
"""Of the paths of one batch."""
MAX_DIRECTORIES = 100_000
MAX_RULES_BYTES = 256 * 1024
"""A larger file of rules is not obeyed: too much is told then, not too little."""
READS_AT_ONCE = 64

_UNNAMED = re.compile(rb"#[0-9]+")
"""What the kernel calls a file that was opened with O_TMPFILE."""
_CONTENT = inotify.MODIFY | inotify.ATTRIB | inotify.CLOSE_WRITE
_COMES = inotify.CREATE | inotify.MOVED_TO
_GOES = inotify.DELETE | inotify.MOVED_FROM
_WATCHED = _CONTENT | _COMES | _GOES


class Batch:
    """Changes within a short time, in order, each path and kind once; or the reason why they cannot be told."""

    def __init__(self) -> None:
        self._changes: dict[tuple[ChangeKind, str], FileChange] = {}
        self._bytes = 0
        self.missed: str | None = None

    def __iter__(self) -> Iterator[FileChange]:
        return iter(self._changes.values())

    def add(self, kind: ChangeKind, path: str, *, is_directory: bool, source: str | None = None) -> None:
        if self.missed or (kind is ChangeKind.MODIFIED and (ChangeKind.CREATED, path) in self._changes):
            return
        self._changes.pop((kind, path), None)  # the last time counts: a file may come, go, and come again
        self._changes[kind, path] = FileChange(kind=kind, path=path, source=source, is_directory=is_directory)
        self._bytes += len(path) + len(source or "")
        if len(self._changes) > MAX_CHANGES or self._bytes > MAX_CHANGES_BYTES:
            self.miss("too many changes at once")

    def discard(self, kind: ChangeKind, path: str) -> None:
        self._changes.pop((kind, path), None)

    def miss(self, reason: str) -> None:
        self._changes.clear()
        self.missed = self.missed or reason


@dataclass(slots=True, eq=False)
class Directory:
    """One on the way from the workspace's root."""

    above: "Directory | None"
    name: bytes
    watch: int = -1
    below: "dict[bytes, Directory]" = field(default_factory=dict)
    rules: tuple[Pattern, ...] = ()
    is_repository: bool = False
    """Rules of what is above it do not hold in it."""
    excluded: tuple[Pattern, ...] = ()
    """A repository's own ``.git/info/exclude``."""

    def path(self, name: bytes | None = None) -> str:
        names = [] if name is None else [name]
        at: Directory | None = self
        while at is not None:
            names.append(at.name)
            at = at.above
        return decode_path(b"/".join(name for name in reversed(names) if name))

    def ignores(self, name: bytes, *, is_directory: bool) -> bool:
        at: Directory | None = self
        path = name
        while at is not None:
            verdict = decide(at.rules, path, is_directory=is_directory)
            if verdict is not None:
                return verdict
            if at.is_repository:
                return decide(at.excluded, path, is_directory=is_directory) is True
            path = at.name + b"/" + path
            at = at.above
        return False

    def all(self) -> "Iterator[Directory]":
        waiting: list[Directory] = [self]
        while waiting:
            directory = waiting.pop()
            yield directory
            waiting.extend(directory.below.values())


@dataclass(slots=True)
class _Move:
    """The first half of a rename."""

    source: str | None
    """``None``: of a file that was only a means to write another."""
    directory: Directory | None


class WatchedTree:
    def __init__(self, paths: WorkspacePaths, path: str) -> None:
        self._paths = paths
        self._path = path
        self._inotify: Inotify | None = None
        self._base_fd = -1
        self.base = Directory(None, b"")
        """The directory that is watched; those above it are not."""
        self._directories: dict[int, Directory] = {}
        self._way: dict[int, bytes] = {}
        """Watches of the directories above the base, each with the name that leads on."""
        self._moves: dict[int, _Move] = {}
        self._stale = False
        """Whether what is watched may not be what should be."""
        self.gone = False

    @property
    def fd(self) -> int:
        return self._events.fd

    @property
    def _events(self) -> Inotify:
        assert self._inotify is not None
        return self._inotify

    def open(self, stop: Stop) -> None:
        """Raises: NotFound, NotADirectory, PathRefused, LimitExceeded, Stopped."""
        self._base_fd, where = self._paths.open_directory(self._path)
        try:
            self._inotify = Inotify()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise LimitExceeded(
                    "The host has no inotify instances left: one is needed for each watch.",
                    mend="End other watches, or raise it on the host: sysctl fs.inotify.max_user_instances=1024.",
                ) from error
            raise
        self._follow_way([] if where == "." else os.fsencode(where).split(b"/"))
        self._scan(self.base, stop, None)

    def close(self) -> None:
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None
        if self._base_fd >= 0:
            os.close(self._base_fd)
            self._base_fd = -1

    def collect(self, batch: Batch, stop: Stop) -> None:
        """What has happened until now, or much of it."""
        for _ in range(READS_AT_ONCE):
            stop.check()
            read = False
            for event in self._events.read():
                read = True
                self._take(event, batch, stop)
            if not read:
                break
        self._settle()
        if self._stale and not self.gone:
            self._scan_again(stop)

    def start_over(self, stop: Stop) -> None:
        """Forget what has happened, and look what is there now."""
        for _ in range(READS_AT_ONCE):
            read = False
            for event in self._events.read():
                read = True
                self._notice_end(event)
            if not read:
                break
        self._moves.clear()
        if not self.gone:
            self._scan_again(stop)

    # Events

    def _take(self, event: Event, batch: Batch, stop: Stop) -> None:
        if event.mask & inotify.OVERFLOW:
            self._stale = True
            batch.miss("too many changes at once")
            return
        self._notice_end(event)
        directory = self._directories.get(event.watch)
        if directory is None:
            return
        if event.mask & inotify.IGNORED:
            self._drop(directory)
        elif event.name == b".git":
            if event.mask & (_COMES | _GOES):
                self._change_rules(batch)
        elif is_temporary_name(event.name):
            if event.mask & inotify.MOVED_FROM:
                self._moves[event.cookie] = _Move(None, None)
        elif event.name == b".gitignore":
            self._change_rules(batch)
        elif _UNNAMED.fullmatch(event.name) and event.mask & _CONTENT and not self._is_there(directory, event.name):
            pass  # content of a file that has no name yet, or got another
        elif not directory.ignores(event.name, is_directory=event.is_directory):
            self._tell(event, directory, batch, stop)

    def _notice_end(self, event: Event) -> None:
        if event.mask & _GOES and self._way.get(event.watch) == event.name:
            self.gone = True
        if event.mask & inotify.IGNORED and event.watch == self.base.watch:
            self.gone = True

    def _change_rules(self, batch: Batch) -> None:
        self._stale = True
        batch.miss("what is ignored has changed")

    def _tell(self, event: Event, directory: Directory, batch: Batch, stop: Stop) -> None:
        path, is_directory = directory.path(event.name), event.is_directory
        if event.mask & _GOES:
            batch.add(ChangeKind.DELETED, path, is_directory=is_directory)
            child = directory.below.pop(event.name, None)
            if event.mask & inotify.MOVED_FROM:
                self._moves[event.cookie] = _Move(path, child)
            return
        move = self._moves.pop(event.cookie, None) if event.mask & inotify.MOVED_TO else None
        if event.mask & _CONTENT or (move is not None and move.source is None):
            batch.add(ChangeKind.MODIFIED, path, is_directory=is_directory)
            child = directory.below.get(event.name)
            if is_directory and (child is None or child.watch < 0):  # it may be readable now
                self._enter(directory, event.name, stop, batch)
            return
        if move is None:
            batch.add(ChangeKind.CREATED, path, is_directory=is_directory)
        else:
            assert move.source is not None
            batch.discard(ChangeKind.DELETED, move.source)
            batch.add(ChangeKind.RENAMED, path, source=move.source, is_directory=is_directory)
        if is_directory:
            self._enter(directory, event.name, stop, batch if move is None else None)
            if move is not None and move.directory is not None:
                self._forget(move.directory)

    def _settle(self) -> None:
        """What was moved and has not come anywhere has left."""
        for move in self._moves.values():
            if move.directory is not None:
                self._forget(move.directory)
        self._moves.clear()

    # What is watched

    def _drop(self, directory: Directory) -> None:
        del self._directories[directory.watch]
        above = directory.above
        if above is not None and above.below.get(directory.name) is directory:
            del above.below[directory.name]

    def _forget(self, top: Directory) -> None:
        """Of a subtree what nobody else has taken over."""
        for directory in top.all():
            if self._directories.get(directory.watch) is directory:
                del self._directories[directory.watch]
                self._events.forget(directory.watch)

    def _enter(self, above: Directory, name: bytes, stop: Stop, batch: Batch | None) -> None:
        directory = above.below[name] = Directory(above, name)
        self._scan(directory, stop, batch)

    def _scan_again(self, stop: Stop) -> None:
        self._stale = False
        old = self._directories
        self._directories = {}
        self.base.below.clear()
        self._scan(self.base, stop, None)
        for watch in old.keys() - self._directories.keys():
            self._events.forget(watch)

    def _scan(self, top: Directory, stop: Stop, batch: Batch | None) -> None:
        """Watch ``top`` and all below it; what is found goes to ``batch``. What is gone meanwhile tells so by itself."""
        descent = Descent(os.dup(self._base_fd))
        try:
            for name in self._names_to(top):
                descent.enter(name)
            levels = [self._look(top, descent, batch)]
            while levels:
                stop.check()
                if not levels[-1]:
                    levels.pop()
                    if levels:
                        descent.leave()
                    continue
                directory = levels[-1].pop()
                with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
                    descent.enter(directory.name)
                    levels.append(self._look(directory, descent, batch))
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return
        finally:
            descent.close()

    def _is_there(self, directory: Directory, name: bytes) -> bool:
        descent = Descent(os.dup(self._base_fd))
        try:
            for above in self._names_to(directory):
                descent.enter(above)
            os.stat(name, dir_fd=descent.fd, follow_symlinks=False)
        except OSError:
            return False
        else:
            return True
        finally:
            descent.close()

    def _names_to(self, directory: Directory) -> list[bytes]:
        names: list[bytes] = []
        while directory is not self.base:
            names.append(directory.name)
            assert directory.above is not None
            directory = directory.above
        return names[::-1]

    def _look(self, directory: Directory, descent: Descent, batch: Batch | None) -> list[Directory]:
        """Watch one directory, then see what is in it, so that nothing comes in between. Gives those to go on with."""
        if len(self._directories) >= MAX_DIRECTORIES:
            raise LimitExceeded(f"More than {MAX_DIRECTORIES} directories cannot be watched.", mend="Watch a part.")
        directory.watch = self._add_watch(descent.fd, _WATCHED)
        self._directories[directory.watch] = directory
        entries = _entries(descent.fd)
        _read_rules(directory, descent, has_git=any(name == b".git" for name, _ in entries))
        found: list[Directory] = []
        for name, is_directory in entries:
            if name == b".git" or is_temporary_name(name) or directory.ignores(name, is_directory=is_directory):
                continue
            if batch is not None:
                batch.add(ChangeKind.CREATED, directory.path(name), is_directory=is_directory)
            if is_directory:
                child = directory.below[name] = Directory(directory, name)
                found.append(child)
        return found

    def _add_watch(self, fd: int, mask: int) -> int:
        try:
            return self._events.watch(fd, mask)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise LimitExceeded(
                    "The host has no inotify watches left: one is needed for each directory.",
                    mend="Raise it on the host: sysctl fs.inotify.max_user_watches=1048576.",
                ) from error
            raise

    def _follow_way(self, names: list[bytes]) -> None:
        """From the root to the base: rules that hold in it, and watches that tell when it is gone."""
        descent = Descent(self._paths.open_root())
        try:
            for name in names:
                self._way[self._add_watch(descent.fd, _GOES)] = name
                _read_rules(self.base, descent, has_git=any(found == b".git" for found, _ in _entries(descent.fd)))
                descent.enter(name)
                self.base = Directory(self.base, name)
        finally:
            descent.close()


def _entries(directory: int) -> list[tuple[bytes, bool]]:
    """Each name, and whether it is a directory."""
    readable = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
    try:
        with os.scandir(readable) as entries:
            return [(os.fsencode(entry.name), entry.is_dir(follow_symlinks=False)) for entry in entries]
    finally:
        os.close(readable)


def _read_rules(directory: Directory, descent: Descent, *, has_git: bool) -> None:
    directory.rules = _read_patterns(descent.fd, b".gitignore")
    directory.is_repository = has_git
    directory.excluded = ()
    if has_git:  # where it is a file, the repository is elsewhere, and so is what it excludes
        depth = len(descent.names)
        try:
            for name in (b".git", b"info"):
                descent.enter(name)
            directory.excluded = _read_patterns(descent.fd, b"exclude")
        except OSError:
            pass  # there is none
        while len(descent.names) > depth:
            descent.leave()


def _read_patterns(directory: int, name: bytes) -> tuple[Pattern, ...]:
    """As git: not through a link. What cannot be read says nothing."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, dir_fd=directory)
    except OSError:
        return ()
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_size > MAX_RULES_BYTES:
            return ()
        return parse_patterns(os.read(fd, MAX_RULES_BYTES))
    except OSError:
        return ()
    finally:
        os.close(fd)
