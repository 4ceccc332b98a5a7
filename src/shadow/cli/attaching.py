"""A person at a terminal of a workspace: what it shows, what is typed, and how the two part."""

import asyncio
import signal
from collections.abc import AsyncIterator, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from shadow.cli.local_terminal import DetachKey, LocalTerminal
from shadow.cli.outcome import first_cause
from shadow.core.commands import Gap
from shadow.core.errors import Broken, Conflict, OutcomeUnknown, Unavailable
from shadow.core.terminals import (
    DEFAULT_SCROLLBACK_LINES,
    Resized,
    ScreenSnapshot,
    TerminalEnded,
    TerminalOutput,
    TerminalSize,
)
from shadow.execution.interface import TerminalAttachment, TerminalEvent
from shadow.terminal.screen import Screen

MAX_TYPED_BYTES = 1024 * 1024
LAST_WORDS_S = 1.0
RESIZE_AGAIN_S = 1.0
CTRL_C = b"\x03"
SENT_AWAY_BY = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


@dataclass(frozen=True)
class Detached:
    """By the key."""


@dataclass(frozen=True)
class SentAway:
    """By a signal, or since the person's terminal is gone."""

    signal: int


Parting = TerminalEnded | Detached | SentAway


class Session:
    """Takes ``local`` while it runs. Of a terminal that was there before, all up to ``history_end`` is painted at once.

    It is not replayed: a question to the terminal in there (where is the cursor?) would be answered into the program.
    """

    def __init__(
        self,
        local: LocalTerminal,
        attachment: TerminalAttachment,
        *,
        history_end: int,
        detach_key: DetachKey,
        read_only: bool,
    ) -> None:
        self._local = local
        self._attachment = attachment
        self._history_end = history_end
        self._history: Screen | None = None
        self._detach_key = detach_key
        self._read_only = read_only
        self._typed = bytearray()
        self._typed_changed = asyncio.Event()
        self._resized = asyncio.Event()
        self._signal: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def run(self) -> Parting:
        """Raises: what keeps the terminal from being followed."""
        with self._signals(), self._local:
            try:
                return await self._run()
            except BaseExceptionGroup as failed:
                raise first_cause(failed) from failed
            finally:
                await self._local.settle()

    async def _run(self) -> Parting:
        async with asyncio.TaskGroup() as tasks:
            showing = tasks.create_task(self._show())
            reading = tasks.create_task(self._read())
            others = [tasks.create_task(self._write()), tasks.create_task(self._resize())]
            await asyncio.wait((showing, reading, self._signal), return_when=asyncio.FIRST_COMPLETED)
            if reading.done() and not showing.done():
                await self._typed_out()
            for task in (showing, reading, *others):
                task.cancel()
        if showing.cancelled():
            self._local.cut()
        if self._signal.done():
            return SentAway(self._signal.result())
        return reading.result() if showing.cancelled() else showing.result()

    @contextmanager
    def _signals(self) -> Generator[None]:
        loop = asyncio.get_running_loop()
        for number in SENT_AWAY_BY:
            loop.add_signal_handler(number, self._sent_away, int(number))
        loop.add_signal_handler(signal.SIGWINCH, self._resized.set)
        loop.add_signal_handler(signal.SIGCONT, self._back)
        try:
            yield
        finally:
            for number in (*SENT_AWAY_BY, signal.SIGWINCH, signal.SIGCONT):
                loop.remove_signal_handler(number)

    def _sent_away(self, number: int) -> None:
        if not self._signal.done():
            self._signal.set_result(number)

    def _back(self) -> None:
        """After we were stopped: the shell had the terminal meanwhile."""
        self._local.take()
        self._resized.set()

    # What it shows

    async def _show(self) -> TerminalEnded:
        events = aiter(self._attachment)
        if self._history_end:
            ended = await self._catch_up(events)
            if ended is not None:
                return ended
        async for event in events:
            match event:
                case TerminalOutput(data=data):
                    await self._local.show(data)
                case ScreenSnapshot():
                    await self._local.paint(event)
                case TerminalEnded():
                    return event
                case Gap() | Resized():
                    pass  # a snapshot follows the gap; the program draws anew after a change of size
        raise Broken("The terminal ended without a word.")

    async def _catch_up(self, events: AsyncIterator[TerminalEvent]) -> TerminalEnded | None:
        screen = Screen(TerminalSize(), scrollback_lines=DEFAULT_SCROLLBACK_LINES)
        end, last = 0, None
        while end < self._history_end and last is None:
            event = await anext(events)
            match event:
                case TerminalOutput(data=data):
                    for _ in screen.steps(data):
                        await asyncio.sleep(0)  # who attached may want to leave meanwhile
                    end = event.end
                case Gap():
                    end = event.end
                case Resized(size=size):
                    screen.resize(size)
                case ScreenSnapshot():
                    screen = Screen(event.size, scrollback_lines=DEFAULT_SCROLLBACK_LINES)
                    for _ in screen.steps(event.data):
                        await asyncio.sleep(0)
                    end = event.offset
                case TerminalEnded():
                    last = event
        if not self._read_only:
            screen.resize(self._local.size)  # which it was given before we attached
        await self._local.paint(screen.snapshot(end))
        return last

    async def _resize(self) -> None:
        while not self._read_only:
            await self._resized.wait()
            self._resized.clear()
            try:
                await self._attachment.resize(self._local.size)
            except (Unavailable, OutcomeUnknown):
                # What is shown goes on by itself or says why not; the size is asked for again meanwhile.
                await asyncio.sleep(RESIZE_AGAIN_S)
                self._resized.set()

    # What is typed

    async def _read(self) -> Detached | SentAway:
        while True:
            data = await self._local.read()
            if not data:
                return SentAway(signal.SIGHUP)
            leave = self._detach_key.find(data)
            if self._read_only and leave is None and CTRL_C in data:
                leave = 0
            if not self._read_only:
                self._typed += data[:leave]
                self._typed_changed.set()
            if leave is not None:
                return Detached()
            while len(self._typed) > MAX_TYPED_BYTES:  # it takes nothing: neither do we
                self._typed_changed.clear()
                await self._typed_changed.wait()

    async def _write(self) -> None:
        with suppress(Conflict):  # the program has ended, as will be shown
            while True:
                while not self._typed:
                    self._typed_changed.clear()
                    await self._typed_changed.wait()
                data = bytes(self._typed)
                await self._attachment.write(data)
                del self._typed[: len(data)]
                self._typed_changed.set()

    async def _typed_out(self) -> None:
        """What was typed before leaving arrives, if the program takes it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS_S):
                while self._typed:
                    self._typed_changed.clear()
                    await self._typed_changed.wait()
