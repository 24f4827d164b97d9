"""What Alembic runs to bring an archive up to date, on the connection and in the transaction that it is given."""

from __future__ import annotations

from alembic import context

from later.archive.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
context.run_migrations()
