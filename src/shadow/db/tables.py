"""The tables, one schema for every database."""

import re
from typing import Any

from sqlalchemy import Column, Float, ForeignKey, Index, Integer, MetaData, String, Table, Text
from sqlalchemy.types import TypeDecorator

SCHEMA_VERSION = 1


class AnyText(TypeDecorator[str]):
    """Texts of users and processes as they are: what no database stores (NUL, halves of characters) stands as an escape."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Any) -> str | None:
        if value is None:
            return None
        return re.sub(r"[\\\0\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", value)

    def process_result_value(self, value: str | None, dialect: Any) -> str | None:
        return None if value is None else re.sub(r"\\u([0-9a-f]{4})", lambda found: chr(int(found[1], 16)), value)


metadata = MetaData()

schema = Table("schema", metadata, Column("version", Integer, nullable=False))

tasks = Table(
    "tasks",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("title", AnyText, nullable=False),
    Column("state", String(32), nullable=False),
    Column("model", AnyText, nullable=False),
    Column("repository", AnyText, nullable=False),
    Column("checkout", Text),
    Column("workspace_id", String(64)),
    Column("outcome", String(32)),
    Column("summary", AnyText),
    Column("runs", Integer, nullable=False, default=0),
    Column("events", Integer, nullable=False, default=0),
    Column("created_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
    Index("tasks_by_age", "created_at"),
)

events = Table(
    "events",
    metadata,
    Column("task_id", String(64), ForeignKey("tasks.id", ondelete="CASCADE"), primary_key=True),
    Column("seq", Integer, primary_key=True),
    Column("at", Float, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("body", Text, nullable=False),
    sqlite_with_rowid=False,
)
