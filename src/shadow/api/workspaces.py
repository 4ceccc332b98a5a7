"""Which workspaces there are; what is done in one is served by the routes that its sidecar has too."""

import hashlib

from starlette.requests import HTTPConnection, Request

from shadow.api.access import principal, sees_only
from shadow.core.accounts import Scope
from shadow.core.ids import Operation, OperationId, make_id
from shadow.core.tasks import LIVE_STATES
from shadow.db import tasks
from shadow.execution.interface import ToolExecutor, WorkspaceManager
from shadow.http.requests import Entropy
from shadow.http.responses import Answer, message_answer
from shadow.http.routes import ApiRoute, ApiRoutes
from shadow.sidecar.operations import operation_id
from shadow.tasks.service import Tasks
from shadow.wire.workspaces import WorkspaceListMessage, WorkspaceMessage

EXECUTOR = "shadow.executor"


def executor_of(request: HTTPConnection) -> ToolExecutor:
    """That of the workspace which the request names."""
    return request.scope[EXECUTOR]


class UsersOperations:
    """What users call an operation is told apart from what others, and the agent, call theirs."""

    def __init__(self, entropy: Entropy) -> None:
        self._entropy = entropy

    def __call__(self, request: Request) -> Operation:
        given = operation_id(request)
        if given is None:
            id_ = make_id("op", entropy=self._entropy(16))
        else:
            id_ = "op_u" + hashlib.sha256(f"{principal(request).user.id} {given}".encode()).hexdigest()[:40]
        return Operation(id=OperationId(id_), epoch=executor_of(request).epoch)


class WorkspaceListRoutes:
    def __init__(self, tasks: Tasks, manager: WorkspaceManager) -> None:
        self._tasks = tasks
        self._manager = manager

    def routes(self) -> ApiRoutes:
        return [
            ApiRoute(
                "GET",
                "/v1/workspaces",
                self.list,
                summary="The workspaces of tasks on the server's host, oldest first.",
                answer=WorkspaceListMessage,
                access=Scope.WORKSPACES_READ,
            )
        ]

    async def list(self, request: Request) -> Answer:
        who = principal(request)
        statuses = await self._manager.list()
        async with self._tasks.database.read() as connection:
            task_of = await tasks.of_workspaces(
                connection, [status.id for status in statuses], seen_by=sees_only(who), states=LIVE_STATES
            )
        found = [
            WorkspaceMessage.model_validate(
                {
                    "id": status.id,
                    "task_id": task_of[status.id],
                    "name": status.name,
                    "state": status.state,
                    "isolation": status.isolation,
                    "created_at": status.created_at,
                    "lease_expires_at": status.lease_expires_at,
                    "error": status.error,
                }
            )
            for status in statuses
            if status.id in task_of
        ]
        return message_answer(WorkspaceListMessage(workspaces=tuple(found)))
