"""What a holder knows of commands that have ended: from the journal of an earlier one, and within bounds."""

import os
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress

from shadow.execution.holder.journal import Journal
from shadow.execution.holder.running import Running, from_journal

MAX_REMEMBERED = 1000
MAX_LOG_BYTES_IN_TOTAL = 1024 * 1024 * 1024


def restore(journal: Journal, logs: str) -> dict[str, Running]:
    """What an earlier holder of this workspace left: its running commands are lost, their output in ``logs`` is kept."""
    commands: dict[str, Running] = {}
    for command_id, values in list(journal.commands.items()):
        command = from_journal(command_id, values, os.path.join(logs, command_id))
        if command.ending is None:
            command.ended_at = time.time()
            command.ending = {"kind": "lost", "reason": "the holder ended while the command ran"}
            journal.command(command_id, command.to_journal())
        commands[command_id] = command
    with suppress(FileNotFoundError):
        for name in os.listdir(logs):
            if name not in commands:
                shutil.rmtree(os.path.join(logs, name), ignore_errors=True)
    return commands


def surplus(commands: Sequence[Running]) -> Sequence[Running]:
    """Keep what is remembered within its bounds: removes the oldest ended logs, returns the oldest ended commands to forget."""
    settled = [c for c in commands if c.ending is not None and c.output.closed and c.subreaper is None]
    total = sum(c.output.log.layout.kept_bytes for c in commands)
    for command in settled:
        if total <= MAX_LOG_BYTES_IN_TOTAL:
            break
        total -= command.output.log.layout.kept_bytes
        command.output.log.remove()
    return settled[: max(0, len(commands) - MAX_REMEMBERED)]
