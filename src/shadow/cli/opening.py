"""What every command of the CLI begins with: settings, logs, a manager, and options turned into values."""

from collections.abc import Sequence

from shadow.bootstrap import has_database, make_manager, open_tasks, start_logging
from shadow.cli.outcome import WrongUsage
from shadow.cli.references import choose
from shadow.cli.servers import check_here, chosen_url, open_server
from shadow.cli.text import duration_s
from shadow.core.errors import NotFound, Rejected, Unsupported
from shadow.core.workspaces import Isolation, WorkspaceState, WorkspaceStatus
from shadow.execution.interface import WorkspaceManager
from shadow.settings import load_settings

NO_WALL = (
    "warning: isolation none is no wall: commands of this workspace run with your rights, on this host, "
    "with its network and all files that you can read."
)


def open_manager(*, isolation: str | None = None, here_for: str | None = None) -> WorkspaceManager:
    """The manager that settings and options ask for; logging is set up on the way. ``here_for``: what needs one of this host.

    Raises: Unsupported, WrongUsage.
    """
    settings = load_settings()
    start_logging(settings)
    if here_for is not None:
        check_here(settings, here_for)
    url = chosen_url(settings)
    if url is not None:
        return open_server(settings, url).workspaces
    if isolation is not None and isolation not in tuple(Isolation):
        raise WrongUsage(f"There is no isolation {isolation!r}.", mend=f"Choose from {', '.join(Isolation)}.")
    manager = make_manager(settings, isolation=Isolation(isolation) if isolation is not None else None)
    if not manager.capabilities.outlives_starter:
        raise Unsupported(
            f"Workspaces of the mode {settings.mode.value!r} live in the memory of one process, and each command of the "
            "command line is another one: nothing would be left of them.",
            mend="Use them from Python (open_workspace, or the pytest plugin; see docs/mock.md), or set AGENT_MODE=local.",
            details={"capability": "outlives_starter"},
        )
    return manager


def variables(assignments: Sequence[str]) -> dict[str, str]:
    """``NAME=VALUE`` pairs as a mapping. Raises: WrongUsage."""
    pairs: dict[str, str] = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not (name and equals):
            raise WrongUsage(f"--env cannot be {assignment!r}.", mend="Write NAME=VALUE.")
        pairs[name] = value
    return pairs


def seconds(text: str | None, *, option: str) -> float | None:
    """Raises: WrongUsage."""
    try:
        return None if text is None else duration_s(text, option=option)
    except Rejected as error:
        raise WrongUsage(error.message, mend=error.mend) from error


async def find(reference: str, *, here_for: str | None = None) -> tuple[WorkspaceManager, WorkspaceStatus]:
    """The workspace that ``reference`` means, and a manager of its own isolation. Raises: NotFound, Conflict.

    ``task_…`` means the one that the task works in.
    """
    manager = open_manager(here_for=here_for)
    if reference.startswith("task_"):
        reference = await _workspace_of_task(reference)
    status = choose(reference, await manager.list())
    return manager_of(status), status


async def find_to_use(reference: str, *, here_for: str | None = None) -> tuple[WorkspaceManager, WorkspaceStatus]:
    """As ``find``, for one that is about to be attached to: a task that slept in it is awake from now on.

    Nobody else is asked where it is up already: that takes more time than most commands.
    """
    manager, status = await find(reference, here_for=here_for)
    settings = load_settings()
    if chosen_url(settings) is not None:
        return manager, status  # the server sees to it
    # Whoever has no database has no tasks, and gets none by this.
    if status.state is not WorkspaceState.READY and has_database(settings):
        async with open_tasks(settings) as tasks:
            await tasks.wake(status.id)
    return manager, status


async def _workspace_of_task(reference: str) -> str:
    from shadow.cli.places import open_place  # not above: it loads the database

    async with open_place() as place:
        task = await place.tasks.find(reference)
        place.check_here(task)
    if task.workspace_id is None:
        raise NotFound(f"The task {task.id} has no workspace any more.", mend="`shadow task show` tells what was done.")
    return task.workspace_id


def manager_of(status: WorkspaceStatus) -> WorkspaceManager:
    """One that may attach to it: a manager never starts a workspace with another wall than it was made with."""
    settings = load_settings()
    url = chosen_url(settings)
    if url is not None:
        return open_server(settings, url).workspaces
    return make_manager(settings, isolation=status.isolation)
