"""Jobs with their steps and schedules, queued messages, checkpoints; owner, settings and host of a task."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.drop_table("schema")
    op.add_column("tasks", sa.Column("owner", sa.String(64), nullable=False, server_default="local"))
    op.add_column("tasks", sa.Column("settings", sa.Text, nullable=False, server_default="{}"))
    op.add_column("tasks", sa.Column("host", sa.String(255)))
    op.create_index("tasks_by_state", "tasks", ["state", "updated_at"])
    op.create_index("tasks_by_owner", "tasks", ["owner", "created_at"])
    # Whatever ran then, no worker will take up.
    op.execute("UPDATE tasks SET state = 'failed' WHERE state = 'starting'")
    op.execute("UPDATE tasks SET state = 'idle', outcome = 'failed' WHERE state = 'running'")
    op.create_table(
        "messages",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("task_id", sa.String(64), sa.ForeignKey("tasks.id", ondelete="CASCADE"), nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("created_at", sa.Float(53), nullable=False),
    )
    op.create_index("messages_in_order", "messages", ["task_id", "position"], unique=True)
    op.create_table(
        "checkpoints",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("task_id", sa.String(64), sa.ForeignKey("tasks.id", ondelete="CASCADE"), nullable=False),
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("run", sa.Integer, nullable=False),
        sa.Column("branch", sa.Text),
        sa.Column("head", sa.String(64)),
        sa.Column("tree_commit", sa.String(64), nullable=False),
        sa.Column("created_at", sa.Float(53), nullable=False),
    )
    op.create_index("checkpoints_in_order", "checkpoints", ["task_id", "seq"], unique=True)
    op.create_table(
        "jobs",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("kind", sa.String(64), nullable=False),
        sa.Column("payload", sa.Text, nullable=False),
        sa.Column("task_id", sa.String(64), sa.ForeignKey("tasks.id", ondelete="CASCADE")),
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("run_at", sa.Float(53), nullable=False),
        sa.Column("host", sa.String(255)),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("max_attempts", sa.Integer, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("worker", sa.String(255)),
        sa.Column("lease_until", sa.Float(53)),
        sa.Column("stop_requested", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("error", sa.Text),
        sa.Column("result", sa.Text),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sa.Column("ended_at", sa.Float(53)),
    )
    op.create_index("jobs_to_do", "jobs", ["state", "priority", "run_at"])
    op.create_index("jobs_of_task", "jobs", ["task_id", "number"])
    op.create_table(
        "job_steps",
        sa.Column("job_id", sa.String(64), sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("name", sa.String(128), primary_key=True),
        sa.Column("result", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("finished_at", sa.Float(53), nullable=False),
    )
    op.create_table(
        "schedules",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("kind", sa.String(64), nullable=False),
        sa.Column("payload", sa.Text, nullable=False),
        sa.Column("every_s", sa.Float(53), nullable=False),
        sa.Column("next_at", sa.Float(53), nullable=False),
    )
