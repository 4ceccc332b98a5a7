"""How much the checkout takes, and whether that is too much: measured when it may have grown, so often as it is cheap."""

import os
from collections.abc import Callable
from contextlib import suppress

from shadow.core.errors import LimitExceeded
from shadow.core.limits import LimitKind, Limits, TreeSize, exceeded_by
from shadow.execution.holder.loop import Loop
from shadow.execution.holder.measuring import measure_apart

_REST_AT_LEAST_S = 1.0
_SHARE = 50
"""One part of the time in so many goes to measuring, where nothing speaks for haste."""
_HURRIED_SHARE = 4
_HURRIED_REST_AT_LEAST_S = 0.1


class Checkout:
    """``on_measured`` hears after each measurement whether it grew over a limit (else ``None``), by how many bytes it grew,
    and whether the executor had a part in it."""

    def __init__(
        self, loop: Loop, limits: Limits, root: str, *, on_measured: Callable[[LimitKind | None, int, bool], None]
    ) -> None:
        self._loop = loop
        self._limits = limits
        self._root = root
        self._on_measured = on_measured
        self.limited = limits.workspace_bytes is not None or limits.workspace_files is not None
        self._size = TreeSize(size_bytes=0, files=0)
        self._free = (0, 0)
        self._measuring_since: float | None = None
        self._measured_at = -1e9
        self._took_s = 0.0
        self._waiting: list[Callable[[LimitExceeded | None], None]] = []
        self.exceeded: LimitKind | None = None
        self._written_to = False
        """Whether the executor wrote since the measurement before."""

    def look(self) -> None:
        """Measure where it is due; a few system calls where it is not."""
        if not self.limited or self._measuring_since is not None:
            return
        rest_s = self._loop.time() - self._measured_at
        if rest_s > max(_REST_AT_LEAST_S, self._took_s * _SHARE) or (
            rest_s > max(_HURRIED_REST_AT_LEAST_S, self._took_s * _HURRIED_SHARE) and self._may_be_exceeded()
        ):
            self._measure()

    def before_write(self, answer: Callable[[LimitExceeded | None], None]) -> bool:
        """Whether the executor may write. ``False``: ``answer`` gets the verdict, after a measurement."""
        self._written_to = True
        if self.exceeded is None:
            self.look()
            return True
        self._waiting.append(answer)
        if self._measuring_since is None:
            self._measure()
        return False

    def _may_be_exceeded(self) -> bool:
        """What the file system has lost since the last measurement may all have gone here."""
        if self.exceeded is not None:
            return True
        free_bytes, free_files = self._room()
        return (
            exceeded_by(
                self._limits,
                TreeSize(
                    size_bytes=self._size.size_bytes + max(0, self._free[0] - free_bytes),
                    files=self._size.files + max(0, self._free[1] - free_files),
                ),
            )
            is not None
        )

    def _room(self) -> tuple[int, int]:
        with suppress(OSError):  # without a wall, commands may have removed it
            room = os.statvfs(self._root)
            return room.f_bfree * room.f_frsize, room.f_ffree
        return 0, 0

    def _measure(self) -> None:
        free = self._room()
        self._measuring_since = self._loop.time()
        try:
            measure_apart(self._loop, self._root, self._limits, lambda size: self._measured(size, free))
        except OSError:
            self._measured(None, free)

    def _measured(self, size: TreeSize | None, free: tuple[int, int]) -> None:
        assert self._measuring_since is not None
        self._measured_at = self._loop.time()
        self._took_s = self._measured_at - self._measuring_since
        self._measuring_since = None
        if size is not None:
            grown_bytes, grown_files = size.size_bytes - self._size.size_bytes, size.files - self._size.files
            first, self.exceeded = self.exceeded is None, exceeded_by(self._limits, size)
            self._size, self._free = size, free
            written_to, self._written_to = self._written_to, False
            grew = first or grown_bytes > 0 or grown_files > 0
            self._on_measured(self.exceeded if grew else None, max(0, grown_bytes), written_to)
        waiting, self._waiting = self._waiting, []
        for answer in waiting:
            answer(self._refusal())

    def _refusal(self) -> LimitExceeded | None:
        if self.exceeded is None:
            return None
        limit = dict(self._limits.pairs())[self.exceeded.value]
        return LimitExceeded(
            f"The workspace takes more than its limit {self.exceeded.value} ({limit}).",
            mend="Delete what is not needed.",
            details={"limit": self.exceeded.value},
        )
