"""What the doctor says of a server, the counts, the clock and the disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from later.daemon import doctor

SOUND = {
    "kind": "redis",
    "version": "7.0.15",
    "compatible": "7.0.15",
    "role": "master",
    "memory": 1_000_000,
    "appendonly": "yes",
    "appendfsync": "always",
    "maxmemory": "0",
    "maxmemory-policy": "noeviction",
}


def advice(**server: object) -> list[str]:
    return [finding["advice"] for finding in doctor.examine_store({**SOUND, **server})]


def test_a_sound_server_needs_no_advice():
    assert advice() == []


def test_a_server_that_hides_its_settings_is_not_blamed():
    told = {"kind": "redis", "version": "7.2.0", "compatible": "7.2.0", "role": "master", "memory": 1}
    assert list(doctor.examine_store(told)) == []


@pytest.mark.parametrize(
    ("wrong", "cure"),
    [
        ({"compatible": "6.2.14"}, "upgrade it"),
        ({"role": "slave"}, "point LATER_REDIS_URL at its master"),
        ({"appendonly": "no"}, "set appendonly yes"),
        ({"appendfsync": "everysec"}, "set appendfsync always"),
        ({"written": "err"}, "make room"),
        ({"saved": "err"}, "make room"),
        ({"replicas": 2}, "set LATER_REDIS_REPLICAS=1"),
        ({"maxmemory-policy": "allkeys-lru"}, "set maxmemory-policy noeviction"),
        ({"maxmemory": "1000000", "memory": 950_000}, "raise maxmemory"),
    ],
)
def test_what_is_wrong_is_told_with_its_cure(wrong, cure):
    [said] = advice(**wrong)
    assert cure in said


def test_replicas_that_are_waited_for_need_no_advice():
    assert list(doctor.examine_store({**SOUND, "replicas": 2}, replicas=1)) == []


def test_too_few_replicas_are_told():
    [finding] = doctor.examine_store({**SOUND, "replicas": 1}, replicas=2)
    assert finding["advice"].startswith("the server has 1 replicas, and LATER_REDIS_REPLICAS is 2")


def test_quarantine_and_a_full_outbox_are_told():
    counts = {"quarantined": 2, "outbox": doctor.OUTBOX_ENTRIES + 1}
    assert [finding["subject"] for finding in doctor.examine_counts(counts)] == ["tasks", "archive"]
    assert list(doctor.examine_counts({"quarantined": 0, "outbox": 0})) == []


def test_clocks_apart_are_told():
    assert list(doctor.examine_clock(1_000_400, 1_000.0)) == []
    [finding] = doctor.examine_clock(1_061_000, 1_000.0)
    assert "61.0 s off" in finding["advice"]


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch):
    assert list(doctor.examine_disk(tmp_path)) == []
    monkeypatch.setattr(doctor, "DISK_BYTES", 2**70)
    [finding] = doctor.examine_disk(tmp_path)
    assert "make room" in finding["advice"]
