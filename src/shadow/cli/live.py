"""Output of commands on our own stdout and stderr, as it comes."""

import os
from dataclasses import replace

from shadow.cli.outcome import say, wants_colour
from shadow.cli.streams import BlockingThread, write_all
from shadow.cli.text import size
from shadow.core.commands import Channel, Gap, Output
from shadow.terminal.neutral import Neutraliser


class Live:
    """Byte by byte where a program reads it, made harmless where it goes to a person's terminal; ``raw``: never touched."""

    def __init__(self, *, raw: bool = False, lost_because: str) -> None:
        self._thread = BlockingThread("output")
        self._lost: Gap | None = None
        """Gaps that follow each other, told as one when it ends."""
        self._lost_because = lost_because
        self._neutralisers = {
            channel: Neutraliser(colours=wants_colour(is_terminal=True))
            for channel in Channel
            if not raw and os.isatty(channel)
        }

    async def take(self, item: Output | Gap) -> None:
        match item:
            case Output(channel=channel, data=data):
                self._tell_lost()
                neutraliser = self._neutralisers.get(channel)
                await self._write(channel, neutraliser.feed(data).encode() if neutraliser is not None else data)
            case Gap():
                self._lost = replace(self._lost, end=item.end) if self._lost else item

    async def finish(self) -> None:
        """Also where it broke off: tells what was lost last, and leaves no colour behind."""
        self._tell_lost()
        for channel, neutraliser in self._neutralisers.items():
            await self._write(channel, neutraliser.finish().encode())

    async def _write(self, channel: Channel, data: bytes) -> None:
        if data:
            await self._thread.call(lambda: write_all(int(channel), data))

    def _tell_lost(self) -> None:
        if (lost := self._lost) is not None:
            self._lost = None
            say(
                f"shadow: {size(lost.end - lost.start)} of output were lost here: {self._lost_because}.", style="yellow"
            )
