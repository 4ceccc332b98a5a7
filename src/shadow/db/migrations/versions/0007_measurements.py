"""What workspaces take of CPU time and of the disk."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.create_table(
        "cpu_spending",
        sa.Column("task_id", sa.String(64), primary_key=True),
        sa.Column("day", sa.Float(53), primary_key=True),
        sa.Column("user_id", sa.String(64), nullable=False),
        sa.Column("cpu_ms", sa.BigInteger(), nullable=False),
    )
    op.create_index("cpu_spending_of_user", "cpu_spending", ["user_id", "day"])
    op.create_table(
        "measurements",
        sa.Column("task_id", sa.String(64), sa.ForeignKey("tasks.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("meter_since", sa.Float(53)),
        sa.Column("cpu_ms", sa.BigInteger(), nullable=False),
        sa.Column("workspace_bytes", sa.BigInteger(), nullable=False),
        sa.Column("artifact_bytes", sa.BigInteger(), nullable=False),
        sa.Column("sized_at", sa.Float(53)),
    )
