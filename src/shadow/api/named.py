"""What the path of a request names: there for whoever asks, or answered as if it were not there."""

from collections.abc import Mapping

from shadow.accounts.projects import Projects
from shadow.api.access import sees_only
from shadow.core.accounts import Principal, ProjectId
from shadow.core.ids import WorkspaceId
from shadow.core.tasks import Task
from shadow.tasks.service import Tasks


class Named:
    def __init__(self, tasks: Tasks, projects: Projects) -> None:
        self._tasks = tasks
        self._projects = projects

    async def find(self, named: Mapping[str, str], who: Principal, *, writing: bool) -> Task | None:
        """The task, named by itself or by its workspace; a project is looked at, too.

        Raises: NotFound: it is not there, or not for them; Denied: they only see it.
        """
        if "project_id" in named:
            await self._projects.check(who, ProjectId(named["project_id"]), writing=writing)
        if "task_id" in named:
            task = await self._tasks.find(named["task_id"], seen_by=sees_only(who))
        elif "workspace_id" in named:
            task = await self._tasks.of_workspace(WorkspaceId(named["workspace_id"]), seen_by=sees_only(who))
        else:
            return None
        if writing:
            await self._tasks.check_writable(task.id, sees_only(who))
        return task
