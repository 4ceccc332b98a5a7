"""``shadow run``: the agent works on a repository and hands back a branch."""

import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path

from shadow.agent.loop import RunLimits, RunStatus
from shadow.bootstrap import Watcher
from shadow.cli.opening import NO_WALL, seconds
from shadow.cli.outcome import DONE, FAILED, INTERRUPTED, WrongUsage, say
from shadow.cli.places import NewTask, Place, open_place
from shadow.cli.run_display import JsonLines, Lines, took
from shadow.cli.working import report_of
from shadow.core.errors import AlreadyExists, Broken, Denied
from shadow.core.tasks import Task
from shadow.core.workspaces import Isolation
from shadow.settings import Settings, load_settings
from shadow.tasks.values import Deliver, RunOptions, RunReport
from shadow.terminal.neutral import printable

LIMIT_REACHED = 4
SHOWN_CHANGES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class RunArguments:
    repo: str | None
    instruction: str
    continued: str | None = None
    model: str | None = None
    branch: str | None = None
    depth: int | None = None
    check: str | None = None
    deliver: str = "branch"
    deliver_to: str | None = None
    output: str | None = None
    keep: bool = False
    record: str | None = None
    max_steps: int | None = None
    max_tokens: int | None = None
    max_cost: str | None = None
    max_time: str | None = None
    allow: tuple[str, ...] = ()
    project: str | None = None
    as_json: bool = False


async def run(arguments: RunArguments, *, settings: Settings | None = None) -> int:
    settings = settings or load_settings()
    if arguments.repo is None and arguments.continued is None:
        raise WrongUsage("Give a repository and an instruction.")
    options = options_of(arguments)
    watch = JsonLines() if arguments.as_json else Lines()
    async with AsyncExitStack() as stack:
        place = await stack.enter_async_context(open_place(settings))
        if place.is_here and settings.isolation is Isolation.NONE and not arguments.as_json:
            say(NO_WALL, style="yellow")
        # Before anything is made: what is wrong with it shows now.
        model = await place.model(arguments.model)
        tasks = place.tasks
        watchers: list[Watcher] = [watch]
        if arguments.record is not None:
            watchers.append(await stack.enter_async_context(place.recording(Path(arguments.record), model)))
        if arguments.continued is not None:
            task = await tasks.find(arguments.continued)
            await tasks.send(task.id, arguments.instruction, model=model, options=options)
            after = task.events
        else:
            task = await create(place, arguments, options, model=model)
            after = 0
        recorded = await place.work(task.id, after=after, watchers=watchers)
        task = await tasks.find(task.id)
        report = report_of(task.id, task.workspace_id, recorded)
        if report is None:
            raise Broken(f"The task {task.id} has stopped, and no run of it has ended.", mend="See `shadow task show`.")
        if report.delivered is not None and report.delivered.artifact is not None and arguments.output is not None:
            write_patch(await place.patch(task.id), arguments.output)
    if not arguments.as_json:
        tell(report, is_here=place.is_here)
    return exit_code(report)


async def create(place: Place, arguments: RunArguments, options: RunOptions, *, model: str | None) -> Task:
    """Raises: as ``Place.create``."""
    assert arguments.repo is not None
    return await place.create(
        NewTask(
            repository=arguments.repo,
            instruction=arguments.instruction,
            model=model,
            branch=arguments.branch,
            depth=arguments.depth,
            allow=arguments.allow or None,
            options=options,
            project_id=None if arguments.project is None else await place.project(arguments.project),
        )
    )


def exit_code(report: RunReport) -> int:
    match report.status:
        case RunStatus.DONE:
            return DONE
        case RunStatus.LIMIT_REACHED:
            return LIMIT_REACHED
        case RunStatus.INTERRUPTED:
            return INTERRUPTED
        case RunStatus.GAVE_UP | RunStatus.FAILED:
            return FAILED


def options_of(arguments: RunArguments) -> RunOptions:
    choices = {"branch": Deliver.BRANCH, "push": Deliver.BRANCH, "patch": Deliver.PATCH, "none": Deliver.NONE}
    if arguments.deliver not in choices:
        raise WrongUsage(f"--deliver cannot be {arguments.deliver!r}.", mend=f"Choose from {', '.join(choices)}.")
    deliver = choices[arguments.deliver]
    if (deliver is Deliver.PATCH) != (arguments.output is not None):
        raise WrongUsage("--deliver patch and --output FILE go together.")
    return RunOptions(
        limits=_limits(arguments),
        deliver=deliver,
        branch=arguments.deliver_to,
        check=arguments.check,
        keep=arguments.keep or deliver is Deliver.NONE,
    )


def _limits(arguments: RunArguments) -> RunLimits:
    defaults = RunLimits()
    for option, value in (("--max-steps", arguments.max_steps), ("--max-tokens", arguments.max_tokens)):
        if value is not None and value < 1:
            raise WrongUsage(f"{option} must be at least 1, not {value}.")
    cost: Decimal | None = None
    if arguments.max_cost is not None:
        try:
            cost = Decimal(arguments.max_cost.removeprefix("$"))
        except InvalidOperation as error:
            raise WrongUsage(f"--max-cost cannot be {arguments.max_cost!r}.", mend="Give US dollars: 0.50") from error
        if not cost.is_finite() or cost <= 0:
            raise WrongUsage(f"--max-cost must be above 0, not {arguments.max_cost}.")
    return RunLimits(
        steps=arguments.max_steps or defaults.steps,
        tokens=arguments.max_tokens,
        cost_usd=cost,
        time_s=seconds(arguments.max_time, option="--max-time") or defaults.time_s,
    )


def write_patch(content: bytes, output: str) -> None:
    try:
        with Path(output).open("xb") as file:
            file.write(content)
    except FileExistsError as error:
        raise AlreadyExists(f"{output} is there already.", mend="Remove it or name another file.") from error
    except OSError as error:
        raise Denied(f"{output} cannot be written: {error.strerror}.", mend="Name another file.") from error


def tell(report: RunReport, *, is_here: bool) -> None:
    """The report for people. ``is_here``: whether its workspace is on this host."""
    print()
    if report.delivered is not None:
        for change in report.delivered.changes[:SHOWN_CHANGES]:
            print(
                f"  {printable(change.path)}  {'binary' if change.added is None else f'+{change.added} -{change.removed}'}"
            )
        if len(report.delivered.changes) > SHOWN_CHANGES:
            print(f"  … and {len(report.delivered.changes) - SHOWN_CHANGES} more")
    cost = "cost unknown" if report.cost_usd is None else f"{Decimal(report.cost_usd):.4f} USD"
    tokens = f"{report.usage.input_tokens} tokens in, {report.usage.output_tokens} out"
    verdicts = {
        RunStatus.DONE: ("Done", "green"),
        RunStatus.GAVE_UP: ("The agent gave up", "yellow"),
        RunStatus.FAILED: ("Failed", "red"),
        RunStatus.LIMIT_REACHED: ("A limit was reached", "yellow"),
        RunStatus.INTERRUPTED: ("Interrupted", "yellow"),
    }
    verdict, style = verdicts[report.status]
    sys.stdout.flush()
    first, *rest = report.summary.strip().splitlines() or [""]
    say(f"{verdict}: {first}", style=style)
    for line in rest:
        say(f"  {line}" if line else "")
    say(f"{took(report.took_s)}, {tokens}, {cost}. Task {report.task_id}.")
    if report.delivered is not None:
        say(f"Delivered {report.delivered.commit[:12]} to {report.delivered.where}.", style="bold")
    elif report.undelivered is not None:
        say(f"Nothing was delivered: {report.undelivered}")
    if report.workspace_id is not None:
        program = sys.argv[0] if "/" in sys.argv[0] else "shadow"
        say(f"The workspace {report.workspace_id} stays. Next:")
        say(f'  {program} run --continue {report.task_id} "…"          go on with it')
        if not is_here:
            say(f"  {program} task archive {report.task_id}")
            return
        say(f"  {program} workspace deliver {report.workspace_id} --commit MESSAGE   hand out what was done")
        say(f"  {program} workspace rm {report.workspace_id}")
