"""Files as `later export` writes them, of any size, for those who import them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FAR = "2090-01-01T00:00:00.000Z"
LONG_AGO = "2026-01-01T00:00:00.000Z"


def first(**said: Any) -> dict[str, Any]:
    return {"later": "export", "format": 1, "version": "0.1.0", "exported_at": LONG_AGO, "all": False, **said}


def live(owner: str, name: str, **said: Any) -> dict[str, Any]:
    """The line of a live task."""
    task = {**_task(owner, name), "status": "pending", **said}
    return {"kind": "live", "since": LONG_AGO, "cancel": False, "blamed": 0, "task": task}


def past(owner: str, name: str, **said: Any) -> dict[str, Any]:
    """The line of a past task, read by its owner."""
    task = {**_task(owner, f"past-{name}"), "status": "completed", "started_at": LONG_AGO, "finished_at": LONG_AGO}
    task |= {"receipt": {"detail": "kept in the inbox"}, **said}
    return {"kind": "past", "partition": 0, "key": "1-0", "unread": False, "task": task}


def last(live: int, past: int) -> dict[str, Any]:
    return {"later": "end", "live": live, "past": past, "left_out": 0}


def write(file: Path, owner: str, *, lives: int, pasts: int) -> Path:
    """A whole file with so many tasks, all of one owner; those of another file's name are others."""
    with file.open("w") as out:
        out.write(f"{json.dumps(first())}\n")
        out.writelines(f"{json.dumps(live(owner, f'{file.name}{number}'))}\n" for number in range(lives))
        out.writelines(f"{json.dumps(past(owner, f'{file.name}{number}'))}\n" for number in range(pasts))
        out.write(f"{json.dumps(last(lives, pasts))}\n")
    return file


def _task(owner: str, name: str) -> dict[str, Any]:
    return {
        "id": name,
        "owner": owner,
        "queue": "default",
        "action": "inbox",
        "to": None,
        "message": f"thought {name}: call mum, water the plants, and look for the passport",
        "payload": None,
        "options": None,
        "due": FAR,
        "nominal": FAR,
        "window": {"from": LONG_AGO, "until": FAR},
        "zone": "Europe/Lisbon",
        "rule": "within 3d",
        "occurrence": 1,
        "delivery_id": f"uid-{name}.1",
        "attempts": 0,
        "crashes": 0,
        "failures": [],
        "receipt": None,
        "version": 1,
        "created_at": LONG_AGO,
        "updated_at": LONG_AGO,
        "started_at": None,
        "finished_at": None,
    }
