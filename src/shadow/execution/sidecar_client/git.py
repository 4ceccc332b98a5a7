"""Git through a sidecar: one call each. What comes back is checked: code in the workspace may have made it up."""

from collections.abc import Sequence

from shadow.core.errors import Broken, Rejected
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
    check_bounds,
    check_checkpoint,
    check_checkpoint_names,
    is_branch_name,
)
from shadow.core.ids import Operation
from shadow.execution.sidecar_client.files import BYTES_PER_JSON_BYTE, check_paths
from shadow.execution.sidecar_client.sender import Sender
from shadow.execution.sidecar_client.transport import ANSWER_S, MAX_ANSWER_BYTES, MAX_SINGLE_BYTES, Reply, check_text
from shadow.wire.git import (
    GitBranchesMessage,
    GitBranchesRequest,
    GitCheckoutRequest,
    GitCheckpointMessage,
    GitCheckpointRequest,
    GitCommitRequest,
    GitCreateBranchRequest,
    GitDiffMessage,
    GitDiffRequest,
    GitDropCheckpointsRequest,
    GitFileChangesMessage,
    GitFileChangesRequest,
    GitHeadMessage,
    GitLogMessage,
    GitLogRequest,
    GitRequest,
    GitRestoreRequest,
    GitStatusMessage,
    GitStatusRequest,
)
from shadow.wire.message import outgoing, parse_answer, to_core


class GitClient(Sender):
    """The git methods of ``ToolExecutor``."""

    async def git_status(
        self, repository: str = ".", *, limit: int = DEFAULT_GIT_LIMIT, timeout_s: float = DEFAULT_GIT_TIMEOUT_S
    ) -> GitStatus:
        check_bounds(limit=limit, timeout_s=timeout_s)
        fields = {"repository": repository, "limit": limit, "timeout_s": timeout_s}
        reply = await self._ask("status", outgoing(GitStatusRequest, fields), limit_bytes=MAX_ANSWER_BYTES)
        status = to_core(parse_answer(GitStatusMessage, reply.body), GitStatus)
        _check_count(status.entries, limit)
        check_paths(path for entry in status.entries for path in (entry.path, entry.old_path) if path is not None)
        check_paths([status.root])
        _check_head(status.head)
        return status

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
        check_bounds(limit_bytes=limit_bytes, context_lines=context_lines, timeout_s=timeout_s)
        for path in paths:
            check_text(path)
        fields = {
            "repository": repository,
            "base": base,
            "merge_base": merge_base,
            "paths": tuple(paths),
            "context_lines": context_lines,
            "limit_bytes": limit_bytes,
            "timeout_s": timeout_s,
        }
        bound = MAX_ANSWER_BYTES + BYTES_PER_JSON_BYTE * limit_bytes
        reply = await self._ask("diff", outgoing(GitDiffRequest, fields), limit_bytes=bound)
        diff = to_core(parse_answer(GitDiffMessage, reply.body), GitDiff)
        if len(diff.content) > limit_bytes:
            raise Broken("The sidecar sent more of the diff than was asked for.")
        return diff

    async def git_file_changes(
        self,
        repository: str = ".",
        *,
        base: str = "HEAD",
        merge_base: bool = False,
        limit: int = DEFAULT_GIT_LIMIT,
        timeout_s: float = DEFAULT_GIT_TIMEOUT_S,
    ) -> GitFileChanges:
        check_bounds(limit=limit, timeout_s=timeout_s)
        fields = {
            "repository": repository,
            "base": base,
            "merge_base": merge_base,
            "limit": limit,
            "timeout_s": timeout_s,
        }
        reply = await self._ask("changes", outgoing(GitFileChangesRequest, fields), limit_bytes=MAX_ANSWER_BYTES)
        changes = to_core(parse_answer(GitFileChangesMessage, reply.body), GitFileChanges)
        _check_count(changes.changes, limit)
        check_paths(path for change in changes.changes for path in (change.path, change.old_path) if path is not None)
        return changes

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
        check_bounds(limit=limit, skip=skip, timeout_s=timeout_s)
        fields = {
            "repository": repository,
            "revision": revision,
            "exclude": exclude,
            "skip": skip,
            "limit": limit,
            "timeout_s": timeout_s,
        }
        reply = await self._ask("log", outgoing(GitLogRequest, fields), limit_bytes=4 * MAX_ANSWER_BYTES)
        log = to_core(parse_answer(GitLogMessage, reply.body), GitLog)
        _check_count(log.commits, limit)
        return log

    async def git_branches(
        self, repository: str = ".", *, limit: int = DEFAULT_GIT_LIMIT, timeout_s: float = DEFAULT_GIT_TIMEOUT_S
    ) -> GitBranches:
        check_bounds(limit=limit, timeout_s=timeout_s)
        fields = {"repository": repository, "limit": limit, "timeout_s": timeout_s}
        reply = await self._ask("branches", outgoing(GitBranchesRequest, fields), limit_bytes=MAX_ANSWER_BYTES)
        found = to_core(parse_answer(GitBranchesMessage, reply.body), GitBranches)
        _check_count(found.branches, limit)
        _check_head(found.head)
        return found

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
        check_bounds(timeout_s=timeout_s)
        fields = {
            "name": name,
            "repository": repository,
            "start": start,
            "checkout": checkout,
            "timeout_s": timeout_s,
        }
        reply = await self._ask("branch", outgoing(GitCreateBranchRequest, fields), self.operation(operation))
        head = _head(reply)
        if head.branch != name:
            raise Broken("The sidecar made another branch.")
        return head

    async def git_checkout(
        self,
        revision: str,
        repository: str = ".",
        *,
        timeout_s: float = DEFAULT_GIT_TIMEOUT_S,
        operation: Operation | None = None,
    ) -> GitHead:
        check_bounds(timeout_s=timeout_s)
        fields = {"revision": revision, "repository": repository, "timeout_s": timeout_s}
        reply = await self._ask("checkout", outgoing(GitCheckoutRequest, fields), self.operation(operation))
        head = _head(reply)
        if head.branch not in (None, revision):
            raise Broken("The sidecar went to another branch.")
        return head

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
        check_bounds(timeout_s=timeout_s)
        for path in paths or ():
            check_text(path)
        fields = {
            "message": message,
            "repository": repository,
            "author": author,
            "co_authors": tuple(co_authors),
            "paths": tuple(paths) if paths is not None else None,
            "timeout_s": timeout_s,
        }
        reply = await self._ask("commit", outgoing(GitCommitRequest, fields), self.operation(operation))
        head = _head(reply)
        if head.commit is None:
            raise Broken("The sidecar committed and names no commit.")
        return head

    async def git_checkpoint(
        self,
        name: str,
        *,
        repository: str = ".",
        timeout_s: float = DEFAULT_GIT_TIMEOUT_S,
        operation: Operation | None = None,
    ) -> GitCheckpoint:
        check_bounds(timeout_s=timeout_s)
        check_checkpoint_names([name])
        fields = {"name": name, "repository": repository, "timeout_s": timeout_s}
        reply = await self._ask("checkpoint", outgoing(GitCheckpointRequest, fields), self.operation(operation))
        checkpoint = to_core(parse_answer(GitCheckpointMessage, reply.body), GitCheckpoint)
        if checkpoint.name != name:
            raise Broken("The sidecar made another checkpoint.")
        try:
            check_checkpoint(checkpoint)
        except Rejected as error:
            raise Broken(f"The sidecar made a checkpoint that is none: {error.message}") from error
        return checkpoint

    async def git_restore(
        self,
        checkpoint: GitCheckpoint,
        *,
        repository: str = ".",
        timeout_s: float = DEFAULT_GIT_TIMEOUT_S,
        operation: Operation | None = None,
    ) -> GitHead:
        check_bounds(timeout_s=timeout_s)
        check_checkpoint(checkpoint)
        fields = {"checkpoint": checkpoint, "repository": repository, "timeout_s": timeout_s}
        reply = await self._ask("restore", outgoing(GitRestoreRequest, fields), self.operation(operation))
        head = _head(reply)
        if head != GitHead(branch=checkpoint.branch, commit=checkpoint.head):
            raise Broken("The sidecar went back to another place.")
        return head

    async def git_drop_checkpoints(
        self,
        names: Sequence[str],
        *,
        repository: str = ".",
        timeout_s: float = DEFAULT_GIT_TIMEOUT_S,
        operation: Operation | None = None,
    ) -> None:
        check_bounds(timeout_s=timeout_s)
        check_checkpoint_names(names)
        fields = {"names": tuple(names), "repository": repository, "timeout_s": timeout_s}
        await self._ask("drop-checkpoints", outgoing(GitDropCheckpointsRequest, fields), self.operation(operation))

    async def _ask(
        self,
        what: str,
        message: GitRequest,
        operation: Operation | None = None,
        *,
        limit_bytes: int = MAX_SINGLE_BYTES,
    ) -> Reply:
        check_text(message.repository)
        return await self.send(
            "POST",
            f"/v1/git/{what}",
            message=message,
            operation=operation,
            answer_s=ANSWER_S + message.timeout_s,
            limit_bytes=limit_bytes,
        )


def _head(reply: Reply) -> GitHead:
    head = to_core(parse_answer(GitHeadMessage, reply.body), GitHead)
    _check_head(head)
    return head


def _check_head(head: GitHead) -> None:
    if head.branch is not None and not is_branch_name(head.branch):
        raise Broken("The sidecar named a branch that cannot be one.")
    if head.branch is None and head.commit is None:
        raise Broken("The sidecar named a HEAD that is nowhere.")


def _check_count(items: Sequence[object], limit: int) -> None:
    if len(items) > limit:
        raise Broken("The sidecar's answer has more entries than were asked for.")
