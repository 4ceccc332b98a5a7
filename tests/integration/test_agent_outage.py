"""A workspace that goes away beneath a run of the agent: typed answers to the model, events for the user, never a success."""

import asyncio
from contextlib import nullcontext
from pathlib import Path

import pytest

from shadow.agent.loop import RunState, RunStatus
from shadow.agent.scripted import open_scripted
from shadow.core.conversation import ToolResult
from shadow.core.events import CommandOutput, TaskEvent, ToolFinished, WorkspaceAway
from shadow.execution.host.executor import open_host
from shadow.execution.sidecar_client.breaker import BreakerPolicy
from shadow.execution.sidecar_client.endpoint import UnixEndpoint
from shadow.execution.sidecar_client.retries import Resilience, RetryPolicy
from shadow.testing.chaos import BLACKHOLE, CLEAR, ChaosProxy, Fault, chaos_proxy
from tests.support.agent_runs import outcome_of, run_agent
from tests.support.sidecars import client, listen, serving

pytestmark = pytest.mark.anyio

CALLS = {
    "read_file": "{path: a.txt}",
    "list_dir": "{}",
    "grep_search": "{pattern: one}",
    "file_search": "{query: a}",
    "edit_file": "{path: b.txt, content: x}",
    "search_replace": "{path: a.txt, old: one, new: two}",
    "delete_file": "{path: a.txt}",
    "run_terminal_cmd": "{command: echo ran >> log}",
    "read_command": "{command_id: cmd_1}",
    "stop_command": "{command_id: cmd_1}",
}
CHANGES = {"edit_file", "search_replace", "delete_file", "run_terminal_cmd"}


def script(tmp_path: Path, *steps: str) -> Path:
    path = tmp_path / "script.yaml"
    last = "- calls: [{tool: finish, arguments: {summary: Done.}}]"
    path.write_text("version: 1\nsteps:\n" + "".join(f"  {step}\n" for step in (*steps, last)))
    return path


async def run_over(proxy: ChaosProxy, tmp_path: Path, path: Path, watch: object, resilience: Resilience) -> RunState:
    async with client(UnixEndpoint(tmp_path / "proxy.sock"), resilience=resilience) as executor, asyncio.timeout(60):
        workspace = nullcontext(executor)
        return await run_agent(open_scripted(path), tmp_path, watchers=[watch], workspace=workspace)  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("outage", "sent"),
    [
        pytest.param(Fault(status=503), False, id="refuses"),
        pytest.param(Fault(to_client_bytes=0), True, id="answers are cut"),
        pytest.param(BLACKHOLE, True, id="hangs"),
    ],
)
async def test_what_the_model_and_the_user_are_told_while_the_workspace_is_away(
    tmp_path: Path, outage: Fault, sent: bool
) -> None:
    # A search takes the time that it was given for itself before it counts as unanswered.
    calls = {tool: given for tool, given in CALLS.items() if outage != BLACKHOLE or tool != "grep_search"}
    for name in ("root", "state"):
        (tmp_path / name).mkdir()
    (tmp_path / "root/a.txt").write_text("one\n")
    steps = ["- calls: [{tool: run_terminal_cmd, arguments: {command: cat a.txt}, expect: {exit_code: 0}}]"]
    steps += [f"- calls: [{{tool: {tool}, arguments: {given}}}]" for tool, given in calls.items()]
    steps += ["- calls: [{tool: run_terminal_cmd, arguments: {command: echo back}, expect: {contains: back}}]"]
    results: list[ToolResult] = []
    away: list[WorkspaceAway] = []
    resilience = Resilience(retries=RetryPolicy(waits_s=(0.01,)), breaker=BreakerPolicy(failures=1000), answer_s=0.15)
    async with (
        open_host(tmp_path / "root", tmp_path / "state") as host,
        chaos_proxy(target=tmp_path / "sidecar.sock", listen=tmp_path / "proxy.sock") as proxy,
    ):

        def watch(recorded: TaskEvent) -> None:
            event = recorded
            if isinstance(event, WorkspaceAway):
                away.append(event)
            if isinstance(event, ToolFinished):
                results.append(event.result)
                proxy.switch(outage if 1 <= len(results) <= len(calls) else CLEAR)

        with listen(tmp_path / "sidecar.sock") as listener:
            async with serving(host, listener):
                state = await run_over(proxy, tmp_path, script(tmp_path, *steps), watch, resilience)
    assert outcome_of(state).status is RunStatus.DONE
    by_tool = dict(zip(calls, results[1:], strict=False))
    for tool, result in by_tool.items():
        assert (result.name, result.is_error, result.exit_code) == (tool, True, None)
        if not (sent and tool in CHANGES):
            assert result.content.startswith("unavailable: "), result
            assert "Nothing was done" in result.content
        elif tool == "run_terminal_cmd":
            assert result.content.startswith("lost: nobody can know whether the command was run"), result
        else:
            assert result.content.startswith("outcome unknown: "), result
    codes = [event.code for event in away]
    assert codes == ["outcome_unknown" if sent and tool in CHANGES else "unavailable" for tool in calls]
    assert [event.call_id for event in away] == [result.call_id for result in by_tool.values()]


async def test_a_command_whose_workspace_goes_away_is_no_empty_success(tmp_path: Path) -> None:
    for name in ("root", "state"):
        (tmp_path / name).mkdir()
    line = "echo begun; until [ -e go ]; do sleep 0.02; done"
    steps = [
        f"- calls: [{{tool: run_terminal_cmd, arguments: {{command: '{line}'}}, expect: {{is_error: true}}}}]",
        "- calls: [{tool: read_file, arguments: {path: a}, expect: {contains: 'in 60 s (not before)'}}]",
    ]
    told: list[TaskEvent] = []
    resilience = Resilience(retries=RetryPolicy(waits_s=(0.01,)), breaker=BreakerPolicy(failures=1), answer_s=0.15)
    async with (
        open_host(tmp_path / "root", tmp_path / "state") as host,
        chaos_proxy(target=tmp_path / "sidecar.sock", listen=tmp_path / "proxy.sock") as proxy,
    ):

        def watch(event: TaskEvent) -> None:
            told.append(event)
            if isinstance(event, CommandOutput):
                proxy.switch(Fault(status=503))

        with listen(tmp_path / "sidecar.sock") as listener:
            async with serving(host, listener):
                state = await run_over(proxy, tmp_path, script(tmp_path, *steps), watch, resilience)
                [command] = await host.list_commands()
    assert outcome_of(state).status is RunStatus.DONE
    first, second = (event for event in told if isinstance(event, WorkspaceAway))
    assert (first.code, second.code, second.retry_in_s) == ("unavailable", "unavailable", pytest.approx(60, abs=5))
    result = next(event.result for event in told if isinstance(event, ToolFinished))
    assert f"Whether command {command.id} still runs cannot be told; ask read_command" in result.content
