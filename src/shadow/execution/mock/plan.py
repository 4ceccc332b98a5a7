"""What a mock does beyond what it is asked for: how long it takes, what fails, what commands say, what becomes of pods. Pure."""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING

from shadow.core.commands import Channel
from shadow.core.errors import Rejected, ShadowError, Unavailable
from shadow.execution.mock.latency import Latency, check_latency

if TYPE_CHECKING:
    from shadow.execution.mock.process import Process

Program = Callable[["Process"], Awaitable[int]]
"""What a command does; returns its exit code."""

ANY = "*"
DEFAULT_BYTES = 1024**3
DEFAULT_ENTRIES = 1_000_000


def _check_counts(skip: int, count: int | None, probability: float) -> None:
    if skip < 0 or (count is not None and count < 1):
        raise Rejected(f"A fault skips 0 calls or more and counts 1 or more, not {skip} and {count}.")
    if not 0 <= probability <= 1:
        raise Rejected(f"A probability lies between 0 and 1, not at {probability}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Calls that fail. Of the calls of ``operation`` the first ``skip`` pass, then ``count`` fail (``None``: all)."""

    operation: str = ANY
    """A method of ``ToolExecutor``, or ``create`` and ``attach`` of ``WorkspaceManager``; ``*``: each."""
    error: type[ShadowError] = Unavailable
    message: str = "The mock's plan says that this call fails."
    done: bool = False
    """Whether it happened all the same: an ``OutcomeUnknown`` that did. A repeat of the operation gets its result."""
    probability: float = 1.0
    """Of each call that is neither skipped nor past the count."""
    skip: int = 0
    count: int | None = 1

    def __post_init__(self) -> None:
        _check_counts(self.skip, self.count, self.probability)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamCut:
    """Streams that break after so many bytes: ``read_output`` and ``stream_file``. Counted as faults are."""

    operation: str = ANY
    after_bytes: int = 0
    resumes: bool = True
    """It goes on after ``away_s``, as from a client that resumes by offset; else the reader gets ``Unavailable``."""
    away_s: float = 1.0
    probability: float = 1.0
    skip: int = 0
    count: int | None = 1

    def __post_init__(self) -> None:
        _check_counts(self.skip, self.count, self.probability)
        if self.after_bytes < 0 or not 0 <= self.away_s < 1e9:
            raise Rejected("A cut comes after 0 bytes or more, and lasts 0 seconds or longer.")


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a scripted command's output, written ``after`` the one before it."""

    data: bytes
    channel: Channel = Channel.STDOUT
    after: Latency = 0.0

    def __post_init__(self) -> None:
        check_latency(self.after)


@dataclass(frozen=True, slots=True, kw_only=True)
class MockCommand:
    """What commands do whose line matches. The line is what ``bash -c`` is given, else argv as a shell would write it."""

    pattern: str
    """A regular expression that the whole line must match."""
    stdout: bytes = b""
    stderr: bytes = b""
    chunks: tuple[Chunk, ...] = ()
    """Output in pieces, after ``stdout`` and ``stderr``."""
    latency: Latency = 0.0
    """From the last output to the end."""
    exit_code: int = 0
    signal: int | None = None
    """Ends by this signal instead of with a code."""
    files: Mapping[str, bytes | None] = field(default_factory=lambda: MappingProxyType({}))
    """Files that it writes, or deletes (``None``), at its end; relative to its directory."""
    ignores: frozenset[int] = frozenset()
    """Signals that do nothing to it: with SIGTERM among them a kill takes its whole grace."""
    program: Program | None = None
    """Python code instead of all that."""
    times: int | None = None
    """How often it answers in one workspace; then the next one that matches does."""

    def __post_init__(self) -> None:
        check_latency(self.latency)
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise Rejected(f"{self.pattern!r} is not a regular expression: {error}.") from error
        if not 0 <= self.exit_code <= 255:
            raise Rejected(f"An exit code lies between 0 and 255, not at {self.exit_code}.")
        if self.signal is not None and not 1 <= self.signal <= 64:
            raise Rejected(f"{self.signal} is not the number of a signal.")


class PodFailure(StrEnum):
    """Why a pod never becomes ready."""

    UNSCHEDULABLE = "unschedulable"
    IMAGE_PULL = "image_pull"
    QUOTA = "quota"


class PodEnd(StrEnum):
    """What happens to a pod that was ready."""

    EVICTED = "evicted"
    """It is gone; the workspace is stopped until somebody attaches."""
    OOM_KILLED = "oom_killed"
    """Its container is killed and started again; what ran is lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodEvent:
    """``after_s`` counts from when the pod was ready."""

    what: PodEnd
    after_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PodPlan:
    """The life of one workspace's pod."""

    pending: Latency = 0.0
    pulling: Latency = 0.0
    starting: Latency = 0.0
    """From when its containers run to when the sidecar answers."""
    failure: PodFailure | None = None
    give_up_s: float = 300.0
    """How long a pod that cannot become ready is waited for."""
    events: tuple[PodEvent, ...] = ()
    restart: Latency = 5.0
    """From an OOM kill until the sidecar answers again."""

    def __post_init__(self) -> None:
        for latency in (self.pending, self.pulling, self.starting, self.give_up_s, self.restart):
            check_latency(latency)
        for event in self.events:
            check_latency(event.after_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class MockPlan:
    """The whole of it. What is drawn at random depends on ``seed``, the workspace's number and the operation alone."""

    seed: int = 0
    latency: Mapping[str, Latency] = field(default_factory=lambda: MappingProxyType({}))
    """By operation as in ``Fault``; ``*`` is for those that are not named."""
    faults: tuple[Fault, ...] = ()
    """The first that applies to a call counts."""
    cuts: tuple[StreamCut, ...] = ()
    commands: tuple[MockCommand, ...] = ()
    """The first that matches answers; before programs that are simulated anyway."""
    programs: Mapping[str, Program] = field(default_factory=lambda: MappingProxyType({}))
    """Further programs by name."""
    files: Mapping[str, bytes] = field(default_factory=lambda: MappingProxyType({}))
    """What a new workspace holds."""
    pods: tuple[PodPlan, ...] = ()
    """For the first, second, … workspace that is made; later ones get ``pod``."""
    pod: PodPlan = field(default_factory=PodPlan)
    limit_bytes: int = DEFAULT_BYTES
    """Of all files of a workspace: its disk."""
    limit_entries: int = DEFAULT_ENTRIES

    def __post_init__(self) -> None:
        for latency in self.latency.values():
            check_latency(latency)
