"""What checks of terminals work with: terminals of a site, and what a reader of one has seen."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from shadow.core.commands import Gap
from shadow.core.terminals import (
    Resized,
    ScreenSnapshot,
    Terminal,
    TerminalEnded,
    TerminalOutput,
    TerminalSize,
    TerminalSpec,
)
from shadow.execution.interface import TerminalAttachment, TerminalEvent
from shadow.testing.contract import (
    DEADLINE_S,
    ContractViolation,
    eventually,
    expect,
    expect_equal,
)
from shadow.testing.site import Site


class Shown:
    """What one reader has seen so far, checked to be without holes."""

    def __init__(self, attachment: TerminalAttachment) -> None:
        self.attachment = attachment
        self.events: list[TerminalEvent] = []
        self._items = aiter(attachment)
        self._offset: int | None = None

    @property
    def data(self) -> bytes:
        return b"".join(event.data for event in self.events if isinstance(event, TerminalOutput))

    @property
    def end(self) -> TerminalEnded:
        last = self.events[-1]
        if not isinstance(last, TerminalEnded):
            raise ContractViolation("The last that a reader saw is not the end.")
        return last

    async def until(self, wanted: bytes, *, after: int = 0) -> bytes:
        """Read on until what was shown from the ``after``th byte on holds ``wanted``."""
        try:
            async with asyncio.timeout(DEADLINE_S):
                while wanted not in self.data[after:]:
                    self._take(await anext(self._items))
        except TimeoutError:
            raise ContractViolation(f"{wanted!r} was not shown in time; so far: {self.data[-300:]!r}.") from None
        except StopAsyncIteration:
            raise ContractViolation(f"The terminal ended without {wanted!r}: {self.data[-300:]!r}.") from None
        return self.data

    async def until_resized(self, size: TerminalSize) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not any(isinstance(event, Resized) and event.size == size for event in self.events):
                self._take(await anext(self._items))

    async def to_the_end(self) -> bytes:
        async with asyncio.timeout(DEADLINE_S):
            async for event in self._items:
                self._take(event)
        expect(isinstance(self.events[-1], TerminalEnded), "A reader's events stopped without an end.")
        return self.data

    def _take(self, event: TerminalEvent) -> None:
        start = event.start if isinstance(event, Gap) else event.offset
        if self._offset is not None and not isinstance(event, Resized):
            expect_equal(start, self._offset, f"the offset of {type(event).__name__}")
        if not self.events:
            expect(isinstance(event, Resized | ScreenSnapshot), f"A reader first sees {type(event).__name__}, no size.")
        match event:
            case Gap() | TerminalOutput():
                expect(event.end > start, f"{type(event).__name__} at {start} is empty.")
                self._offset = event.end
            case _:
                self._offset = max(start, self._offset or 0)
        self.events.append(event)


async def open_terminal(site: Site, *argv: str, **given: object) -> Terminal:
    spec = TerminalSpec(argv=argv or ("bash", "--norc", "--noprofile"), cwd=site.directory, **given)  # pyright: ignore[reportArgumentType]
    terminal = await site.executor.create_terminal(spec)
    site.terminals.append(terminal.id)
    return terminal


async def script(site: Site, line: str, **given: object) -> Terminal:
    return await open_terminal(site, "bash", "--norc", "-c", line, **given)


@asynccontextmanager
async def attached(
    site: Site, terminal: Terminal, *, after: int | None = 0, snapshots: bool = False, lag_bytes: int | None = None
) -> AsyncGenerator[Shown]:
    async with site.executor.attach_terminal(
        terminal.id, after=after, snapshots=snapshots, lag_bytes=lag_bytes
    ) as attachment:
        yield Shown(attachment)


async def ended(site: Site, terminal: Terminal) -> Terminal:
    async def probe() -> Terminal | None:
        now = await site.executor.get_terminal(terminal.id)
        return now if now.ending is not None else None

    return await eventually(probe, what="the terminal's program ends")


async def told(site: Site, terminal: Terminal) -> tuple[bytes, Terminal]:
    """All that it showed, and how it stood at its end."""
    async with attached(site, terminal) as shown:
        return await shown.to_the_end(), shown.end.terminal


def lines_to(last: int) -> bytes:
    return b"".join(b"%d\r\n" % n for n in range(1, last + 1))
