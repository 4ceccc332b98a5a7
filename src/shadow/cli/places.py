"""Where tasks are: on this host, whose work is done by this process, or at a server, which does it itself."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

from shadow.bootstrap import (
    Watcher,
    make_keys,
    make_manager,
    open_artifacts,
    open_model,
    open_tasks,
    record_to,
    start_logging,
)
from shadow.cli.outcome import say
from shadow.cli.projects import choose_project
from shadow.cli.servers import chosen_url, no_server, open_server
from shadow.cli.working import work
from shadow.core.accounts import LOCAL_USER, ProjectId
from shadow.core.artifacts import Artifact
from shadow.core.errors import NotFound, Unsupported
from shadow.core.events import Recorded
from shadow.core.ids import WorkspaceId
from shadow.core.keys import Payer
from shadow.core.repositories import LocalRepository, parse_repository
from shadow.core.tasks import Checkpoint, QueuedMessage, Task, TaskId
from shadow.settings import Settings, load_settings
from shadow.tasks.elsewhere import is_elsewhere, other_host
from shadow.tasks.looking import delivered, patch_of
from shadow.tasks.refusals import check_capabilities
from shadow.tasks.service import Tasks
from shadow.tasks.values import RunOptions, TaskSettings

if TYPE_CHECKING:
    from shadow.client.shadow import Shadow

OF_FILES = ("scripted:", "replay:")
"""Models that are files."""


class TaskCalls(Protocol):
    """What can be asked of tasks, wherever they are."""

    async def find(self, reference: str) -> Task: ...
    async def list(self, *, limit: int, project_id: ProjectId | None = None) -> Sequence[Task]: ...
    async def events(self, task_id: TaskId) -> Sequence[Recorded]: ...
    async def send(
        self,
        task_id: TaskId,
        text: str,
        *,
        model: str | None = None,
        options: RunOptions | None = None,
        stop: bool = False,
    ) -> QueuedMessage: ...
    async def queue(self, task_id: TaskId) -> Sequence[QueuedMessage]: ...
    async def edit(self, task_id: TaskId, message_id: str, text: str) -> None: ...
    async def remove(self, task_id: TaskId, message_id: str) -> None: ...
    async def reorder(self, task_id: TaskId, message_ids: Sequence[str]) -> None: ...
    async def stop(self, task_id: TaskId) -> bool: ...
    async def resume(self, task_id: TaskId) -> None: ...
    async def checkpoints(self, task_id: TaskId) -> Sequence[Checkpoint]: ...
    async def before_run(self, task_id: TaskId, run: int) -> str: ...
    async def roll_back(self, task_id: TaskId, reference: str, *, message: str | None = None) -> Checkpoint: ...
    def hibernate(self, task_id: TaskId) -> Awaitable[None]: ...
    def archive(self, task_id: TaskId) -> Awaitable[None]: ...
    def delete(self, task_id: TaskId) -> Awaitable[None]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTask:
    repository: str
    instruction: str
    model: str | None
    """As ``Place.model`` gave it."""
    branch: str | None
    depth: int | None
    allow: tuple[str, ...] | None
    options: RunOptions
    project_id: ProjectId | None = None


class Place(ABC):
    is_here: ClassVar[bool]

    @property
    @abstractmethod
    def tasks(self) -> TaskCalls: ...

    @abstractmethod
    async def model(self, name: str | None) -> str | None:
        """The name to ask for, where ``name`` is what the user typed. Raises: what is wrong with it, if that shows here."""

    @abstractmethod
    async def project(self, reference: str) -> ProjectId:
        """The one that a person means. Raises: WrongUsage: there are none here; NotFound, Conflict."""

    @abstractmethod
    async def project_names(self) -> Mapping[ProjectId, str]: ...

    @abstractmethod
    async def create(self, new: NewTask) -> Task: ...

    @abstractmethod
    async def work(self, task_id: TaskId, *, after: int, watchers: Sequence[Watcher]) -> Sequence[Recorded]:
        """Until nothing goes on with the task any more; the events behind ``after``.

        Raises: what the last thing that was asked of the task failed with.
        """

    @abstractmethod
    def is_elsewhere(self, task: Task) -> bool:
        """Whether its workspace is on another host than the one that we would work on ourselves."""

    def check_here(self, task: Task) -> None:
        """Raises: OtherHost."""
        if self.is_elsewhere(task):
            raise other_host(task.id, task.host)

    @abstractmethod
    async def wake(self, workspace_id: WorkspaceId) -> None:
        """Before somebody attaches to it."""

    @abstractmethod
    def recording(self, path: Path, model: str | None) -> AbstractAsyncContextManager[Watcher]:
        """What records a run, for ``--model replay:FILE``."""

    @abstractmethod
    async def patch(self, task_id: TaskId) -> bytes:
        """What was delivered last, as a patch. Raises: NotFound."""

    @abstractmethod
    async def artifacts(self, task_id: TaskId) -> Sequence[Artifact]: ...


class Here(Place):
    is_here = True

    def __init__(self, settings: Settings, tasks: Tasks) -> None:
        self._settings = settings
        self._tasks = tasks
        self._keys = make_keys(settings, tasks.database)
        self._payer = Payer(user_id=LOCAL_USER)

    @property
    def tasks(self) -> TaskCalls:
        return self._tasks

    async def model(self, name: str | None) -> str | None:
        async with open_model(self._settings, name, keys=self._keys, payer=self._payer) as model:
            return model.name

    async def project(self, reference: str) -> ProjectId:
        raise no_server("A project")

    async def project_names(self) -> Mapping[ProjectId, str]:
        """Of tasks that a server has made in this database: whoever works on its host reads ids."""
        return {}

    async def create(self, new: NewTask) -> Task:
        check_capabilities(make_manager(self._settings).capabilities)
        assert new.model is not None
        wanted = TaskSettings(branch=new.branch, depth=new.depth, egress=new.allow, options=new.options)
        repository = parse_repository(new.repository, local_user=True)
        return await self._tasks.create(repository, new.instruction, model=new.model, settings=wanted)

    async def work(self, task_id: TaskId, *, after: int, watchers: Sequence[Watcher]) -> Sequence[Recorded]:
        return await work(self._settings, self._tasks, task_id, after=after, watchers=watchers)

    def is_elsewhere(self, task: Task) -> bool:
        return is_elsewhere(task, self._tasks.host)

    async def wake(self, workspace_id: WorkspaceId) -> None:
        await self._tasks.wake(workspace_id)

    @asynccontextmanager
    async def recording(self, path: Path, model: str | None) -> AsyncGenerator[Watcher]:
        stored = await self._keys.secrets(self._payer)
        async with open_model(self._settings, model, keys=self._keys, payer=self._payer) as opened:
            with record_to(self._settings, path, opened, stored) as watcher:
                yield watcher

    async def patch(self, task_id: TaskId) -> bytes:
        work = await delivered(self._tasks.database, task_id)
        return patch_of(work) if work.artifact is None else open_artifacts(self._settings).get(task_id, work.artifact)

    async def artifacts(self, task_id: TaskId) -> Sequence[Artifact]:
        return open_artifacts(self._settings).list(task_id)


class There(Place):
    is_here = False

    def __init__(self, shadow: "Shadow") -> None:
        self._shadow = shadow

    @property
    def tasks(self) -> TaskCalls:
        return self._shadow.tasks

    async def model(self, name: str | None) -> str | None:
        """Files of models and repositories are those of the server's host, which may be this one."""
        kind = next((kind for kind in OF_FILES if name is not None and name.startswith(kind)), None)
        return name if name is None or kind is None else f"{kind}{Path(name.removeprefix(kind)).absolute()}"

    async def project(self, reference: str) -> ProjectId:
        return choose_project(reference, await self._shadow.projects.list()).id

    async def project_names(self) -> Mapping[ProjectId, str]:
        return {project.id: project.name for project in await self._shadow.projects.list()}

    async def create(self, new: NewTask) -> Task:
        repository = new.repository
        named = parse_repository(repository, local_user=True)
        if isinstance(named, LocalRepository):
            repository = str(Path(named.path).absolute())
        return await self._shadow.tasks.create(
            repository,
            new.instruction,
            model=new.model,
            branch=new.branch,
            depth=new.depth,
            allow=new.allow,
            options=new.options,
            project_id=new.project_id,
        )

    async def work(self, task_id: TaskId, *, after: int, watchers: Sequence[Watcher]) -> Sequence[Recorded]:
        found: list[Recorded] = []
        try:
            async with aclosing(self._shadow.events(task_id, after=after, until_rest=True)) as followed:
                async for recorded in followed:
                    found.append(recorded)
                    for watcher in watchers:
                        watcher(recorded.event)
        except NotFound as error:
            if "task_id" in error.details:
                raise  # what was asked for failed with it
            return found  # it was deleted, which is what was asked for
        except asyncio.CancelledError:
            say(
                f"shadow: the server goes on. Come back: shadow task follow {task_id}; end it: shadow task stop {task_id}"
            )
            raise
        return found

    def is_elsewhere(self, task: Task) -> bool:
        return False

    async def wake(self, workspace_id: WorkspaceId) -> None:
        """The server sees to it."""

    def recording(self, path: Path, model: str | None) -> AbstractAsyncContextManager[Watcher]:
        raise Unsupported(
            "What a server does cannot be recorded from here.",
            mend="Leave out --record, or give --server none for this host.",
            details={"capability": "record"},
        )

    async def patch(self, task_id: TaskId) -> bytes:
        return b"".join([piece async for piece in self._shadow.tasks.patch(task_id)])

    async def artifacts(self, task_id: TaskId) -> Sequence[Artifact]:
        return await self._shadow.tasks.artifacts(task_id)


@asynccontextmanager
async def open_place(settings: Settings | None = None) -> AsyncGenerator[Place]:
    """Where the settings, or the last login, say that tasks are; logging is set up on the way."""
    settings = settings or load_settings()
    start_logging(settings)
    url = chosen_url(settings)
    if url is not None:
        async with open_server(settings, url) as shadow:
            yield There(shadow)
    else:
        async with open_tasks(settings) as tasks:
            yield Here(settings, tasks)
