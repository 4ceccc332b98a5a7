"""A worker whose commits get no answer, each of them in its turn: written or not, nothing is done twice and nothing is stuck."""

from pathlib import Path

import pytest

from shadow.core.jobs import JobState
from shadow.core.tasks import QueuedMessage, TaskId
from shadow.db import messages
from shadow.db.database import Transaction, open_database
from shadow.db.errors import CommitUnknown
from shadow.engine.context import JobContext
from tests.support.databases import POSTGRESQL, make_place
from tests.support.jobs import Does, add_job, add_task, ended, worker
from tests.support.lossy_postgresql import Loss, lossy_postgresql

pytestmark = pytest.mark.anyio
COMMITS = 5
"""Of one job: it is claimed, a step, a write of the handler's own, another step, its end."""


def effect(task_id: TaskId, text: str) -> QueuedMessage:
    return QueuedMessage(id=f"message_{text}", task_id=task_id, text=text)


@pytest.mark.parametrize("loss", Loss)
async def test_whichever_commit_has_no_answer_nothing_is_done_twice(tmp_path: Path, loss: Loss) -> None:
    place = make_place(POSTGRESQL, tmp_path)
    assert place.url is not None
    unknown: list[str] = []

    async def run(context: JobContext) -> None:
        job_id = context.job.id

        async def action() -> None: ...

        async def step(name: str) -> None:
            async def also(transaction: Transaction, _result: None) -> None:
                await messages.add(transaction, effect(effects, f"{job_id}_{name}"))

            await context.step(name, action, also=also)

        async def end(transaction: Transaction) -> None:
            await messages.add(transaction, effect(effects, f"{job_id}_end"))

        await step("first")
        try:
            async with context.write() as transaction:
                mine = effect(effects, f"{job_id}_own")
                if mine.id not in {each.id for each in await messages.queue(transaction.connection, effects)}:
                    await messages.add(transaction, mine)
        except CommitUnknown:
            unknown.append(job_id)
            raise
        await step("second")
        context.finish_with(end)

    async with place.open() as database, lossy_postgresql(place.url) as lossy:
        effects = await add_task(database)
        async with open_database(Path("/nowhere"), url=lossy.url) as theirs:
            for number in range(1, COMMITS + 1):
                # A claim without an answer is nobody's until its lease is over.
                async with worker(theirs, {"work": Does(run)}, lease_s=1.0):
                    lossy.lose(number, loss)
                    job_id = await add_job(database)
                    (job,) = await ended(database, job_id)
                async with database.read() as connection:
                    done = [message.text for message in await messages.queue(connection, effects)]
                assert sorted(text for text in done if text.startswith(f"{job_id}_")) == sorted(
                    f"{job_id}_{name}" for name in ("first", "own", "second", "end")
                )
                assert (job.state, lossy.lost) == (JobState.DONE, number)
                if unknown == [job_id]:
                    assert (job.epoch, job.attempts) == (2, 1), "handed back, and no attempt"
    assert len(unknown) == 1
