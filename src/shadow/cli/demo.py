"""``shadow demo`` (and ``make run``): the main job on a small example, without a key, and what to type next."""

import sys

from shadow.bootstrap import open_tasks, start_logging
from shadow.cli.example import CHECK, INSTRUCTION, example_repository, find_script
from shadow.cli.outcome import DONE, FAILED, wants_colour
from shadow.cli.run import RunArguments, run
from shadow.cli.servers import HERE
from shadow.core.events import WorkDelivered
from shadow.settings import Settings, load_settings
from shadow.terminal.neutral import printable


async def show() -> int:
    settings = load_settings()
    start_logging(settings)
    repository = await example_repository(settings.data_dir)
    print(
        "An agent works on an example repository, in a sandbox. What it says comes from a script: no key, no network.\n"
    )
    code = await run(
        RunArguments(repo=str(repository), instruction=INSTRUCTION, model=f"scripted:{find_script()}", check=CHECK),
        settings=settings.model_copy(update={"server": HERE}),
    )
    if code != DONE:
        return FAILED
    async with open_tasks(settings) as tasks:
        task = (await tasks.list(limit=1))[0]
        delivered = [r.event for r in await tasks.events(task.id) if isinstance(r.event, WorkDelivered)]
    print()
    for line in delivered[-1].diff.splitlines():
        print(_coloured(line))
    _tell_next(str(repository), delivered[-1].where.partition(" in ")[0], task.id, settings)
    return DONE


def _coloured(line: str) -> str:
    colour = {"+": "32", "-": "31", "@": "36"}.get(line[:1])
    safe = printable(line)
    return f"\x1b[{colour}m{safe}\x1b[0m" if colour and wants_colour(sys.stdout.isatty()) else safe


def _tell_next(repository: str, branch: str, task_id: str, settings: Settings) -> None:
    program = sys.argv[0] if "/" in sys.argv[0] else "shadow"
    print(f"\nThe branch is in {repository}, the example. Try:\n")
    print(f"  git -C {repository} log -p -1 {branch}")
    print(f"  {program} task show {task_id}")
    keys = {
        "anthropic:claude-sonnet-5": settings.anthropic_api_key.get_secret_value(),
        "openai:gpt-5": settings.openai_api_key.get_secret_value(),
    }
    usable = [model for model, key in keys.items() if key]
    model = usable[0] if usable else next(iter(keys))
    if usable:
        print("\nA key of a provider is set, so a real model can work on a repository of yours:\n")
    else:
        print("\nWith ANTHROPIC_API_KEY or OPENAI_API_KEY set, on a repository of yours (docs/models.md has more):\n")
    print(f'  {program} run ~/src/project "What is to be done" --model {model}')
