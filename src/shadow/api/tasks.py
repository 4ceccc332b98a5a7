"""Routes of tasks: parse, one call, answer."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

from starlette.requests import Request

from shadow.accounts.projects import Projects
from shadow.agent.loop import RunLimits
from shadow.api.access import is_local, principal, sees_only, task
from shadow.api.acting import acting
from shadow.api.auditing import name_made
from shadow.api.creating import CREATED, HEADERS, Keep, created, once
from shadow.core.accounts import ProjectId, Scope
from shadow.core.egress import parse_rules
from shadow.core.errors import Rejected
from shadow.core.ids import is_id
from shadow.core.keys import Payer, payer_of
from shadow.core.repositories import Repository, parse_repository
from shadow.core.tasks import QueuedMessage, Task, TaskId
from shadow.db.database import Transaction
from shadow.http.requests import read_message, read_query
from shadow.http.responses import Answer, message_answer
from shadow.http.routes import ApiRoute, ApiRoutes
from shadow.scm.owners import Owner
from shadow.tasks.service import Tasks
from shadow.tasks.values import Deliver, RunOptions, TaskSettings
from shadow.wire.tasks import (
    CheckpointListMessage,
    CheckpointMessage,
    EditMessage,
    NewTaskMessage,
    OrderMessage,
    QueuedMessageMessage,
    QueueMessage,
    RollBackMessage,
    RunOptionsMessage,
    SendMessage,
    StoppedMessage,
    TaskListMessage,
    TaskListQuery,
    TaskMessage,
)

CheckRepository = Callable[[Repository, Owner], None]
"""Raises: Denied: it cannot be reached for them."""
CheckModel = Callable[[str | None, Payer], Awaitable[str]]
"""The full name of a model that can be asked on somebody's behalf; ``None``: the default.

Raises: SettingsRefused, ModelNotFound, and others."""
OF_SERVER = ("scripted:", "replay:")
"""Models that are files of the server."""


class TaskRoutes:
    def __init__(
        self, tasks: Tasks, check_model: CheckModel, check_repository: CheckRepository, projects: Projects
    ) -> None:
        self._tasks = tasks
        self._projects = projects
        self._check_model = check_model
        self._check_repository = check_repository

    def routes(self) -> ApiRoutes:
        one = "/v1/tasks/{task_id}"
        read: dict[str, Any] = {"access": Scope.TASKS_READ}
        write: dict[str, Any] = {"access": Scope.TASKS_WRITE}
        return [
            ApiRoute(
                "POST",
                "/v1/tasks",
                self.create,
                summary="Begin a task: its first run starts when its workspace is ready.",
                body=NewTaskMessage,
                answer=TaskMessage,
                status=CREATED,
                headers=HEADERS,
                **write,
            ),
            ApiRoute(
                "GET",
                "/v1/tasks",
                self.list,
                summary="Tasks, newest first.",
                query=TaskListQuery,
                answer=TaskListMessage,
                **read,
            ),
            ApiRoute("GET", one, self.get, summary="How a task stands.", answer=TaskMessage, **read),
            ApiRoute("DELETE", one, self.delete, summary="Stop it, and remove everything of it.", **write),
            ApiRoute(
                "POST",
                f"{one}/messages",
                self.send,
                summary="Say something: at once, or when what goes on has ended.",
                body=SendMessage,
                answer=QueuedMessageMessage,
                status=CREATED,
                headers=HEADERS,
                **write,
            ),
            ApiRoute("GET", f"{one}/queue", self.queue, summary="What waits to be said.", answer=QueueMessage, **read),
            ApiRoute(
                "PUT",
                f"{one}/queue",
                self.reorder,
                summary="Put what waits into another order.",
                body=OrderMessage,
                answer=QueueMessage,
                **write,
            ),
            ApiRoute(
                "PUT",
                f"{one}/queue/{{message_id}}",
                self.edit,
                summary="Say something else instead of a message that waits.",
                body=EditMessage,
                answer=QueueMessage,
                **write,
            ),
            ApiRoute(
                "DELETE",
                f"{one}/queue/{{message_id}}",
                self.remove,
                summary="Do not say it.",
                answer=QueueMessage,
                **write,
            ),
            ApiRoute(
                "POST",
                f"{one}/stop",
                self.stop,
                summary="End what goes on, within a second; what waits stays in the queue.",
                answer=StoppedMessage,
                **write,
            ),
            ApiRoute(
                "POST",
                f"{one}/resume",
                self.resume,
                summary="Go on where it was interrupted, or where its start failed.",
                answer=TaskMessage,
                **write,
            ),
            ApiRoute(
                "GET",
                f"{one}/checkpoints",
                self.checkpoints,
                summary="What it can be rolled back to.",
                answer=CheckpointListMessage,
                **read,
            ),
            ApiRoute(
                "POST",
                f"{one}/rollback",
                self.roll_back,
                summary="Conversation, files and commit as they were.",
                body=RollBackMessage,
                answer=CheckpointMessage,
                **write,
            ),
            ApiRoute(
                "POST",
                f"{one}/hibernate",
                self.hibernate,
                summary="End the processes of its workspace; the next message wakes it.",
                answer=TaskMessage,
                **write,
            ),
            ApiRoute(
                "POST",
                f"{one}/archive",
                self.archive,
                summary="Stop it and remove its workspace; its log is kept.",
                answer=TaskMessage,
                **write,
            ),
        ]

    async def create(self, request: Request) -> Answer:
        asked, who = await read_message(request, NewTaskMessage), principal(request)
        repository = parse_repository(asked.repository, local_user=is_local(who))
        self._check_repository(repository, Owner(id=who.user.id, is_host_user=is_local(who)))
        if not is_local(who):
            check_outward(asked.allow or ())
        project_id = None if asked.project_id is None else ProjectId(asked.project_id)
        if project_id is not None:
            await self._projects.check(who, project_id, writing=True)

        async def create(keep: Keep) -> Answer:
            async def also(transaction: Transaction, new: Task) -> None:
                await keep(transaction, TaskMessage.from_task(new), _address(new))

            new = await acting(self._tasks, request, project_id=project_id).create(
                repository,
                asked.instruction,
                model=await self._model(request, asked.model, Payer(user_id=who.user.id, project_id=project_id)),
                settings=TaskSettings(
                    branch=asked.branch, depth=asked.depth, egress=asked.allow, options=_options(asked.options)
                ),
                owner=who.user.id,
                project_id=project_id,
                also=also,
            )
            name_made(request, new.id)
            return created(TaskMessage.from_task(new), location=_address(new))

        return await once(self._tasks.database, request, asked, create)

    async def list(self, request: Request) -> Answer:
        query, who = read_query(request, TaskListQuery), principal(request)
        found = await self._tasks.list(
            limit=query.limit,
            seen_by=sees_only(who),
            project_id=None if query.project_id is None else ProjectId(query.project_id),
            states=None if query.state is None else [query.state],
            before=None if query.before is None else _place(query.before),
        )
        last = found[-1] if len(found) == query.limit else None
        return message_answer(
            TaskListMessage(
                tasks=tuple(TaskMessage.from_task(one) for one in found),
                next=None if last is None else f"{last.created_at!r}~{last.id}",
            )
        )

    async def get(self, request: Request) -> Answer:
        return message_answer(TaskMessage.from_task(task(request)))

    async def delete(self, request: Request) -> Answer:
        await acting(self._tasks, request).delete(task(request).id)
        return Answer(b"{}")

    async def send(self, request: Request) -> Answer:
        asked = await read_message(request, SendMessage)

        async def say(keep: Keep) -> Answer:
            async def also(transaction: Transaction, message: QueuedMessage) -> None:
                await keep(transaction, QueuedMessageMessage.of(message), None)

            message = await acting(self._tasks, request).send(
                task(request).id,
                asked.text,
                model=None if asked.model is None else await self._model(request, asked.model, payer_of(task(request))),
                options=None if asked.options is None else _options(asked.options),
                stop=asked.stop,
                also=also,
            )
            name_made(request, message.id)
            return created(QueuedMessageMessage.of(message))

        return await once(self._tasks.database, request, asked, say)

    async def queue(self, request: Request) -> Answer:
        waiting = await self._tasks.queue(task(request).id)
        return message_answer(QueueMessage(messages=tuple(QueuedMessageMessage.of(message) for message in waiting)))

    async def reorder(self, request: Request) -> Answer:
        asked = await read_message(request, OrderMessage)
        await acting(self._tasks, request).reorder(task(request).id, asked.ids)
        return await self.queue(request)

    async def edit(self, request: Request) -> Answer:
        asked = await read_message(request, EditMessage)
        await acting(self._tasks, request).edit(task(request).id, request.path_params["message_id"], asked.text)
        return await self.queue(request)

    async def remove(self, request: Request) -> Answer:
        await acting(self._tasks, request).remove(task(request).id, request.path_params["message_id"])
        return await self.queue(request)

    async def stop(self, request: Request) -> Answer:
        return message_answer(StoppedMessage(stopped=await acting(self._tasks, request).stop(task(request).id)))

    async def resume(self, request: Request) -> Answer:
        await acting(self._tasks, request).resume(task(request).id)
        return await self._as_it_stands(task(request).id)

    async def checkpoints(self, request: Request) -> Answer:
        found = await self._tasks.checkpoints(task(request).id)
        return message_answer(CheckpointListMessage(checkpoints=tuple(CheckpointMessage.of(one) for one in found)))

    async def roll_back(self, request: Request) -> Answer:
        asked, id_ = await read_message(request, RollBackMessage), task(request).id
        if (asked.checkpoint is None) == (asked.run is None):
            raise Rejected("Give `checkpoint`, or `run` for how it was before that run.")
        chosen = asked.checkpoint or await self._tasks.before_run(id_, asked.run or 0)
        checkpoint = await acting(self._tasks, request).roll_back(id_, chosen, message=asked.message)
        return message_answer(CheckpointMessage.of(checkpoint))

    async def hibernate(self, request: Request) -> Answer:
        await acting(self._tasks, request).hibernate(task(request).id)
        return await self._as_it_stands(task(request).id)

    async def archive(self, request: Request) -> Answer:
        await acting(self._tasks, request).archive(task(request).id)
        return await self._as_it_stands(task(request).id)

    async def _as_it_stands(self, task_id: TaskId) -> Answer:
        return message_answer(TaskMessage.from_task(await self._tasks.find(task_id)))

    async def _model(self, request: Request, name: str | None, payer: Payer) -> str:
        if name is not None and name.startswith(OF_SERVER) and not is_local(principal(request)):
            raise Rejected("Models that are files of the server are for its own user.", mend="Give PROVIDER:NAME.")
        return await self._check_model(name, payer)


def _address(of: Task) -> str:
    return f"/v1/tasks/{of.id}"


def check_outward(allow: Sequence[str]) -> None:
    """Raises: Rejected: a rule leads into the server's own networks, where its workspaces would be trusted."""
    for rule in parse_rules(allow):
        if rule.leads_inside:
            raise Rejected(
                f"{rule} leads to this server's host, or into its networks.",
                mend="Ask whoever runs the server: SHADOW_EGRESS may allow it for all workspaces.",
            )


def _options(asked: RunOptionsMessage) -> RunOptions:
    given = {name: value for name, value in asked.limits.model_dump().items() if value is not None}
    return RunOptions(
        limits=replace(RunLimits(), **given),
        deliver=Deliver(asked.deliver),
        branch=asked.branch,
        check=asked.check,
        keep=asked.keep or asked.deliver == "none",
    )


def _place(cursor: str) -> tuple[float, TaskId]:
    """Raises: Rejected."""
    at, _, last = cursor.partition("~")
    try:
        if is_id(last):
            return float(at), TaskId(last)
    except ValueError:
        pass
    raise Rejected("`before` is not what `next` of a page was.")
