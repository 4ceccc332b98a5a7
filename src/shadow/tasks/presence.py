"""Whether a person is at work in a task's workspace, though the agent is not: then no policy takes it from under their hands."""

from shadow.core.commands import shell, shown_argv
from shadow.core.tasks import Task
from shadow.core.workspaces import WorkspaceState
from shadow.tasks.values import settings_from_json
from shadow.tasks.workshop import Workshop


async def somebody_is_in(shop: Workshop, task: Task) -> bool:
    """Whether a terminal runs there, or a command: those of the agent have ended with its run, and the repository's own
    services are nobody's. What is asleep, or on another host, has none."""
    manager = shop.manager
    if task.workspace_id is None or task.host != shop.tasks.host:
        return False
    if (await manager.status(task.workspace_id)).state is not WorkspaceState.READY:
        return False
    services = settings_from_json(task.settings).project.services
    ours = None if services is None else shown_argv(shell(services))
    async with await manager.attach(task.workspace_id) as executor:
        terminals = await executor.list_terminals() if executor.capabilities.terminals else ()
        if any(terminal.ending is None for terminal in terminals):
            return True
        return any(command.ending is None and command.argv != ours for command in await executor.list_commands())
