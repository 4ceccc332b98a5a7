"""Git on the wire."""

from typing import Annotated

from pydantic import Field

from shadow.core.git import (
    DEFAULT_DIFF_LIMIT_BYTES,
    DEFAULT_GIT_LIMIT,
    DEFAULT_GIT_TIMEOUT_S,
    ChangeKind,
    GitBranch,
    GitBranches,
    GitCheckpoint,
    GitCommit,
    GitDiff,
    GitFileChange,
    GitFileChanges,
    GitHead,
    GitLog,
    GitPerson,
    GitProgress,
    GitStatus,
    GitStatusEntry,
)
from shadow.wire.message import LARGE_BODY_BYTES, Message
from shadow.wire.values import FsPath, Items, OsText, TextBytes

CommitId = Annotated[str, Field(pattern=r"^(?:[0-9a-f]{40}|[0-9a-f]{64})$")]
Count = Annotated[int, Field(ge=0, lt=2**63)]
Seconds = Annotated[int, Field(ge=-(2**63), lt=2**63)]


class GitPersonMessage(Message, core=GitPerson):
    name: OsText
    email: OsText


class GitHeadMessage(Message, core=GitHead):
    branch: OsText | None
    commit: CommitId | None


class GitCheckpointMessage(Message, core=GitCheckpoint):
    name: OsText
    branch: OsText | None
    head: CommitId | None
    commit: CommitId
    tree: CommitId | None = None


class GitStatusEntryMessage(Message, core=GitStatusEntry):
    path: FsPath
    old_path: FsPath | None
    index: ChangeKind | None
    work_tree: ChangeKind | None


class GitStatusMessage(Message, core=GitStatus):
    root: FsPath
    head: GitHeadMessage
    upstream: OsText | None
    ahead: Count | None
    behind: Count | None
    in_progress: GitProgress | None
    entries: Items[GitStatusEntryMessage]
    truncated: bool


class GitDiffMessage(Message, core=GitDiff):
    content: TextBytes
    base: CommitId | None
    truncated: bool


class GitFileChangeMessage(Message, core=GitFileChange):
    path: FsPath
    old_path: FsPath | None
    kind: ChangeKind
    added: Count | None
    removed: Count | None
    binary: bool


class GitFileChangesMessage(Message, core=GitFileChanges):
    changes: Items[GitFileChangeMessage]
    base: CommitId | None
    truncated: bool


class GitCommitMessage(Message, core=GitCommit):
    id: CommitId
    parents: Items[CommitId]
    author: GitPersonMessage
    authored_at: Seconds
    committer: GitPersonMessage
    committed_at: Seconds
    message: OsText


class GitLogMessage(Message, core=GitLog):
    commits: Items[GitCommitMessage]
    truncated: bool


class GitBranchMessage(Message, core=GitBranch):
    name: OsText
    remote: bool
    commit: CommitId
    upstream: OsText | None


class GitBranchesMessage(Message, core=GitBranches):
    head: GitHeadMessage
    branches: Items[GitBranchMessage]
    truncated: bool


class GitRequest(Message):
    """What every request about a repository says."""

    repository: FsPath = "."
    timeout_s: float = DEFAULT_GIT_TIMEOUT_S


class GitStatusRequest(GitRequest):
    limit: int = DEFAULT_GIT_LIMIT


class GitDiffRequest(GitRequest, body_limit_bytes=LARGE_BODY_BYTES):
    base: OsText | None = "HEAD"
    merge_base: bool = False
    paths: Items[FsPath] = ()
    context_lines: int = 3
    limit_bytes: int = DEFAULT_DIFF_LIMIT_BYTES


class GitFileChangesRequest(GitRequest):
    base: OsText = "HEAD"
    merge_base: bool = False
    limit: int = DEFAULT_GIT_LIMIT


class GitLogRequest(GitRequest):
    revision: OsText = "HEAD"
    exclude: OsText | None = None
    skip: int = 0
    limit: int = 50


class GitBranchesRequest(GitRequest):
    limit: int = DEFAULT_GIT_LIMIT


class GitCreateBranchRequest(GitRequest):
    name: OsText
    start: OsText = "HEAD"
    checkout: bool = False


class GitCheckoutRequest(GitRequest):
    revision: OsText


class GitCommitRequest(GitRequest, body_limit_bytes=LARGE_BODY_BYTES):
    message: OsText
    author: GitPersonMessage | None = None
    co_authors: Items[GitPersonMessage] = ()
    paths: tuple[FsPath, ...] | None = None


class GitCheckpointRequest(GitRequest):
    name: OsText


class GitRestoreRequest(GitRequest):
    checkpoint: GitCheckpointMessage


class GitDropCheckpointsRequest(GitRequest):
    names: Items[OsText]
