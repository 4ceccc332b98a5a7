"""The repository's own background services, as ``.shadow/config.toml`` names them."""

from shadow.agent.task_log import TaskLog
from shadow.agent.tools.commands import NOBODY_IS_THERE
from shadow.core.commands import CommandSpec, Exited, shell
from shadow.core.errors import Rejected
from shadow.core.ids import Operation
from shadow.execution.interface import ToolExecutor
from shadow.tasks.checking import shown_ending
from shadow.tasks.steps import Step, step

LOOK_S = 1.0
"""How long a service is looked at: what fails at once is told."""


async def start_services(executor: ToolExecutor, log: TaskLog, services: str | None, *, operation: Operation) -> None:
    """``services``: a shell line. Raises: Rejected: it ended at once, and not well."""
    if services is None:
        return
    with step(log, Step.START_BACKGROUND_SERVICES) as details:
        details.append(services)
        spec = CommandSpec(argv=shell(services), env=NOBODY_IS_THERE)
        command = await executor.start(spec, operation=operation)
        command = await executor.wait(command.id, timeout_s=LOOK_S)
        if command.ending not in (None, Exited(code=0)):
            raise Rejected(
                f"The repository's services ended with {shown_ending(command.ending)}.",
                mend=f"`shadow logs` shows what they wrote: command {command.id}.",
            )
