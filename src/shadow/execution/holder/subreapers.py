"""The subreapers of a holder: one forked ahead, used again when clean, collected when dead."""

import signal
from collections.abc import Callable
from contextlib import suppress

from shadow.execution.holder.kernel import kill_descendants, send_signal
from shadow.execution.holder.loop import Loop
from shadow.execution.holder.subreaper import Confinement, Subreaper

MAX_SPARES = 2


class SubreaperPool:
    """``on_message`` gets what a subreaper that is in use says."""

    def __init__(
        self, loop: Loop, confinement: Confinement, *, on_message: Callable[[Subreaper, list[str]], None]
    ) -> None:
        self._loop = loop
        self._confinement = confinement
        self._on_message = on_message
        self._all: dict[int, Subreaper] = {}
        self._spares: list[Subreaper] = []
        self._closing = False

    def __contains__(self, pid: int) -> bool:
        return pid in self._all

    def take(self) -> Subreaper:
        """A clean one. Raises: OSError where the system has no room for another process."""
        return self._spares.pop() if self._spares else self._fork()

    def give_back(self, subreaper: Subreaper) -> None:
        """It is clean again."""
        if len(self._spares) < MAX_SPARES:
            self._spares.append(subreaper)
        else:
            self.dismiss(subreaper)

    def keep_spare(self) -> None:
        """Fork ahead, so that no command waits for it."""
        if not self._spares and not self._closing:
            with suppress(OSError):
                self._spares.append(self._fork())

    def dismiss(self, subreaper: Subreaper) -> None:
        """The end of file tells it to go. Nothing happens where that was said before."""
        if subreaper.channel.fileno() >= 0:
            self._loop.unwatch(subreaper.channel.fileno())
            subreaper.channel.close()

    def kill(self) -> bool:
        """End all and everything below them; ``True`` when nothing is left. To be called until then."""
        self._closing = True
        for pid in self._all:
            if not kill_descendants(pid, passes=3):
                send_signal(pid, signal.SIGKILL)
        return not self._all

    def died(self, pid: int) -> Subreaper:
        """Forget a dead one, after hearing its last words, which are still in the socket."""
        subreaper = self._all[pid]
        subreaper.receive(lambda message: self._on_message(subreaper, message))
        self.dismiss(subreaper)
        del self._all[pid]
        if subreaper in self._spares:
            self._spares.remove(subreaper)
        return subreaper

    def _fork(self) -> Subreaper:
        subreaper = Subreaper.fork(self._confinement)
        self._all[subreaper.pid] = subreaper
        self._loop.watch(subreaper.channel.fileno(), lambda: self._receive(subreaper))
        return subreaper

    def _receive(self, subreaper: Subreaper) -> None:
        if not subreaper.receive(lambda message: self._on_message(subreaper, message)):
            self.dismiss(subreaper)
