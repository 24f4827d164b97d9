"""Replies that a daemon never hears, in all its partitions: each task is performed once, and no crash is counted."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import anyio
import pytest

from later.core.task import Millis, Task
from later.store.keys import Layout
from tests.daemon.parts import Gate, Parts, Recorder, lasting, task
from tests.proxy import between
from tests.waiting import wait_until

PARTITIONS = 3
LAYOUT = Layout(partitions=PARTITIONS, own_queues=frozenset({"default"}))
OWNERS = {LAYOUT.partition(f"o{at}"): f"o{at}" for at in range(20)}
"""An owner in each partition."""


async def test_with_replies_cut_after_execution_each_task_is_performed_once(url: str, rng: random.Random) -> None:
    recorder = Recorder(lasting(0.02))
    witness = Parts(url, partitions=PARTITIONS)
    async with between(url) as line, witness.reachable():
        daemon = Parts(line.url, recorder, workers=20, partitions=PARTITIONS)
        async with daemon.running():
            begin = daemon.store.now() + 500
            for at in range(300):
                await witness.add(task_of(at % PARTITIONS, f"{at}", due=begin + 5 * at))
            line.cut_share = 0.02
            while daemon.store.now() < begin + 1500:
                line.cut_reply_to(f"later:{{{rng.randrange(PARTITIONS)}}}:running:default")  # of a claim, a settlement
                await anyio.sleep(rng.uniform(0.1, 0.3))
                line.drop()
            await witness.settled(300, within=60)
            assert Counter([one.task.id for one in await witness.past()]) == {f"{at}": 1 for at in range(300)}
    assert line.cuts >= 3
    assert set(recorder.times.values()) == {1}
    assert {start.task.crashes for start in recorder.starts} == {0}
    assert recorder.most_at_once <= 20


async def test_a_claim_that_others_left_no_place_for_is_adopted_as_places_are_left(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("later.store.calls.REPLY_S", 0.5)
    gates = {OWNERS[0]: Gate(), OWNERS[1]: Gate()}
    recorder = Recorder(lambda performed: gates[performed.owner](performed))
    async with between(url) as line:
        daemon = Parts(line.url, recorder, workers=4, partitions=PARTITIONS)
        async with daemon.running(leases=False):
            begin = daemon.store.now() + 300
            for at in range(4):
                await daemon.add(task_of(0, f"unheard-{at}", due=begin))
            for at in range(3):
                await daemon.add(task_of(1, f"other-{at}", due=begin + 200))
            line.hold_reply_to("later:{0}:running:default", each=True)  # the claim's, and of those that ask for it
            await wait_until(lambda: recorder.at_once == 3)
            line.release()
            await wait_until(lambda: recorder.at_once == 4)
            gates[OWNERS[1]].open()
            await wait_until(lambda: len(recorder.starts) == 7)
            gates[OWNERS[0]].open()
            await daemon.settled(7)
    assert set(recorder.times.values()) == {1}
    assert {start.task.crashes for start in recorder.starts} == {0}
    assert recorder.most_at_once == 4


async def test_a_partition_that_does_not_answer_keeps_the_others_waiting_but_once(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("later.store.calls.REPLY_S", 0.5)
    recorder = Recorder()
    async with between(url) as line:
        daemon = Parts(line.url, recorder, workers=4, partitions=PARTITIONS)
        async with daemon.running(leases=False):
            begin = daemon.store.now() + 300
            await daemon.add(task_of(0, "unheard", due=begin))
            for at in range(30):
                await daemon.add(task_of(1, f"{at}", due=begin + 100 * at))
            line.hold_reply_to("later:{0}:running:default", each=True)
            await wait_until(lambda: len(recorder.finished) == 30)
            line.release()
            await daemon.settled(31)
    late = [start.task.due - begin for start in recorder.starts if start.early_ms < -300 and start.task.id != "unheard"]
    assert [due for due in late if due > 1000] == []
    assert recorder.times["unheard"] == 1


def task_of(partition: int, task_id: str, *, due: Millis) -> Task:
    """A task of somebody who lives there."""
    return replace(task(task_id, due=due), owner=OWNERS[partition])
