"""What a task does, from its repository to its delivered branch: initialise, run, commit, check, deliver. What bootstrap wires.

Every step is an event of the task's log before the next one begins. What failed leaves nothing but the log; what was worked
on and could not be delivered keeps its workspace.
"""

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace

from shadow.agent.loop import ModelFacts, Outcome, RunState, RunStatus
from shadow.agent.model import Model
from shadow.agent.prompts.instructions import Facts, instructions
from shadow.agent.rebuilding import fold
from shadow.agent.runner import Agent, run
from shadow.agent.task_log import TaskLog, Watcher, open_log
from shadow.agent.toolbox import Bench, Toolbox
from shadow.agent.tools.all import make_tools
from shadow.core.commands import CommandSpec, Exited, shell
from shadow.core.conversation import UserMessage
from shadow.core.errors import Conflict, NothingToCommit, Rejected, ShadowError, Unsupported
from shadow.core.events import (
    MAX_DIFF_BYTES,
    CheckFinished,
    FileChange,
    RunFinished,
    RunStarted,
    TaskCreated,
    WorkCommitted,
    WorkDelivered,
)
from shadow.core.git import GitPerson
from shadow.core.ids import Operation, OperationId, make_id
from shadow.core.repositories import Repository
from shadow.core.tasks import Task, TaskId, TaskState, title_of
from shadow.core.workspaces import WorkspaceSpec
from shadow.db.store import TaskStore
from shadow.execution.interface import ToolExecutor, WorkspaceManager
from shadow.scm.collecting import NothingToDeliver, Work
from shadow.scm.delivering import difference, patch
from shadow.scm.repositories import Repositories
from shadow.tasks.checking import check_work, shown_ending
from shadow.tasks.committing import commit_message
from shadow.tasks.project import read_project_config
from shadow.tasks.steps import Step, counted, step
from shadow.tasks.values import Deliver, ProjectConfig, RunOptions, RunReport
from shadow.tasks.watching import egress_told, start_egress

SETUP_TIMEOUT_S = 1800.0
RENEWAL_S = 60.0


class CheckFailed(Rejected):
    """The agent says that it is done; the check says otherwise."""

    code = "check_failed"


@dataclass(slots=True, kw_only=True)
class Tasks:
    store: TaskStore
    manager: WorkspaceManager
    repositories: Repositories
    co_authors: Sequence[GitPerson]
    clock: Callable[[], float]
    entropy: Callable[[int], bytes]

    async def start(
        self,
        repository: Repository,
        instruction: str,
        *,
        model: Model,
        spec: WorkspaceSpec,
        options: RunOptions,
        branch: str | None = None,
        depth: int | None = None,
        watchers: Sequence[Watcher] = (),
        stop: asyncio.Event,
    ) -> RunReport:
        """A new task and its first run. Raises: ShadowError: the task could not be started, or its work not be handed out."""
        if not instruction.strip():
            raise Rejected("The instruction is empty.", mend="Say what is to be done.")
        if not self.manager.capabilities.git:
            raise Unsupported(
                "A task begins with a clone of its repository, and workspaces of this mode have no git.",
                mend="Set AGENT_MODE=local; to test an agent without a repository, see docs/mock.md.",
                details={"capability": "git"},
            )
        task = self._new_task(repository, instruction, model)
        await self.store.add_task(task)
        async with open_log(self.store, task.id, watchers) as log:
            log.tell(TaskCreated(instruction=instruction, repository=task.repository, model=model.name))
            try:
                task = await self._initialise(task, repository, log, spec=spec, branch=branch, depth=depth)
            except BaseException:
                await asyncio.shield(self.store.change_task(task.id, state=TaskState.FAILED.value))
                raise
            return await self._run(task, instruction, model, options, log, spec, stop)

    async def resume(
        self,
        reference: str,
        instruction: str,
        *,
        model: Model,
        spec: WorkspaceSpec,
        options: RunOptions,
        watchers: Sequence[Watcher] = (),
        stop: asyncio.Event,
    ) -> RunReport:
        """The next run of a task, with its whole conversation. Raises: NotFound, Conflict: its workspace is gone."""
        task = await self.store.task(reference)
        if task.workspace_id is None:
            raise Conflict(
                f"The workspace of {task.id} is gone: its work was delivered.",
                mend="Start a new run from the delivered branch (--branch), or use --keep the next time.",
            )
        async with open_log(self.store, task.id, watchers) as log:
            return await self._run(task, instruction, model, options, log, spec, stop)

    def _new_task(self, repository: Repository, instruction: str, model: Model) -> Task:
        now = self.clock()
        return Task(
            id=TaskId(make_id("task", entropy=self.entropy(12))),
            title=title_of(instruction),
            state=TaskState.STARTING,
            model=model.name,
            repository=self.repositories.shown(repository),
            created_at=now,
            updated_at=now,
        )

    # Initialisation

    async def _initialise(
        self,
        task: Task,
        repository: Repository,
        log: TaskLog,
        *,
        spec: WorkspaceSpec,
        branch: str | None,
        depth: int | None,
    ) -> Task:
        with step(log, Step.FETCH_REPOSITORY) as details:
            opening = self.repositories.opened(repository, branch=branch, depth=depth, about=task.title)
            source = await opening.__aenter__()
            details.append(f"{source.checkout.base_branch or 'detached'} at {source.checkout.base_commit[:12]}")
        try:
            with step(log, Step.PREPARE_WORKSPACE) as details:
                status = await self.manager.create(
                    replace(spec, checkout=source.checkout, name=spec.name or task.title)
                )
                details.append(status.id)
            try:
                await self.store.change_task(task.id, workspace_id=status.id, checkout=source.checkout)
                async with await self.manager.attach(status.id) as executor:
                    with step(log, Step.CLONE_REPOSITORY) as details:
                        await asyncio.gather(
                            self.repositories.fill(executor, source), start_egress(self.manager, status.id)
                        )
                        details.append(f"on {source.checkout.branch}")
                    await self._set_up(executor, log)
            except BaseException:
                await asyncio.shield(self.manager.destroy(status.id))
                await asyncio.shield(self.store.change_task(task.id, workspace_id=None))
                raise
        finally:
            await opening.__aexit__(None, None, None)
        return replace(task, workspace_id=status.id, checkout=source.checkout)

    async def _set_up(self, executor: ToolExecutor, log: TaskLog) -> None:
        setup = (await read_project_config(executor)).setup
        if setup is None:
            return
        with step(log, Step.INSTALL_DEPENDENCIES) as details:
            details.append(setup)
            result = await executor.run(CommandSpec(argv=shell(setup), timeout_s=SETUP_TIMEOUT_S))
            if result.ending != Exited(code=0):
                tail = (result.stderr or result.stdout)[-1000:].decode(errors="replace").strip()
                raise Rejected(f"The repository's setup ended with {shown_ending(result.ending)}: {tail}")

    # A run

    async def _run(
        self,
        task: Task,
        instruction: str,
        model: Model,
        options: RunOptions,
        log: TaskLog,
        spec: WorkspaceSpec,
        stop: asyncio.Event,
    ) -> RunReport:
        assert task.workspace_id is not None
        began = time.monotonic()
        number = task.runs + 1
        await self.store.change_task(task.id, state=TaskState.RUNNING.value, runs=number, model=model.name)
        report: RunReport | None = None
        try:
            async with self._attached(task) as executor:
                project = await read_project_config(executor)
                check = options.check or project.check
                async with egress_told(self.manager, task.workspace_id, log):
                    state = await self._converse(task, instruction, model, options, log, executor, check, number, stop)
                assert state.outcome is not None
                report = self._report(task, state, state.outcome, began)
                if report.status is RunStatus.DONE:
                    try:
                        report = await self._hand_out(task, report, options, log, executor, spec, check, project)
                    except ShadowError as error:  # the work stays in its workspace
                        report = replace(report, status=RunStatus.FAILED, code=error.code, undelivered=str(error))
                log.tell(_finished(number, report))
                await log.flush()
            if report.delivered is not None and not options.keep:
                await self.manager.destroy(task.workspace_id)
                await self.store.change_task(task.id, workspace_id=None)
                report = replace(report, workspace_id=None)
            return report
        finally:
            outcome = {"outcome": report.status.value, "summary": report.summary} if report else {"outcome": "failed"}
            await asyncio.shield(self.store.change_task(task.id, state=TaskState.IDLE.value, **outcome))

    @asynccontextmanager
    async def _attached(self, task: Task) -> AsyncGenerator[ToolExecutor]:
        """The workspace, kept alive."""
        assert task.workspace_id is not None
        workspace_id = task.workspace_id
        lease = await self.manager.status(workspace_id)

        async def keep_alive() -> None:
            while True:
                left = (lease.lease_expires_at or 0) - self.clock()
                await asyncio.sleep(RENEWAL_S)
                with suppress(ShadowError):
                    await self.manager.renew(workspace_id, lease_s=max(left, 10 * RENEWAL_S))

        renewals = asyncio.create_task(keep_alive())
        try:
            async with await self.manager.attach(workspace_id) as executor:
                yield executor
        finally:
            renewals.cancel()
            with suppress(asyncio.CancelledError):
                await renewals

    async def _converse(
        self,
        task: Task,
        instruction: str,
        model: Model,
        options: RunOptions,
        log: TaskLog,
        executor: ToolExecutor,
        check: str | None,
        number: int,
        stop: asyncio.Event,
    ) -> RunState:
        bench = Bench(
            executor=executor,
            told=log.tell,
            operation=lambda call_id: _operation(f"{task.id} {number} {bench.step} {call_id}", executor.epoch),
            clock=self.clock,
        )
        toolbox = Toolbox(make_tools(), bench)
        assert task.checkout is not None
        facts = Facts(
            checkout=task.checkout,
            check=check,
            allowed=await self._allowed(task),
            time_s=options.limits.time_s,
            today=time.strftime("%Y-%m-%d", time.gmtime(self.clock())),
        )
        text = await instructions(executor, facts)
        fresh = RunState(
            messages=(),
            tools=toolbox.names,
            limits=options.limits,
            model=ModelFacts(
                context_tokens=model.context_tokens, max_output_tokens=model.max_output_tokens, price=model.price
            ),
            overhead_chars=len(text) + sum(len(str(d.parameters)) + len(d.description) for d in toolbox.descriptions),
        )
        earlier = [recorded.event for recorded in await self.store.all_events(task.id)]
        started = RunStarted(run=number, message=UserMessage(text=instruction))
        log.tell(started)
        await log.flush()
        state = fold(fresh, [*earlier, started])
        return await run(Agent(model=model, toolbox=toolbox, instructions=text, log=log), state, stop=stop)

    async def _allowed(self, task: Task) -> tuple[str, ...]:
        if task.workspace_id is None or not self.manager.capabilities.egress:
            return ()
        return tuple(str(rule) for rule in (await self.manager.egress(task.workspace_id)).policy.rules)

    def _report(self, task: Task, state: RunState, outcome: Outcome, began: float) -> RunReport:
        return RunReport(
            task_id=task.id,
            status=outcome.status,
            summary=outcome.summary,
            code=outcome.code,
            usage=state.usage,
            cost_usd=None if state.cost_usd is None else str(state.cost_usd),
            took_s=time.monotonic() - began,
            workspace_id=task.workspace_id,
        )

    # Handing out

    async def _hand_out(
        self,
        task: Task,
        report: RunReport,
        options: RunOptions,
        log: TaskLog,
        executor: ToolExecutor,
        spec: WorkspaceSpec,
        check: str | None,
        project: ProjectConfig,
    ) -> RunReport:
        """Commit, verify, check, deliver. A check that fails makes the run fail; its work is delivered all the same."""
        assert task.checkout is not None
        await self._commit(task, report, log, executor)
        try:
            async with self._verified(task, log, executor) as work:
                checked = None
                if check is not None:
                    checked = await self._check(task, work, log, spec, check, project)
                    report = replace(report, check=checked)
                if options.deliver is not Deliver.NONE:
                    report = await self._deliver(task, report, options, log, work)
                if checked is not None and not checked.passed:
                    summary = f"The agent said that it was done, but the check `{check}` ended with {checked.ending}."
                    report = replace(report, status=RunStatus.FAILED, code=CheckFailed.code, summary=summary)
        except NothingToDeliver:
            report = replace(report, undelivered="Nothing was changed.")
        return report

    async def _commit(self, task: Task, report: RunReport, log: TaskLog, executor: ToolExecutor) -> None:
        message = commit_message(report.summary, fallback=task.title)
        with step(log, Step.COMMIT) as details:
            try:
                head = await executor.git_commit(message, co_authors=self.co_authors)
            except NothingToCommit:
                details.append("nothing that is not committed")
                return
            details.append(message.partition("\n")[0])
        assert head.commit is not None
        log.tell(WorkCommitted(commit=head.commit, message=message))

    @asynccontextmanager
    async def _verified(self, task: Task, log: TaskLog, executor: ToolExecutor) -> AsyncGenerator[Work]:
        assert task.checkout is not None
        collecting = self.repositories.collected(executor, task.checkout)
        with step(log, Step.VERIFY) as details:
            try:
                work = await collecting.__aenter__()
            except NothingToDeliver:
                details.append("nothing was changed")
                work = None
            else:
                details.append(f"{counted(work.commits, 'commit')}, {counted(len(work.changes), 'file')}")
        if work is None:
            raise NothingToDeliver("Nothing was changed.")
        try:
            yield work
        finally:
            await collecting.__aexit__(None, None, None)

    async def _check(
        self, task: Task, work: Work, log: TaskLog, spec: WorkspaceSpec, check: str, project: ProjectConfig
    ) -> CheckFinished:
        assert task.checkout is not None
        with step(log, Step.CHECK) as details:
            finished = await check_work(
                check,
                work,
                task.checkout,
                manager=self.manager,
                repositories=self.repositories,
                spec=replace(spec, name=f"check of {task.id}"),
                setup=project.setup,
            )
            details.append(f"{check}: {finished.ending}")
        log.tell(finished)
        return finished

    async def _deliver(self, task: Task, report: RunReport, options: RunOptions, log: TaskLog, work: Work) -> RunReport:
        assert task.checkout is not None
        changes = tuple(FileChange(path=c.path, added=c.added, removed=c.removed) for c in work.changes)
        with step(log, Step.DELIVER) as details:
            content: bytes | None = None
            if options.deliver is Deliver.PATCH:
                content, where = await patch(work), "a patch"
            else:
                await self.repositories.deliver(work, task.checkout, branch=options.branch)
                where = f"{options.branch or work.branch} in {task.checkout.repository}"
            details.append(where)
        delivered = WorkDelivered(
            how=options.deliver.value if options.deliver is not Deliver.NONE else "branch",
            where=where,
            commit=work.tip,
            commits=work.commits,
            changes=changes,
            diff=(await difference(work, limit_bytes=MAX_DIFF_BYTES) or b"").decode(errors="replace"),
        )
        log.tell(delivered)
        return replace(report, delivered=delivered, patch=content)


def _operation(name: str, epoch: int) -> Operation:
    """The same for a call each time, and safe whatever a provider calls its calls."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return Operation(id=OperationId(f"op_{digest}"), epoch=epoch)


def _finished(number: int, report: RunReport) -> RunFinished:
    return RunFinished(
        run=number,
        status=report.status.value,
        summary=report.summary,
        usage=report.usage,
        cost_usd=report.cost_usd,
        took_ms=report.took_s * 1000,
        code=report.code,
    )
