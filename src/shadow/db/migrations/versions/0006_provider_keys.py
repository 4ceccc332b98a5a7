"""Keys of users and projects for providers of models, encrypted."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "provider_keys",
        sa.Column("owner", sa.String(80), primary_key=True),
        sa.Column("provider", sa.String(32), primary_key=True),
        sa.Column("project_id", sa.String(64), sa.ForeignKey("projects.id", ondelete="CASCADE")),
        sa.Column("sealed", sa.Text, nullable=False),
        sa.Column("sealed_by", sa.String(16), nullable=False),
        sa.Column("base_url", sa.Text),
        sa.Column("hint", sa.String(4), nullable=False),
        sa.Column("added_by", sa.String(64), nullable=False),
        sa.Column("added_at", sa.Float(53), nullable=False),
    )
    op.create_index("keys_of_project", "provider_keys", ["project_id"])
