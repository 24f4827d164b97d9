"""Announces unread thoughts to shells: an empty file for each owner who has some."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


class Markers:
    """A directory of empty files, which a prompt can look into without asking anybody."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def renew(self, unread: Mapping[str, int]) -> None:
        """Begin with these owners and nobody else: a crash may have left a marker too many, or one too few."""
        for marker in self._directory.glob("*"):
            marker.unlink()
        for owner, count in unread.items():
            self.show(owner, count)

    def show(self, owner: str, count: int) -> None:
        self._directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        marker = self._directory / owner
        if count:
            marker.touch()
        else:
            marker.unlink(missing_ok=True)
