"""Latency, faults, cuts and pods of the mock: as planned, typed, and the same for the same seed."""

import asyncio
from pathlib import Path

import pytest

from shadow.core.commands import CommandSpec, Exited, Lost, Output, StdinMode, shell
from shadow.core.errors import (
    LimitExceeded,
    NotFound,
    OutcomeUnknown,
    Rejected,
    ShadowError,
    Unavailable,
    Unsupported,
)
from shadow.core.ids import Operation, OperationId, TerminalId
from shadow.core.terminals import TerminalSpec
from shadow.core.workspaces import WorkspaceSpec, WorkspaceState
from shadow.execution.interface import ToolExecutor
from shadow.execution.mock.latency import Exponential, Latency, LogNormal, Uniform
from shadow.execution.mock.manager import MockWorkspaceManager
from shadow.execution.mock.plan import Fault, MockPlan, PodEnd, PodEvent, PodFailure, PodPlan, StreamCut
from shadow.execution.mock.plan_file import MockPlanRefused, load_plan, parse_plan
from shadow.execution.mock.pods import PodPhase
from shadow.execution.mock.times import VirtualTime

pytestmark = pytest.mark.anyio


def a_manager(clock: VirtualTime | None = None, **plan: object) -> MockWorkspaceManager:
    return MockWorkspaceManager(MockPlan(**plan), time=clock or VirtualTime())  # type: ignore[arg-type]


async def outcomes(executor: ToolExecutor, count: int) -> str:
    """One letter for each write: done, Unavailable, other."""
    told = ""
    for _ in range(count):
        try:
            await executor.write_file("file", b"x")
            told += "."
        except Unavailable:
            told += "U"
        except ShadowError:
            told += "o"
    return told


@pytest.mark.parametrize(
    ("fault", "wanted"),
    [
        (Fault(operation="write_file"), "U....."),
        (Fault(operation="write_file", skip=2, count=3), "..UUU."),
        (Fault(operation="write_file", count=None), "UUUUUU"),
        (Fault(operation="write_file", error=LimitExceeded, skip=1), ".o...."),
        (Fault(operation="read_file", count=None), "......"),
        (Fault(operation="write_file", probability=0.0, count=None), "......"),
    ],
)
async def test_the_planned_calls_fail_and_no_others(fault: Fault, wanted: str) -> None:
    async with a_manager(faults=(fault,)).open(WorkspaceSpec()) as executor:
        assert await outcomes(executor, 6) == wanted


async def test_chance_is_the_seeds_and_calls_of_another_kind_shift_nothing() -> None:
    async def run(seed: int, *, disturbed: bool) -> str:
        fault = Fault(operation="write_file", probability=0.4, count=None)
        manager = a_manager(seed=seed, faults=(fault,))
        async with manager.open(WorkspaceSpec()) as executor:
            told = ""
            for _ in range(30):
                if disturbed:
                    await executor.health()
                told += await outcomes(executor, 1)
            return told

    assert await run(1, disturbed=False) == await run(1, disturbed=True)
    assert await run(1, disturbed=False) != await run(2, disturbed=False)
    assert {"U", "."} == set(await run(1, disturbed=False))


async def test_an_unknown_outcome_may_have_happened_and_a_repeat_gets_the_result() -> None:
    faults = (
        Fault(operation="write_file", error=OutcomeUnknown, done=True),
        Fault(operation="delete", error=OutcomeUnknown),
    )
    async with a_manager(faults=faults).open(WorkspaceSpec()) as executor:
        operation = Operation(id=OperationId("op_1"), epoch=executor.epoch)
        with pytest.raises(OutcomeUnknown):
            await executor.write_file("file", b"first", operation=operation)
        await executor.write_file("file", b"second")
        assert (await executor.write_file("file", b"first", operation=operation)).size_bytes == 5
        assert (await executor.read_file("file")).content == b"second"
        with pytest.raises(OutcomeUnknown):
            await executor.delete("file")
        assert (await executor.stat("file")).size_bytes == 6  # this one did not happen


@pytest.mark.parametrize(
    ("latency", "low", "high"),
    [(2.0, 2.0, 2.0), (Uniform(1.0, 3.0), 1.0, 3.0), (Exponential(2.0), 0.0, 60.0), (LogNormal(2.0, 0.3), 0.2, 20.0)],
)
async def test_calls_take_their_time(latency: Latency, low: float, high: float) -> None:
    clock = VirtualTime()
    manager = a_manager(clock, latency={"*": 0.0, "stat": latency})
    async with manager.open(WorkspaceSpec()) as executor:
        took: list[float] = []
        for _ in range(50):
            began = clock.now()
            await executor.stat(".")
            took.append(clock.now() - began)
        began = clock.now()
        await executor.write_file("file", b"")
        assert clock.now() == began
    assert all(low <= seconds + 1e-6 and seconds - 1e-6 <= high for seconds in took)
    assert 1.0 < sum(took) / len(took) < 4.0


@pytest.mark.parametrize("latency", [-1.0, float("nan"), float("inf"), Uniform(-1.0, 1.0), LogNormal(1.0, -1.0)])
def test_impossible_latencies_are_rejected(latency: Latency) -> None:
    with pytest.raises(Rejected):
        MockPlan(latency={"*": latency})


async def test_a_cut_stream_goes_on_by_itself_or_ends_typed() -> None:
    clock = VirtualTime()
    cuts = (
        StreamCut(operation="stream_file", after_bytes=5, away_s=30.0),
        StreamCut(operation="stream_file", after_bytes=5, resumes=False, skip=1),
    )
    content = bytes(range(256)) * 8192
    async with a_manager(clock, cuts=cuts).open(WorkspaceSpec()) as executor:
        await executor.write_file("file", content)
        began = clock.now()
        pieces = [piece async for piece in executor.stream_file("file")]
        assert (b"".join(pieces), len(pieces[0]), clock.now()) == (content, 5, began + 30.0)
        cut = executor.stream_file("file")
        assert await anext(cut) == content[:5]
        with pytest.raises(Unavailable):
            await anext(cut)
        assert b"".join([piece async for piece in executor.stream_file("file")]) == content


async def test_output_that_was_cut_is_read_on_from_its_offset() -> None:
    cut = StreamCut(operation="read_output", after_bytes=1000, resumes=False, count=3)
    async with a_manager(cuts=(cut,)).open(WorkspaceSpec()) as executor:
        command = await executor.start(CommandSpec(argv=("seq", "10000")))
        seen, cuts = b"", 0
        while True:
            try:
                async for item in executor.read_output(command.id, after=len(seen)):
                    assert isinstance(item, Output)
                    assert item.offset == len(seen)
                    seen += item.data
                break
            except Unavailable:
                cuts += 1
        assert (cuts, seen) == (3, b"".join(b"%d\n" % n for n in range(1, 10001)))


# Pods


async def test_a_pod_goes_through_its_phases_and_is_seen_on_its_way() -> None:
    clock = VirtualTime()
    manager = a_manager(clock, pod=PodPlan(pending=10.0, pulling=20.0, starting=5.0))
    making = asyncio.create_task(manager.create(WorkspaceSpec(name="slow")))
    await clock.sleep(12.0)
    (status,) = await manager.list()
    assert (status.state, status.phase, status.name) == (WorkspaceState.STARTING, "pulling", "slow")
    made = await making
    assert (made.state, made.phase, made.id) == (WorkspaceState.READY, "ready", status.id)
    moments = [(moment.phase, moment.at - made.created_at) for moment in manager.history(made.id)]
    assert moments == [(PodPhase.PENDING, 0), (PodPhase.PULLING, 10), (PodPhase.RUNNING, 30), (PodPhase.READY, 35)]
    await manager.destroy(made.id)


@pytest.mark.parametrize(
    ("failure", "error", "reason"),
    [
        (PodFailure.UNSCHEDULABLE, Unavailable, "Unschedulable"),
        (PodFailure.IMAGE_PULL, Unavailable, "ImagePullBackOff"),
        (PodFailure.QUOTA, LimitExceeded, "QuotaExceeded"),
    ],
)
async def test_a_pod_that_does_not_come_up_is_typed_and_leaves_nothing(
    failure: PodFailure, error: type[ShadowError], reason: str
) -> None:
    manager = a_manager(pods=(PodPlan(failure=failure, give_up_s=60.0),))
    with pytest.raises(error) as refusal:
        await manager.create(WorkspaceSpec())
    assert refusal.value.details["reason"] == reason
    assert await manager.list() == []
    async with manager.open(WorkspaceSpec()) as executor:  # the plan was for the first one
        assert (await executor.health()).commands_running == 0


async def test_eviction_ends_what_ran_and_attaching_brings_the_files_back() -> None:
    clock = VirtualTime()
    manager = a_manager(clock, pod=PodPlan(events=(PodEvent(what=PodEnd.EVICTED, after_s=50.0),)))
    made = await manager.create(WorkspaceSpec())
    old = await manager.attach(made.id)
    await old.write_file("file", b"kept")
    command = await old.start(CommandSpec(argv=("cat",), stdin=StdinMode.OPEN))
    with pytest.raises(Unavailable):  # a wait only looks: a repeat is safe
        await old.wait(command.id)
    status = await manager.status(made.id)
    assert (status.state, status.phase) == (WorkspaceState.STOPPED, "evicted")
    assert "evicted" in (status.error or "")
    for call in (old.stat("file"), old.write_file("file", b"evil"), old.start(CommandSpec(argv=("true",)))):
        with pytest.raises(Unavailable):
            await call
    async with await manager.attach(made.id) as executor:
        assert (await executor.read_file("file")).content == b"kept"
        assert isinstance((await executor.get_command(command.id)).ending, Lost)
        await clock.sleep(1000.0)
        assert (await executor.health()).commands_running == 0  # its event was for the first life
    await manager.destroy(made.id)


async def test_an_oom_kill_loses_what_ran_and_readers_wait_for_the_restart() -> None:
    clock = VirtualTime()
    manager = a_manager(clock, pod=PodPlan(restart=8.0))
    async with manager.open(WorkspaceSpec()) as executor:
        workspace_id = (await manager.list())[0].id
        command = await executor.start(CommandSpec(argv=shell("echo begun; sleep 1000")))
        running = asyncio.create_task(executor.run(CommandSpec(argv=("sleep", "1000"))))
        while (await executor.health()).commands_running < 2:
            await asyncio.sleep(0)
        seen = b""
        async for item in executor.read_output(command.id):
            seen += getattr(item, "data", b"")
            if seen == b"begun\n" and (await manager.status(workspace_id)).state is WorkspaceState.READY:
                killed_at = clock.now()
                manager.oom_kill(workspace_id)
                assert (await manager.status(workspace_id)).state is WorkspaceState.STARTING
                with pytest.raises(Unavailable):
                    await executor.health()
        assert (seen, clock.now() - killed_at) == (b"begun\n", 8.0)
        assert isinstance((await executor.get_command(command.id)).ending, Lost)
        with pytest.raises(OutcomeUnknown):  # it was started, and nobody can say how it ended
            await running
        assert (await executor.health()).sidecar_restarts == 1
        assert (await executor.run(CommandSpec(argv=("true",)))).ending == Exited(code=0)


async def test_a_lease_that_nobody_renews_ends_calls_and_workspace() -> None:
    clock = VirtualTime()
    manager = a_manager(clock)
    made = await manager.create(WorkspaceSpec(lease_s=60.0))
    executor = await manager.attach(made.id)
    command = await executor.start(CommandSpec(argv=("sleep", "1000")))
    with pytest.raises(ShadowError):
        await executor.wait(command.id)
    assert clock.now() == made.created_at + 60.0
    with pytest.raises(NotFound):
        await manager.attach(made.id)
    assert await manager.reap() == [made.id]
    assert await manager.list() == []


async def test_faults_of_the_manager_leave_nothing() -> None:
    manager = a_manager(faults=(Fault(operation="create", error=OutcomeUnknown),))
    with pytest.raises(OutcomeUnknown):
        await manager.create(WorkspaceSpec())
    assert await manager.list() == []


async def test_what_is_not_claimed_is_refused_by_its_name() -> None:
    async with a_manager().open(WorkspaceSpec()) as executor:
        calls = {
            "git": lambda: executor.git_status(),
            "terminals": lambda: executor.create_terminal(TerminalSpec()),
        }
        for capability, call in calls.items():
            assert not getattr(executor.capabilities, capability)
            with pytest.raises(Unsupported) as refusal:
                await call()
            assert refusal.value.details["capability"] == capability
        for capability, stream in (("watching", executor.watch), ("trees", executor.download_tree)):
            with pytest.raises(Unsupported) as refusal:
                stream()
            assert refusal.value.details["capability"] == capability
        with pytest.raises(Unsupported):
            async with executor.attach_terminal(TerminalId("term_1")):
                pass


# The file


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("seeds: 1", "seeds"),
        ("faults: [{error: nonsense}]", "faults.0"),
        ("faults: [{count: 0}]", "faults.0.count"),
        ("latency: {'*': {uniform: [1, 2], exponential: 3}}", "latency"),
        ("latency: {'*': -1}", "latency"),
        ("commands: [{pattern: a, signal: SIGNONE}]", "commands.0.signal"),
        ("pods: [{events: [{what: flooded, after_s: 1}]}]", "pods.0.events.0.what"),
        ("[]", ""),
    ],
)
def test_a_plan_that_cannot_be_understood_is_refused_with_its_place(text: str, where: str) -> None:
    with pytest.raises(MockPlanRefused) as refusal:
        parse_plan(text)
    assert str(refusal.value.details["field"]).startswith(where)


@pytest.mark.parametrize("text", ["a: [", "commands: [{pattern: '('}]", "!!python/object:os.system {}"])
def test_a_plan_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(MockPlanRefused):
        parse_plan(text)


def test_a_plan_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MockPlanRefused):
        load_plan(tmp_path / "nowhere.yaml")
    assert parse_plan("") == MockPlan()
