"""The contract suite itself: large enough, complete, and honest about what it found."""

import asyncio
import inspect
from collections import Counter
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from shadow.core.errors import NotFound
from shadow.core.workspaces import Capabilities
from shadow.execution.host.executor import open_host
from shadow.execution.interface import ToolExecutor, WorkspaceManager
from shadow.testing.contract import Check, CheckSkipped, ContractViolation, expect, expect_equal, refused
from shadow.testing.registry import EXECUTOR_MODULES, MANAGER_MODULES, checks, workspace_checks
from shadow.testing.runner import Outcome, Verdict, run_checks
from shadow.testing.site import Site

pytestmark = pytest.mark.anyio


def test_there_are_many_checks_each_with_a_name_and_a_rule_of_its_own() -> None:
    every = [*checks(), *workspace_checks()]
    assert len(checks()) >= 100
    assert len(workspace_checks()) >= 15
    assert [name for name, count in Counter(check.name for check in every).items() if count > 1] == []
    assert [rule for rule, count in Counter(check.rule for check in checks()).items() if count > 1] == []


def test_what_checks_need_are_capabilities() -> None:
    names = set(Capabilities.__dataclass_fields__)
    assert {name for check in [*checks(), *workspace_checks()] for name in check.needs} <= names


@pytest.mark.parametrize("interface", [ToolExecutor, WorkspaceManager])
def test_every_method_of_the_interfaces_is_exercised(interface: type) -> None:
    from shadow.testing import site

    modules = (*EXECUTOR_MODULES, site) if interface is ToolExecutor else MANAGER_MODULES
    source = "".join(inspect.getsource(module) for module in modules)
    subject = "executor." if interface is ToolExecutor else "manager."
    methods = sorted(interface.__abstractmethods__ - {"aclose"})  # closing is what `async with` does
    assert [name for name in methods if f"{subject}{name}" not in source] == []


async def passes(_: Site) -> None:
    expect_equal(1, 1, "one")


async def violates(_: Site) -> None:
    expect(False, "the rule is broken")


async def skips(_: Site) -> None:
    raise CheckSkipped("the moon is full")


async def fails_typed(_: Site) -> None:
    raise NotFound("nothing here")


async def fails_oddly(_: Site) -> None:
    raise ZeroDivisionError


async def hangs(_: Site) -> None:
    await asyncio.Event().wait()


def check(function: object, *, needs: tuple[str, ...] = (), alone: bool = False) -> Check[Site]:
    name = getattr(function, "__name__", "")
    return Check(name=name, rule=name, function=function, needs=needs, alone=alone)  # type: ignore[arg-type]


async def test_the_runner_tells_each_outcome_with_its_reason_and_never_stops(tmp_path: Path) -> None:
    told: list[Outcome] = []
    (tmp_path / "files").mkdir()
    async with open_host(tmp_path / "files", tmp_path / "state") as executor:
        selected = [
            *(check(function) for function in (violates, fails_oddly, fails_typed, hangs, skips, passes)),
            check(passes, needs=("forks",)),
            check(passes, alone=True),
        ]
        report = await run_checks(executor, selected=selected, timeout_s=0.5, told=told.append)
        assert [entry.path for entry in (await executor.list_directory()).entries] == []
    assert report.outcomes == tuple(told)
    assert not report.passed
    assert [(outcome.verdict, outcome.reason) for outcome in told] == [
        (Verdict.FAILED, "the rule is broken"),
        (Verdict.FAILED, "raised ZeroDivisionError()"),
        (Verdict.FAILED, "raised NotFound: nothing here"),
        (Verdict.FAILED, "did not end within 0.5 s"),
        (Verdict.SKIPPED, "the moon is full"),
        (Verdict.PASSED, None),
        (Verdict.SKIPPED, "the implementation does not claim forks"),
        (Verdict.SKIPPED, "it needs a workspace of its own"),
    ]


async def test_the_runner_opens_workspaces_for_checks_that_need_their_own(tmp_path: Path) -> None:
    opened = 0

    def factory() -> AbstractAsyncContextManager[ToolExecutor]:
        nonlocal opened
        opened += 1
        root = tmp_path / f"files{opened}"
        root.mkdir()
        return open_host(root, tmp_path / f"state{opened}")

    report = await run_checks(factory, selected=[check(passes), check(passes, alone=True)])
    assert report.passed
    assert (report.count(Verdict.PASSED), opened) == (2, 2)


def test_expectations_hold_without_asserts_and_say_what_was_wrong() -> None:
    with pytest.raises(ContractViolation, match="the size: expected 1, got 2"):
        expect_equal(2, 1, "the size")
    with pytest.raises(ContractViolation, match="it went through"), refused(NotFound, what="reading"):
        pass
    with (
        pytest.raises(ContractViolation, match="expected ContractViolation, got NotFound"),
        refused(ContractViolation, what="reading"),
    ):
        raise NotFound("x")
    with refused(NotFound, what="reading") as refusal:
        raise NotFound("x", details={"a": 1})
    assert refusal.error.details == {"a": 1}


def test_no_check_relies_on_asserts() -> None:
    from shadow.testing import contract, runner, site

    for module in (*EXECUTOR_MODULES, *MANAGER_MODULES, contract, runner, site):
        assert "\n    assert " not in inspect.getsource(module)
