"""The job that makes a task ready: its workspace, the clone in it, the repository's own setup and services.

What was finished stays finished over crashes and repeats. A workspace that was not filled to the end is made again: nobody can
know what half a clone is worth; one whose setup failed is kept, and the setup is tried again.
"""

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

from shadow.agent.task_log import TaskLog
from shadow.core.commands import CommandSpec, Exited, shell
from shadow.core.errors import NotFound, Rejected, ShadowError
from shadow.core.events import TaskFailed
from shadow.core.repositories import Repository, parse_repository
from shadow.core.tasks import Task, TaskStep
from shadow.db import events, jobs, messages, tasks
from shadow.db.database import Transaction
from shadow.engine.context import JobContext
from shadow.execution.interface import ToolExecutor
from shadow.scm.failures import HostUnknown
from shadow.scm.owners import Owner
from shadow.scm.repositories import Source
from shadow.tasks.checking import shown_ending
from shadow.tasks.kinds import RUN
from shadow.tasks.project import read_project_config
from shadow.tasks.refusals import check_capabilities
from shadow.tasks.services import start_services
from shadow.tasks.steps import REMOTE, Step, step
from shadow.tasks.values import settings_from_json, settings_to_json
from shadow.tasks.watching import start_egress
from shadow.tasks.workshop import WORKING_LEASE_S, TaskHandler, end_commands, operation

SETUP_TIMEOUT_S = 1800.0


class StoppedBefore(ShadowError):
    """The user stopped it before the agent could begin."""

    code = "stopped"


class Initialising(TaskHandler):
    retries = REMOTE

    async def run(self, context: JobContext) -> None:
        shop = self._shop
        task = await shop.task(context)
        check_capabilities(shop.manager.capabilities)
        await self._unless_stopped(context, self._initialise(context, task))

        async def ready(transaction: Transaction) -> None:
            await shop.tasks.move(transaction, task.id, TaskStep.BE_READY)
            stopped = (await jobs.get(transaction.connection, context.job.id)).stop_requested
            if await messages.queue(transaction.connection, task.id) and not stopped:
                await shop.tasks.add_job(transaction, await tasks.get(transaction.connection, task.id), RUN)

        context.finish_with(ready)

    async def compensate(self, context: JobContext, error: ShadowError) -> None:
        """What still runs is ended; the task says what was wrong, and can be tried again."""
        task = await self._shop.task(context)
        if task.workspace_id is not None:
            with suppress(ShadowError):  # what is wrong with the workspace may be what is wrong
                async with self._shop.attached(task) as executor:
                    await end_commands(executor)

        async def tell(transaction: Transaction) -> None:
            failed = TaskFailed(code=error.code, message=error.message, mend=error.mend)
            await events.append(transaction, task.id, [failed])
            await self._shop.tasks.move(transaction, task.id, TaskStep.FAIL)

        context.finish_with(tell)

    async def _unless_stopped(self, context: JobContext, work: Coroutine[None, None, None]) -> None:
        """Raises: StoppedBefore."""
        working = asyncio.ensure_future(work)
        stopped = asyncio.ensure_future(context.stop.wait())
        try:
            await asyncio.wait({working, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                raise StoppedBefore(
                    "It was stopped before the agent could begin.", mend="`shadow task resume` goes on."
                )
        finally:
            for future in (working, stopped):
                future.cancel()
            await asyncio.wait({working, stopped})
        working.result()

    async def _initialise(self, context: JobContext, task: Task) -> None:
        shop = self._shop
        async with shop.log(context) as log:
            if task.workspace_id is None or not await shop.is_there(task.workspace_id):
                task = await self._make(context, task, log)
            assert task.workspace_id is not None
            project = settings_from_json(task.settings).project
            async with shop.attached(task) as executor:
                await start_egress(shop.manager, task.workspace_id)
                await self._install(context, task, project.setup, executor, log)
                started = operation(executor, context.job.id, "services", context.job.payload["round"])
                await start_services(executor, log, project.services, operation=started)

    async def _make(self, context: JobContext, task: Task, log: TaskLog) -> Task:
        """A workspace with a clone. It is on record when it is whole: what we leave before that ends by its short lease."""
        shop = self._shop
        settings = settings_from_json(task.settings)
        async with self._source(task, log) as source:
            with step(log, Step.PREPARE_WORKSPACE) as details:
                spec = settings.spec(name=task.title, lease_s=WORKING_LEASE_S)
                status = await shop.manager.create(replace(spec, checkout=source.checkout))
                details.append(status.id)
            try:
                made = replace(task, workspace_id=status.id, checkout=source.checkout)
                with step(log, Step.CLONE_REPOSITORY) as details:
                    async with shop.attached(made, lease_s=WORKING_LEASE_S) as executor:
                        await shop.repositories.fill(executor, source)
                        settings = replace(settings, project=await read_project_config(executor))
                    details.append(f"on {source.checkout.branch}")
                async with context.write() as transaction:
                    await tasks.change(
                        transaction,
                        task.id,
                        workspace_id=status.id,
                        checkout=source.checkout,
                        settings=settings_to_json(settings),
                        host=shop.tasks.host,
                    )
                    if shop.tasks.host is not None:
                        await jobs.pin(transaction, task.id, shop.tasks.host)
            except BaseException:
                await asyncio.shield(shop.manager.destroy(status.id))
                raise
        return replace(made, settings=settings_to_json(settings))

    @asynccontextmanager
    async def _source(self, task: Task, log: TaskLog) -> AsyncGenerator[Source]:
        settings = settings_from_json(task.settings)
        with step(log, Step.FETCH_REPOSITORY) as details:
            owner = await self._shop.owner(task)
            opening = self._shop.repositories.opened(
                self._repository(task, owner),
                owner=owner,
                branch=settings.branch,
                depth=settings.depth,
                about=task.title,
            )
            try:
                source = await opening.__aenter__()
            except HostUnknown as error:  # most likely mistyped, and nothing is lost by asking whoever typed it
                raise NotFound(
                    error.message, mend="Check the host's name; `shadow task resume` tries again."
                ) from error
            details.append(f"{source.checkout.base_branch or 'detached'} at {source.checkout.base_commit[:12]}")
        try:
            yield source
        finally:
            await opening.__aexit__(None, None, None)

    def _repository(self, task: Task, owner: Owner) -> Repository:
        known = self._shop.tasks.credentials.get(task.id)
        return known or parse_repository(task.repository, local_user=owner.is_host_user)

    async def _install(
        self, context: JobContext, task: Task, setup: str | None, executor: ToolExecutor, log: TaskLog
    ) -> None:
        name = f"{Step.INSTALL_DEPENDENCIES} {task.workspace_id}"
        if setup is None or name in context.recorded:
            return

        async def install() -> None:
            spec = CommandSpec(argv=shell(setup), timeout_s=SETUP_TIMEOUT_S)
            # Where only we failed it is not run again; where it failed itself, it is with each round.
            attempt = operation(executor, context.job.id, "setup", context.job.payload["round"])
            result = await executor.run(spec, operation=attempt)
            if result.ending != Exited(code=0):
                tail = (result.stderr or result.stdout)[-1000:].decode(errors="replace").strip()
                raise Rejected(f"The repository's setup ended with {shown_ending(result.ending)}: {tail}")

        with step(log, Step.INSTALL_DEPENDENCIES) as details:
            details.append(setup)
            await context.step(name, install)
