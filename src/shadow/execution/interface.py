"""The two interfaces of the execution layer: what is done *in* a workspace, and what is done *with* workspaces.

Every implementation passes the checks in ``shadow.testing``. All calls are asynchronous and may be cancelled; a cancelled
mutating call may or may not have happened. Mutating calls take an ``Operation``: a repeat with the same id is answered with
the first result and does nothing; without one, a fresh id and the executor's own epoch are used.

Every call may raise ``Unavailable`` (surely not done), ``OutcomeUnknown`` (perhaps done) and ``Denied``; mutating ones also
``StaleEpoch``. Paths are as ``shadow.core.files`` says; each call with a path may raise ``PathRefused`` and ``NotFound``.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import ClassVar, Self

from shadow.core.commands import Command, CommandResult, CommandSpec, Gap, Output
from shadow.core.egress import EgressPolicy
from shadow.core.egress_status import EgressStatus
from shadow.core.files import (
    DEFAULT_LISTING_LIMIT,
    DEFAULT_READ_LIMIT_BYTES,
    FileContent,
    FileLines,
    FileStat,
    Listing,
    Replacement,
)
from shadow.core.git import (
    DEFAULT_DIFF_LIMIT_BYTES,
    DEFAULT_GIT_LIMIT,
    DEFAULT_GIT_TIMEOUT_S,
    GitBranches,
    GitCheckpoint,
    GitDiff,
    GitFileChanges,
    GitHead,
    GitLog,
    GitPerson,
    GitStatus,
)
from shadow.core.ids import CommandId, Operation, TerminalId, WorkspaceId
from shadow.core.search import FileSearchResult, GrepQuery, GrepResult
from shadow.core.terminals import (
    DEFAULT_LAG_BYTES,
    DEFAULT_SCROLLBACK_LINES,
    Resized,
    ScreenSnapshot,
    Terminal,
    TerminalEnded,
    TerminalOutput,
    TerminalSize,
    TerminalSpec,
)
from shadow.core.trees import TreeReceipt
from shadow.core.watching import ChangesMissed, FileChanges, Watching
from shadow.core.workspaces import Capabilities, CpuTime, Health, WorkspaceSpec, WorkspaceStatus

TerminalEvent = TerminalOutput | Gap | Resized | ScreenSnapshot | TerminalEnded
WatchEvent = Watching | FileChanges | ChangesMissed


class TerminalAttachment(ABC):
    """One reader and writer of a terminal, from ``ToolExecutor.attach_terminal``. Iterating gives what it shows.

    First comes the size (``Resized`` or ``ScreenSnapshot``), last ``TerminalEnded``. Offsets go on without holes: a ``Gap``
    says what was dropped from the log, or skipped since this reader fell behind; a ``ScreenSnapshot`` stands for everything
    before its offset. Output comes at once where nothing came lately, else gathered: at most 60 times a second, or whenever
    a larger piece is full. Who asks for no next event holds back nobody else.
    """

    @abstractmethod
    def __aiter__(self) -> AsyncIterator[TerminalEvent]: ...

    @abstractmethod
    async def write(self, data: bytes) -> None:
        """Type ``data``, exactly once also over disconnects. Returns when the PTY has taken it: waits while that is full.

        Raises: Conflict where the program has ended.
        """

    @abstractmethod
    async def resize(self, size: TerminalSize) -> None:
        """As ``resize_terminal``. The last size that any reader asked for counts."""


class ToolExecutor(ABC):
    """Files, search, commands, terminals and git of one workspace."""

    @property
    @abstractmethod
    def capabilities(self) -> Capabilities: ...

    @property
    @abstractmethod
    def epoch(self) -> int:
        """The fencing epoch that this executor sends with mutating calls."""

    @abstractmethod
    async def health(self) -> Health: ...

    @abstractmethod
    async def renew_lease(self, lease_s: float) -> None:
        """The workspace ends itself ``lease_s`` seconds from now unless renewed again."""

    @abstractmethod
    async def aclose(self) -> None:
        """Let go of the workspace; it lives on."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    # Files
    #
    # Versions: reading and describing a regular file tells its version (``FileStat.version``), which is another one whenever
    # its content is. What changes a file takes the ``expected`` one (or ``ANY_VERSION``: the file must be there) and raises
    # ``Changed``, and leaves everything as it is, where that is not what is there. Of changes through executors of one
    # workspace with the same ``expected`` exactly one goes through. Programs in the workspace are not held up meanwhile: what
    # one of them writes in the very moment of a change that goes through is replaced like what it wrote before.

    @abstractmethod
    async def stat(self, path: str, *, follow: bool = True) -> FileStat:
        """What ``path`` names; with ``follow=False`` a symlink itself."""

    @abstractmethod
    async def read_file(
        self, path: str, *, offset: int = 0, limit_bytes: int = DEFAULT_READ_LIMIT_BYTES
    ) -> FileContent:
        """At most ``limit_bytes`` from ``offset``; nothing, and no error, at or after the end. Raises: NotAFile."""

    @abstractmethod
    async def read_lines(
        self, path: str, *, first: int = 1, last: int | None = None, limit_bytes: int = DEFAULT_READ_LIMIT_BYTES
    ) -> FileLines:
        """Lines ``first`` to ``last``, both 1-based and included; lines end at LF. Raises: NotAFile, Rejected."""

    @abstractmethod
    def stream_file(self, path: str, *, offset: int = 0, limit_bytes: int | None = None) -> AsyncIterator[bytes]:
        """The bytes in pieces, of one version of the file: an atomic write meanwhile does not mix in. Raises: NotAFile."""

    @abstractmethod
    async def write_file(
        self,
        path: str,
        content: bytes | AsyncIterable[bytes],
        *,
        mode: int | None = None,
        create_parents: bool = True,
        exclusive: bool = False,
        expected: str | None = None,
        operation: Operation | None = None,
    ) -> FileStat:
        """Replace the content as a whole, or not at all: no reader sees a part, a failure leaves the old file.

        A symlink is followed and its target replaced. The mode of an existing file stays unless ``mode`` is given.
        ``exclusive`` refuses with ``AlreadyExists`` where something is there. ``expected``: see "Versions".
        Raises: NotAFile, Changed, LimitExceeded (disk full).
        """

    @abstractmethod
    async def search_replace(
        self, path: str, *, old: str, new: str, expected: str | None = None, operation: Operation | None = None
    ) -> Replacement:
        """Replace the one occurrence of ``old`` by ``new``, literally, byte by byte; keeps everything else as it is.

        Overlapping occurrences count. Raises: EmptySearch, IdenticalReplacement, TextNotFound, TextNotUnique, NotAFile,
        Changed, LimitExceeded (file above 64 MiB).
        """

    @abstractmethod
    async def make_directory(
        self, path: str, *, create_parents: bool = True, operation: Operation | None = None
    ) -> FileStat:
        """A directory that is there already is fine. Raises: AlreadyExists where something else is there."""

    @abstractmethod
    async def move(
        self,
        source: str,
        target: str,
        *,
        overwrite: bool = False,
        expected: str | None = None,
        operation: Operation | None = None,
    ) -> FileStat:
        """Rename; a symlink itself is moved. ``expected``: of the source.

        Raises: AlreadyExists, unless ``overwrite`` and ``target`` is a file; Changed.
        """

    @abstractmethod
    async def delete(
        self,
        path: str,
        *,
        recursive: bool = False,
        expected: str | None = None,
        operation: Operation | None = None,
    ) -> None:
        """Remove a file, a symlink (never what it points to) or an empty directory; with ``recursive`` a whole tree.

        Raises: Conflict where a directory is not empty; Changed; PathRefused for the root itself.
        """

    @abstractmethod
    async def list_directory(
        self,
        path: str = ".",
        *,
        recursive: bool = False,
        after: str | None = None,
        limit: int = DEFAULT_LISTING_LIMIT,
    ) -> Listing:
        """Everything below ``path``, hidden and ignored files too; symlinks are listed, not followed.

        Pages: pass ``next_after`` as ``after``. A directory that cannot be read is an entry with its ``error``.
        """

    @abstractmethod
    def download_tree(self, path: str = ".") -> AsyncIterator[bytes]:
        """The directory ``path`` as an uncompressed tar stream (pax), names relative to it, sorted; bytes of each file as one
        version of it. Symlinks are links, never followed; sockets, pipes and devices are left out; numbers of owners are 0.

        What vanishes meanwhile is left out. A stream that breaks off raises, and cannot be resumed. What comes was made in
        the workspace: whoever unpacks it elsewhere must treat it as hostile.
        Raises: NotADirectory; Denied: something may not be read; Conflict: a file became shorter while it was read;
        LimitExceeded: above ``MAX_TREE_ENTRIES`` or ``MAX_TREE_BYTES``; Unsupported where ``capabilities.trees`` is false.
        """

    @abstractmethod
    async def upload_tree(
        self, path: str, tar: AsyncIterable[bytes], *, operation: Operation | None = None
    ) -> TreeReceipt:
        """Lay a tar stream down in the directory ``path``, which is made where it is not there; files there are replaced one
        by one, others stay. Each file is written as by ``write_file``; a failure leaves what came before it.

        Nothing is written outside ``path``: names that are absolute or hold ``..``, a path through a symlink, hard links to
        what is not in the archive, devices and pipes are refused, as is what does not fit the header's size. Hard links
        become files of their own, a symlink that is there is itself replaced. Of modes the permission bits are kept; times
        and owners are not. Raises: Rejected (what is wrong and where), LimitExceeded (entries, bytes, disk), AlreadyExists
        (a directory in place of a link, something else in place of a directory), Unsupported where ``capabilities.trees``
        is false.
        """

    @abstractmethod
    def watch(self, path: str = ".") -> AsyncIterator[WatchEvent]:
        """Changes of files below the directory ``path`` from now on, batched; first ``Watching``.

        What ``.gitignore`` files (and a repository's ``info/exclude``) name, tracked or not, and ``.git`` itself are left out.
        Where changes cannot be told one by one (too many at once, a ``.gitignore`` changed, while a git operation of ours
        that changes something runs, after a disconnect) there is one ``ChangesMissed`` instead. Ends where ``path`` is gone.
        Who does not ask for the next event holds nothing up and uses no memory. Raises: NotADirectory; LimitExceeded: the
        host has no watches left, or there are too many; Unsupported where ``capabilities.watching`` is false.
        """

    # Search

    @abstractmethod
    async def grep(self, query: GrepQuery) -> GrepResult:
        """Lines that match. Raises: Rejected for a bad pattern or glob."""

    @abstractmethod
    async def search_files(self, query: str, *, path: str = ".", limit: int = 50) -> FileSearchResult:
        """Paths that hold the characters of ``query`` in order, best first; an empty query matches every path."""

    # Commands

    @abstractmethod
    async def start(self, spec: CommandSpec, *, operation: Operation | None = None) -> Command:
        """Start a command and return at once. Raises: Rejected, NotFound (program or cwd), LimitExceeded."""

    @abstractmethod
    async def run(
        self,
        spec: CommandSpec,
        *,
        wait_s: float | None = None,
        output_limit_bytes: int = 1024 * 1024,
        operation: Operation | None = None,
    ) -> CommandResult:
        """Start a command and wait for its end, at most ``wait_s``; it runs on after that, its ``ending`` being ``None``.

        Output above ``output_limit_bytes`` is returned as its first and its last half with a ``Gap`` between.
        """

    @abstractmethod
    async def list_commands(self) -> Sequence[Command]:
        """Commands that run and those that ended lately, oldest first."""

    @abstractmethod
    async def get_command(self, command_id: CommandId) -> Command: ...

    @abstractmethod
    async def wait(self, command_id: CommandId, *, timeout_s: float | None = None) -> Command:
        """The command at its end, or as it stands after ``timeout_s``."""

    @abstractmethod
    def read_output(self, command_id: CommandId, *, after: int = 0, follow: bool = True) -> AsyncIterator[Output | Gap]:
        """Output from offset ``after`` on, without holes: what is missing is a ``Gap``.

        With ``follow`` it goes on until the command has ended (what descendants write after that can be read again from
        the last offset); without, it stops at what is there now. Disconnects are resumed by the implementation.
        """

    @abstractmethod
    async def write_stdin(
        self, command_id: CommandId, data: bytes, *, offset: int | None = None, close: bool = False
    ) -> int:
        """Feed ``data`` and return how many bytes of stdin were accepted since the start.

        ``offset`` says where ``data`` begins in the whole of stdin: what was accepted already is skipped, so that a repeat
        is safe. Waits while the pipe is full. Raises: Conflict where stdin is closed or ``offset`` is ahead.
        """

    @abstractmethod
    async def signal(self, command_id: CommandId, signal: int, *, operation: Operation | None = None) -> Command:
        """Send a signal to the command's process group. Nothing happens where it has ended."""

    @abstractmethod
    async def kill(self, command_id: CommandId, *, grace_s: float = 0.0, operation: Operation | None = None) -> Command:
        """End the command's whole tree: SIGTERM, ``grace_s`` to comply, SIGKILL. Also ends what an ended command left."""

    # Terminals
    #
    # All of these raise ``Unsupported`` where ``capabilities.terminals`` is false. A terminal is not a command: it is in no
    # list of those. What it showed is kept, within its bound, until it is closed; its program lives on without readers.

    @abstractmethod
    async def create_terminal(self, spec: TerminalSpec, *, operation: Operation | None = None) -> Terminal:
        """Start a program on a PTY. Raises: Rejected, NotFound (program or cwd), LimitExceeded."""

    @abstractmethod
    async def list_terminals(self) -> Sequence[Terminal]:
        """Those that run and those that ended and were not closed, oldest first."""

    @abstractmethod
    async def get_terminal(self, terminal_id: TerminalId) -> Terminal: ...

    @abstractmethod
    def attach_terminal(
        self,
        terminal_id: TerminalId,
        *,
        after: int | None = 0,
        snapshots: bool = False,
        scrollback_lines: int = DEFAULT_SCROLLBACK_LINES,
        lag_bytes: int | None = DEFAULT_LAG_BYTES,
        read_only: bool = False,
    ) -> AbstractAsyncContextManager[TerminalAttachment]:
        """Read and write a terminal; any number may at once. Disconnects are resumed by the implementation.

        ``after`` is the offset to go on from; ``None``: a fresh screen, which begins with a ``ScreenSnapshot`` where the
        history is long, else with all of the history. With ``snapshots`` (implied by ``None``) one also follows each gap,
        with up to ``scrollback_lines`` lines above the screen. Who does not ask for a next event while ``lag_bytes`` more are
        written is skipped ahead; ``None``: never, it gets all that the log still has. Raises: Rejected: ``after`` lies ahead
        of what was written. With ``read_only`` it takes no more than the right to read, and ``write`` and ``resize`` of the
        attachment raise Denied.
        """

    @abstractmethod
    async def write_terminal(self, terminal_id: TerminalId, data: bytes, *, writer: str, offset: int) -> int:
        """Type ``data``; returns how many bytes ``writer`` has typed in all, when the PTY has taken them.

        ``offset`` says where ``data`` begins in all that ``writer`` (an id of the caller's making) types: what was taken
        already is skipped, so that a repeat is safe. Waits while the PTY is full. Raises: Conflict where the program has
        ended or ``offset`` is ahead; LimitExceeded where too much waits already.
        """

    @abstractmethod
    async def resize_terminal(
        self, terminal_id: TerminalId, size: TerminalSize, *, operation: Operation | None = None
    ) -> Terminal:
        """Set the size; the foreground program gets SIGWINCH. Nothing happens where it has ended. Raises: Rejected."""

    @abstractmethod
    async def signal_terminal(
        self, terminal_id: TerminalId, signal: int, *, operation: Operation | None = None
    ) -> Terminal:
        """Send a signal to the terminal's foreground process group. Nothing happens where it has ended."""

    @abstractmethod
    async def kill_terminal(
        self, terminal_id: TerminalId, *, grace_s: float = 0.0, operation: Operation | None = None
    ) -> Terminal:
        """End its whole tree: SIGHUP and SIGTERM, ``grace_s`` to comply, SIGKILL. What it showed is kept."""

    @abstractmethod
    async def close_terminal(
        self, terminal_id: TerminalId, *, grace_s: float = 0.0, operation: Operation | None = None
    ) -> None:
        """``kill_terminal``, and forget it with all that it showed."""

    @abstractmethod
    def record(self, source: CommandId | TerminalId) -> AsyncIterator[bytes]:
        """What a command or terminal has shown so far as asciicast v2, in pieces; what is no longer kept is a marker."""

    # Git
    #
    # ``repository`` is any directory of a work tree: the nearest ``.git`` at or above it, within the workspace, counts. Paths
    # in arguments and results are relative to the workspace's root, like all paths. A revision is anything that names a
    # commit: a branch, a tag, an id, ``HEAD~2``. Settings of the repository that start programs (hooks, pagers, editors,
    # external diffs, textconv, gpg, fsmonitor, remote helpers) are not obeyed, nor is any other configuration of the user's
    # or the system's; content filters (``filter.*.clean``, ``smudge``, ``process``) are, since they say what a file holds.
    # ``timeout_s`` is for the whole call: then every process of it is ended.
    #
    # Every call may raise: NotARepository, PathRefused (a git directory outside the workspace), GitFailed, LimitExceeded
    # (``details["limit"]`` is ``time`` or ``bytes``), Unsupported (no git), Rejected (bounds).

    @abstractmethod
    async def git_status(
        self,
        repository: str = ".",
        *,
        limit: int = DEFAULT_GIT_LIMIT,
        timeout_s: float = DEFAULT_GIT_TIMEOUT_S,
    ) -> GitStatus:
        """Where HEAD is and what differs from it: index, work tree, untracked files one by one. Changes nothing."""

    @abstractmethod
    async def git_diff(
        self,
        repository: str = ".",
        *,
        base: str | None = "HEAD",
        merge_base: bool = False,
        paths: Sequence[str] = (),
        context_lines: int = 3,
        limit_bytes: int = DEFAULT_DIFF_LIMIT_BYTES,
        timeout_s: float = DEFAULT_GIT_TIMEOUT_S,
    ) -> GitDiff:
        """The work tree, untracked files included, against ``base``, as a patch that ``git apply`` takes; renames are found.

        ``base=None``: against the index. ``merge_base``: against where HEAD's history left that of ``base``. On an unborn
        branch ``HEAD`` stands for nothing at all. ``paths``: only these files and directories, literally. Changes nothing.
        Raises: RevisionNotFound.
        """

    @abstractmethod
    async def git_file_changes(
        self,
        repository: str = ".",
        *,
        base: str = "HEAD",
        merge_base: bool = False,
        limit: int = DEFAULT_GIT_LIMIT,
        timeout_s: float = DEFAULT_GIT_TIMEOUT_S,
    ) -> GitFileChanges:
        """Per file what ``git_diff`` says of the same ``base``, sorted by path. Changes nothing. Raises: RevisionNotFound."""

    @abstractmethod
    async def git_log(
        self,
        repository: str = ".",
        *,
        revision: str = "HEAD",
        exclude: str | None = None,
        skip: int = 0,
        limit: int = 50,
        timeout_s: float = DEFAULT_GIT_TIMEOUT_S,
    ) -> GitLog:
        """Commits that ``revision`` reaches and ``exclude`` does not, newest first. Raises: UnbornHead, RevisionNotFound."""

    @abstractmethod
    async def git_branches(
        self,
        repository: str = ".",
        *,
        limit: int = DEFAULT_GIT_LIMIT,
        timeout_s: float = DEFAULT_GIT_TIMEOUT_S,
    ) -> GitBranches:
        """Local and remote-tracking branches, each kind sorted by name; none where the first commit is still to come."""

    @abstractmethod
    async def git_create_branch(
        self,
        name: str,
        repository: str = ".",
        *,
        start: str = "HEAD",
        checkout: bool = False,
        timeout_s: float = DEFAULT_GIT_TIMEOUT_S,
        operation: Operation | None = None,
    ) -> GitHead:
        """Make a branch at ``start``, and go there with ``checkout``: both or nothing. Returns the branch and its commit.

        On an unborn branch ``checkout`` gives that another name. Raises: Rejected (not a name for a branch), AlreadyExists,
        RevisionNotFound, UnbornHead; with ``checkout`` also as ``git_checkout``.
        """

    @abstractmethod
    async def git_checkout(
        self,
        revision: str,
        repository: str = ".",
        *,
        timeout_s: float = DEFAULT_GIT_TIMEOUT_S,
        operation: Operation | None = None,
    ) -> GitHead:
        """Go to a local branch of that name or, where there is none, to a commit, detached. Returns where HEAD is then.

        Local changes are kept. Raises: LocalChanges (they would be overwritten), GitInProgress, RevisionNotFound.
        """

    @abstractmethod
    async def git_commit(
        self,
        message: str,
        repository: str = ".",
        *,
        author: GitPerson | None = None,
        co_authors: Sequence[GitPerson] = (),
        paths: Sequence[str] | None = None,
        timeout_s: float = DEFAULT_GIT_TIMEOUT_S,
        operation: Operation | None = None,
    ) -> GitHead:
        """Commit the whole work tree, untracked files included, ignored ones not; or exactly ``paths`` as they are there.

        With ``paths`` what else is staged stays staged. The message is kept byte by byte (a line end is added where there is
        none); ``co_authors`` become trailers. ``author`` is the committer too; without one the repository's own ``user.name``
        and ``user.email`` count. What failed has made no commit. Raises: NothingToCommit, GitInProgress, Conflict (unmerged
        files), NotFound (a path that is neither there nor tracked), Rejected (message, person, ignored path, nobody known).
        """

    @abstractmethod
    async def git_checkpoint(
        self,
        name: str,
        *,
        repository: str = ".",
        timeout_s: float = DEFAULT_GIT_TIMEOUT_S,
        operation: Operation | None = None,
    ) -> GitCheckpoint:
        """Put the whole work tree down as a commit below the hidden ref ``refs/shadow/checkpoints/<name>``; one of that name
        is replaced. Ignored files are left out, and empty directories; of a repository within, only where its HEAD is.

        The user's index, HEAD, branches, stash and reflogs are not touched: it may be taken in the middle of a merge. Content
        filters run as for ``git_commit``, and what they drop is not kept. Raises: Rejected (the name is no id).
        """

    @abstractmethod
    async def git_restore(
        self,
        checkpoint: GitCheckpoint,
        *,
        repository: str = ".",
        timeout_s: float = DEFAULT_GIT_TIMEOUT_S,
        operation: Operation | None = None,
    ) -> GitHead:
        """Go back to a checkpoint: the files are exactly its own, HEAD is on its branch, that branch at its ``head``, and so is
        the index, so that what was not committed then is not committed now. Returns where HEAD is.

        What the checkpoint's own ignore rules name stays as it is, as do the insides of repositories within. A merge, rebase,
        cherry-pick, revert, ``am`` or bisect in progress is ended; so are locks that a killed git left. What was interrupted
        may be repeated, with the same operation or another one. Raises, before anything is changed: RevisionNotFound (the
        checkpoint is gone, or not whole), Conflict (another work tree is on its branch, another git is at work),
        AlreadyExists (a branch with a name that excludes its branch), Rejected.
        """

    @abstractmethod
    async def git_drop_checkpoints(
        self,
        names: Sequence[str],
        *,
        repository: str = ".",
        timeout_s: float = DEFAULT_GIT_TIMEOUT_S,
        operation: Operation | None = None,
    ) -> None:
        """Let go of checkpoints; git may remove what they alone held. Those that are not there are gone already.

        Raises: Rejected: above ``MAX_CHECKPOINT_NAMES``, or no names.
        """


class WorkspaceManager(ABC):
    """Creates, attaches to and destroys workspaces."""

    is_at_server: ClassVar[bool] = False
    """Whether a server has them, which renews their leases and says when one has ended."""

    @property
    @abstractmethod
    def capabilities(self) -> Capabilities:
        """What executors of this manager's workspaces claim."""

    @abstractmethod
    async def create(self, spec: WorkspaceSpec) -> WorkspaceStatus:
        """Make a workspace and wait until it is ready. What failed leaves nothing. Raises: Unsupported, LimitExceeded."""

    @abstractmethod
    async def attach(self, workspace_id: WorkspaceId, *, take_over: bool = False) -> ToolExecutor:
        """An executor for a workspace, started again where its processes are gone (its files and history are kept).

        ``take_over`` raises the epoch: every executor attached earlier is refused from then on.
        """

    async def is_attached(self, workspace_id: WorkspaceId, executor: ToolExecutor) -> bool:
        """Whether ``attach`` would give the same as ``executor``, which it gave: who keeps one asks before each use.

        It costs a look, and calls nobody. ``False``: not, or it cannot tell: attach again.
        """
        return False

    @abstractmethod
    async def status(self, workspace_id: WorkspaceId, *, measure: bool = False) -> WorkspaceStatus:
        """``measure`` walks the files for ``size_bytes``. Raises: NotFound."""

    @abstractmethod
    async def cpu_time(self, workspace_id: WorkspaceId) -> CpuTime | None:
        """What all its processes have taken since they were started last, those that have ended too, Shadow's own inside too.

        It may be told late, and never twice. ``None``: nothing runs in it, or ``capabilities.cpu_time`` is false.
        Raises: NotFound.
        """

    @abstractmethod
    async def list(self) -> Sequence[WorkspaceStatus]:
        """All workspaces of this manager, oldest first."""

    @abstractmethod
    async def renew(self, workspace_id: WorkspaceId, *, lease_s: float) -> None: ...

    @abstractmethod
    async def set_egress(self, workspace_id: WorkspaceId, policy: EgressPolicy) -> None:
        """From its return on ``policy`` holds, also in a living workspace: connections that it does not allow have ended.

        Raises: NotFound, Unsupported.
        """

    @abstractmethod
    async def egress(self, workspace_id: WorkspaceId) -> EgressStatus:
        """The policy, what was counted over the workspace's life, and the newest events. Raises: NotFound, Unsupported."""

    @abstractmethod
    async def hibernate(self, workspace_id: WorkspaceId, *, keep_s: float) -> None:
        """End every process, the egress proxy too, and keep files and history; then it is ``stopped``, its lease ends ``keep_s``
        seconds from now, and ``attach`` wakes it. What ran is ``lost`` then (``signalled``, where its end was seen), and all that
        it had written is kept.

        Nothing but the lease changes where it hibernates already. Who attaches meanwhile waits, and wakes it again.
        Raises: NotFound, Unavailable (a process could not be ended), Unsupported where ``capabilities.hibernation`` is false.
        """

    @abstractmethod
    async def destroy(self, workspace_id: WorkspaceId) -> None:
        """End every process and remove every trace. Nothing happens where it is gone already."""

    @abstractmethod
    async def list_orphans(self) -> Sequence[WorkspaceId]:
        """Workspaces that nobody owns: no living process and no running lease. When in doubt, not an orphan."""

    @abstractmethod
    async def reap(self) -> Sequence[WorkspaceId]:
        """Destroy the orphans and return them."""

    @abstractmethod
    def open(self, spec: WorkspaceSpec) -> AbstractAsyncContextManager[ToolExecutor]:
        """A workspace for the length of a block: made, kept alive by renewals, destroyed."""
