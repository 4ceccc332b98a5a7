"""What the mock does not claim: each call is refused with ``Unsupported``, which names the lacking capability."""

from collections.abc import AsyncIterable, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NoReturn

from shadow.core.errors import Unsupported
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
from shadow.core.ids import CommandId, Operation, TerminalId
from shadow.core.terminals import (
    DEFAULT_LAG_BYTES,
    DEFAULT_SCROLLBACK_LINES,
    Terminal,
    TerminalSize,
    TerminalSpec,
)
from shadow.core.trees import TreeReceipt
from shadow.execution.interface import TerminalAttachment, ToolExecutor, WatchEvent


def _refuse(capability: str) -> NoReturn:
    raise Unsupported(
        f"Mocked workspaces have no {capability}.",
        mend="Use a real workspace (AGENT_MODE=local) for it.",
        details={"capability": capability},
    )


class UnsupportedParts(ToolExecutor):
    """Terminals, recordings, trees, watching, git."""

    def download_tree(self, path: str = ".") -> AsyncIterator[bytes]:
        _refuse("trees")

    async def upload_tree(
        self, path: str, tar: AsyncIterable[bytes], *, operation: Operation | None = None
    ) -> TreeReceipt:
        _refuse("trees")

    def watch(self, path: str = ".") -> AsyncIterator[WatchEvent]:
        _refuse("watching")

    async def create_terminal(self, spec: TerminalSpec, *, operation: Operation | None = None) -> Terminal:
        _refuse("terminals")

    async def list_terminals(self) -> Sequence[Terminal]:
        _refuse("terminals")

    async def get_terminal(self, terminal_id: TerminalId) -> Terminal:
        _refuse("terminals")

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
        _refuse("terminals")

    async def write_terminal(self, terminal_id: TerminalId, data: bytes, *, writer: str, offset: int) -> int:
        _refuse("terminals")

    async def resize_terminal(
        self, terminal_id: TerminalId, size: TerminalSize, *, operation: Operation | None = None
    ) -> Terminal:
        _refuse("terminals")

    async def signal_terminal(
        self, terminal_id: TerminalId, signal: int, *, operation: Operation | None = None
    ) -> Terminal:
        _refuse("terminals")

    async def kill_terminal(
        self, terminal_id: TerminalId, *, grace_s: float = 0.0, operation: Operation | None = None
    ) -> Terminal:
        _refuse("terminals")

    async def close_terminal(
        self, terminal_id: TerminalId, *, grace_s: float = 0.0, operation: Operation | None = None
    ) -> None:
        _refuse("terminals")

    def record(self, source: CommandId | TerminalId) -> AsyncIterator[bytes]:
        _refuse("terminals")

    async def git_status(
        self, repository: str = ".", *, limit: int = DEFAULT_GIT_LIMIT, timeout_s: float = DEFAULT_GIT_TIMEOUT_S
    ) -> GitStatus:
        _refuse("git")

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
        _refuse("git")

    async def git_file_changes(
        self,
        repository: str = ".",
        *,
        base: str = "HEAD",
        merge_base: bool = False,
        limit: int = DEFAULT_GIT_LIMIT,
        timeout_s: float = DEFAULT_GIT_TIMEOUT_S,
    ) -> GitFileChanges:
        _refuse("git")

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
        _refuse("git")

    async def git_branches(
        self, repository: str = ".", *, limit: int = DEFAULT_GIT_LIMIT, timeout_s: float = DEFAULT_GIT_TIMEOUT_S
    ) -> GitBranches:
        _refuse("git")

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
        _refuse("git")

    async def git_checkout(
        self,
        revision: str,
        repository: str = ".",
        *,
        timeout_s: float = DEFAULT_GIT_TIMEOUT_S,
        operation: Operation | None = None,
    ) -> GitHead:
        _refuse("git")

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
        _refuse("git")

    async def git_checkpoint(
        self,
        name: str,
        *,
        repository: str = ".",
        timeout_s: float = DEFAULT_GIT_TIMEOUT_S,
        operation: Operation | None = None,
    ) -> GitCheckpoint:
        _refuse("git")

    async def git_restore(
        self,
        checkpoint: GitCheckpoint,
        *,
        repository: str = ".",
        timeout_s: float = DEFAULT_GIT_TIMEOUT_S,
        operation: Operation | None = None,
    ) -> GitHead:
        _refuse("git")

    async def git_drop_checkpoints(
        self,
        names: Sequence[str],
        *,
        repository: str = ".",
        timeout_s: float = DEFAULT_GIT_TIMEOUT_S,
        operation: Operation | None = None,
    ) -> None:
        _refuse("git")
