"""Copies of Later with a fault put in on purpose, to see whether those who should notice it do."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Change:
    """One passage of one file, as it is and as it is to be."""

    file: str
    old: str
    new: str


def copied(place: Path, *changes: Change, packages: tuple[str, ...] = ("later",)) -> Path:
    """The packages, changed, at a place where they are found before the installed ones."""
    for name in packages:
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    for change in changes:
        _apply(change, place)
    return place


def _apply(change: Change, copy: Path) -> None:
    file = copy / "later" / change.file
    text = file.read_text()
    assert text.count(change.old) == 1, f"{change.file} has no single {change.old!r} any more; mend this mutant"
    file.write_text(text.replace(change.old, change.new))
