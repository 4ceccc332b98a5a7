"""Keeps the commands of a workspace within its limits, wherever no mechanism of the system does it or before one has to."""

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from shadow.core.limits import Activity, LimitKind, Limits, Usage, grower, reached
from shadow.execution.holder.census import Process, activities, files_in_memory, take_census, trees, usages
from shadow.execution.holder.checkout import Checkout
from shadow.execution.holder.loop import Loop, Timer

_SOON_S = 0.05
_AT_LEAST_EVERY_S = 1.0
_CALM_SHARE, _SHARE = 50, 5
"""Looking takes at most one part of the CPU time in so many: while nothing grows, and while something does."""
_LONGEST_REST_S = 2.0
_GROWTH = 1 / 64
"""As a part of a limit, since the last look: then the next comes soon."""
_FILE_BYTES = 1024
"""Of the kernel's memory for each file in memory, however empty."""
_EMPTY_FILES = 0.25
"""As a part of the limit of memory: files in memory may take so much besides their content, which their mounts limit."""
_EXACT_FROM = 0.75
"""As a part of the limit, by the quick sum of memory, which counts several times what is shared."""


class Watch:
    """While commands run it looks at them, often while they grow; when none runs it does nothing.

    ``running`` tells the subreaper's pid of each command that has processes; ``end`` is told whom to end for which limit.
    ``oom_fd``: a file of a control group that counts what the kernel killed for want of memory.
    """

    def __init__(
        self,
        loop: Loop,
        limits: Limits,
        *,
        root: str,
        files_in_memory: Sequence[str],
        oom_fd: int | None,
        running: Callable[[], Mapping[str, int]],
        end: Callable[[str, LimitKind], None],
    ) -> None:
        self._loop = loop
        self._limits = limits
        self._files_in_memory = files_in_memory
        self._oom_fd = oom_fd
        self._running = running
        self._end = end
        self.checkout = Checkout(loop, limits, root, on_measured=self._checkout_measured)
        self._oom_kills = self._count_oom_kills()
        self._next: Timer | None = None
        self._rest_s = 0.0
        self._used = (0, 0)
        self._heaviest: str | None = None
        self._files_then = 0
        self._ticks: dict[str, int] = {}
        self._done: dict[str, Activity] = {}
        self._watches = limits.memory_bytes is not None or limits.processes is not None

    def command_started(self) -> None:
        if (self._watches or self.checkout.limited) and (self._next is None or self._rest_s > _SOON_S):
            self._look_in(_SOON_S)

    def has_killed_for_memory(self) -> bool:
        """Whether the kernel killed a process for want of memory since this was asked last."""
        before, self._oom_kills = self._oom_kills, self._count_oom_kills()
        return self._oom_kills > before

    def _look_in(self, rest_s: float) -> None:
        if self._next is not None:
            self._next.cancel()
        self._rest_s = rest_s
        self._next = self._loop.call_later(rest_s, self._look)

    def _look(self) -> None:
        self._next = None
        roots = self._running()
        if not roots:
            self._heaviest = None
            return
        began_s = time.thread_time()
        self.checkout.look()
        found, calm = self._look_at(roots) if self._watches else (None, True)
        cost_s = time.thread_time() - began_s
        if found is not None:
            self._end(found[1], found[0])
        if calm and found is None:
            rest_s = max(min(2 * self._rest_s, _AT_LEAST_EVERY_S), cost_s * _CALM_SHARE)
        else:
            rest_s = max(_SOON_S, cost_s * _SHARE)
        self._look_in(min(rest_s, _LONGEST_REST_S))

    def _look_at(self, roots: Mapping[str, int]) -> tuple[tuple[LimitKind, str] | None, bool]:
        """The limit that was reached and the command to end for it; whether nothing grew much."""
        census = take_census()
        members = trees(census, roots)
        used = usages(census, members, exact=False)
        in_files = files_in_memory(self._files_in_memory)
        calm = self._compare(sum(u.memory_bytes for u in used.values()) + in_files.size_bytes, used)
        filler = self._who_makes_files(in_files.files, census, members)
        if filler is not None:
            return (LimitKind.MEMORY, filler), calm
        limit = self._limits.memory_bytes
        if limit is not None and self._used[0] > limit * _EXACT_FROM:
            used = usages(census, members, exact=True)
        before, self._heaviest = self._heaviest, max(used, key=lambda name: used[name].memory_bytes)
        if self.has_killed_for_memory() and before is not None and before in roots:
            # Who lost a process to the kernel is lighter by now: who weighed most before is to blame.
            return (LimitKind.MEMORY, before), calm
        return reached(self._limits, used, files_bytes=in_files.size_bytes), calm

    def _who_makes_files(
        self, files: int, census: Mapping[int, Process], members: Mapping[str, Sequence[int]]
    ) -> str | None:
        """Where there are too many files in memory, and more than at the last look: by whose time in the kernel they came."""
        before, self._files_then = self._files_then, files
        then, self._ticks = self._ticks, {n: sum(census[pid].system_ticks for pid in p) for n, p in members.items()}
        limit = self._limits.memory_bytes
        if limit is None or files <= before or files * _FILE_BYTES <= limit * _EMPTY_FILES:
            return None
        lately = {n: Activity(system_ticks=max(0, ticks - then.get(n, 0))) for n, ticks in self._ticks.items()}
        filler = grower(LimitKind.WORKSPACE_FILES, lately)
        if filler is not None:
            self._files_then = sys.maxsize  # what it makes until it is dead is nobody else's: the next look only counts
        return filler

    def _compare(self, memory_bytes: int, used: Mapping[str, Usage]) -> bool:
        before, self._used = self._used, (memory_bytes, sum(u.processes for u in used.values()))
        limits = (self._limits.memory_bytes, self._limits.processes)
        return not any(
            limit is not None and now - then > limit * _GROWTH
            for limit, now, then in zip(limits, self._used, before, strict=True)
        )

    def _checkout_measured(self, exceeded: LimitKind | None, grown_bytes: int, shared_blame: bool) -> None:
        census = take_census()
        done = activities(census, trees(census, self._running()))
        lately = {name: activity.since(self._done.get(name, Activity())) for name, activity in done.items()}
        self._done = done
        if exceeded is not None:
            name = grower(exceeded, lately, unless_below_bytes=grown_bytes // 2 if shared_blame else 0)
            if name is not None:
                self._end(name, exceeded)

    def _count_oom_kills(self) -> int:
        """The same line in both versions: ``memory.oom_control`` and ``memory.events``."""
        if self._oom_fd is not None:
            for line in os.pread(self._oom_fd, 4096, 0).splitlines():
                if line.startswith(b"oom_kill "):
                    return int(line.split()[1])
        return 0
