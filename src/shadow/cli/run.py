"""``shadow run``: the agent works on a repository and hands back a branch."""

import asyncio
import signal
import sys
from collections.abc import Generator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path

from shadow.agent.loop import RunLimits, RunStatus
from shadow.bootstrap import Watcher, open_model, open_tasks, record_to, start_logging
from shadow.cli.opening import NO_WALL, seconds
from shadow.cli.outcome import DONE, FAILED, INTERRUPTED, WrongUsage, say
from shadow.cli.run_display import JsonLines, Lines, took
from shadow.core.egress import EgressPolicy, parse_rules
from shadow.core.errors import AlreadyExists, Denied
from shadow.core.repositories import parse_repository
from shadow.core.workspaces import Isolation, WorkspaceSpec
from shadow.settings import load_settings
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
    as_json: bool = False


async def run(arguments: RunArguments) -> int:
    settings = load_settings()
    start_logging(settings)
    options = _options(arguments)
    if arguments.repo is None and arguments.continued is None:
        raise WrongUsage("Give a repository and an instruction.")
    watch = JsonLines() if arguments.as_json else Lines()
    if settings.isolation is Isolation.NONE and not arguments.as_json:
        say(NO_WALL, style="yellow")
    stop = asyncio.Event()
    egress = EgressPolicy(rules=parse_rules(arguments.allow)) if arguments.allow else None
    spec = WorkspaceSpec(egress=egress)
    async with AsyncExitStack() as stack:
        model = await stack.enter_async_context(open_model(settings, arguments.model))
        tasks = await stack.enter_async_context(open_tasks(settings))
        watchers: list[Watcher] = [watch]
        if arguments.record is not None:
            watchers.append(stack.enter_context(record_to(settings, Path(arguments.record), model)))
        stack.enter_context(_stopping(stop))
        if arguments.continued is not None:
            report = await tasks.resume(
                arguments.continued,
                arguments.instruction,
                model=model,
                spec=spec,
                options=options,
                watchers=watchers,
                stop=stop,
            )
        else:
            assert arguments.repo is not None
            report = await tasks.start(
                parse_repository(arguments.repo, local_user=True),
                arguments.instruction,
                model=model,
                spec=spec,
                options=options,
                branch=arguments.branch,
                depth=arguments.depth,
                watchers=watchers,
                stop=stop,
            )
    if report.patch is not None:
        _write_patch(report.patch, arguments.output)
    if not arguments.as_json:
        tell(report)
    return exit_code(report)


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


def _options(arguments: RunArguments) -> RunOptions:
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


@contextmanager
def _stopping(stop: asyncio.Event) -> Generator[None]:
    """Ctrl-C ends the run and lets it be told; a second one ends us."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()

    def interrupted() -> None:
        if stop.is_set() and task is not None:
            task.cancel()
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, interrupted)
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.remove_signal_handler(number)


def _write_patch(content: bytes, output: str | None) -> None:
    assert output is not None
    try:
        with Path(output).open("xb") as file:
            file.write(content)
    except FileExistsError as error:
        raise AlreadyExists(f"{output} is there already.", mend="Remove it or name another file.") from error
    except OSError as error:
        raise Denied(f"{output} cannot be written: {error.strerror}.", mend="Name another file.") from error


def tell(report: RunReport) -> None:
    """The report for people."""
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
        say(f"  {program} workspace deliver {report.workspace_id} --commit MESSAGE   hand out what was done")
        say(f"  {program} workspace rm {report.workspace_id}")
