"""What every store of live tasks promises: each test on both servers and on the model."""

from __future__ import annotations

from dataclasses import replace

import pytest

from later.core.errors import Conflict, IdTaken, NotFound, TaskRunning
from later.core.lifecycle import Settlement
from later.core.task import MESSAGE_BYTES, Failure, Status, Task, Window
from later.store.base import Claim, Held, Moved, Movement, Settled, Store
from later.store.keys import Lane
from tests.contract.world import HOUR, LEASE, World, completed, failed, put_back, retried, thought, withdrawn

AT_REST = frozenset({Status.CREATED, Status.PENDING, Status.FAILED})
LONG_AGO = 1_700_000_000_000
SLOW = Lane(0, "slow")

CANCEL = Movement(states=AT_REST | {Status.RUNNING}, to=Status.CANCELLED)
AGAIN = Movement(states=frozenset({Status.FAILED}), to=Status.PENDING, due=LONG_AGO + 5, afresh=True)
PAUSE = Movement(states=frozenset({Status.PENDING}), to=Status.CREATED)
RESUME = Movement(states=frozenset({Status.CREATED}), to=Status.PENDING)


def again_later(task: Task) -> Settlement:
    return retried(task, LONG_AGO + 7)


EVERY_OUTCOME = pytest.mark.parametrize("outcome", [completed, failed, put_back, withdrawn, again_later])


class TestAdd:
    async def test_a_task_with_a_time_is_pending(self, store: Store) -> None:
        task = thought(due=LONG_AGO, window=Window(since=1, until=2), rule="within 3d", zone="Europe/Lisbon")
        added = await store.add(task)
        assert (added.task, added.kept, added.replaced) == (task, False, False)
        assert await store.get("ana", "milk") == task

    async def test_a_task_without_a_time_is_created_and_never_claimed(self, store: Store, lane: Lane) -> None:
        task = thought(due=None)
        await store.add(task)
        assert await store.get("ana", "milk") == task
        assert task.status is Status.CREATED
        assert await claimed(store, lane) == []

    async def test_nothing_that_was_said_is_lost(self, store: Store) -> None:
        task = thought(
            due=LONG_AGO,
            to="ana@example.org",
            payload={"content_type": "application/json", "json": {"n": [1, None, 2.5, "ü"]}},
            options={"subject": ""},
            zone="Europe/Lisbon",
            rule="in 3d",
            occurrence=7,
        )
        await store.add(task)
        assert await store.get("ana", "milk") == task

    @pytest.mark.parametrize(
        "message",
        [
            "",
            "👩‍👩‍👧‍👦 naïve — 日本",
            "a\nb\r\nc\td\x01\x7f",
            "\"quoted\" 'single' \\back\\slash \\u0041 {json: [1]}",
            "%s $1 #{x} EVAL 'return 1' 0",
            "é" * (MESSAGE_BYTES // 2),
            "\u2028\ufeff\x85",
        ],
        ids=["nothing", "emoji", "control", "quotes", "templates", "64KiB", "separators"],
    )
    async def test_a_message_comes_back_byte_for_byte(self, store: Store, lane: Lane, message: str) -> None:
        await store.add(thought(due=LONG_AGO, message=message))
        [task] = await claimed(store, lane)
        assert task.message.encode() == message.encode()
        await store.settle([completed(task)])
        [past] = await store.outbox.read(10)
        assert past.task.message.encode() == message.encode()

    async def test_the_same_content_again_is_kept(self, store: Store) -> None:
        first = thought(due=LONG_AGO)
        await store.add(first)
        again = await store.add(replace(first, uid="other", due=LONG_AGO + 1, nominal=LONG_AGO + 1))
        assert again.kept
        assert again.task == first == await store.get("ana", "milk")

    async def test_the_same_content_again_is_kept_while_it_runs(self, store: Store, lane: Lane) -> None:
        first = thought(due=LONG_AGO)
        await store.add(first)
        await claimed(store, lane)
        again = await store.add(replace(first, uid="other"))
        assert again.kept
        assert (again.task.uid, again.task.status) == (first.uid, Status.RUNNING)

    @pytest.mark.parametrize(
        "change", [{"message": "bread"}, {"to": "x@example.org"}, {"options": {}}, {"queue": "slow"}]
    )
    async def test_other_content_is_refused_and_the_first_stays(self, store: Store, change: dict[str, object]) -> None:
        first = thought(due=LONG_AGO)
        await store.add(first)
        with pytest.raises(IdTaken):
            await store.add(replace(first, uid="other", **change))
        assert await store.get("ana", "milk") == first

    async def test_a_failed_task_is_replaced(self, store: Store, lane: Lane) -> None:
        await self.fail_one(store, lane)
        new = thought(due=LONG_AGO + 9, message="bread")
        added = await store.add(new)
        assert (added.kept, added.replaced) == (False, True)
        assert await store.get("ana", "milk") == new
        assert await store.failed_of("ana") == 0
        [task] = await claimed(store, lane)
        assert (task.uid, task.attempts, task.failures) == (new.uid, 0, ())

    async def test_a_failed_task_may_be_replaced_by_a_created_one(self, store: Store, lane: Lane) -> None:
        await self.fail_one(store, lane)
        new = thought(due=None)
        assert (await store.add(new)).replaced
        assert await store.get("ana", "milk") == new

    async def test_one_whose_end_was_asked_for_does_not_count_as_kept(self, store: Store, lane: Lane) -> None:
        """The owner would believe that it stays, and it is about to go."""
        task = thought(due=LONG_AGO)
        await store.add(task)
        await claimed(store, lane)
        await store.move("ana", "milk", CANCEL)
        for same_or_other in (task, replace(task, message="bread")):
            with pytest.raises(Conflict) as refusal:
                await store.add(same_or_other)
            assert not isinstance(refusal.value, IdTaken)

    async def test_owners_with_the_same_id_do_not_meet(self, store: Store, lane: Lane) -> None:
        hers, his = thought(due=LONG_AGO), thought(due=LONG_AGO + 1, owner="ana.b", message="his")
        await store.add(hers)
        assert not (await store.add(his)).kept
        assert await store.get("ana", "milk") == hers
        assert await store.get("ana.b", "milk") == his
        [first] = (await store.claim(lane, limit=1, lease=LEASE)).tasks
        await store.settle([completed(first)])
        await store.move("ana.b", "milk", CANCEL)
        assert [(past.task.owner, past.task.status) for past in await store.outbox.read(10)] == [
            ("ana", Status.COMPLETED),
            ("ana.b", Status.CANCELLED),
        ]
        with pytest.raises(NotFound):
            await store.move("ana", "milk", CANCEL)

    async def test_an_id_is_free_again_once_its_task_is_past(self, store: Store, lane: Lane) -> None:
        await store.add(thought(due=LONG_AGO))
        [task] = await claimed(store, lane)
        await store.settle([completed(task)])
        assert not (await store.add(thought(due=LONG_AGO, message="bread"))).kept

    async def fail_one(self, store: Store, lane: Lane) -> None:
        await store.add(thought(due=LONG_AGO))
        [task] = await claimed(store, lane)
        await store.settle([failed(task)])


class TestClaim:
    async def test_a_task_is_never_claimed_before_it_is_due(self, store: Store, lane: Lane, world: World) -> None:
        due = await world.now() + 120
        await store.add(thought(due=due))
        claim = await claim_all(store, lane)
        while not claim.tasks:
            assert claim.next_due == due
            await world.breathe()
            claim = await claim_all(store, lane)
            if claim.tasks:  # the clock is read after the claim: if it shows less than the due time, so did the claim's
                assert await world.now() >= due

    async def test_the_oldest_come_first(self, store: Store, lane: Lane) -> None:
        for at in (5, 1, 4, 2, 3):
            await store.add(thought(f"t{at}", due=LONG_AGO + at, owner=f"o{at % 2}"))
        assert ids(await claimed(store, lane)) == ["t1", "t2", "t3", "t4", "t5"]

    async def test_at_most_the_limit_is_taken(self, store: Store, lane: Lane) -> None:
        for at in range(5):
            await store.add(thought(f"t{at}", due=LONG_AGO + at))
        claim = await store.claim(lane, limit=3, lease=LEASE)
        assert ids(claim.tasks) == ["t0", "t1", "t2"]
        assert claim.next_due == LONG_AGO + 3
        claim = await store.claim(lane, limit=3, lease=LEASE)
        assert ids(claim.tasks) == ["t3", "t4"]
        assert claim.next_due is None

    async def test_nothing_is_taken_for_no_places(self, store: Store, lane: Lane) -> None:
        await store.add(thought(due=LONG_AGO))
        claim = await store.claim(lane, limit=0, lease=LEASE)
        assert (ids(claim.tasks), claim.next_due) == ([], LONG_AGO)

    async def test_it_says_when_the_next_one_is_due(self, store: Store, lane: Lane, world: World) -> None:
        later = await world.now() + HOUR
        await store.add(thought("now", due=LONG_AGO))
        await store.add(thought("later", due=later))
        claim = await store.claim(lane, limit=10, lease=LEASE)
        assert (ids(claim.tasks), claim.next_due) == (["now"], later)

    async def test_a_claimed_task_is_running_in_the_holders_name(self, store: Store, lane: Lane, world: World) -> None:
        before = await world.now()
        await store.add(thought(due=LONG_AGO))
        [task] = (await store.claim(lane, limit=1, lease=LEASE)).tasks
        assert (task.status, task.holder, task.attempts) == (Status.RUNNING, "one", 0)
        assert task.claim > 0
        kept = await store.get("ana", "milk")
        assert kept is not None
        assert kept.lease_until is not None
        assert before + LEASE <= kept.lease_until <= await world.now() + LEASE
        assert replace(kept, lease_until=None) == task

    async def test_claimed_tasks_are_skipped_and_block_nobody(self, store: Store, lane: Lane, world: World) -> None:
        for at in range(4):
            await store.add(thought(f"t{at}", due=LONG_AGO + at))
        other = await world.store("two")
        assert ids((await store.claim(lane, limit=2, lease=LEASE)).tasks) == ["t0", "t1"]
        assert ids(await claimed(other, lane)) == ["t2", "t3"]
        assert ids(await claimed(store, lane)) == ids(await claimed(other, lane)) == []

    async def test_queues_do_not_mix(self, store: Store, lane: Lane) -> None:
        await store.add(thought("quick", due=LONG_AGO))
        await store.add(thought("slow", due=LONG_AGO, queue="slow"))
        assert ids(await claimed(store, SLOW)) == ["slow"]
        assert ids(await claimed(store, lane)) == ["quick"]

    async def test_what_clients_pull_is_not_the_daemons(self, store: Store, lane: Lane) -> None:
        await store.add(thought(due=LONG_AGO, queue="reports"))
        assert await claimed(store, lane) == await claimed(store, SLOW) == []
        kept = await store.get("ana", "milk")
        assert kept is not None
        assert (kept.status, kept.queue) == (Status.PENDING, "reports")

    async def test_each_claim_has_a_greater_number(self, store: Store, lane: Lane, world: World) -> None:
        other = await world.store("two")
        numbers = []
        for at in range(6):
            await store.add(thought(f"t{at}", due=LONG_AGO))
            [task] = await claimed((store, other)[at % 2], lane)
            numbers.append(task.claim)
        assert numbers == sorted(set(numbers))

    async def test_a_holder_finds_what_a_lost_reply_has_claimed(self, store: Store, lane: Lane, world: World) -> None:
        for at in range(3):
            await store.add(thought(f"t{at}", due=LONG_AGO + at))
        [mine] = (await store.claim(lane, limit=1, lease=LEASE)).tasks
        other = await world.store("two")
        await claimed(other, lane)
        assert [replace(task, lease_until=None) for task in await store.adopt(lane)] == [mine]
        await store.settle([completed(mine)])
        assert await store.adopt(lane) == []


class TestLease:
    async def test_nobody_else_gets_it_before_it_ends(self, store: Store, lane: Lane, world: World) -> None:
        await store.add(thought(due=LONG_AGO))
        await store.claim(lane, limit=1, lease=60)
        other = await world.store("two")
        lease_end = await end_of_lease(store)
        while (await other.recover(lane, limit=10)).count == 0:
            assert await claimed(other, lane) == []
            await world.breathe()
        assert await world.now() >= lease_end
        [task] = await claimed(other, lane)
        assert (task.holder, task.crashes, task.attempts) == ("two", 1, 0)

    async def test_until_it_is_recovered_it_is_not_taken(self, store: Store, lane: Lane, world: World) -> None:
        await self.let_one_expire(store, lane, world)
        assert await claimed(await world.store("two"), lane) == []

    async def test_recovery_says_when_the_next_lease_ends(self, store: Store, lane: Lane, world: World) -> None:
        assert (await store.recover(lane, limit=10)).next_end is None
        await self.let_one_expire(store, lane, world)
        await store.add(thought("bread", due=LONG_AGO))
        await store.claim(lane, limit=1, lease=LEASE)
        recovered = await store.recover(lane, limit=10)
        assert (recovered.count, recovered.next_end) == (1, await end_of_lease(store, "bread"))

    async def test_recovery_is_bounded_and_goes_on_where_it_ended(self, store: Store, lane: Lane, world: World) -> None:
        for at in range(5):
            await store.add(thought(f"t{at}", due=LONG_AGO + at))
        await store.claim(lane, limit=5, lease=0)
        assert [(await store.recover(lane, limit=2)).count for _ in range(4)] == [2, 2, 1, 0]
        assert ids(await claimed(store, lane)) == ["t0", "t1", "t2", "t3", "t4"]

    async def test_a_recovered_task_keeps_its_place(self, store: Store, lane: Lane) -> None:
        for at in (1, 3):
            await store.add(thought(f"t{at}", due=LONG_AGO + at))
        await store.claim(lane, limit=2, lease=0)
        for at in (2, 4):
            await store.add(thought(f"t{at}", due=LONG_AGO + at))
        await store.recover(lane, limit=10)
        again = await claimed(store, lane)
        assert ids(again) == ["t1", "t2", "t3", "t4"]
        assert [task.due for task in again] == [LONG_AGO + at for at in (1, 2, 3, 4)]
        assert [task.crashes for task in again] == [1, 0, 1, 0]

    async def test_a_retried_task_keeps_its_new_place(self, store: Store, lane: Lane) -> None:
        await store.add(thought(due=LONG_AGO))
        [task] = await claimed(store, lane)
        await store.settle([retried(task, LONG_AGO + 50)])
        await store.claim(lane, limit=1, lease=0)
        await store.recover(lane, limit=1)
        [task] = await claimed(store, lane)
        assert (task.due, task.nominal, task.attempts, task.crashes) == (LONG_AGO + 50, LONG_AGO, 1, 1)

    async def test_every_lease_ends_at_once_where_no_holder_can_be_alive(self, store: Store, lane: Lane) -> None:
        await store.add(thought(due=LONG_AGO))
        await store.claim(lane, limit=1, lease=LEASE)
        assert (await store.recover(lane, limit=10)).count == 0
        assert (await store.recover(lane, limit=10, every=True)).count == 1
        [task] = await claimed(store, lane)
        assert task.crashes == 1

    async def test_crashes_are_counted_one_by_one(self, store: Store, lane: Lane) -> None:
        await store.add(thought(due=LONG_AGO))
        for crashes in range(4):
            [task] = (await store.claim(lane, limit=1, lease=0)).tasks
            assert (task.crashes, task.attempts) == (crashes, 0)
            await store.recover(lane, limit=1)

    async def test_a_crash_is_blamed_on_what_was_performed_alone(self, store: Store, lane: Lane) -> None:
        for at in range(2):
            await store.add(thought(f"t{at}", due=LONG_AGO + at))
        for crashes, blamed in ((0, 0), (1, 1), (2, 1), (3, 2)):
            alone, beside = (await store.claim(lane, limit=2, lease=LEASE)).tasks
            assert [(task.crashes, task.blamed) for task in (alone, beside)] == [(crashes, blamed), (crashes, 0)]
            if crashes != 1:
                assert await store.extend([alone], lease=LEASE, alone=True) == [Held.KEPT]
                await store.extend([beside, alone], lease=LEASE)
            await store.recover(lane, limit=10, every=True)

    async def test_who_has_lost_the_lease_takes_no_blame_for_the_next_holder(self, store: Store, lane: Lane) -> None:
        await store.add(thought(due=LONG_AGO))
        [old] = await claimed(store, lane)
        await store.recover(lane, limit=1, every=True)
        await claimed(store, lane)
        assert await store.extend([old], lease=LEASE, alone=True) == [Held.LOST]
        await store.recover(lane, limit=1, every=True)
        [task] = await claimed(store, lane)
        assert (task.crashes, task.blamed) == (2, 0)

    async def test_what_is_put_back_keeps_its_blame_and_what_has_failed_does_not(
        self, store: Store, lane: Lane
    ) -> None:
        for said in (put_back, lambda task: retried(task, LONG_AGO)):
            await store.add(thought(due=LONG_AGO))
            [task] = await claimed(store, lane)
            await store.extend([task], lease=LEASE, alone=True)
            await store.recover(lane, limit=1, every=True)
            [task] = await claimed(store, lane)
            assert task.blamed == 1
            await store.settle([said(task)])
            [task] = await claimed(store, lane)
            assert task.blamed == (said is put_back)
            await store.settle([completed(task)])

    async def test_a_lease_that_ends_further_ahead_than_any_can_has_ended(self, store: Store, lane: Lane) -> None:
        """As all do, of a holder that died just before the server's clock was set back."""
        await store.add(thought("odd", due=LONG_AGO))
        await store.add(thought("sound", due=LONG_AGO + 1))
        await store.claim(lane, limit=1, lease=LEASE + HOUR)
        await store.claim(lane, limit=1, lease=LEASE)
        assert [(await store.recover(lane, limit=1)).count for _ in range(2)] == [1, 0]
        assert ids(await claimed(store, lane)) == ["odd"]

    async def test_an_extended_lease_is_kept(self, store: Store, lane: Lane, world: World) -> None:
        await store.add(thought(due=LONG_AGO))
        tasks = (await store.claim(lane, limit=1, lease=50)).tasks
        before = await world.now()
        assert await store.extend(tasks, lease=LEASE) == [Held.KEPT]
        assert await end_of_lease(store) >= before + LEASE
        await world.until(before + 60)
        assert (await store.recover(lane, limit=10)).count == 0

    async def test_a_lease_that_has_ended_can_be_extended_until_it_is_recovered(self, store: Store, lane: Lane) -> None:
        await store.add(thought(due=LONG_AGO))
        tasks = (await store.claim(lane, limit=1, lease=0)).tasks
        assert await store.extend(tasks, lease=LEASE) == [Held.KEPT]
        assert (await store.recover(lane, limit=10)).count == 0

    async def test_a_lease_is_lost_once_it_was_recovered(self, store: Store, lane: Lane, world: World) -> None:
        await store.add(thought(due=LONG_AGO))
        tasks = (await store.claim(lane, limit=1, lease=0)).tasks
        await store.recover(lane, limit=10)
        assert await store.extend(tasks, lease=LEASE) == [Held.LOST]
        other = await world.store("two")
        await other.claim(lane, limit=1, lease=50)
        lease_end = await end_of_lease(store)
        assert await store.extend(tasks, lease=LEASE) == [Held.LOST]
        assert await end_of_lease(store) == lease_end

    async def test_a_lease_is_lost_once_it_was_settled(self, store: Store, lane: Lane) -> None:
        for task_id in ("done", "retried", "failed"):
            await store.add(thought(task_id, due=LONG_AGO))
        done, again, over = tasks = sorted(await claimed(store, lane), key=lambda task: task.id)
        await store.settle([completed(done), failed(again), retried(over, LONG_AGO)])
        assert await store.extend(tasks, lease=LEASE) == [Held.LOST] * 3

    async def test_a_holder_hears_that_the_owner_asks_for_the_end(self, store: Store, lane: Lane) -> None:
        for task_id in ("milk", "bread"):
            await store.add(thought(task_id, due=LONG_AGO))
        milk, bread = sorted(await claimed(store, lane), key=lambda task: task.id, reverse=True)
        await store.move("ana", "milk", CANCEL)
        assert await store.extend([bread, milk], lease=LEASE) == [Held.KEPT, Held.CANCEL]

    async def test_two_claims_of_one_task_are_told_apart(self, store: Store, lane: Lane) -> None:
        """A daemon that was stopped for long may hold a lost claim of a task beside the present one."""
        await store.add(thought(due=LONG_AGO))
        [old] = (await store.claim(lane, limit=1, lease=0)).tasks
        await store.recover(lane, limit=1)
        [new] = await claimed(store, lane)
        assert await store.extend([old, new], lease=LEASE) == [Held.LOST, Held.KEPT]
        assert await store.extend([new, old], lease=LEASE) == [Held.KEPT, Held.LOST]
        assert await store.settle([completed(new, "new"), failed(old)]) == [Settled.DONE, Settled.GONE]
        [past] = await store.outbox.read(10)
        assert past.receipt is not None
        assert past.receipt["detail"] == "new"

    async def let_one_expire(self, store: Store, lane: Lane, world: World) -> None:
        await store.add(thought(due=LONG_AGO))
        await store.claim(lane, limit=1, lease=1)
        await world.until(await world.now() + 2)


class TestSettle:
    async def test_a_completion_ends_the_task(self, store: Store, lane: Lane, world: World) -> None:
        task = await self.claim_one(store, lane)
        before = await world.now()
        assert await store.settle([completed(task)]) == [Settled.DONE]
        assert await store.get("ana", "milk") is None
        assert await counted(store) == {"outbox": 1}
        [past] = await store.outbox.read(10)
        assert (past.task.status, past.task.attempts, past.started) == (Status.COMPLETED, 1, 1_700_000_000_123)
        assert past.receipt == {"detail": "kept", "id": 7}
        assert (past.task.spec, past.task.delivery_id) == (task.spec, task.delivery_id)
        assert (past.task.due, past.task.nominal, past.task.claim) == (LONG_AGO, LONG_AGO, task.claim)
        assert before <= past.at == past.task.updated <= await world.now()

    async def test_a_completion_that_is_repeated_changes_nothing(self, store: Store, lane: Lane) -> None:
        task = await self.claim_one(store, lane)
        await store.settle([completed(task)])
        assert await store.settle([completed(task)]) == [Settled.GONE]
        assert await counted(store) == {"outbox": 1}

    @pytest.mark.parametrize("outcome", [again_later, failed, put_back])
    async def test_a_settlement_that_is_repeated_changes_nothing(self, store: Store, lane: Lane, outcome) -> None:
        task = await self.claim_one(store, lane)
        assert await store.settle([outcome(task)]) == [Settled.DONE]
        before, counts = await store.get("ana", "milk"), await counted(store)
        assert await store.settle([outcome(task)]) == [Settled.ALREADY]
        assert await store.settle([completed(task)]) == [Settled.ALREADY]
        assert (await store.get("ana", "milk"), await counted(store)) == (before, counts)

    @EVERY_OUTCOME
    async def test_a_lost_lease_cannot_settle(self, store: Store, lane: Lane, world: World, outcome) -> None:
        await store.add(thought(due=LONG_AGO))
        [task] = (await store.claim(lane, limit=1, lease=0)).tasks
        await store.recover(lane, limit=1)
        assert await store.settle([outcome(task)]) == [Settled.STALE]
        other = await world.store("two")
        [theirs] = await claimed(other, lane)
        before = await store.get("ana", "milk")
        assert await store.settle([outcome(task)]) == [Settled.STALE]
        assert await store.get("ana", "milk") == before
        assert await counted(store) == {"running": 1}
        assert await other.settle([completed(theirs)]) == [Settled.DONE]
        assert await store.settle([outcome(task)]) == [Settled.GONE]
        assert await counted(store) == {"outbox": 1}

    @EVERY_OUTCOME
    async def test_a_former_life_cannot_settle_the_present_one(
        self, store: Store, lane: Lane, world: World, outcome
    ) -> None:
        """Deleted and added again: the same id and even the same content, but another task."""
        await store.add(thought(due=LONG_AGO))
        [frozen] = (await store.claim(lane, limit=1, lease=0)).tasks
        await store.recover(lane, limit=1)
        await store.move("ana", "milk", CANCEL)
        await store.add(thought(due=LONG_AGO))
        present = await store.get("ana", "milk")
        assert await store.settle([outcome(frozen)]) == [Settled.STALE]
        assert await store.extend([frozen], lease=LEASE) == [Held.LOST]
        assert await store.get("ana", "milk") == present

        other = await world.store("two")
        [running] = (await other.claim(lane, limit=1, lease=LEASE)).tasks
        assert running.claim > frozen.claim
        present = await store.get("ana", "milk")
        assert await store.settle([outcome(frozen)]) == [Settled.STALE]
        assert await store.extend([frozen], lease=LEASE) == [Held.LOST]
        assert await store.get("ana", "milk") == present
        assert await other.settle([completed(running)]) == [Settled.DONE]

    async def test_a_replaced_failure_cannot_be_settled_by_its_last_worker(self, store: Store, lane: Lane) -> None:
        task = await self.claim_one(store, lane)
        await store.settle([failed(task)])
        await store.add(thought(due=LONG_AGO))
        assert await store.settle([completed(task)]) == [Settled.STALE]
        await claimed(store, lane)
        assert await store.settle([completed(task)]) == [Settled.STALE]

    async def test_a_deleted_task_is_gone(self, store: Store, lane: Lane) -> None:
        await store.add(thought(due=LONG_AGO))
        [task] = (await store.claim(lane, limit=1, lease=0)).tasks
        await store.recover(lane, limit=1)
        await store.move("ana", "milk", CANCEL)
        assert await store.settle([completed(task)]) == [Settled.GONE]
        assert [past.task.status for past in await store.outbox.read(10)] == [Status.CANCELLED]

    async def test_each_item_stands_for_itself(self, store: Store, lane: Lane) -> None:
        for task_id in ("a", "b", "c"):
            await store.add(thought(task_id, due=LONG_AGO))
        await store.add(thought("d", due=LONG_AGO, queue="slow", owner="bob"))
        stale = (await store.claim(lane, limit=1, lease=0)).tasks
        await store.recover(lane, limit=1)
        a, b, c = await claimed(store, lane)
        [d] = await claimed(store, SLOW)
        results = await store.settle([completed(c), completed(stale[0]), failed(d), retried(a, LONG_AGO), completed(b)])
        assert results == [Settled.DONE, Settled.STALE, Settled.DONE, Settled.DONE, Settled.DONE]
        assert await counted(store) == {"pending": 1, "failed": 1, "outbox": 3}

    async def test_a_retry_keeps_attempts_and_causes(self, store: Store, lane: Lane, world: World) -> None:
        await self.crash_one(store, lane)
        [task] = await claimed(store, lane)
        due = await world.now() + HOUR
        assert await store.settle([retried(task, due, 'ümlaut \ud800 "quoted"\n')]) == [Settled.DONE]
        kept = await store.get("ana", "milk")
        assert kept is not None
        assert (kept.status, kept.due, kept.nominal) == (Status.PENDING, due, LONG_AGO)
        assert (kept.attempts, kept.crashes) == (1, 0)
        assert kept.failures == (Failure(at=1_700_000_000_200, reason='ümlaut \ud800 "quoted"\n'),)
        assert await store.head(lane) == due
        assert await store.outbox.read(10) == []
        assert await claimed(store, lane) == []

    async def test_put_back_changes_nothing(self, store: Store, lane: Lane) -> None:
        await self.crash_one(store, lane)
        [task] = await claimed(store, lane)
        await store.settle([retried(task, LONG_AGO + 3)])
        await store.claim(lane, limit=1, lease=0)
        await store.recover(lane, limit=1)
        before = await store.get("ana", "milk")
        [task] = await claimed(store, lane)
        assert await store.settle([put_back(task)]) == [Settled.DONE]
        assert before is not None
        assert (before.attempts, before.crashes, len(before.failures)) == (1, 1, 1)
        after = await store.get("ana", "milk")
        assert after == replace(before, claim=task.claim, holder=task.holder)
        assert ids(await claimed(store, lane)) == ["milk"]

    async def test_a_failed_task_stays_with_its_chain(self, store: Store, lane: Lane) -> None:
        task = await self.claim_one(store, lane)
        await store.settle([retried(task, LONG_AGO + 1)])
        [task] = await claimed(store, lane)
        await store.settle([failed(task)])
        kept = await store.get("ana", "milk")
        assert kept is not None
        assert (kept.status, kept.attempts, kept.due) == (Status.FAILED, 2, LONG_AGO + 1)
        assert [failure.reason for failure in kept.failures] == ["the server said 421", "no such mailbox"]
        page = await store.page("ana", statuses=[Status.FAILED], cursor=None, limit=10)
        assert (list(page.tasks), page.next) == ([kept], None)
        assert await counted(store) == {"failed": 1, "outbox": 1}
        assert (await store.failed_of("ana"), await store.failed_of("bob")) == (1, 0)
        [past] = await store.outbox.read(10)
        assert (past.task.status, past.task.attempts, past.task.failures) == (Status.FAILED, 2, kept.failures)
        assert await claimed(store, lane) == []

    async def test_a_failed_task_is_retried_afresh(self, store: Store, lane: Lane) -> None:
        task = await self.claim_one(store, lane)
        await store.settle([failed(task)])
        assert await store.move("ana", "milk", AGAIN) == Moved(status=Status.PENDING)
        [again] = await claimed(store, lane)
        assert (again.uid, again.attempts, again.crashes, again.failures) == (task.uid, 0, 0, ())
        assert (again.due, again.nominal) == (LONG_AGO + 5, LONG_AGO)
        assert await store.failed_of("ana") == 0
        await store.settle([completed(again)])
        assert [past.task.status for past in await store.outbox.read(10)] == [Status.FAILED, Status.COMPLETED]

    async def test_a_frozen_worker_cannot_settle_what_was_retried_by_hand(self, store: Store, lane: Lane) -> None:
        task = await self.claim_one(store, lane)
        await store.settle([failed(task)])
        await store.move("ana", "milk", AGAIN)
        assert await store.settle([completed(task)]) == [Settled.ALREADY]
        assert ids(await claimed(store, lane)) == ["milk"]

    async def claim_one(self, store: Store, lane: Lane) -> Task:
        await store.add(thought(due=LONG_AGO))
        [task] = await claimed(store, lane)
        return task

    async def crash_one(self, store: Store, lane: Lane) -> None:
        await store.add(thought(due=LONG_AGO))
        await store.claim(lane, limit=1, lease=0)
        await store.recover(lane, limit=1)


class TestCancel:
    @pytest.mark.parametrize("due", [None, LONG_AGO], ids=["created", "pending"])
    async def test_a_task_at_rest_ends_at_once(self, store: Store, lane: Lane, due: int | None) -> None:
        await store.add(thought(due=due))
        assert await store.move("ana", "milk", CANCEL) == Moved(status=Status.CANCELLED)
        assert await store.get("ana", "milk") is None
        assert await claimed(store, lane) == []
        assert await counted(store) == {"outbox": 1}
        [past] = await store.outbox.read(10)
        assert (past.task.status, past.task.due, past.started, past.receipt) == (Status.CANCELLED, due, None, None)
        with pytest.raises(NotFound):
            await store.move("ana", "milk", CANCEL)

    async def test_a_failed_task_may_be_deleted(self, store: Store, lane: Lane) -> None:
        await store.add(thought(due=LONG_AGO))
        [task] = await claimed(store, lane)
        await store.settle([failed(task)])
        assert await store.move("ana", "milk", CANCEL) == Moved(status=Status.CANCELLED)
        assert await counted(store) == {"outbox": 2}
        assert len((await store.outbox.read(10))[1].task.failures) == 1

    @pytest.mark.parametrize("outcome", [withdrawn, failed, put_back, again_later])
    async def test_a_running_task_is_withdrawn_and_ends_as_cancelled(self, store: Store, lane: Lane, outcome) -> None:
        await store.add(thought(due=LONG_AGO))
        [task] = await claimed(store, lane)
        assert await store.move("ana", "milk", CANCEL) == Moved(status=Status.RUNNING, withdrawn=True)
        kept = await store.get("ana", "milk")
        assert kept is not None
        assert (kept.status, kept.cancel) == (Status.RUNNING, True)
        assert await store.settle([outcome(task)]) == [Settled.DONE]
        assert await store.get("ana", "milk") is None
        assert await counted(store) == {"outbox": 1}
        [past] = await store.outbox.read(10)
        assert (past.task.status, past.task.attempts) == (Status.CANCELLED, outcome(task).attempts)
        assert past.task.failures == outcome(task).failures

    async def test_what_was_completed_all_the_same_stays_completed(self, store: Store, lane: Lane) -> None:
        await store.add(thought(due=LONG_AGO))
        [task] = await claimed(store, lane)
        await store.move("ana", "milk", CANCEL)
        assert await store.settle([completed(task)]) == [Settled.DONE]
        [past] = await store.outbox.read(10)
        assert past.task.status is Status.COMPLETED

    async def test_the_wish_outlives_a_crash(self, store: Store, lane: Lane) -> None:
        await store.add(thought(due=LONG_AGO))
        await store.claim(lane, limit=1, lease=0)
        await store.move("ana", "milk", CANCEL)
        await store.recover(lane, limit=1)
        [task] = await claimed(store, lane)
        assert task.cancel
        await store.settle([withdrawn(task)])
        assert await counted(store) == {"outbox": 1}

    async def test_it_may_be_asked_for_twice(self, store: Store, lane: Lane) -> None:
        await store.add(thought(due=LONG_AGO))
        await claimed(store, lane)
        for _ in range(2):
            assert (await store.move("ana", "milk", CANCEL)).withdrawn


class TestMove:
    async def test_another_time_is_another_place(self, store: Store, lane: Lane, world: World) -> None:
        task, later = thought(due=LONG_AGO), await world.now() + HOUR
        await store.add(task)
        assert await store.move("ana", "milk", to_pending(later)) == Moved(status=Status.PENDING)
        moved = await store.get("ana", "milk")
        assert moved is not None
        assert (moved.due, moved.nominal, moved.version) == (later, LONG_AGO, 2)
        assert moved.created == task.created < moved.updated
        assert await claimed(store, lane) == []
        await store.move("ana", "milk", to_pending(LONG_AGO))
        assert ids(await claimed(store, lane)) == ["milk"]

    async def test_a_new_moment_brings_its_window_along(self, store: Store) -> None:
        await store.add(thought(due=LONG_AGO, window=Window(since=1, until=2)))
        new = replace(to_pending(LONG_AGO + 1), nominal=LONG_AGO + 1, window=Window(since=3, until=4))
        await store.move("ana", "milk", new)
        task = await store.get("ana", "milk")
        assert task is not None
        assert (task.due, task.nominal, task.window) == (LONG_AGO + 1, LONG_AGO + 1, Window(since=3, until=4))
        await store.move("ana", "milk", replace(new, nominal=LONG_AGO + 2, window=None))
        task = await store.get("ana", "milk")
        assert task is not None
        assert (task.nominal, task.window) == (LONG_AGO + 2, None)

    async def test_a_created_task_is_scheduled(self, store: Store, lane: Lane) -> None:
        await store.add(thought(due=None))
        await store.move("ana", "milk", to_pending(LONG_AGO))
        assert await counted(store) == {"pending": 1}
        assert ids(await claimed(store, lane)) == ["milk"]

    async def test_a_paused_task_waits_and_comes_back_to_its_place(self, store: Store, lane: Lane) -> None:
        await store.add(thought(due=LONG_AGO))
        assert await store.move("ana", "milk", PAUSE) == Moved(status=Status.CREATED)
        assert await claimed(store, lane) == []
        kept = await store.get("ana", "milk")
        assert kept is not None
        assert (kept.status, kept.due) == (Status.CREATED, LONG_AGO)
        await store.move("ana", "milk", RESUME)
        [task] = await claimed(store, lane)
        assert (task.due, task.version) == (LONG_AGO, 3)

    async def test_what_never_had_a_time_cannot_go_back_to_it(self, store: Store) -> None:
        task = thought(due=None)
        await store.add(task)
        with pytest.raises(Conflict):
            await store.move("ana", "milk", RESUME)
        assert await store.get("ana", "milk") == task

    async def test_other_content_leaves_the_time(self, store: Store, lane: Lane) -> None:
        task = thought(due=LONG_AGO, to="ana@example.org")
        await store.add(task)
        spec = replace(task.spec, message="🥛\n", to=None)
        assert await store.move("ana", "milk", Movement(states=AT_REST, spec=spec)) == Moved(status=Status.PENDING)
        [changed] = await claimed(store, lane)
        assert (changed.spec, changed.due, changed.uid, changed.version) == (spec, LONG_AGO, task.uid, 2)

    @pytest.mark.parametrize("states", [AT_REST, AT_REST | {Status.RUNNING}])
    async def test_a_running_task_is_not_changed(self, store: Store, lane: Lane, states: frozenset[Status]) -> None:
        await store.add(thought(due=LONG_AGO))
        await claimed(store, lane)
        before = await store.get("ana", "milk")
        for movement in (
            Movement(states=states, to=Status.PENDING, due=LONG_AGO),
            Movement(states=states, to=Status.CREATED),
            Movement(states=states, spec=thought(due=None, message="bread").spec),
        ):
            with pytest.raises(TaskRunning) as refusal:
                await store.move("ana", "milk", movement)
            assert refusal.value.lease_until == await end_of_lease(store)
        assert await store.get("ana", "milk") == before

    async def test_what_was_withdrawn_ends_though_its_holder_crashed(self, store: Store, lane: Lane) -> None:
        await store.add(thought(due=LONG_AGO))
        await claimed(store, lane)
        assert (await store.move("ana", "milk", CANCEL)).withdrawn
        await store.recover(lane, limit=1, every=True)
        for movement in (Movement(states=AT_REST, to=Status.PENDING, due=LONG_AGO), Movement(states=AT_REST)):
            with pytest.raises(Conflict):
                await store.move("ana", "milk", movement)
        assert await store.move("ana", "milk", CANCEL) == Moved(status=Status.CANCELLED)

    async def test_it_is_only_withdrawn_where_that_may_be(self, store: Store, lane: Lane) -> None:
        await store.add(thought(due=LONG_AGO))
        await claimed(store, lane)
        with pytest.raises(TaskRunning):
            await store.move("ana", "milk", Movement(states=AT_REST, to=Status.CANCELLED))
        kept = await store.get("ana", "milk")
        assert kept is not None
        assert not kept.cancel

    async def test_a_version_that_has_passed_is_refused(self, store: Store) -> None:
        await store.add(thought(due=LONG_AGO))
        change = Movement(states=AT_REST, spec=thought(due=None, message="first").spec, version=1)
        await store.move("ana", "milk", change)
        with pytest.raises(Conflict):
            await store.move("ana", "milk", replace(change, spec=thought(due=None, message="second").spec))
        task = await store.get("ana", "milk")
        assert task is not None
        assert (task.message, task.version) == ("first", 2)
        await store.move("ana", "milk", replace(change, version=2))

    async def test_the_wrong_state_is_a_conflict(self, store: Store) -> None:
        await store.add(thought(due=None))
        for movement in (AGAIN, PAUSE):
            with pytest.raises(Conflict):
                await store.move("ana", "milk", movement)
        assert await counted(store) == {"created": 1}

    async def test_what_is_not_there_is_not_found(self, store: Store) -> None:
        for movement in (CANCEL, AGAIN, PAUSE, replace(PAUSE, version=3)):
            with pytest.raises(NotFound):
                await store.move("ana", "milk", movement)


class TestReading:
    async def test_a_page_is_in_due_order_and_continues(self, store: Store, lane: Lane) -> None:
        for at in (3, 1, 2, 5, 4):
            await store.add(thought(f"t{at}", due=LONG_AGO + at))
        await store.add(thought("never", due=None))
        await store.add(thought("other", due=LONG_AGO, owner="bob"))
        await store.claim(lane, limit=2, lease=LEASE)  # bob's, and t1
        for limit in (1, 2, 4, 6, 100):
            assert await listed(store, *Status, limit=limit) == ["t1", "t2", "t3", "t4", "t5", "never"]
            assert await listed(store, Status.PENDING, limit=limit) == ["t2", "t3", "t4", "t5"]
            assert await listed(store, Status.CREATED, Status.RUNNING, limit=limit) == ["t1", "never"]
            assert await listed(store, Status.FAILED, limit=limit) == []

    async def test_the_head_is_the_next_due_time(self, store: Store, lane: Lane) -> None:
        assert await store.head(lane) is None
        await store.add(thought("later", due=LONG_AGO + 5))
        await store.add(thought("sooner", due=LONG_AGO + 2))
        assert await store.head(lane) == LONG_AGO + 2
        await claimed(store, lane)
        assert await store.head(lane) is None

    async def test_what_is_overdue_is_counted_with_the_oldest(self, store: Store, lane: Lane, world: World) -> None:
        assert (await store.overdue(lane)).count == (await store.overdue(lane)).late == 0
        now = await world.now()
        for task_id, due in (("old", now - 5000), ("older", now - 60_000), ("later", now + HOUR)):
            await store.add(thought(task_id, due=due))
        overdue = await store.overdue(lane)
        assert overdue.count == 2
        assert 60_000 <= overdue.late < 60_000 + 30_000

    async def test_counts_are_by_status(self, store: Store, lane: Lane) -> None:
        assert await counted(store) == {}
        for at in range(4):
            await store.add(thought(f"t{at}", due=LONG_AGO + at, owner=f"o{at}"))
        await store.add(thought("held", due=None))
        failing, done = (await store.claim(lane, limit=2, lease=LEASE)).tasks
        await store.settle([failed(failing), completed(done)])
        await store.claim(lane, limit=1, lease=LEASE)
        assert await store.counts() == {
            "created": 1,
            "pending": 1,
            "running": 1,
            "failed": 1,
            "quarantined": 0,
            "outbox": 2,
        }

    async def test_the_outbox_is_read_in_order_until_it_is_forgotten(self, store: Store) -> None:
        for at in range(5):
            await store.add(thought(f"t{at}", due=LONG_AGO))
            await store.move("ana", f"t{at}", CANCEL)
        first = await store.outbox.read(3)
        assert [past.task.id for past in first] == ["t0", "t1", "t2"]
        assert list(await store.outbox.read(3)) == list(first)
        await store.outbox.forget(first)
        await store.outbox.forget(first[:1])
        assert [past.task.id for past in await store.outbox.read(3)] == ["t3", "t4"]


# What the tests are written in.


def ids(tasks) -> list[str]:
    return [task.id for task in tasks]


def to_pending(due: int) -> Movement:
    return Movement(states=AT_REST, to=Status.PENDING, due=due)


async def claim_all(store: Store, lane: Lane) -> Claim:
    return await store.claim(lane, limit=100, lease=LEASE)


async def claimed(store: Store, lane: Lane) -> list[Task]:
    return list((await claim_all(store, lane)).tasks)


async def end_of_lease(store: Store, task_id: str = "milk") -> int:
    task = await store.get("ana", task_id)
    assert task is not None
    assert task.lease_until is not None
    return task.lease_until


async def counted(store: Store) -> dict[str, int]:
    """What there is any of."""
    return {name: count for name, count in (await store.counts()).items() if count}


async def listed(store: Store, *statuses: Status, limit: int) -> list[str]:
    """All pages in a row."""
    cursor, found = None, []
    while True:
        page = await store.page("ana", statuses=statuses, cursor=cursor, limit=limit)
        assert len(page.tasks) <= limit
        found += ids(page.tasks)
        if (cursor := page.next) is None:
            return found
