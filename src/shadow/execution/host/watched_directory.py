"""What a watch knows of one directory: where it is, what is ignored in it. Read by descriptor, never through a link."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field

from shadow.execution.host.ignoring import Pattern, decide, parse_patterns
from shadow.execution.host.paths import Descent, decode_path

MAX_RULES_BYTES = 256 * 1024
"""A larger file of rules is not obeyed: too much is told then, not too little."""


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

    disturbed: bool = False
    """Whether something happened in it while it was nowhere."""

    @property
    def top(self) -> "Directory":
        """The root of the workspace; of what was moved or deleted, that."""
        at = self
        while at.above is not None:
            at = at.above
        return at

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


def entries_of(directory: int) -> list[tuple[bytes, bool]]:
    """Each name, and whether it is a directory."""
    readable = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
    try:
        with os.scandir(readable) as entries:
            return [(os.fsencode(entry.name), entry.is_dir(follow_symlinks=False)) for entry in entries]
    finally:
        os.close(readable)


def read_rules(directory: Directory, descent: Descent, *, has_git: bool) -> None:
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
