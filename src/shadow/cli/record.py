"""``shadow record``: what a command or terminal has shown so far, as an asciicast."""

import os
from pathlib import Path

from shadow.cli.opening import find_to_use
from shadow.cli.outcome import DONE, STDOUT, WrongUsage, print_json, say
from shadow.cli.references import choose_part
from shadow.cli.streams import BlockingThread, write_all
from shadow.cli.text import size
from shadow.core.commands import Command
from shadow.core.errors import AlreadyExists, Denied
from shadow.core.terminals import Terminal
from shadow.execution.interface import ToolExecutor


async def record(reference: str, source: str, *, output: str | None, as_json: bool) -> int:
    if output is None and (as_json or os.isatty(STDOUT)):
        raise WrongUsage("A recording is not for the screen.", mend="Give -o FILE, or send stdout to a file.")
    manager, workspace = await find_to_use(reference)
    async with await manager.attach(workspace.id) as executor:
        chosen = await _chosen(executor, source)
        if output is None:
            thread = BlockingThread("output")
            async for piece in executor.record(chosen.id):
                await thread.call(lambda data=piece: write_all(STDOUT, data))
            return DONE
        written = await _write(executor, chosen, Path(output))
    if as_json:
        print_json({"recorded": chosen.id, "file": output, "bytes": written})
    else:
        say(f"shadow: {size(written)} in {output}. `asciinema play {output}` plays it.")
    return DONE


async def _chosen(executor: ToolExecutor, reference: str) -> Command | Terminal:
    there = [*await executor.list_commands(), *await executor.list_terminals()]
    mend = "`shadow logs WORKSPACE` lists commands, `shadow terminal WORKSPACE --list` terminals."
    return choose_part(reference, there, noun="command or terminal", mend=mend)


async def _write(executor: ToolExecutor, source: Command | Terminal, path: Path) -> int:
    """All of it or no file. Raises: AlreadyExists, Denied."""
    written = 0
    try:
        with path.open("xb") as file:
            try:
                async for piece in executor.record(source.id):
                    written += file.write(piece)
            except BaseException:
                path.unlink(missing_ok=True)
                raise
    except FileExistsError as error:
        raise AlreadyExists(f"{path} is there already.", mend="Remove it or name another file.") from error
    except OSError as error:
        raise Denied(f"{path} cannot be written: {error.strerror}.", mend="Name another file.") from error
    return written
