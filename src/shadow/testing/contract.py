"""What a check is made of: the rule, the ways to state that it holds, and the ways to say that it does not apply."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterable, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from shadow.core.concurrency import task_group
from shadow.core.errors import ShadowError

POLL_S = 0.01
DEADLINE_S = 30.0
"""How long a check waits for a condition before it calls the contract broken."""

T = TypeVar("T")
Subject = TypeVar("Subject")
Caught = TypeVar("Caught", bound=BaseException)


class ContractViolation(Exception):
    """An implementation does not do what the interface says."""


class CheckSkipped(Exception):
    """A check that says nothing here; the message is the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check(Generic[Subject]):
    """One rule of the contract and the function that tries to break it."""

    name: str
    rule: str
    """The rule in one line."""
    function: Callable[[Subject], Awaitable[None]]
    needs: tuple[str, ...] = ()
    """Names of the capabilities without which the rule does not apply."""
    alone: bool = False
    """Whether it changes the whole workspace, so that it needs one of its own."""


@dataclass(slots=True)
class Refusal(Generic[Caught]):
    """What ``refused`` caught; ``error`` may be used after the block."""

    caught: Caught | None = None

    @property
    def error(self) -> Caught:
        if self.caught is None:
            raise ContractViolation("Nothing was refused.")
        return self.caught


def expect(condition: object, message: str) -> None:
    """Raises: ContractViolation: unless ``condition`` holds. Not an ``assert``: it works under ``python -O`` too."""
    if not condition:
        raise ContractViolation(message)


def expect_equal(actual: object, wanted: object, what: str) -> None:
    if actual != wanted:
        raise ContractViolation(f"{what}: expected {_shown(wanted)}, got {_shown(actual)}.")


def _shown(value: object) -> str:
    """Enough of a value to see what is wrong, also where it holds megabytes."""
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:140]} … {text[-140:]} ({len(text)} characters)"


@contextmanager
def refused(*errors: type[Caught], what: str) -> Generator[Refusal[Caught], None, None]:
    """The block must raise one of ``errors``."""
    names = " or ".join(error.__name__ for error in errors)
    refusal = Refusal[Caught]()
    try:
        yield refusal
    except errors as error:
        refusal.caught = error
        return
    except ShadowError as error:
        raise ContractViolation(f"{what}: expected {names}, got {type(error).__name__}: {error}") from error
    raise ContractViolation(f"{what}: expected {names}, but it went through.")


async def each_refused(
    calls: Mapping[str, Coroutine[Any, Any, object]], *errors: type[BaseException], what: str
) -> None:
    """Every one of ``calls`` must raise one of ``errors``."""
    left = dict(calls)
    try:
        for name in calls:
            with refused(*errors, what=f"{name} {what}"):
                await left.pop(name)
    finally:
        for call in left.values():
            call.close()


async def eventually(probe: Callable[[], Awaitable[T | None]], *, what: str, deadline_s: float = DEADLINE_S) -> T:
    """The first true answer of ``probe``."""
    try:
        async with asyncio.timeout(deadline_s):
            while True:
                answer = await probe()
                if answer:
                    return answer
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        raise ContractViolation(f"{what}: not within {deadline_s:.0f} s.") from None


async def together(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """All answers in order; the first failure ends the rest and is raised as itself."""
    async with task_group() as group:
        tasks = [group.create_task(coroutine) for coroutine in work]
    return [task.result() for task in tasks]


@asynccontextmanager
async def closed_after(pieces: AsyncIterator[T]) -> AsyncGenerator[AsyncIterator[T], None]:
    """Lets a check stop reading early without leaving a stream behind."""
    try:
        yield pieces
    finally:
        close = getattr(pieces, "aclose", None)
        if close is not None:
            await close()
