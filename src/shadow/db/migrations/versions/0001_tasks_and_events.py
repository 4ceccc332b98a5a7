"""Tasks and their logs: what version 1 of the schema was, before there were migrations."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table("schema", sa.Column("version", sa.Integer, nullable=False))
    op.execute("INSERT INTO schema (version) VALUES (1)")
    op.create_table(
        "tasks",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("repository", sa.Text, nullable=False),
        sa.Column("checkout", sa.Text),
        sa.Column("workspace_id", sa.String(64)),
        sa.Column("outcome", sa.String(32)),
        sa.Column("summary", sa.Text),
        sa.Column("runs", sa.Integer, nullable=False),
        sa.Column("events", sa.Integer, nullable=False),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sa.Column("updated_at", sa.Float(53), nullable=False),
    )
    op.create_index("tasks_by_age", "tasks", ["created_at"])
    op.create_table(
        "events",
        sa.Column("task_id", sa.String(64), sa.ForeignKey("tasks.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("at", sa.Float(53), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sqlite_with_rowid=False,
    )
