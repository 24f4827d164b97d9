"""The same real server as the daemon's parts have."""

from __future__ import annotations

from tests.daemon.conftest import server

__all__ = ["server"]
