"""What the server tells of itself and its work beside its requests: docs/operations.md has the list, a test compares them.

Counters are this process's since its start; what stands in the database every replica tells the same of.
"""

import os
import platform
import resource
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, func, select

from shadow.core.conversation import Usage
from shadow.core.events import ModelAnswered, Recorded, RunFinished
from shadow.core.ids import WorkspaceId
from shadow.core.jobs import OPEN_STATES, JobState
from shadow.core.tasks import TaskState
from shadow.db.database import Database
from shadow.db.tables import jobs, tasks
from shadow.engine.worker import Worker
from shadow.execution.sidecar_client.breaker import BreakerState
from shadow.execution.sidecar_client.breakers import Breakers
from shadow.http.admission import Admission
from shadow.http.metrics import Family, Histogram, Labels, family
from shadow.version import __version__

PREFIX = "shadow_server_"
MAX_TOLD_BREAKERS = 100
"""By the workspace's id; those that have failed most come first."""
_KINDS_OF_TOKENS = ("input", "output", "cache_read", "cache_write")


class ServerMetrics:
    """``worker``: where this process has one. It hears of the events of tasks by ``database.feed``, once they are kept."""

    def __init__(self, database: Database, breakers: Breakers, *, worker: Worker | None = None) -> None:
        self._database = database
        self._breakers = breakers
        self._worker = worker
        self._runs = Counter[str]()
        self._tokens = Counter[str]()
        self._model_requests = 0
        self._cost_usd = Decimal()
        self._transactions: dict[str, Histogram] = {"read": Histogram(), "write": Histogram()}
        self._database_errors = Counter[tuple[str, str]]()
        database.observe = self._transaction
        database.feed.watch(self._written)

    def _transaction(self, kind: str, seconds: float, error: str | None) -> None:
        self._transactions[kind].observe(seconds)
        if error is not None:
            self._database_errors[kind, error] += 1

    def _written(self, written: Sequence[Recorded]) -> None:
        for recorded in written:
            event = recorded.event
            if isinstance(event, RunFinished):
                self._runs[event.status] += 1
            elif isinstance(event, ModelAnswered):
                self._model_requests += 1
                self._count_usage(event.message.usage)
                self._cost_usd += Decimal(event.cost_usd or 0)

    def _count_usage(self, usage: Usage) -> None:
        for kind in _KINDS_OF_TOKENS:
            self._tokens[kind] += getattr(usage, f"{kind}_tokens")

    async def families(self, admission: Admission) -> Sequence[Family]:
        """Raises: Unavailable, and what else the database does."""
        return [
            *await self._of_database(),
            *self._of_work(),
            _one("event_readers", "gauge", "Who waits for something to be written.", self._database.feed.readers),
            *await self._of_breakers(),
            *_of_requests(admission),
            *_of_process(),
        ]

    # What stands in the database

    async def _of_database(self) -> Sequence[Family]:
        by_state = select(tasks.c.state, func.count()).group_by(tasks.c.state)
        is_open = jobs.c.state.in_([state.value for state in OPEN_STATES])
        open_jobs = select(jobs.c.kind, jobs.c.state, func.count()).where(is_open).group_by(jobs.c.kind, jobs.c.state)
        async with self._database.read() as connection:
            now = await self._database.now(connection)
            states = {row[0]: int(row[1]) for row in await connection.execute(by_state)}
            counted = [(kind, state, count) for kind, state, count in await connection.execute(open_jobs)]
            due = (jobs.c.state == JobState.WAITING.value) & (jobs.c.run_at <= now) & ~_waits_for_another()
            first = select(jobs.c.kind, func.min(jobs.c.run_at)).where(due).group_by(jobs.c.kind)
            oldest = [(kind, max(0.0, now - at)) for kind, at in await connection.execute(first)]
        return [
            _labelled(
                "tasks", "gauge", "Tasks by state.", "state", {s.value: states.get(s.value, 0) for s in TaskState}
            ),
            Family(
                f"{PREFIX}jobs",
                "gauge",
                "Jobs that wait or run.",
                [("", {"kind": kind, "state": state}, count) for kind, state, count in sorted(counted)],
            ),
            _labelled(
                "job_oldest_seconds",
                "gauge",
                "For how long the oldest job of a kind has been due without beginning, waits for others of its task apart.",
                "kind",
                dict(oldest),
            ),
            Family(
                f"{PREFIX}database_seconds",
                "histogram",
                "What a use of the database takes, from asking for a connection to giving it back.",
                [s for kind, one in self._transactions.items() for s in one.samples({"kind": kind})],
            ),
            Family(
                f"{PREFIX}database_errors_total",
                "counter",
                "Uses of the database that failed, by code of the error.",
                [("", {"kind": k, "code": c}, n) for (k, c), n in sorted(self._database_errors.items())],
            ),
        ]

    # What this process does

    def _of_work(self) -> Iterable[Family]:
        worker = self._worker
        if worker is not None:
            yield _one("worker_slots", "gauge", "How many jobs this process does at once.", worker.slots)
            yield _one("worker_slots_used", "gauge", "How many it does.", worker.busy)
            ended = [("", {"kind": kind, "outcome": how}, n) for (kind, how), n in sorted(worker.ended.items())]
            yield Family(f"{PREFIX}jobs_ended_total", "counter", "Attempts at jobs that ended here, and how.", ended)
        yield _labelled("runs_total", "counter", "Runs that ended here, by status.", "status", self._runs)
        yield _one("model_requests_total", "counter", "Answers of models.", self._model_requests)
        yield _labelled(
            "model_tokens_total",
            "counter",
            "Tokens of models; those that came from a cache are part of the input.",
            "kind",
            {kind: self._tokens[kind] for kind in _KINDS_OF_TOKENS},
        )
        yield _one("model_cost_usd_total", "counter", "What they cost, as far as prices are known.", self._cost_usd)

    async def _of_breakers(self) -> Sequence[Family]:
        statuses = self._breakers.statuses(time.monotonic())
        away = {id_: status for id_, status in statuses.items() if status.state is not BreakerState.CLOSED}
        for workspace_id in away.keys() - await self._workspaces_there(away):
            self._breakers.forget(workspace_id)  # another replica may have removed it
            del away[workspace_id]
        told = sorted(away.items(), key=lambda one: -one[1].failures)[:MAX_TOLD_BREAKERS]
        return [
            _labelled(
                "sidecar_breakers",
                "gauge",
                "Workspaces that were called, by state of the circuit breaker.",
                "state",
                {state.value: count for state, count in self._breakers.by_state().items()},
            ),
            _one("sidecar_breaker_opens_total", "counter", "How often a breaker opened.", self._breakers.opens),
            Family(
                f"{PREFIX}sidecar_unanswered_calls",
                "gauge",
                "Calls in a row that a workspace did not answer, of those whose breaker is not closed.",
                [("", {"workspace_id": id_, "state": s.state.value}, s.failures) for id_, s in told],
            ),
        ]

    async def _workspaces_there(self, ids: Iterable[WorkspaceId]) -> set[WorkspaceId]:
        wanted = sorted(ids)
        if not wanted:
            return set()
        async with self._database.read() as connection:
            found = await connection.execute(select(tasks.c.workspace_id).where(tasks.c.workspace_id.in_(wanted)))
            return {WorkspaceId(one) for one in found.scalars()}


def _waits_for_another() -> ColumnElement[bool]:
    earlier = jobs.alias()
    return (
        select(earlier.c.id)
        .where(
            earlier.c.task_id == jobs.c.task_id,
            earlier.c.number < jobs.c.number,
            earlier.c.state.in_([state.value for state in OPEN_STATES]),
        )
        .exists()
    )


def _of_requests(admission: Admission) -> Iterable[Family]:
    yield _one(
        "requests_running", "gauge", "Requests that wait for their answers, without streams.", admission.requests
    )
    yield _one("streams_open", "gauge", "Events, outputs, downloads and terminals.", admission.streams)
    yield _labelled(
        "requests_refused_total",
        "counter",
        "Requests that were told to come again, by what there was too much of.",
        "limit",
        admission.refused,
    )


def _of_process() -> Iterable[Family]:
    """By the names that Prometheus's own clients give them."""
    build: Labels = {"version": __version__, "python": platform.python_version()}
    yield Family(f"{PREFIX}build_info", "gauge", "Always 1.", [("", build, 1)])
    used = resource.getrusage(resource.RUSAGE_SELF)
    yield family("process_cpu_seconds_total", "counter", "User and system time.", used.ru_utime + used.ru_stime)
    proc = Path("/proc/self")
    if not proc.exists():
        return
    pages = (proc / "statm").read_text().split()
    page_bytes = os.sysconf("SC_PAGE_SIZE")
    yield family("process_virtual_memory_bytes", "gauge", "Address space.", int(pages[0]) * page_bytes)
    yield family("process_resident_memory_bytes", "gauge", "Memory.", int(pages[1]) * page_bytes)
    yield family("process_open_fds", "gauge", "Open descriptors.", len(os.listdir(proc / "fd")))
    yield family("process_max_fds", "gauge", "How many may be open.", resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    since_boot = int((proc / "stat").read_text().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
    began_at = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + since_boot
    yield family("process_start_time_seconds", "gauge", "When it started, since 1970.", round(began_at, 2))


def _one(name: str, kind: str, help_: str, value: Any) -> Family:
    return family(f"{PREFIX}{name}", kind, help_, float(value))


def _labelled(name: str, kind: str, help_: str, label: str, values: Mapping[str, float]) -> Family:
    return Family(f"{PREFIX}{name}", kind, help_, [("", {label: key}, n) for key, n in sorted(values.items())])
