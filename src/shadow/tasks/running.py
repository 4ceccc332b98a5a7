"""The job that is a run: one message of the user through to the agent's last word, and its work handed out.

The log is the run's record: whoever takes the job over folds it and goes on behind the last step that was finished. What was in
flight is asked of the workspace by its operation. Commit, check and delivery are steps of the job.
"""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from shadow.agent.loop import ModelFacts, RunLimits, RunState, RunStatus
from shadow.agent.model import Model
from shadow.agent.prompts.instructions import Facts, instructions
from shadow.agent.rebuilding import InterruptedStep, fold, interrupted_step
from shadow.agent.runner import Agent, limit_reached, run
from shadow.agent.task_log import TaskLog
from shadow.agent.toolbox import Bench, Toolbox
from shadow.agent.tools.all import make_tools
from shadow.core.commands import Lost
from shadow.core.conversation import Usage, UserMessage
from shadow.core.errors import NotFound, ShadowError
from shadow.core.events import Recorded, RunFinished, RunStarted, StateChanged, StepFinished, TaskEvent, active
from shadow.core.ids import CommandId
from shadow.core.quota import BudgetSpent
from shadow.core.tasks import Task, TaskState, TaskStep
from shadow.core.workspaces import WorkspaceState
from shadow.db import events, jobs, messages, tasks
from shadow.db.codec import decode_event, encode_event
from shadow.db.database import Transaction
from shadow.engine.context import JobContext, Stopped
from shadow.engine.retries import RetryPolicy
from shadow.execution.interface import ToolExecutor
from shadow.tasks.checkpointing import Checkpointing
from shadow.tasks.handing_out import HandingOut
from shadow.tasks.kinds import ARCHIVE, DELETE, RUN
from shadow.tasks.measuring import Measuring
from shadow.tasks.services import start_services
from shadow.tasks.steps import Step, step
from shadow.tasks.values import ProjectConfig, RunOptions, TaskSettings, settings_from_json
from shadow.tasks.watching import egress_told, start_egress
from shadow.tasks.workshop import TaskHandler, operation

BEGIN = "BEGIN"
CHECKPOINT = "CHECKPOINT"
WAKE = "WAKE"
START = "START"
FINISH = "FINISH"
ONCE = RetryPolicy(attempts=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    number: int
    """Of the run, from 1."""
    text: str
    slept: bool
    """Whether it was put to sleep and no run has woken it since: who only looked at it starts nothing."""


class QueueMoved(Exception):
    """What is first in the queue is not what was."""


class Running(TaskHandler):
    async def run(self, context: JobContext) -> dict[str, Any] | None:
        begun = await self._begin(context)
        if begun is None:
            return None
        task = await self._shop.task(context)
        settings = settings_from_json(task.settings)
        options = settings.options

        measuring = Measuring(self._shop, context)

        async def work() -> str:
            refused = await self._refused(context, task, begun, measuring)
            if refused is not None:
                return encode_event(refused)
            async with self._shop.log(context) as log:
                finished = await self._run(context, task, settings, begun, measuring, log)
            await measuring.run_ended(task)
            return encode_event(finished)

        finished = decode_event(RunFinished.kind, await context.step(FINISH, work, retries=ONCE))
        assert isinstance(finished, RunFinished)
        self._end(context, task, finished, is_over=Step.DELIVER in context.recorded and not options.keep)
        return {"run": finished.run, "status": finished.status}

    async def compensate(self, context: JobContext, error: ShadowError) -> None:
        """The message was said, the run is told to have failed, and the next one can begin."""
        begun = await self._begin(context)
        if begun is None:
            return
        task = await self._shop.task(context)
        await self._start(context, task, begun)
        finished = RunFinished(
            run=begun.number,
            status=RunStatus.FAILED.value,
            summary=str(error),
            usage=Usage(),
            cost_usd=None,
            took_ms=0.0,
            code=error.code,
        )
        gone = task.workspace_id is None or not await self._shop.is_there(task.workspace_id)
        self._end(context, task, finished, is_over=gone)

    # Beginning and ending, in one transaction each

    async def _begin(self, context: JobContext) -> Begun | None:
        """``None``: nothing waits any more."""
        if BEGIN not in context.recorded:
            if context.stop.is_set():
                raise Stopped
            while not await self._take(context):
                pass
        result = context.recorded[BEGIN]
        return Begun(**result) if result else None

    async def _take(self, context: JobContext) -> bool:
        """``False``: the queue was changed at the same moment."""
        task = await self._shop.task(context)
        waiting = await self._shop.tasks.queue(task.id)

        async with context.database.read() as connection:
            slept = is_asleep(await events.of_kinds(connection, task.id, ("state_changed", "step_finished")))

        async def first() -> dict[str, Any] | None:
            return {"number": task.runs + 1, "text": waiting[0].text, "slept": slept} if waiting else None

        async def take(transaction: Transaction, begun: dict[str, Any] | None) -> None:
            if (await jobs.get(transaction.connection, context.job.id)).stop_requested:
                raise Stopped
            message = await messages.take(transaction, task.id)
            if (message and message.text) != (begun and begun["text"]):
                raise QueueMoved
            if begun is not None:
                await self._shop.tasks.move(transaction, task.id, TaskStep.BEGIN_RUN)
                await tasks.change(transaction, task.id, runs=begun["number"], outcome=None, summary=None)
                await self._shop.tasks.tell_queue(transaction, task.id)

        try:
            await context.step(BEGIN, first, also=take)
        except QueueMoved:
            return False
        return True

    def _end(self, context: JobContext, task: Task, finished: RunFinished, *, is_over: bool) -> None:
        """``is_over``: nobody needs the workspace any more, unless something waits to be said."""
        shop = self._shop

        async def end(transaction: Transaction) -> None:
            await tasks.change(transaction, task.id, outcome=finished.status, summary=finished.summary)
            await shop.tasks.move(transaction, task.id, TaskStep.END_RUN)
            await events.append(transaction, task.id, [finished])
            waiting = await messages.queue(transaction.connection, task.id)
            others = await jobs.of_task(transaction.connection, task.id, open_only=True)
            if any(job.kind in (ARCHIVE, DELETE) for job in others):
                return
            if is_over and not waiting:
                await shop.tasks.add_job(transaction, task, ARCHIVE)
                return
            # Who stopped the agent wants to look first, unless they said something with it.
            follows = any(job.kind == RUN and job.id != context.job.id for job in others)
            stopped = (await jobs.get(transaction.connection, context.job.id)).stop_requested
            if waiting and not follows and not stopped:
                await shop.tasks.add_job(transaction, task, RUN)

        context.finish_with(end)

    # The run itself

    async def _refused(self, context: JobContext, task: Task, begun: Begun, measuring: Measuring) -> RunFinished | None:
        """Of a run that has not begun: where its owner may spend nothing more, its workspace is not even woken."""
        if START in context.recorded:
            return None
        try:
            await measuring.may_begin(task)
        except BudgetSpent as error:
            await self._start(context, task, begun)
            reached = limit_reached(error)
            return RunFinished(
                run=begun.number,
                status=reached.status.value,
                summary=reached.summary,
                usage=Usage(),
                cost_usd=None,
                took_ms=0.0,
                code=reached.code,
            )
        return None

    async def _run(
        self,
        context: JobContext,
        task: Task,
        settings: TaskSettings,
        begun: Begun,
        measuring: Measuring,
        log: TaskLog,
    ) -> RunFinished:
        shop, options, project = self._shop, settings.options, settings.project
        if task.workspace_id is None:
            raise NotFound("The task has no workspace any more.", mend="Begin a new task.")
        began = time.monotonic()
        await self._wake(context, task, project, begun, log)
        async with shop.attached(task) as executor, shop.open_model(task) as model:
            checkpointing = Checkpointing(context, task, executor, log, run=begun.number)
            if START not in context.recorded:
                await context.step(CHECKPOINT, checkpointing.take)
                await self._start(context, task, begun)
            async with egress_told(shop.manager, task.workspace_id, log):
                state = await self._converse(
                    context, task, begun.number, model, options, project, executor, log, checkpointing, measuring
                )
            assert state.outcome is not None
            finished = RunFinished(
                run=begun.number,
                status=state.outcome.status.value,
                summary=state.outcome.summary,
                usage=state.usage,
                cost_usd=None if state.cost_usd is None else str(state.cost_usd),
                took_ms=0.0,
                code=state.outcome.code,
            )
            if state.outcome.status is RunStatus.DONE:
                finished = await HandingOut(shop, context, task, options, project, executor, log)(finished)
        return replace(finished, took_ms=max(state.elapsed_s, time.monotonic() - began) * 1000)

    async def _wake(self, context: JobContext, task: Task, project: ProjectConfig, begun: Begun, log: TaskLog) -> None:
        """What was started for the workspace beside its commands is gone where it slept, or its holder died."""
        assert task.workspace_id is not None
        manager = self._shop.manager
        status = await manager.status(task.workspace_id)
        if WAKE in context.recorded or not (begun.slept or status.state is WorkspaceState.STOPPED):
            return
        with step(log, Step.WAKE_WORKSPACE) as details:
            async with self._shop.attached(task) as executor:
                await start_egress(manager, task.workspace_id)
                # By epoch, so that each time it is woken they are started again.
                await start_services(
                    executor,
                    log,
                    project.services,
                    operation=operation(executor, context.job.id, "services", executor.epoch),
                )
            details.append(task.workspace_id)
        await context.step(WAKE, _nothing)

    async def _start(self, context: JobContext, task: Task, begun: Begun) -> None:
        async def tell(transaction: Transaction, _: None) -> None:
            told = RunStarted(run=begun.number, message=UserMessage(text=begun.text))
            await events.append(transaction, task.id, [told])

        await context.step(START, _nothing, also=tell)

    async def _converse(
        self,
        context: JobContext,
        task: Task,
        number: int,
        model: Model,
        options: RunOptions,
        project: ProjectConfig,
        executor: ToolExecutor,
        log: TaskLog,
        checkpointing: Checkpointing,
        measuring: Measuring,
    ) -> RunState:
        bench = Bench(
            executor=executor,
            told=log.tell,
            operation=lambda call_id: operation(executor, task.id, number, bench.step, call_id),
            clock=self._shop.clock,
        )
        toolbox = Toolbox(make_tools(), bench)
        text = await self._instructions(task, options.check or project.check, options.limits.time_s, executor)
        fresh = fresh_state(model, toolbox, options.limits, instructions=text)
        await log.flush()
        told: Sequence[TaskEvent] = [one.event for one in active(await self._shop.tasks.events(task.id))]
        state = fold(fresh, told)
        interrupted = await timed(interrupted_step(told, step=state.steps), executor, now=self._shop.clock())
        state = replace(state, elapsed_s=state.elapsed_s + sum(interrupted.spent_s.values()))
        bench.commands += interrupted.commands
        bench.todo = interrupted.todo
        bench.told_to.update(interrupted.told_to)
        agent = Agent(
            model=model,
            toolbox=toolbox,
            instructions=text,
            log=log,
            checkpoint=checkpointing.take,
            interrupted=interrupted,
            may_ask=lambda: measuring.may_ask(task),
            may_call=lambda: measuring.may_call(task),
        )
        return await run(agent, state, stop=context.stop)

    async def _instructions(self, task: Task, check: str | None, time_s: float, executor: ToolExecutor) -> str:
        assert task.checkout is not None
        facts = Facts(
            checkout=task.checkout,
            check=check,
            allowed=await self._allowed(task),
            time_s=time_s,
            today=time.strftime("%Y-%m-%d", time.gmtime(self._shop.clock())),
        )
        return await instructions(executor, facts)

    async def _allowed(self, task: Task) -> tuple[str, ...]:
        manager = self._shop.manager
        if task.workspace_id is None or not manager.capabilities.egress:
            return ()
        return tuple(str(rule) for rule in (await manager.egress(task.workspace_id)).policy.rules)


async def _nothing() -> None: ...


def is_asleep(told: Sequence[Recorded]) -> bool:
    """Whether nothing has woken it since it was put to sleep, as a run does: with what belongs to it."""
    asleep = False
    for recorded in told:
        match recorded.event:
            case StateChanged(state=TaskState.HIBERNATED):
                asleep = True
            case StepFinished(name=Step.WAKE_WORKSPACE):
                asleep = False
            case _:
                continue
    return asleep


async def timed(step: InterruptedStep, executor: ToolExecutor, *, now: float) -> InterruptedStep:
    """With how long its calls' commands have run: they went on though nobody waited for them."""
    spent_s: dict[str, float] = {}
    for call_id, command_id in step.waited_for.items():
        with suppress(NotFound):  # the call is made again, and says so
            command = await executor.get_command(CommandId(command_id))
            if not isinstance(command.ending, Lost):
                spent_s[call_id] = max(0.0, (command.ended_at or now) - command.started_at)
    return replace(step, spent_s=spent_s)


def fresh_state(model: Model, toolbox: Toolbox, limits: RunLimits, *, instructions: str) -> RunState:
    described = sum(len(str(d.parameters)) + len(d.description) for d in toolbox.descriptions)
    return RunState(
        messages=(),
        tools=toolbox.names,
        limits=limits,
        model=ModelFacts(
            context_tokens=model.context_tokens, max_output_tokens=model.max_output_tokens, price=model.price
        ),
        overhead_chars=len(instructions) + described,
    )
