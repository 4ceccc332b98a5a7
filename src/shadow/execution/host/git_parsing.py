"""What git's machine-readable output says: pure functions from bytes to values. Paths become relative to the workspace's root.

Whatever does not have the expected shape raises ``GitOutputError``: it is of a git that we do not know, or was cut.
"""

import os
import re
from collections.abc import Iterator

from shadow.core.git import (
    ChangeKind,
    GitBranch,
    GitCommit,
    GitFileChange,
    GitPerson,
    GitStatusEntry,
    is_commit_id,
)

LOG_FORMAT = "%H%x00%P%x00%an%x00%ae%x00%at%x00%cn%x00%ce%x00%ct%x00%B%x00"
_LOG_FIELDS = 9
BRANCH_FORMAT = "%(refname)%00%(objectname)%00%(upstream)%00%(symref)"
_LOCAL, _REMOTE = "refs/heads/", "refs/remotes/"

_KINDS = {
    "A": ChangeKind.ADDED,
    "M": ChangeKind.MODIFIED,
    "D": ChangeKind.DELETED,
    "R": ChangeKind.RENAMED,
    "C": ChangeKind.COPIED,
    "T": ChangeKind.TYPE_CHANGED,
    "U": ChangeKind.UNMERGED,
}
_RAW = re.compile(rb":[0-7]{6} [0-7]{6} [0-9a-f.]+ [0-9a-f.]+ ([A-Z])\d*")
_STAT = re.compile(rb"(\d+|-)\t(\d+|-)\t(.*)", re.DOTALL)


class GitOutputError(ValueError):
    """Not what git prints."""


class Prefix:
    """Makes paths of a work tree relative to the workspace's root."""

    def __init__(self, root: str) -> None:
        self._before = "" if root == "." else f"{root}/"

    def path(self, raw: bytes) -> str:
        return self._before + text(raw)


def text(raw: bytes) -> str:
    return os.fsdecode(raw)


def kind(letter: str) -> ChangeKind | None:
    if letter == ".":
        return None
    try:
        return _KINDS[letter]
    except KeyError:
        raise GitOutputError(f"{letter!r} is no kind of change") from None


def fields_of(output: bytes) -> Iterator[bytes]:
    """NUL-terminated pieces; what a cut left at the end is dropped."""
    return iter(output.split(b"\0")[:-1])


class StatusReader:
    """``git status --porcelain=v2 --branch -z``."""

    def __init__(self, output: bytes, prefix: Prefix, *, limit: int) -> None:
        """Of an output that was cut, what is whole."""
        self.upstream: str | None = None
        self.ahead: int | None = None
        self.behind: int | None = None
        self.entries: list[GitStatusEntry] = []
        self.more = False
        pieces = fields_of(output)
        for piece in pieces:
            if piece.startswith(b"# "):
                self._header(piece)
            elif len(self.entries) == limit:
                self.more = True
                return
            else:
                entry = _status_entry(piece, pieces, prefix)
                if entry is not None:
                    self.entries.append(entry)

    def _header(self, piece: bytes) -> None:
        name, _, value = piece[2:].partition(b" ")
        if name == b"branch.upstream":
            self.upstream = text(value)
        elif name == b"branch.ab":
            match = re.fullmatch(rb"\+(\d+) -(\d+)", value)
            if match is not None:
                self.ahead, self.behind = int(match[1]), int(match[2])


def _status_entry(piece: bytes, pieces: Iterator[bytes], prefix: Prefix) -> GitStatusEntry | None:
    count = {b"1 ": 8, b"2 ": 9, b"u ": 10, b"? ": 1}.get(piece[:2])
    if count is None:
        raise GitOutputError(f"a status line {piece[:2]!r}")
    parts = piece.split(b" ", count)
    if len(parts) != count + 1:
        raise GitOutputError("a short status line")
    path, old_path = prefix.path(parts[-1]), None
    if piece[:1] == b"?":
        return GitStatusEntry(path=path, old_path=None, index=None, work_tree=ChangeKind.UNTRACKED)
    if piece[:1] == b"u":
        return GitStatusEntry(path=path, old_path=None, index=ChangeKind.UNMERGED, work_tree=ChangeKind.UNMERGED)
    if piece[:1] == b"2":
        old = next(pieces, None)
        if old is None:
            return None
        old_path = prefix.path(old)
    index, work_tree = parts[1].decode("ascii", "replace")
    return GitStatusEntry(path=path, old_path=old_path, index=kind(index), work_tree=kind(work_tree))


def _next(pieces: Iterator[bytes]) -> bytes:
    piece = next(pieces, None)
    if piece is None:
        raise GitOutputError("a path is missing")
    return piece


def file_changes(output: bytes, prefix: Prefix) -> list[GitFileChange]:
    """``git diff --raw --numstat -z``: first all that changed, then the counts, sorted by path."""
    changed: dict[bytes, tuple[ChangeKind, bytes | None]] = {}
    counts: dict[bytes, tuple[int | None, int | None]] = {}
    pieces = fields_of(output)
    for piece in pieces:
        raw = _RAW.fullmatch(piece)
        if raw is not None:
            what = kind(raw[1].decode())
            assert what is not None
            old = _next(pieces) if what in (ChangeKind.RENAMED, ChangeKind.COPIED) else None
            path = _next(pieces)
            # An unmerged file comes twice: as such, and by what its file in the work tree holds.
            if path not in changed:
                changed[path] = (what, old)
            continue
        stat = _STAT.fullmatch(piece)
        if stat is None:
            raise GitOutputError(f"a line of a diff {piece[:40]!r}")
        path = stat[3]
        if not path:
            _next(pieces)
            path = _next(pieces)
        binary = stat[1] == b"-"
        counts[path] = (None, None) if binary else (int(stat[1]), int(stat[2]))
    return [
        _file_change(path, what, old, counts.get(path), prefix)
        for path, (what, old) in sorted(changed.items(), key=lambda item: item[0])
    ]


def _file_change(
    path: bytes, what: ChangeKind, old: bytes | None, count: tuple[int | None, int | None] | None, prefix: Prefix
) -> GitFileChange:
    unmerged = what is ChangeKind.UNMERGED
    added, removed = (None, None) if unmerged or count is None else count
    return GitFileChange(
        path=prefix.path(path),
        old_path=prefix.path(old) if old is not None else None,
        kind=what,
        added=added,
        removed=removed,
        binary=not unmerged and count == (None, None),
    )


def commits(output: bytes) -> list[GitCommit]:
    """``git log -z --format=LOG_FORMAT``; what a cut left of the last one is dropped."""
    pieces = output.split(b"\0")[:-1]
    step = _LOG_FIELDS + 1  # and the empty one between the last field's end and the record's
    found: list[GitCommit] = []
    for start in range(0, len(pieces) - _LOG_FIELDS + 1, step):
        id_, parents, name, email, at, committer, committer_email, committed_at, message = pieces[
            start : start + _LOG_FIELDS
        ]
        if not is_commit_id(text(id_)):
            raise GitOutputError("a commit without an id")
        found.append(
            GitCommit(
                id=text(id_),
                parents=tuple(text(parents).split()),
                author=GitPerson(name=text(name), email=text(email)),
                authored_at=_time(at),
                committer=GitPerson(name=text(committer), email=text(committer_email)),
                committed_at=_time(committed_at),
                message=text(message),
            )
        )
    return found


def _time(raw: bytes) -> int:
    """A commit may claim any time, or none that is one."""
    if not re.fullmatch(rb"-?\d{1,19}", raw):
        return 0
    return max(-(2**63), min(2**63 - 1, int(raw)))


def branches(output: bytes) -> list[GitBranch]:
    """``git for-each-ref --format=BRANCH_FORMAT refs/heads refs/remotes``, without ``origin/HEAD`` and its like."""
    found: list[GitBranch] = []
    for line in output.split(b"\n")[:-1]:
        parts = line.split(b"\0")
        if len(parts) != 4:
            raise GitOutputError("a branch of another shape")
        ref, commit, upstream, symref = map(text, parts)
        if symref or not is_commit_id(commit):
            continue
        remote = ref.startswith(_REMOTE)
        name = ref.removeprefix(_REMOTE if remote else _LOCAL)
        found.append(GitBranch(name=name, remote=remote, commit=commit, upstream=upstream or None))
    return found
