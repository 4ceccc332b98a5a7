"""Who waits for what of a command: its end, output behind an offset, another size of a terminal."""

from dataclasses import dataclass

from shadow.core.terminals import TerminalSize
from shadow.execution.holder.loop import Loop, Timer
from shadow.execution.holder.running import Reply, Running


@dataclass(slots=True)
class Waiter:
    """A caller that waits: for output behind ``after`` or another size, or where ``after`` is ``None`` for the end."""

    reply: Reply
    after: int | None
    size: TerminalSize | None
    """The one that the caller knows; ``None``: it does not matter."""
    timer: Timer | None = None


class Waiting:
    """All waiters of all commands."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._waiters: dict[str, list[Waiter]] = {}
        self._changed: dict[str, Running] = {}

    def wait(
        self,
        command: Running,
        *,
        after: int | None,
        timeout_s: float | None,
        reply: Reply,
        size: TerminalSize | None = None,
    ) -> None:
        """Answer when what is waited for is there, or ``timeout_s`` is over."""
        waiter = Waiter(reply, after, size)
        if _answer(command, waiter):
            return
        if timeout_s is not None:
            waiter.timer = self._loop.call_later(timeout_s, lambda: self._give_up(command, waiter))
        self._waiters.setdefault(command.id, []).append(waiter)

    def changed(self, command: Running) -> None:
        self._changed[command.id] = command

    def tell(self) -> None:
        """Tell the waiters what this round of the loop brought, once each."""
        changed, self._changed = self._changed, {}
        for command in changed.values():
            waiting = self._waiters.pop(command.id, [])
            left = [waiter for waiter in waiting if not _answer(command, waiter)]
            if left:
                self._waiters.setdefault(command.id, []).extend(left)

    def _give_up(self, command: Running, waiter: Waiter) -> None:
        waiting = self._waiters[command.id]
        waiting.remove(waiter)
        if not waiting:
            del self._waiters[command.id]
        _answer(command, waiter, anyhow=True)


def _answer(command: Running, waiter: Waiter, *, anyhow: bool = False) -> bool:
    has_output = waiter.after is not None and waiter.after < command.output.log.layout.end
    has_size = waiter.size is not None and waiter.size != command.size
    if not (anyhow or has_output or has_size or command.ending is not None):
        return False
    if waiter.timer is not None:
        waiter.timer.cancel()
    waiter.reply({"command": command.describe()} if waiter.after is None else command.progress())
    return True
