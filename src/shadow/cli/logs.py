"""``shadow logs``: the commands of a workspace, and what one of them writes, from any offset on, live or afterwards."""

import base64
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict

from shadow.cli.endings import exit_code, explain, state
from shadow.cli.live import Live
from shadow.cli.opening import find_to_use
from shadow.cli.outcome import DONE, WrongUsage, print_json, say
from shadow.cli.references import choose_part
from shadow.cli.tables import print_table
from shadow.cli.text import size, span
from shadow.cli.watching_over import watching_over
from shadow.core.commands import Command, Gap, Output
from shadow.core.errors import NotFound

LOST_BECAUSE = "the log keeps only the newest, or was read too slowly"


class JsonLines:
    """For programs: each piece as one object a line; text where it is UTF-8, else base64."""

    async def take(self, item: Output | Gap) -> None:
        if isinstance(item, Gap):
            self._print({"kind": "gap", "start": item.start, "end": item.end})
            return
        try:
            data = {"text": item.data.decode()}
        except UnicodeDecodeError:
            data = {"base64": base64.b64encode(item.data).decode()}
        self._print({"kind": "output", "offset": item.offset, "channel": item.channel.name.lower(), **data})

    async def finish(self) -> None:
        """There is nothing left."""

    def command(self, command: Command) -> None:
        self._print({"kind": "command", "exit_code": exit_code(command.ending), "command": asdict(command)})

    def _print(self, document: dict[str, object]) -> None:
        sys.stdout.write(json.dumps(document) + "\n")
        sys.stdout.flush()


async def logs(
    reference: str, command: str | None, *, last: bool, follow: bool, after: int, raw: bool, as_json: bool
) -> int:
    if last and command is not None:
        raise WrongUsage("Name a command, or give --last.")
    manager, workspace = await find_to_use(reference)
    async with await manager.attach(workspace.id) as executor, watching_over(manager, workspace.id, renew=False):
        commands = await executor.list_commands()
        if command is None and not last:
            return _list(commands, as_json=as_json)
        chosen = _chosen(commands, command)
        sink = JsonLines() if as_json else Live(raw=raw, lost_because=LOST_BECAUSE)
        try:
            async for item in executor.read_output(chosen.id, after=after, follow=follow):
                await sink.take(item)
        finally:
            await sink.finish()
        ended = await executor.get_command(chosen.id)
    if isinstance(sink, JsonLines):
        sink.command(ended)
    elif ended.ending is not None:
        explain(ended)
    return DONE if ended.ending is None else exit_code(ended.ending)


def _chosen(commands: Sequence[Command], reference: str | None) -> Command:
    if reference is not None:
        mend = "`shadow logs WORKSPACE` lists the commands; terminals are shown by `shadow terminal`."
        return choose_part(reference, commands, noun="command", mend=mend)
    if not commands:
        raise NotFound("No command has run in this workspace yet.", mend="`shadow workspace exec` runs one.")
    return commands[-1]


def _list(commands: Sequence[Command], *, as_json: bool) -> int:
    if as_json:
        print_json({"commands": [asdict(command) for command in commands]})
        return DONE
    if not commands:
        say("No command has run in this workspace yet.")
        return DONE
    now = time.time()
    rows = [
        (c.id, state(c.ending), span(now - c.started_at) + " ago", size(c.output_end), " ".join(c.argv)[:200])
        for c in commands
    ]
    print_table(("COMMAND", "STATE", "STARTED", "OUTPUT", "ARGV"), rows)
    return DONE
