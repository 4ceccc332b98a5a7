"""The output of a command within a bound: its first and its last half, with a gap between."""

from dataclasses import replace

from shadow.core.commands import Command, CommandResult, Gap, Output
from shadow.execution.interface import ToolExecutor
from shadow.execution.streams import closing


async def read_excerpt(executor: ToolExecutor, command: Command, *, limit_bytes: int) -> CommandResult:
    """What ``command`` had written when it was asked about, as ``ToolExecutor.run`` returns it."""
    end = command.output_end
    if end - command.output_start <= limit_bytes:
        return CommandResult(command=command, output=await read_range(executor, command, 0, end))
    tail = limit_bytes - limit_bytes // 2
    head = await read_range(executor, command, 0, command.output_start + limit_bytes - tail)
    position = head[-1].end if head else command.output_start
    rest = await read_range(executor, command, max(position, end - tail), end) if tail else ()
    if rest and isinstance(rest[0], Gap):  # what the log dropped meanwhile
        rest = (Gap(start=position, end=rest[0].end), *rest[1:])
    else:
        rest = (Gap(start=position, end=max(position, end - tail)), *rest)
    return CommandResult(command=command, output=(*head, *rest))


async def read_range(executor: ToolExecutor, command: Command, start: int, end: int) -> tuple[Output | Gap, ...]:
    """Exactly ``[start, end)``, which must have been written."""
    items: list[Output | Gap] = []
    if start >= end:
        return ()
    async with closing(executor.read_output(command.id, after=start, follow=False)) as output:
        async for item in output:
            if isinstance(item, Gap):
                items.append(Gap(start=item.start, end=min(item.end, end)))
            elif item.end > end:
                items.append(replace(item, data=item.data[: end - item.offset]))
            else:
                items.append(item)
            if items[-1].end >= end:
                break
    return tuple(items)
