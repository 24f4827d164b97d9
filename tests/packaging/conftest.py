"""What the packaging tests share, each made once: a fresh Debian, and the image built in it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.packaging import container, debian

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="session")
def yard() -> Iterator[Path]:
    """A place for whole roots, which are too big for some /tmp."""
    yard = Path(tempfile.mkdtemp(prefix="later-roots-", dir="/var/tmp"))
    yield yard
    shutil.rmtree(yard)


@pytest.fixture(scope="session")
def base(yard: Path) -> Path:
    """A Debian that nobody has used yet; where FRESH_ROOT names a place for it, it is kept there for the next run."""
    debian.require()
    base = Path(os.environ.get("FRESH_ROOT") or yard / "base")
    if not (base / debian.MADE).exists():
        debian.make(base)
    return base


@pytest.fixture(scope="session")
def image(base: Path, yard: Path) -> container.Image:
    """What the Dockerfile's steps make of it."""
    return container.build(ROOT / "Dockerfile", base, yard)
