"""Tasks of a server: each method is one call of its API."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import asdict
from urllib.parse import quote

from pydantic_core import from_json

from shadow.client.calling import Caller
from shadow.client.downloads import download
from shadow.core.accounts import ProjectId
from shadow.core.artifacts import Artifact
from shadow.core.checkpoints import before_run
from shadow.core.errors import Broken
from shadow.core.events import Recorded
from shadow.core.runs import Run
from shadow.core.tasks import Checkpoint, QueuedMessage, Task, TaskId, TaskState
from shadow.tasks.values import RunOptions
from shadow.wire.events import decode_recorded
from shadow.wire.message import outgoing, to_core
from shadow.wire.runs import PAGE as RUNS_PAGE
from shadow.wire.runs import ArtifactListMessage, RunListMessage
from shadow.wire.tasks import (
    PAGE,
    CheckpointListMessage,
    CheckpointMessage,
    EditMessage,
    NewTaskMessage,
    OrderMessage,
    QueuedMessageMessage,
    QueueMessage,
    RollBackMessage,
    SendMessage,
    StoppedMessage,
    TaskListMessage,
    TaskMessage,
)


class TasksClient:
    """Every method raises what the server tells: NotFound (also of tasks of others), Conflict, Rejected, Denied, Unauthenticated,
    LimitExceeded; and Unavailable or OutcomeUnknown where it does not answer."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def create(
        self,
        repository: str,
        instruction: str,
        *,
        model: str | None = None,
        branch: str | None = None,
        depth: int | None = None,
        allow: Sequence[str] | None = None,
        options: RunOptions | None = None,
        project_id: ProjectId | None = None,
        key: str | None = None,
    ) -> Task:
        """Begin a task: its first run starts when its workspace is ready.

        ``model``: ``PROVIDER:NAME``; else the server's. ``branch``, ``depth``: what to start from. ``allow``: hosts that the
        workspace may reach, and presets; else the server's setting. ``options``: limits, delivery and check of its runs.
        ``project_id``: whose members share it; else it is one's own alone. ``key``: as ``Caller.create`` has it.
        """
        asked = {"repository": repository, "instruction": instruction, "model": model, "branch": branch, "depth": depth}
        asked |= {"allow": None if allow is None else tuple(allow), "project_id": project_id, **_options(options)}
        message = outgoing(NewTaskMessage, asked)
        return (await self._caller.create(TaskMessage, "/v1/tasks", message, key=key)).task()

    async def find(self, reference: str) -> Task:
        """How a task stands; ``reference``: its id, or a unique beginning of it."""
        return (await self._caller.ask(TaskMessage, _path(reference))).task()

    async def get(self, task_id: TaskId) -> Task:
        return await self.find(task_id)

    async def list(
        self, *, limit: int = 100, state: TaskState | None = None, project_id: ProjectId | None = None
    ) -> Sequence[Task]:
        """The newest ``limit`` tasks, newest first. ``project_id``: of that project alone."""
        found: list[Task] = []
        before: str | None = None
        while len(found) < limit:
            query = {"limit": min(PAGE, limit - len(found)), "state": state, "before": before, "project_id": project_id}
            page = await self._caller.ask(TaskListMessage, "/v1/tasks", query)
            found += [message.task() for message in page.tasks]
            before = page.next
            if before is None or not page.tasks:
                break
        return found[:limit]

    async def events(self, task_id: TaskId, *, after: int = 0) -> Sequence[Recorded]:
        """All that the log has behind ``after``; ``Shadow.events`` waits for what comes."""
        found: list[Recorded] = []
        while True:
            seq = found[-1].seq if found else after
            page = _page(await self._caller.ask_raw(_path(task_id, "events"), {"after": seq, "limit": PAGE}))
            if not page:
                return found
            if [one.seq for one in page] != list(range(seq + 1, seq + 1 + len(page))):
                raise Broken(f"The server sent a log with a hole behind event {seq}.")
            found += page

    async def send(
        self,
        task_id: TaskId,
        text: str,
        *,
        model: str | None = None,
        options: RunOptions | None = None,
        stop: bool = False,
        key: str | None = None,
    ) -> QueuedMessage:
        """Say something: at once, or when what goes on has ended; ``stop``: that is stopped, and this said first.
        ``key``: as ``Caller.create`` has it."""
        message = outgoing(SendMessage, {"text": text, "model": model, "stop": stop, **_options(options)})
        sent = await self._caller.create(QueuedMessageMessage, _path(task_id, "messages"), message, key=key)
        return to_core(sent, QueuedMessage)

    async def queue(self, task_id: TaskId) -> Sequence[QueuedMessage]:
        """What waits to be said, in order."""
        found = await self._caller.ask(QueueMessage, _path(task_id, "queue"))
        return [to_core(message, QueuedMessage) for message in found.messages]

    async def edit(self, task_id: TaskId, message_id: str, text: str) -> None:
        """Say ``text`` instead of a message that waits."""
        path, message = _path(task_id, "queue", message_id), outgoing(EditMessage, {"text": text})
        await self._caller.tell("PUT", path, message, repeatable=True)

    async def remove(self, task_id: TaskId, message_id: str) -> None:
        """Do not say a message that waits."""
        await self._caller.tell("DELETE", _path(task_id, "queue", message_id))

    async def reorder(self, task_id: TaskId, message_ids: Sequence[str]) -> None:
        """``message_ids``: all that wait, as they are to be said."""
        message = outgoing(OrderMessage, {"ids": tuple(message_ids)})
        await self._caller.tell("PUT", _path(task_id, "queue"), message, repeatable=True)

    async def stop(self, task_id: TaskId) -> bool:
        """End what goes on, within a second; what waits stays in the queue. ``False``: nothing went on."""
        answer = await self._caller.change(StoppedMessage, "POST", _path(task_id, "stop"), repeatable=True)
        return answer.stopped

    async def resume(self, task_id: TaskId) -> None:
        """Go on where it was interrupted, or where its start failed."""
        await self._caller.tell("POST", _path(task_id, "resume"))

    async def runs(self, task_id: TaskId) -> Sequence[Run]:
        """What was said to the agent, and how each time ended, in order."""
        found: list[Run] = []
        after: int | None = 0
        while after is not None:
            page = await self._caller.ask(RunListMessage, _path(task_id, "runs"), {"after": after, "limit": RUNS_PAGE})
            found += [to_core(one, Run) for one in page.runs]
            after = page.next if page.runs else None
        return found

    async def artifacts(self, task_id: TaskId) -> Sequence[Artifact]:
        """Files that are kept of it, by name."""
        found: list[Artifact] = []
        after: str | None = ""
        while after is not None:
            page = await self._caller.ask(ArtifactListMessage, _path(task_id, "artifacts"), {"after": after})
            found += [to_core(one, Artifact) for one in page.artifacts]
            after = page.next if page.artifacts else None
        return found

    def artifact(self, task_id: TaskId, name: str) -> AsyncGenerator[bytes]:
        """The bytes of an artifact, in pieces."""
        return download(self._caller.transport, _path(task_id, "artifacts", name))

    def patch(self, task_id: TaskId) -> AsyncGenerator[bytes]:
        """What it delivered last, for ``git am`` or ``git apply``, in pieces."""
        return download(self._caller.transport, _path(task_id, "patch"))

    async def checkpoints(self, task_id: TaskId) -> Sequence[Checkpoint]:
        """What it can be rolled back to, oldest first."""
        found = await self._caller.ask(CheckpointListMessage, _path(task_id, "checkpoints"))
        return [to_core(message, Checkpoint) for message in found.checkpoints]

    async def before_run(self, task_id: TaskId, run: int) -> str:
        """The last checkpoint from before anything of that run."""
        return before_run(task_id, run, await self.events(task_id), await self.checkpoints(task_id)).id

    async def roll_back(self, task_id: TaskId, reference: str, *, message: str | None = None) -> Checkpoint:
        """Conversation, files and commit as they were at the checkpoint ``reference``. Then ``message`` is said, in place of
        what was said there."""
        asked = outgoing(RollBackMessage, {"checkpoint": reference, "message": message})
        found = await self._caller.change(CheckpointMessage, "POST", _path(task_id, "rollback"), asked)
        return to_core(found, Checkpoint)

    async def hibernate(self, task_id: TaskId) -> None:
        """End the processes of its workspace; the next message wakes it."""
        await self._caller.tell("POST", _path(task_id, "hibernate"), repeatable=True)

    async def archive(self, task_id: TaskId) -> None:
        """Stop it and remove its workspace; its log is kept."""
        await self._caller.tell("POST", _path(task_id, "archive"), repeatable=True)

    async def delete(self, task_id: TaskId) -> None:
        """Stop it, and remove everything of it."""
        await self._caller.tell("DELETE", _path(task_id))


def _path(*parts: str) -> str:
    return "/".join(["/v1/tasks", *(quote(part, safe="") or "-" for part in parts)])


def _options(options: RunOptions | None) -> dict[str, object]:
    return {} if options is None else {"options": {**asdict(options), "deliver": options.deliver.value}}


def _page(body: bytes) -> list[Recorded]:
    try:
        return [decode_recorded(one) for one in from_json(body, allow_inf_nan=False)["events"]]
    except (ValueError, TypeError, KeyError) as error:
        raise Broken("The server's answer is not a page of a log.") from error
