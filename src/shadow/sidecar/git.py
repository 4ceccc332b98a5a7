"""Routes of git: parse, one call, answer. All are POST, since names and paths may be any bytes."""

from starlette.requests import Request

from shadow.core.git import GitCheckpoint, GitPerson
from shadow.http.holds import Holds
from shadow.http.requests import read_message
from shadow.http.responses import Answer, message_answer
from shadow.http.routes import ApiRoute, ApiRoutes
from shadow.sidecar.operations import ExecutorOf, OperationOf
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
    GitRestoreRequest,
    GitStatusMessage,
    GitStatusRequest,
)
from shadow.wire.message import to_core


class GitRoutes:
    def __init__(self, executor: ExecutorOf, operation: OperationOf, holds: Holds) -> None:
        self._executor = executor
        self._operation = operation
        self._holds = holds

    def routes(self) -> ApiRoutes:
        return [
            ApiRoute(
                "POST",
                "/v1/git/status",
                self.status,
                summary="Where HEAD is and what differs from it.",
                body=GitStatusRequest,
                answer=GitStatusMessage,
            ),
            ApiRoute(
                "POST",
                "/v1/git/diff",
                self.diff,
                summary="The work tree against a base, as a patch.",
                body=GitDiffRequest,
                answer=GitDiffMessage,
            ),
            ApiRoute(
                "POST",
                "/v1/git/changes",
                self.file_changes,
                summary="What the diff says, per file.",
                body=GitFileChangesRequest,
                answer=GitFileChangesMessage,
            ),
            ApiRoute(
                "POST",
                "/v1/git/log",
                self.log,
                summary="Commits, newest first.",
                body=GitLogRequest,
                answer=GitLogMessage,
            ),
            ApiRoute(
                "POST",
                "/v1/git/branches",
                self.branches,
                summary="Local and remote-tracking branches.",
                body=GitBranchesRequest,
                answer=GitBranchesMessage,
            ),
            ApiRoute(
                "POST",
                "/v1/git/branch",
                self.create_branch,
                summary="Make a branch.",
                body=GitCreateBranchRequest,
                answer=GitHeadMessage,
                operation=True,
            ),
            ApiRoute(
                "POST",
                "/v1/git/checkout",
                self.checkout,
                summary="Go to a local branch or, detached, to a commit.",
                body=GitCheckoutRequest,
                answer=GitHeadMessage,
                operation=True,
            ),
            ApiRoute(
                "POST",
                "/v1/git/commit",
                self.commit,
                summary="Commit everything, or exactly some paths.",
                body=GitCommitRequest,
                answer=GitHeadMessage,
                operation=True,
            ),
            ApiRoute(
                "POST",
                "/v1/git/checkpoint",
                self.checkpoint,
                summary="Put the whole work tree down below a hidden ref.",
                body=GitCheckpointRequest,
                answer=GitCheckpointMessage,
                operation=True,
            ),
            ApiRoute(
                "POST",
                "/v1/git/restore",
                self.restore,
                summary="Go back to a checkpoint: files, branch and index.",
                body=GitRestoreRequest,
                answer=GitHeadMessage,
                operation=True,
            ),
            ApiRoute(
                "POST",
                "/v1/git/drop-checkpoints",
                self.drop_checkpoints,
                summary="Let go of checkpoints.",
                body=GitDropCheckpointsRequest,
                operation=True,
            ),
        ]

    async def status(self, request: Request) -> Answer:
        asked = await read_message(request, GitStatusRequest)
        async with self._holds.waiting(request.receive, mutates=False):
            status = await self._executor(request).git_status(
                asked.repository, limit=asked.limit, timeout_s=asked.timeout_s
            )
        return message_answer(GitStatusMessage.of(status))

    async def diff(self, request: Request) -> Answer:
        asked = await read_message(request, GitDiffRequest)
        async with self._holds.waiting(request.receive, mutates=False):
            diff = await self._executor(request).git_diff(
                asked.repository,
                base=asked.base,
                merge_base=asked.merge_base,
                paths=asked.paths,
                context_lines=asked.context_lines,
                limit_bytes=asked.limit_bytes,
                timeout_s=asked.timeout_s,
            )
        return message_answer(GitDiffMessage.of(diff))

    async def file_changes(self, request: Request) -> Answer:
        asked = await read_message(request, GitFileChangesRequest)
        async with self._holds.waiting(request.receive, mutates=False):
            changes = await self._executor(request).git_file_changes(
                asked.repository,
                base=asked.base,
                merge_base=asked.merge_base,
                limit=asked.limit,
                timeout_s=asked.timeout_s,
            )
        return message_answer(GitFileChangesMessage.of(changes))

    async def log(self, request: Request) -> Answer:
        asked = await read_message(request, GitLogRequest)
        async with self._holds.waiting(request.receive, mutates=False):
            log = await self._executor(request).git_log(
                asked.repository,
                revision=asked.revision,
                exclude=asked.exclude,
                skip=asked.skip,
                limit=asked.limit,
                timeout_s=asked.timeout_s,
            )
        return message_answer(GitLogMessage.of(log))

    async def branches(self, request: Request) -> Answer:
        asked = await read_message(request, GitBranchesRequest)
        async with self._holds.waiting(request.receive, mutates=False):
            found = await self._executor(request).git_branches(
                asked.repository, limit=asked.limit, timeout_s=asked.timeout_s
            )
        return message_answer(GitBranchesMessage.of(found))

    async def create_branch(self, request: Request) -> Answer:
        asked = await read_message(request, GitCreateBranchRequest)
        operation = self._operation(request)
        async with self._holds.waiting(request.receive, mutates=True):
            head = await self._executor(request).git_create_branch(
                asked.name,
                asked.repository,
                start=asked.start,
                checkout=asked.checkout,
                timeout_s=asked.timeout_s,
                operation=operation,
            )
        return message_answer(GitHeadMessage.of(head))

    async def checkout(self, request: Request) -> Answer:
        asked = await read_message(request, GitCheckoutRequest)
        operation = self._operation(request)
        async with self._holds.waiting(request.receive, mutates=True):
            head = await self._executor(request).git_checkout(
                asked.revision, asked.repository, timeout_s=asked.timeout_s, operation=operation
            )
        return message_answer(GitHeadMessage.of(head))

    async def commit(self, request: Request) -> Answer:
        asked = await read_message(request, GitCommitRequest)
        operation = self._operation(request)
        async with self._holds.waiting(request.receive, mutates=True):
            head = await self._executor(request).git_commit(
                asked.message,
                asked.repository,
                author=to_core(asked.author, GitPerson) if asked.author is not None else None,
                co_authors=tuple(to_core(person, GitPerson) for person in asked.co_authors),
                paths=asked.paths,
                timeout_s=asked.timeout_s,
                operation=operation,
            )
        return message_answer(GitHeadMessage.of(head))

    async def checkpoint(self, request: Request) -> Answer:
        asked = await read_message(request, GitCheckpointRequest)
        operation = self._operation(request)
        async with self._holds.waiting(request.receive, mutates=True):
            checkpoint = await self._executor(request).git_checkpoint(
                asked.name, repository=asked.repository, timeout_s=asked.timeout_s, operation=operation
            )
        return message_answer(GitCheckpointMessage.of(checkpoint))

    async def restore(self, request: Request) -> Answer:
        asked = await read_message(request, GitRestoreRequest)
        operation = self._operation(request)
        async with self._holds.waiting(request.receive, mutates=True):
            head = await self._executor(request).git_restore(
                to_core(asked.checkpoint, GitCheckpoint),
                repository=asked.repository,
                timeout_s=asked.timeout_s,
                operation=operation,
            )
        return message_answer(GitHeadMessage.of(head))

    async def drop_checkpoints(self, request: Request) -> Answer:
        asked = await read_message(request, GitDropCheckpointsRequest)
        operation = self._operation(request)
        async with self._holds.waiting(request.receive, mutates=True):
            await self._executor(request).git_drop_checkpoints(
                asked.names, repository=asked.repository, timeout_s=asked.timeout_s, operation=operation
            )
        return Answer(b"{}")
