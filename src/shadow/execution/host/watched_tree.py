"""A directory and everything below that is not ignored, under inotify: what its events mean, as changes of paths.

By descriptor, and never through a link. All methods of ``WatchedTree`` block and belong to one caller at a time.
"""

import errno
import os
import re
from contextlib import suppress
from dataclasses import dataclass

from shadow.core.errors import LimitExceeded
from shadow.core.watching import ChangeKind
from shadow.execution.host import inotify
from shadow.execution.host.change_batch import Batch, Key
from shadow.execution.host.inotify import Event, Inotify
from shadow.execution.host.paths import Descent, WorkspacePaths
from shadow.execution.host.threads import Stop
from shadow.execution.host.watched_directory import Directory, entries_of, read_rules
from shadow.execution.host.writing import is_temporary_name

MAX_DIRECTORIES = 100_000
READS_AT_ONCE = 64

_UNNAMED = re.compile(rb"#[0-9]+")
"""What the kernel calls a file that was opened with O_TMPFILE."""
_CONTENT = inotify.MODIFY | inotify.ATTRIB | inotify.CLOSE_WRITE
_COMES = inotify.CREATE | inotify.MOVED_TO
_GOES = inotify.DELETE | inotify.MOVED_FROM
_WATCHED = _CONTENT | _COMES | _GOES


@dataclass(slots=True)
class _Move:
    """The first half of a rename."""

    left: Key | None
    """``None``: of a file that was only a means to write another."""
    directory: Directory | None


class _Confused(Exception):
    """Names are looked up later than what is told of them happened: they may stand for something else by then."""


class WatchedTree:
    def __init__(self, paths: WorkspacePaths, path: str) -> None:
        self._paths = paths
        self._path = path
        self._inotify: Inotify | None = None
        self._base_fd = -1
        self.base = Directory(None, b"")
        """The directory that is watched; those above it are not."""
        self._root = self.base
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
        if self._stale:
            self.start_over(stop)

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
        elif (top := directory.top) is not self._root:
            top.disturbed = True
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
            child = directory.below.pop(event.name, None)
            if child is not None:
                child.above = None
            if event.mask & inotify.MOVED_FROM:
                left = batch.leave(path, event.cookie, is_directory=is_directory)
                self._moves[event.cookie] = _Move(left, child)
            else:
                batch.add(ChangeKind.DELETED, path, is_directory=is_directory)
            return
        move = self._moves.pop(event.cookie, None) if event.mask & inotify.MOVED_TO else None
        if event.mask & _CONTENT or (move is not None and move.left is None):
            batch.add(ChangeKind.MODIFIED, path, is_directory=is_directory)
            child = directory.below.get(event.name)
            if is_directory and (child is None or child.watch < 0):  # it may be readable now
                self._enter(directory, event.name, stop, batch)
            return
        if move is None:
            batch.add(ChangeKind.CREATED, path, is_directory=is_directory)
        else:
            assert move.left is not None
            batch.arrive(move.left, path, is_directory=is_directory)
            if move.directory is not None:
                self._attach(move.directory, directory, event.name, batch)
        if is_directory:
            self._enter(directory, event.name, stop, batch, again=move is not None)

    def _settle(self) -> None:
        """What was moved and has not come anywhere has left."""
        for move in self._moves.values():
            if move.directory is not None:
                self._forget(move.directory)
        self._moves.clear()

    # What is watched

    def _drop(self, directory: Directory) -> None:
        """Its watch is gone."""
        del self._directories[directory.watch]
        directory.watch = -1
        _detach(directory)

    def _forget(self, top: Directory) -> None:
        for directory in top.all():
            if self._directories.pop(directory.watch, None) is not None:
                self._events.forget(directory.watch)
                directory.watch = -1

    def _enter(self, above: Directory, name: bytes, stop: Stop, batch: Batch, *, again: bool = False) -> None:
        """Watch a directory that has come to be called so; with ``again`` also look through what is watched already."""
        directory = above.below.get(name)
        if directory is None:
            directory = above.below[name] = Directory(above, name)
        try:
            self._scan(directory, stop, batch, again=again)
        except _Confused:
            self._lose_track(batch)

    def _attach(self, directory: Directory, above: Directory, name: bytes, batch: Batch) -> None:
        directory.above, directory.name = above, name
        above.below[name] = directory
        if directory.disturbed:
            self._lose_track(batch)

    def _lose_track(self, batch: Batch) -> None:
        self._stale = True
        batch.miss("directories were moved faster than they could be followed")

    def _scan_again(self, stop: Stop) -> None:
        self._stale = False
        old = self._directories
        self._directories = {}
        self.base.below.clear()
        self.base.watch = -1
        self._scan(self.base, stop, None)
        for watch in old.keys() - self._directories.keys():
            self._events.forget(watch)

    def _scan(self, top: Directory, stop: Stop, batch: Batch | None, *, again: bool = False) -> None:
        """Watch ``top`` and all below it. What is in directories that were not watched before goes to ``batch``.

        What is gone meanwhile tells so by itself. Raises: _Confused.
        """
        descent = Descent(os.dup(self._base_fd))
        try:
            for name in self._names_to(top):
                descent.enter(name)
            levels = [self._look(top, descent, batch, again=again)]
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
                    levels.append([])  # so that it is left again, whatever comes of it
                    levels[-1] = self._look(directory, descent, batch, again=again)
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

    def _look(self, directory: Directory, descent: Descent, batch: Batch | None, *, again: bool) -> list[Directory]:
        """Watch one directory, then see what is in it, so that nothing comes in between. Gives those to go on with."""
        new = self._watch(directory, descent.fd, takes_over=batch is None)
        if not (new or again):
            return []
        entries = entries_of(descent.fd)
        read_rules(directory, descent, has_git=any(name == b".git" for name, _ in entries))
        found: list[Directory] = []
        for name, is_directory in entries:
            child = directory.below.get(name)
            if name == b".git" or is_temporary_name(name) or directory.ignores(name, is_directory=is_directory):
                if child is not None:  # since it was renamed
                    self._forget(directory.below.pop(name))
                continue
            if batch is not None and (new or (is_directory and child is None)):
                batch.add(ChangeKind.CREATED, directory.path(name), is_directory=is_directory)
            if is_directory:
                if child is None:
                    child = directory.below[name] = Directory(directory, name)
                found.append(child)
        return found

    def _watch(self, directory: Directory, fd: int, *, takes_over: bool) -> bool:
        """Whether it was not watched before.

        Raises: _Confused: what is called so by now is not what the events that have been read so far speak of.
        """
        if len(self._directories) >= MAX_DIRECTORIES:
            raise LimitExceeded(f"More than {MAX_DIRECTORIES} directories cannot be watched.", mend="Watch a part.")
        watch = self._add_watch(fd, _WATCHED)
        known = self._directories.get(watch)
        if known is directory:
            return False
        if known is None and directory.watch >= 0:
            self._events.forget(watch)
            raise _Confused
        if known is not None:
            if not takes_over:
                raise _Confused
            _detach(known)
        directory.watch = watch
        self._directories[watch] = directory
        return True

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
                read_rules(self.base, descent, has_git=any(found == b".git" for found, _ in entries_of(descent.fd)))
                descent.enter(name)
                self.base = Directory(self.base, name)
        finally:
            descent.close()


def _detach(directory: Directory) -> None:
    above = directory.above
    if above is not None and above.below.get(directory.name) is directory:
        del above.below[directory.name]
