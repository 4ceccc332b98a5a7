"""The tables, one schema for every database. What changes here needs a migration beside it (``db/migrations``)."""

import re
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    false,
)
from sqlalchemy.types import TypeDecorator

_ODD = re.compile(r"[\\\0\ud800-\udfff]")
_ESCAPE = re.compile(r"\\u([0-9a-f]{4})")


class AnyText(TypeDecorator[str]):
    """Texts of users and processes as they are: what no database stores (NUL, halves of characters) stands as an escape."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Any) -> str | None:
        if value is None:
            return None
        return _ODD.sub(lambda found: f"\\u{ord(found[0]):04x}", value)

    def process_result_value(self, value: str | None, dialect: Any) -> str | None:
        if value is None or "\\" not in value:
            return value
        return _ESCAPE.sub(lambda found: chr(int(found[1], 16)), value)


class Time(TypeDecorator[float]):
    """Seconds since 1970 as doubles: PostgreSQL's plain ``FLOAT`` is one, and SQLite knows no other."""

    impl = Float(53)
    cache_ok = True


metadata = MetaData()


def _task_id(**options: Any) -> Column[str]:
    return Column("task_id", String(64), ForeignKey("tasks.id", ondelete="CASCADE"), **options)


projects = Table(
    "projects",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("name", String(64), nullable=False),
    Column("created_at", Time, nullable=False),
)

project_members = Table(
    "project_members",
    metadata,
    Column("project_id", String(64), ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True),
    Column("user_id", String(64), ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    Column("role", String(16), nullable=False),
    Index("projects_of_user", "user_id"),
)

tasks = Table(
    "tasks",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("owner", String(64), nullable=False, server_default="local"),
    Column("project_id", String(64), ForeignKey("projects.id")),
    Column("title", AnyText, nullable=False),
    Column("state", String(32), nullable=False),
    Column("model", AnyText, nullable=False),
    Column("repository", AnyText, nullable=False),
    Column("settings", Text, nullable=False, server_default="{}"),
    Column("checkout", Text),
    Column("workspace_id", String(64)),
    Column("host", String(255)),
    Column("outcome", String(32)),
    Column("summary", AnyText),
    Column("runs", Integer, nullable=False, default=0),
    Column("events", Integer, nullable=False, default=0),
    Column("created_at", Time, nullable=False),
    Column("updated_at", Time, nullable=False),
    Index("tasks_by_age", "created_at"),
    Index("tasks_by_state", "state", "updated_at"),
    Index("tasks_by_owner", "owner", "created_at"),
    Index("tasks_of_project", "project_id", "created_at"),
    Index("tasks_by_workspace", "workspace_id"),
)

events = Table(
    "events",
    metadata,
    _task_id(primary_key=True),
    Column("seq", Integer, primary_key=True),
    Column("at", Time, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("body", Text, nullable=False),
    sqlite_with_rowid=False,
)

messages = Table(
    "messages",
    metadata,
    Column("id", String(64), primary_key=True),
    _task_id(nullable=False),
    Column("position", Integer, nullable=False),
    Column("text", AnyText, nullable=False),
    Column("created_at", Time, nullable=False),
    Index("messages_in_order", "task_id", "position", unique=True),
)
"""What waits to be said to an agent; a message that a run took is an event."""

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("id", String(64), primary_key=True),
    _task_id(nullable=False),
    Column("seq", Integer, nullable=False),
    Column("run", Integer, nullable=False),
    Column("branch", AnyText),
    Column("head", String(64)),
    Column("tree_commit", String(64), nullable=False),
    Column("created_at", Time, nullable=False),
    Index("checkpoints_in_order", "task_id", "seq", unique=True),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("kind", String(64), nullable=False),
    Column("payload", Text, nullable=False),
    _task_id(),
    Column("owner", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("priority", Integer, nullable=False),
    Column("number", Integer, nullable=False),
    Column("run_at", Time, nullable=False),
    Column("host", String(255)),
    Column("attempts", Integer, nullable=False),
    Column("max_attempts", Integer, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("worker", String(255)),
    Column("lease_until", Time),
    Column("stop_requested", Boolean, nullable=False, server_default=false()),
    Column("error", Text),
    Column("result", Text),
    Column("created_at", Time, nullable=False),
    Column("ended_at", Time),
    Index("jobs_to_do", "state", "priority", "run_at"),
    Index("jobs_of_task", "task_id", "number"),
)
"""``number`` orders the jobs of a task as they were added."""

job_steps = Table(
    "job_steps",
    metadata,
    Column("job_id", String(64), ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("name", String(128), primary_key=True),
    Column("result", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("finished_at", Time, nullable=False),
)
"""Only steps that are finished: what is not here is done again."""

schedules = Table(
    "schedules",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("kind", String(64), nullable=False),
    Column("payload", Text, nullable=False),
    Column("every_s", Time, nullable=False),
    Column("next_at", Time, nullable=False),
)

users = Table(
    "users",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("role", String(16), nullable=False),
    Column("created_at", Time, nullable=False),
    Column("disabled_at", Time),
)

credentials = Table(
    "credentials",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("user_id", String(64), ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("name", AnyText, nullable=False),
    Column("scopes", Text, nullable=False),
    Column("secret_hash", String(64), nullable=False, unique=True),
    Column("created_at", Time, nullable=False),
    Column("expires_at", Time),
    Column("last_used_at", Time),
    Index("credentials_of_user", "user_id", "created_at"),
)

audit = Table(
    "audit",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("at", Time, nullable=False),
    Column("request", String(64), nullable=False),
    Column("phase", String(16), nullable=False),
    Column("user_id", String(64)),
    Column("credential_id", String(64)),
    Column("method", String(16), nullable=False),
    Column("route", Text, nullable=False),
    Column("object", AnyText, nullable=False),
    Column("source", AnyText, nullable=False),
    Column("status", Integer),
    Column("code", Text),
    Column("previous", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
    Index("audit_of_user", "user_id", "seq"),
    Index("audit_of_object", "object", "seq"),
)
"""Nothing refers to what else there is: it stays when that goes."""

audit_head = Table(
    "audit_head",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("seq", Integer, nullable=False),
    Column("hash", String(64), nullable=False),
)
"""Row 1: where the record ends. Who adds to it has the row to themselves. Row 2, once it was pruned: behind what it begins."""

answers = Table(
    "answers",
    metadata,
    Column("user_id", String(64), primary_key=True),
    Column("key_hash", String(64), primary_key=True),
    Column("asked_hash", String(64), nullable=False),
    Column("body", Text, nullable=False),
    Column("location", Text),
    Column("created_at", Time, nullable=False),
    Index("answers_by_age", "created_at"),
)
"""What was answered to creations that came with an idempotency key."""

spending = Table(
    "spending",
    metadata,
    Column("task_id", String(64), primary_key=True),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("user_id", String(64), nullable=False),
    Column("at", Time, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("cost_nano_usd", BigInteger),
    Index("spending_of_user", "user_id", "at"),
)
"""A row for each answer of a model, by the number of its event; it stays when the task is deleted."""

cpu_spending = Table(
    "cpu_spending",
    metadata,
    Column("task_id", String(64), primary_key=True),
    Column("day", Time, primary_key=True),
    Column("user_id", String(64), nullable=False),
    Column("cpu_ms", BigInteger, nullable=False),
    Index("cpu_spending_of_user", "user_id", "day"),
)
"""What a task's workspace took of CPU time on a day, which is named by its beginning; it stays when the task is deleted."""

measurements = Table(
    "measurements",
    metadata,
    _task_id(primary_key=True),
    Column("meter_since", Time),
    Column("cpu_ms", BigInteger, nullable=False),
    Column("workspace_bytes", BigInteger, nullable=False),
    Column("artifact_bytes", BigInteger, nullable=False),
    Column("sized_at", Time),
)
"""What was read last of a task's workspace: its CPU meter, by when that began, and what it takes on disk."""

budgets = Table(
    "budgets",
    metadata,
    Column("user_id", String(64), primary_key=True),
    Column("body", Text, nullable=False),
)
"""Of users who have others than the settings say."""

provider_keys = Table(
    "provider_keys",
    metadata,
    Column("owner", String(80), primary_key=True),
    Column("provider", String(32), primary_key=True),
    Column("project_id", String(64), ForeignKey("projects.id", ondelete="CASCADE")),
    Column("sealed", Text, nullable=False),
    Column("sealed_by", String(16), nullable=False),
    Column("base_url", Text),
    Column("hint", String(4), nullable=False),
    Column("added_by", String(64), nullable=False),
    Column("added_at", Time, nullable=False),
    Index("keys_of_project", "project_id"),
)
"""Keys of users (``user/ID``) and of projects (``project/ID``, which go with theirs) for providers of models. What counts is
in ``sealed``, owner and base URL too; ``sealed_by`` names the key that it was encrypted with."""
