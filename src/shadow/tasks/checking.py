"""The product's own check: the model never decides that tests pass."""

import time

from shadow.core.commands import (
    CommandResult,
    CommandSpec,
    Ending,
    Exited,
    Killed,
    LimitReached,
    Lost,
    Output,
    Signalled,
    TimedOut,
    shell,
)
from shadow.core.events import MAX_EXCERPT_CHARS, CheckFinished
from shadow.core.repositories import Checkout
from shadow.core.workspaces import WorkspaceSpec
from shadow.execution.interface import WorkspaceManager
from shadow.scm.collecting import Work
from shadow.scm.owners import HOST_USER, Owner
from shadow.scm.repositories import Repositories

CHECK_TIMEOUT_S = 1800.0


async def check_work(
    command: str,
    work: Work,
    checkout: Checkout,
    *,
    manager: WorkspaceManager,
    repositories: Repositories,
    owner: Owner = HOST_USER,
    spec: WorkspaceSpec,
    setup: str | None = None,
) -> CheckFinished:
    """Run ``command`` on the commit that is about to be delivered, in a workspace of its own that nobody has touched.

    ``setup`` runs before it; where that fails, the check has failed.
    """
    began = time.monotonic()
    async with repositories.opened_work(work, checkout, owner=owner) as source, manager.open(spec) as executor:
        await repositories.fill(executor, source)

        async def run(line: str) -> CommandResult:
            spec = CommandSpec(argv=shell(line), timeout_s=CHECK_TIMEOUT_S)
            return await executor.run(spec, output_limit_bytes=4 * MAX_EXCERPT_CHARS)

        result = await run(setup or "true")
        if result.ending == Exited(code=0):
            result = await run(command)
    output = b"".join(item.data for item in result.output if isinstance(item, Output))
    return CheckFinished(
        command=command,
        commit=work.tip,
        passed=result.ending == Exited(code=0),
        ending=shown_ending(result.ending),
        output=output.decode(errors="replace")[-MAX_EXCERPT_CHARS:],
        took_ms=(time.monotonic() - began) * 1000,
    )


def shown_ending(ending: Ending | None) -> str:
    match ending:
        case Exited(code=code):
            return f"exit {code}"
        case Signalled(signal=number):
            return f"signal {number}"
        case TimedOut(after_s=seconds):
            return f"no end after {seconds:g} s"
        case LimitReached(limit=limit):
            return f"limit reached: {limit}"
        case Killed():
            return "killed"
        case Lost(reason=reason):
            return f"lost: {reason}"
        case None:
            return "still running"
