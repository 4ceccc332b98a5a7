"""One mocked workspace: its files, commands and operations, and the pod that they live and end with."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from typing import TypeVar

from shadow.core.commands import Gap, Output
from shadow.core.errors import NotFound, OutcomeUnknown, ShadowError, Unavailable
from shadow.core.ids import WorkspaceId
from shadow.core.limits import Limits
from shadow.core.workspaces import Health, WorkspaceSpec
from shadow.execution.mock.chances import Chances
from shadow.execution.mock.commands import MockCommands
from shadow.execution.mock.files import MockFiles
from shadow.execution.mock.latency import draw
from shadow.execution.mock.operations import Operations
from shadow.execution.mock.plan import MockPlan, PodEnd, PodPlan
from shadow.execution.mock.pods import GONE, TOLD, PodMoment, PodPhase, bring_up, phase_after
from shadow.execution.mock.scripted import Programs
from shadow.execution.mock.times import Time
from shadow.execution.mock.tree import ROOT, Tree
from shadow.execution.streams import closing
from shadow.version import __version__

T = TypeVar("T")

_BASE_ENV: Mapping[str, str] = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/home/agent", "LANG": "C.UTF-8"}
READING = frozenset(
    {"health", "stat", "read_file", "read_lines", "list_directory", "grep", "search_files"}
    | {"list_commands", "get_command", "wait", "stream_file", "read_output"}
)
"""Calls that change nothing: cut off in the middle, a repeat is safe."""


class MockWorkspace:
    """Outlives its executors, not the process."""

    def __init__(
        self,
        id_: WorkspaceId,
        *,
        spec: WorkspaceSpec,
        limits: Limits,
        plan: MockPlan,
        pod: PodPlan,
        time: Time,
        number: int,
    ) -> None:
        self.id = id_
        self.spec = spec
        self.limits = limits
        self.time = time
        self.chances = Chances(plan, name=f"workspace {number}")
        self.created_at = time.now()
        self.lease_expires_at = 0.0
        self.operations = Operations(epoch=1)
        tree = Tree(limit_bytes=plan.limit_bytes, limit_entries=plan.limit_entries, now=self.created_at)
        self.files = MockFiles(tree, clock=time.now, limit_bytes=plan.limit_bytes)
        for path, content in plan.files.items():
            self.files.write(path, content)
        self.commands = MockCommands(
            programs=Programs(plan, self.chances.random("commands")),
            files=self.files,
            time=time,
            entropy=self.chances.entropy,
            base_env={**_BASE_ENV, "PWD": ROOT, **spec.env},
            default_timeout_s=limits.command_time_s,
        )
        self.history: list[PodMoment] = []
        self._pod = pod
        self._ready_at = 0.0
        self._restarts = 0
        self._settled = asyncio.Event()
        """Set while the pod is ready, or gone for good."""
        self._calls: set[asyncio.Task[object]] = set()
        self._events: list[asyncio.Task[None]] = []
        self._lease: asyncio.Task[None] | None = None

    # Life

    @property
    def phase(self) -> PodPhase:
        return self.history[-1].phase

    async def start(self, *, again: bool = False) -> None:
        """Bring the pod up. ``again``: without the failures and events of its plan, which were for its first life."""
        plan = PodPlan(pending=self._pod.pending, starting=self._pod.starting) if again else self._pod
        await bring_up(plan, self.chances.random("pod"), enter=self._enter, sleep=self.time.sleep)
        for event in plan.events:
            self._events.append(asyncio.create_task(self._meet(event.what, event.after_s)))

    async def _meet(self, what: PodEnd, after_s: float) -> None:
        await self.time.background_sleep(after_s)
        self.lose_pod(what)

    def lose_pod(self, what: PodEnd) -> None:
        """Nothing happens where the pod is not ready."""
        if self.phase is PodPhase.READY:
            self._enter(phase_after(what))
            self._end_everything()
            if what is PodEnd.OOM_KILLED:
                self._events.append(asyncio.create_task(self._restart()))

    async def hibernate(self) -> None:
        """Once it has settled. Nothing happens where there is no pod by then."""
        await self.time.wait(self._settled)
        if self.phase is PodPhase.READY:
            self._enter(PodPhase.HIBERNATED)
            self._end_everything()

    async def awake(self) -> None:
        """Bring a pod up where there is none. Raises: NotFound, Unavailable."""
        while True:
            if self.phase in GONE:
                await self.start(again=True)
            await self.time.wait(self._settled)
            if self.phase not in GONE:
                self.check_answers()
                return

    async def _restart(self) -> None:
        await self.time.background_sleep(draw(self._pod.restart, self.chances.random("pod")))
        if self.phase is PodPhase.OOM_KILLED:
            self._restarts += 1
            self._enter(PodPhase.READY)

    def set_lease(self, lease_s: float) -> None:
        self.lease_expires_at = self.time.now() + lease_s
        if self._lease is not None:
            self._lease.cancel()
        self._lease = asyncio.create_task(self._end_with_lease(lease_s))

    async def _end_with_lease(self, lease_s: float) -> None:
        await self.time.background_sleep(lease_s)
        self._lease = None
        self.end()

    @property
    def lease_is_over(self) -> bool:
        return self.time.now() >= self.lease_expires_at

    def end(self) -> None:
        """The processes end; whoever waits in a call is told."""
        self._enter(PodPhase.ENDED)
        self._end_everything()
        current = asyncio.current_task()
        for task in (*self._events, *([self._lease] if self._lease is not None else [])):
            if task is not current:
                task.cancel()

    def _enter(self, phase: PodPhase) -> None:
        self.history.append(PodMoment(phase=phase, at=self.time.now()))
        if phase is PodPhase.READY:
            self._ready_at = self.time.now()
        if phase in (PodPhase.READY, PodPhase.ENDED, *GONE):
            self._settled.set()
        else:
            self._settled.clear()

    def _end_everything(self) -> None:
        for call in self._calls:
            call.cancel()
        self.commands.lose(TOLD.get(self.phase, "The workspace was hibernated."))

    async def settled(self) -> None:
        """Wait while the pod starts, or starts again. Raises: Unavailable: it will not come."""
        await self.time.wait(self._settled)
        self.check_answers()

    def check_answers(self) -> None:
        """Raises: NotFound, Unavailable."""
        if self.phase is PodPhase.ENDED:
            raise NotFound(f"The workspace {self.id} was destroyed, or its lease is over.")
        if self.phase is not PodPhase.READY:
            raise self._away()

    def _away(self) -> Unavailable:
        told = TOLD.get(self.phase, f"The pod is {self.phase.value}.")
        mend = "Attach again." if self.phase in GONE else "Try again in a while."
        return Unavailable(
            f"The workspace does not answer: {told}", mend=mend, details={"phase": self.phase.value, "reason": told}
        )

    def health(self) -> Health:
        return Health(
            version=__version__,
            uptime_s=self.time.now() - self._ready_at,
            epoch=self.operations.epoch,
            lease_remaining_s=max(0.0, self.lease_expires_at - self.time.now()),
            commands_running=self.commands.running,
            sidecar_restarts=self._restarts,
        )

    # Calls

    async def call(self, name: str, action: Callable[[], Awaitable[T]]) -> T:
        """``action``, after the latency and with the faults that the plan has for a call of ``name``."""
        self.check_answers()
        await self._delay(name)
        fault = self.chances.fault(name)
        if fault is None or fault.done:
            answer = await self.while_alive(name, action)
            if fault is None:
                return answer
        assert fault is not None
        raise fault.error(fault.message, details={"planned": True})

    async def _delay(self, name: str) -> None:
        latency_s = self.chances.latency_s(name)
        if latency_s > 0:
            await self.while_alive(name, lambda: self.time.sleep(latency_s), sent=False)

    async def while_alive(self, name: str, action: Callable[[], Awaitable[T]], *, sent: bool = True) -> T:
        """Raises: Unavailable, OutcomeUnknown: the pod ended meanwhile."""

        if self.phase is not PodPhase.READY:  # it ended between two parts of one call
            raise self._interrupted(name, sent=sent)

        async def act() -> T:
            return await action()

        task = asyncio.create_task(act())
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        try:
            with self.time.waiting():
                return await task
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if not task.cancelled() or (current is not None and current.cancelling()):
                raise
            raise self._interrupted(name, sent=sent) from None

    def _interrupted(self, name: str, *, sent: bool) -> ShadowError:
        if name in READING or not sent:
            return self._away()
        return OutcomeUnknown(
            f"The workspace ended during {name}: {TOLD.get(self.phase, self.phase.value)}",
            mend="Look at what it should have changed before you repeat it.",
            details={"phase": self.phase.value},
        )

    async def stream(
        self, name: str, pieces: AsyncIterator[T], *, size: Callable[[T], int], split: "Split[T]"
    ) -> AsyncIterator[T]:
        """``pieces``, after the latency and with the faults and cuts that the plan has for a stream of ``name``.

        While the pod starts again a stream waits: it resumes by itself, as that of a client does.
        """
        self.check_answers()
        await self._delay(name)
        fault = self.chances.fault(name)
        if fault is not None:
            raise fault.error(fault.message, details={"planned": True})
        cut = self.chances.cut(name)
        left = cut.after_bytes if cut is not None else 0
        async with closing(pieces):
            async for whole in pieces:
                piece: T | None = whole
                if cut is not None and size(whole) > left:
                    head, piece = split(whole, left)
                    if head is not None:
                        yield head
                    if not cut.resumes:
                        raise Unavailable("The stream was cut, as the mock's plan says.", details={"planned": True})
                    await self.time.sleep(cut.away_s)
                    cut = None
                left -= size(whole)
                await self.settled()
                if piece is not None:
                    yield piece
        await self.settled()


Split = Callable[[T, int], tuple[T | None, T | None]]
"""A piece in two, at so many bytes; ``None`` where nothing is left of one."""


def split_bytes(piece: bytes, at: int) -> tuple[bytes | None, bytes | None]:
    return piece[:at] or None, piece[at:] or None


def split_output(piece: Output | Gap, at: int) -> tuple[Output | Gap | None, Output | Gap | None]:
    """A gap has no bytes to split."""
    if isinstance(piece, Gap):
        return None, piece
    head, rest = split_bytes(piece.data, at)
    return (
        replace(piece, data=head) if head else None,
        replace(piece, offset=piece.offset + at, data=rest) if rest else None,
    )
