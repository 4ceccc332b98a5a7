"""The time of a run, where one worker goes on with what another one began."""

from pathlib import Path

import pytest

from shadow.agent.rebuilding import InterruptedStep
from shadow.core.commands import CommandSpec, shell
from shadow.tasks.running import timed
from tests.support.agent_runs import opened

pytestmark = pytest.mark.anyio


async def test_a_command_that_ran_on_has_taken_time_of_its_call(tmp_path: Path) -> None:
    async with opened(tmp_path) as executor:
        runs = await executor.start(CommandSpec(argv=shell("sleep 1000")))
        ended = (await executor.run(CommandSpec(argv=("true",)))).command
        step = InterruptedStep(step=3, waited_for={"a": runs.id, "b": ended.id, "c": "cmd_that_is_gone"})
        found = await timed(step, executor, now=runs.started_at + 100)
        await executor.kill(runs.id)
    assert ended.ended_at is not None
    assert found.spent_s == {"a": pytest.approx(100), "b": pytest.approx(ended.ended_at - ended.started_at)}
    assert (found.step, found.waited_for) == (step.step, step.waited_for)
