"""Past tasks in SQL: what the outbox hands over is kept here, and asked for by owner."""
