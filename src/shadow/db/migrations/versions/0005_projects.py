"""Projects, who is in them, and which task is whose."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "projects",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("created_at", sa.Float(53), nullable=False),
    )
    op.create_table(
        "project_members",
        sa.Column("project_id", sa.String(64), sa.ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("user_id", sa.String(64), sa.ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("role", sa.String(16), nullable=False),
    )
    op.create_index("projects_of_user", "project_members", ["user_id"])
    # Not by Alembic's batches: they make the table anew, and what belongs to a task goes with the old one.
    op.execute("ALTER TABLE tasks ADD COLUMN project_id VARCHAR(64) REFERENCES projects (id)")
    op.create_index("tasks_of_project", "tasks", ["project_id", "created_at"])
