"""Runs checks one after the other, each for a bounded time, and tells how each came out."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from enum import StrEnum

from shadow.core.errors import ShadowError
from shadow.core.workspaces import Capabilities
from shadow.execution.interface import ToolExecutor, WorkspaceManager
from shadow.testing.contract import Check, CheckSkipped, ContractViolation, Subject
from shadow.testing.registry import checks, workspace_checks
from shadow.testing.site import Site, make_site

CHECK_TIMEOUT_S = 60.0

ExecutorFactory = Callable[[], AbstractAsyncContextManager[ToolExecutor]]
"""Opens a workspace of its own for each call."""
Told = Callable[["Outcome"], None]


class Verdict(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    name: str
    rule: str
    verdict: Verdict
    took_s: float
    reason: str | None = None
    """Why it failed or was skipped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    outcomes: tuple[Outcome, ...]

    def count(self, verdict: Verdict) -> int:
        return sum(outcome.verdict is verdict for outcome in self.outcomes)

    @property
    def passed(self) -> bool:
        """Whether nothing failed and something was checked."""
        return self.count(Verdict.FAILED) == 0 and self.count(Verdict.PASSED) > 0


async def apply_check(check: Check[Subject], subject: Subject, capabilities: Capabilities) -> None:
    """Run one check. Raises: CheckSkipped, ContractViolation, or whatever the implementation raised."""
    for name in check.needs:
        if not getattr(capabilities, name):
            raise CheckSkipped(f"the implementation does not claim {name}")
    await check.function(subject)


async def apply_executor_check(check: Check[Site], executor: ToolExecutor) -> None:
    """Run one check in a directory of its own; the executor must be its alone where the check says so."""
    async with make_site(executor) as site:
        await apply_check(check, site, executor.capabilities)


async def run_checks(
    subject: ToolExecutor | ExecutorFactory,
    *,
    selected: Sequence[Check[Site]] | None = None,
    timeout_s: float = CHECK_TIMEOUT_S,
    told: Told | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Report:
    """Run all checks, or the ``selected`` ones; no failure stops the rest, and ``told`` hears of each outcome at once.

    Checks that change a whole workspace run where ``subject`` is a factory, which then opens one more for each of them.
    """
    factory = None if isinstance(subject, ToolExecutor) else subject
    outcomes: list[Outcome] = []
    async with AsyncExitStack() as stack:
        executor = subject if isinstance(subject, ToolExecutor) else await stack.enter_async_context(subject())

        async def apply(check: Check[Site]) -> None:
            if not check.alone:
                await apply_executor_check(check, executor)
            elif factory is None:
                raise CheckSkipped("it needs a workspace of its own")
            else:
                async with factory() as own:
                    await apply_executor_check(check, own)

        for check in checks() if selected is None else selected:
            outcomes.append(  # noqa: PERF401 - each is told before the next begins
                await _outcome(check, apply(check), timeout_s=timeout_s, told=told, clock=clock)
            )
    return Report(outcomes=tuple(outcomes))


async def run_workspace_checks(
    manager: WorkspaceManager,
    *,
    selected: Sequence[Check[WorkspaceManager]] | None = None,
    timeout_s: float = CHECK_TIMEOUT_S,
    told: Told | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Report:
    """As ``run_checks``, for a manager; its other workspaces are left alone."""
    outcomes: list[Outcome] = []
    for check in workspace_checks() if selected is None else selected:
        work = apply_check(check, manager, manager.capabilities)
        outcomes.append(await _outcome(check, work, timeout_s=timeout_s, told=told, clock=clock))
    return Report(outcomes=tuple(outcomes))


async def _outcome(
    check: Check[Subject],
    work: Awaitable[None],
    *,
    timeout_s: float,
    told: Told | None,
    clock: Callable[[], float],
) -> Outcome:
    began = clock()
    verdict, reason = Verdict.FAILED, None
    try:
        async with asyncio.timeout(timeout_s):
            await work
        verdict = Verdict.PASSED
    except CheckSkipped as skip:
        verdict, reason = Verdict.SKIPPED, str(skip)
    except ContractViolation as violation:
        reason = str(violation)
    except ShadowError as error:
        reason = f"raised {type(error).__name__}: {error}"
    except TimeoutError:
        reason = f"did not end within {timeout_s:g} s"
    except Exception as error:  # noqa: BLE001 - whatever an implementation throws, the other checks still run
        reason = f"raised {error!r}"
    outcome = Outcome(name=check.name, rule=check.rule, verdict=verdict, took_s=clock() - began, reason=reason)
    if told is not None:
        told(outcome)
    return outcome


def matching(available: Iterable[Check[Subject]], part: str) -> list[Check[Subject]]:
    """Those whose name holds ``part``."""
    return [check for check in available if part in check.name]
