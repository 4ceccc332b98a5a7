"""Git as values: where HEAD is, what differs, what was committed; and what may be a branch, a person, a message."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from shadow.core.errors import Rejected
from shadow.core.ids import is_id

DEFAULT_GIT_TIMEOUT_S = 60.0
MAX_GIT_TIMEOUT_S = 3600.0
DEFAULT_GIT_LIMIT = 10_000
MAX_GIT_LIMIT = 100_000
DEFAULT_DIFF_LIMIT_BYTES = 1024 * 1024
MAX_DIFF_LIMIT_BYTES = 16 * 1024 * 1024
MAX_CONTEXT_LINES = 1_000_000
MAX_REVISION_CHARS = 4096
MAX_BRANCH_BYTES = 1000
MAX_BRANCH_PART_BYTES = 250  # with ".lock" a file name
MAX_MESSAGE_BYTES = 1024 * 1024
MAX_PEOPLE = 100
MAX_PERSON_CHARS = 500
MAX_COMMIT_PATHS = 100_000
MAX_CHECKPOINT_NAMES = 1000


class ChangeKind(StrEnum):
    ADDED = "added"
    MODIFIED = "modified"
    DELETED = "deleted"
    RENAMED = "renamed"
    COPIED = "copied"
    TYPE_CHANGED = "type_changed"
    """A file became a symlink, or the like."""
    UNMERGED = "unmerged"
    """A merge left it in conflict."""
    UNTRACKED = "untracked"


class GitProgress(StrEnum):
    """What git was told to do and has not ended."""

    MERGE = "merge"
    REBASE = "rebase"
    CHERRY_PICK = "cherry_pick"
    REVERT = "revert"
    APPLY = "apply"
    """``git am``."""
    BISECT = "bisect"


@dataclass(frozen=True, slots=True, kw_only=True)
class GitPerson:
    name: str
    email: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GitHead:
    branch: str | None
    """``None``: detached."""
    commit: str | None
    """``None``: the branch is unborn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GitCheckpoint:
    """Where HEAD was, and a commit that holds the whole work tree, ignored files apart."""

    name: str
    branch: str | None
    """``None``: detached."""
    head: str | None
    """The commit of HEAD; ``None``: the branch was unborn."""
    commit: str
    """Below ``refs/shadow/checkpoints/``; its one parent, where there is one, is ``head``."""
    tree: str | None = None
    """Of ``commit``: the same for the same files. Whoever goes back need not know it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GitStatusEntry:
    path: str
    """Ends in ``/`` where it is an untracked repository."""
    old_path: str | None
    index: ChangeKind | None
    """What the index has against HEAD."""
    work_tree: ChangeKind | None
    """What the work tree has against the index."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GitStatus:
    root: str
    """The work tree, relative to the workspace's root."""
    head: GitHead
    upstream: str | None
    ahead: int | None
    """Commits that the upstream lacks; ``None`` where there is no upstream to compare with."""
    behind: int | None
    in_progress: GitProgress | None
    entries: tuple[GitStatusEntry, ...]
    truncated: bool
    """Whether there are more entries than were asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GitDiff:
    content: bytes
    base: str | None
    """The commit that was compared with; ``None``: the index, or nothing on an unborn branch."""
    truncated: bool
    """Whether ``content`` stopped at the limit of bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GitFileChange:
    path: str
    old_path: str | None
    """Where a renamed or copied file was."""
    kind: ChangeKind
    """An untracked file is ``added``."""
    added: int | None
    """Lines; ``None`` where the file is binary or unmerged."""
    removed: int | None
    binary: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class GitFileChanges:
    changes: tuple[GitFileChange, ...]
    base: str | None
    """The commit that was compared with; ``None``: nothing, on an unborn branch."""
    truncated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class GitCommit:
    """Times are seconds since 1970, as the commit claims them."""

    id: str
    parents: tuple[str, ...]
    author: GitPerson
    authored_at: int
    committer: GitPerson
    committed_at: int
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GitLog:
    commits: tuple[GitCommit, ...]
    truncated: bool
    """Whether there are more; ask again with ``skip``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GitBranch:
    name: str
    """Without ``refs/heads/`` or ``refs/remotes/``."""
    remote: bool
    commit: str
    upstream: str | None
    """The full name of the ref that a local branch follows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GitBranches:
    head: GitHead
    branches: tuple[GitBranch, ...]
    truncated: bool


_COMMIT_ID = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_NOT_IN_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//")
_TRAILER = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*: ?\S")
_CRUD = "".join(map(chr, range(33))) + ".,:;<>\"\\'"
"""What git takes off both ends of a name."""


def is_commit_id(text: str) -> bool:
    return _COMMIT_ID.fullmatch(text) is not None


def is_branch_name(name: str) -> bool:
    """As ``git check-ref-format --branch``, without its expansions; and short enough for a file system."""
    if (
        _NOT_IN_REF.search(name)
        or name in ("", "@", "HEAD")
        or name.startswith(("-", "/"))
        or name.endswith(("/", "."))
    ):
        return False
    if any(part.startswith(".") or part.endswith(".lock") for part in name.split("/")):
        return False
    try:
        raw = name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return len(raw) <= MAX_BRANCH_BYTES and all(len(part) <= MAX_BRANCH_PART_BYTES for part in raw.split(b"/"))


def check_branch_name(name: str) -> None:
    """Raises: Rejected."""
    if not is_branch_name(name):
        raise Rejected(
            f"{name[:200]!a} cannot be the name of a branch.",
            mend="Leave out spaces, control characters, '~^:?*[\\', '..', '@{', and dots, slashes or dashes at the edges.",
        )


def check_checkpoint_names(names: Sequence[str]) -> None:
    """Raises: Rejected."""
    if len(names) > MAX_CHECKPOINT_NAMES:
        raise Rejected(f"At most {MAX_CHECKPOINT_NAMES} checkpoints can be named at once.")
    for name in names:
        # git keeps "….lock" for itself; no id has a dot.
        if not is_id(name):
            raise Rejected(
                f"{name[:200]!a} cannot be the name of a checkpoint.",
                mend="Take up to 64 lower-case letters, digits, '-' and '_', a letter or digit first.",
            )


def check_checkpoint(checkpoint: GitCheckpoint) -> None:
    """Raises: Rejected: no checkpoint can say so."""
    check_checkpoint_names([checkpoint.name])
    if checkpoint.branch is not None:
        check_branch_name(checkpoint.branch)
    commits = [c for c in (checkpoint.head, checkpoint.commit, checkpoint.tree) if c is not None]
    if not all(map(is_commit_id, commits)) or len({len(commit) for commit in commits}) != 1:
        raise Rejected("A checkpoint names its commits by whole ids.")
    if checkpoint.branch is None and checkpoint.head is None:
        raise Rejected("A checkpoint whose HEAD is nowhere cannot be restored.")


def is_revision(text: str) -> bool:
    """Whether git could be asked for it: no option, nothing that no argument can hold."""
    if not text or text.startswith("-") or "\0" in text or len(text) > MAX_REVISION_CHARS:
        return False
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def check_person(person: GitPerson) -> None:
    """Raises: Rejected: for whom git could not write down as they are."""
    for text in (person.name, person.email):
        if len(text) > MAX_PERSON_CHARS or any(c in "<>\0\r\n" for c in text) or not _is_unicode(text):
            raise Rejected(f"{text[:100]!a} cannot be part of a person's name and address.")
        if not text.strip(_CRUD):
            raise Rejected("A person needs a name and an address.")


def full_message(message: str, co_authors: Sequence[GitPerson]) -> bytes:
    """The message with a trailer for each co-author and a line end. Raises: Rejected."""
    if not message.strip():
        raise Rejected("The commit message is empty.")
    if "\0" in message or not _is_unicode(message):
        raise Rejected("A commit message must be Unicode without NUL characters.")
    if len(co_authors) > MAX_PEOPLE:
        raise Rejected(f"A commit takes at most {MAX_PEOPLE} co-authors.")
    for person in co_authors:
        check_person(person)
    text = message if message.endswith("\n") else message + "\n"
    if co_authors:
        trailers = "".join(f"Co-authored-by: {person.name} <{person.email}>\n" for person in co_authors)
        text += trailers if _ends_in_trailers(text) else f"\n{trailers}"
    raw = text.encode()
    if len(raw) > MAX_MESSAGE_BYTES:
        raise Rejected(f"The commit message is longer than {MAX_MESSAGE_BYTES} bytes.")
    return raw


def _ends_in_trailers(text: str) -> bool:
    lines = text.splitlines()
    last = lines[max((index for index, line in enumerate(lines) if not line.strip()), default=-1) + 1 :]
    return len(last) < len(lines) and bool(last) and all(_TRAILER.match(line) for line in last)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_bounds(
    *, limit: int = 1, skip: int = 0, limit_bytes: int = 1, context_lines: int = 0, timeout_s: float
) -> None:
    """Raises: Rejected."""
    for name, value, least, most in (
        ("limit", limit, 1, MAX_GIT_LIMIT),
        ("skip", skip, 0, 2**31 - 1),
        ("limit_bytes", limit_bytes, 1, MAX_DIFF_LIMIT_BYTES),
        ("context_lines", context_lines, 0, MAX_CONTEXT_LINES),
    ):
        if not least <= value <= most:
            raise Rejected(f"{name} must lie between {least} and {most}, not {value}.")
    if not 0 < timeout_s <= MAX_GIT_TIMEOUT_S:
        raise Rejected(f"timeout_s must be above 0 and at most {MAX_GIT_TIMEOUT_S:.0f}, not {timeout_s}.")
