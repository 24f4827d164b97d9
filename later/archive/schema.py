"""The one table of the archive: a row for each final transition. Moments are whole milliseconds, UTC.

A change here needs a migration; a test holds the two together.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, MetaData, Table, Text, UniqueConstraint, text

metadata = MetaData()

past = Table(
    "past",
    metadata,
    Column("number", Integer, primary_key=True),  # in order of arrival; SQLite's own row id
    Column("partition", Integer, nullable=False),
    Column("key", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("id", Text, nullable=False),
    Column("uid", Text, nullable=False),
    Column("occurrence", Integer, nullable=False),
    Column("status", Text, nullable=False),
    Column("queue", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("to", Text),
    Column("message", Text, nullable=False),
    Column("payload", Text),  # JSON, as are options, window, failures and receipt
    Column("options", Text),
    Column("zone", Text),
    Column("rule", Text),
    Column("window", Text),
    Column("due", BigInteger),
    Column("nominal", BigInteger),
    Column("created", BigInteger, nullable=False),
    Column("started", BigInteger),
    Column("finished", BigInteger, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("crashes", Integer, nullable=False),
    Column("failures", Text, nullable=False),
    Column("receipt", Text),
    Column("version", Integer, nullable=False),
    Column("unread", Boolean, nullable=False),
    # A stream gives each entry a key of its own, but another server, or one that was rolled back, may give it again:
    # the uid tells such an entry from one that is read twice. What is imported chooses all three, so only the owner's
    # own rows count.
    UniqueConstraint("partition", "key", "uid", "owner", name="past_transition"),
)

# Lists come newest first, and are filtered by status before the row itself is touched.
Index("past_by_finished", past.c.owner, past.c.finished, past.c.number, past.c.status)
Index("past_by_id", past.c.owner, past.c.id, past.c.finished)
Index("past_unread", past.c.owner, past.c.finished, sqlite_where=text("unread = 1"))
