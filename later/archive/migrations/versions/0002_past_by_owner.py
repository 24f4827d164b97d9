"""A transition is told from others of its owner alone: nobody's row keeps out another's.

The table is made anew, as SQLite changes no constraint.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.rename_table("past", "past_before")
    op.create_table(
        "past",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("partition", sa.Integer, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("uid", sa.Text, nullable=False),
        sa.Column("occurrence", sa.Integer, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("queue", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("to", sa.Text),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("payload", sa.Text),
        sa.Column("options", sa.Text),
        sa.Column("zone", sa.Text),
        sa.Column("rule", sa.Text),
        sa.Column("window", sa.Text),
        sa.Column("due", sa.BigInteger),
        sa.Column("nominal", sa.BigInteger),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("started", sa.BigInteger),
        sa.Column("finished", sa.BigInteger, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("crashes", sa.Integer, nullable=False),
        sa.Column("failures", sa.Text, nullable=False),
        sa.Column("receipt", sa.Text),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("unread", sa.Boolean, nullable=False),
        sa.UniqueConstraint("partition", "key", "uid", "owner", name="past_transition"),
    )
    op.execute("INSERT INTO past SELECT * FROM past_before")
    op.drop_table("past_before")
    op.create_index("past_by_finished", "past", ["owner", "finished", "number", "status"])
    op.create_index("past_by_id", "past", ["owner", "id", "finished"])
    op.create_index("past_unread", "past", ["owner", "finished"], sqlite_where=sa.text("unread = 1"))
