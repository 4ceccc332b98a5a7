"""Each request to a workspace asks for its task."""

from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.create_index("tasks_by_workspace", "tasks", ["workspace_id"])
