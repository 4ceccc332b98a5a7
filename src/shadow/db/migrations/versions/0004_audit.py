"""The record of operations, answers to repeat, and what models cost."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "audit",
        sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("at", sa.Float(53), nullable=False),
        sa.Column("request", sa.String(64), nullable=False),
        sa.Column("phase", sa.String(16), nullable=False),
        sa.Column("user_id", sa.String(64)),
        sa.Column("credential_id", sa.String(64)),
        sa.Column("method", sa.String(16), nullable=False),
        sa.Column("route", sa.Text, nullable=False),
        sa.Column("object", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("status", sa.Integer),
        sa.Column("code", sa.Text),
        sa.Column("previous", sa.String(64), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
    )
    op.create_index("audit_of_user", "audit", ["user_id", "seq"])
    op.create_index("audit_of_object", "audit", ["object", "seq"])
    head = op.create_table(
        "audit_head",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
    )
    op.bulk_insert(head, [{"id": 1, "seq": 0, "hash": "0" * 64}])
    op.create_table(
        "answers",
        sa.Column("user_id", sa.String(64), primary_key=True),
        sa.Column("key_hash", sa.String(64), primary_key=True),
        sa.Column("asked_hash", sa.String(64), nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("location", sa.Text),
        sa.Column("created_at", sa.Float(53), nullable=False),
    )
    op.create_index("answers_by_age", "answers", ["created_at"])
    op.create_table(
        "spending",
        sa.Column("task_id", sa.String(64), primary_key=True),
        sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("user_id", sa.String(64), nullable=False),
        sa.Column("at", sa.Float(53), nullable=False),
        sa.Column("input_tokens", sa.BigInteger, nullable=False),
        sa.Column("output_tokens", sa.BigInteger, nullable=False),
        sa.Column("cost_nano_usd", sa.BigInteger),
    )
    op.create_index("spending_of_user", "spending", ["user_id", "at"])
    op.create_table(
        "budgets",
        sa.Column("user_id", sa.String(64), primary_key=True),
        sa.Column("body", sa.Text, nullable=False),
    )
