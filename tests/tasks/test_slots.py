"""Slots: never more runs than places, never more than a limit allows, first come first served (P5)."""

from __future__ import annotations

import asyncio

from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from hypothesis.strategies import integers, sampled_from

from daemon_core.tasks.slots import Slot, Slots, _Wish


async def test_numbers_are_the_lowest_free_ones() -> None:
    slots = Slots(3)
    first, second, third = [await slots.acquire("a") for _ in range(3)]
    assert [first.number, second.number, third.number] == [0, 1, 2]
    second.release()
    assert (await slots.acquire("a")).number == 1


async def test_waits_for_a_release_and_releasing_twice_is_once() -> None:
    slots = Slots(1)
    held = await slots.acquire("a")
    waiting = asyncio.get_running_loop().create_task(slots.acquire("a"))
    await asyncio.sleep(0)
    assert not waiting.done()
    held.release()
    held.release()
    await asyncio.wait_for(waiting, 1)
    assert slots.used == 1


async def test_a_limited_group_does_not_hold_up_the_others() -> None:
    slots = Slots(4, {"codex": 1})
    await slots.acquire("codex")
    waiting = asyncio.get_running_loop().create_task(slots.acquire("codex"))
    await asyncio.sleep(0)
    other = await asyncio.wait_for(slots.acquire("claude"), 1)
    assert other.held
    assert not waiting.done()
    waiting.cancel()


async def test_a_slot_granted_to_a_cancelled_waiter_goes_back() -> None:
    slots = Slots(1)
    held = await slots.acquire("a")
    waiting = asyncio.get_running_loop().create_task(slots.acquire("a"))
    await asyncio.sleep(0)
    held.release()  # grants the slot to the waiter, which has not run yet
    waiting.cancel()
    await asyncio.wait([waiting])
    assert slots.used == 0
    assert (await asyncio.wait_for(slots.acquire("a"), 1)).held


async def test_a_re_attached_run_has_its_number_even_above_a_lowered_limit() -> None:
    slots = Slots(1)
    back = slots.adopt(5, "a")
    assert back.number == 5
    waiting = asyncio.get_running_loop().create_task(slots.acquire("a"))
    await asyncio.sleep(0)
    assert not waiting.done()
    back.release()
    assert (await asyncio.wait_for(waiting, 1)).number == 0


async def test_raising_the_number_wakes_those_who_wait() -> None:
    slots = Slots(1)
    await slots.acquire("a")
    waiting = asyncio.get_running_loop().create_task(slots.acquire("a"))
    await asyncio.sleep(0)
    slots.resize(2, {})
    await asyncio.wait_for(waiting, 1)


class SlotsMachine(RuleBasedStateMachine):
    """Any order of taking, giving back, adopting and resizing against a plain list."""

    @initialize(total=integers(1, 4))
    def begin(self, total: int) -> None:
        self.slots = Slots(total, {"limited": 1})
        self.held: list[Slot] = []
        self.adopted = 0

    @rule(group=sampled_from(["free", "limited"]))
    def take(self, group: str) -> None:
        if self.slots.free_for(group):
            slot = Slot(self.slots, group)
            self.slots._serve(_Wish(slot, "new"))
            assert slot.number not in [other.number for other in self.held]
            self.held.append(slot)

    @rule(position=integers(0, 20))
    def release(self, position: int) -> None:
        if self.held:
            self.held.pop(position % len(self.held)).release()

    @rule(number=integers(0, 8))
    def adopt(self, number: int) -> None:
        self.held.append(self.slots.adopt(number, "free"))

    @rule(total=integers(1, 6))
    def resize(self, total: int) -> None:
        self.slots.resize(total, {"limited": 1})

    @invariant()
    def counts(self) -> None:
        if not hasattr(self, "slots"):
            return
        assert self.slots.used == len(self.held)
        assert self.slots.in_group("limited") == sum(slot.group == "limited" for slot in self.held) <= 1
        if self.slots.free_for("free"):
            assert len(self.held) < self.slots.total


TestSlotsMachine = SlotsMachine.TestCase
TestSlotsMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


# --- limits of models, and slots that are lent -----------------------------------------------------------


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_one_slot_is_enough_for_who_waits_and_who_works() -> None:
    slots = Slots(1, {"claude": 1}, {"opus": 1})
    parent = await slots.acquire("claude", "opus")
    asking = asyncio.get_running_loop().create_task(slots.acquire("claude", "opus", lender=parent))
    other = asyncio.get_running_loop().create_task(slots.acquire("shell"))
    await settle()
    assert not asking.done()
    parent.lend()
    child = await asyncio.wait_for(asking, 1)
    assert (child.number, slots.used, slots.with_model("opus")) == (parent.number, 1, 1)
    assert not other.done()
    child.release()
    await settle()
    assert parent.counting, "it has its places back before anybody else is asked"
    await asyncio.wait_for(parent.resume(), 1)
    assert not other.done()
    parent.release()
    await asyncio.wait_for(other, 1)


async def test_a_lender_that_goes_on_counts_although_its_borrower_is_at_work() -> None:
    slots = Slots(1)
    parent = await slots.acquire("claude")
    parent.lend()
    child = await slots.acquire("claude", lender=parent)
    parent.take_back()
    assert slots.used == 2
    child.release()
    parent.release()
    assert slots.used == 0


async def test_what_is_lent_stays_with_the_borrower_when_the_lender_is_gone() -> None:
    slots = Slots(1)
    parent = await slots.acquire("claude")
    parent.lend()
    child = await slots.acquire("claude", lender=parent)
    parent.release()
    assert slots.used == 1
    slots.assert_valid()
    child.release()
    assert slots.used == 0


async def test_lenders_and_borrowers_of_each_others_limits_do_not_lock() -> None:
    slots = Slots(2, {"a": 1, "b": 1})
    first, second = await slots.acquire("a"), await slots.acquire("b")
    first.lend()
    second.lend()
    child_b = await asyncio.wait_for(slots.acquire("b", lender=first), 1)
    child_a = await asyncio.wait_for(slots.acquire("a", lender=second), 1)
    child_b.release()
    back = asyncio.get_running_loop().create_task(first.resume())
    await settle()
    assert not back.done(), "its provider's limit is reached by the other child"
    child_a.release()
    await asyncio.wait_for(back, 1)
    await asyncio.wait_for(second.resume(), 1)
    assert (slots.used, slots.in_group("a"), slots.in_group("b")) == (2, 1, 1)


async def test_first_come_first_served_for_each_model() -> None:
    slots = Slots(4, {}, {"opus": 1})
    held = await slots.acquire("claude", "opus")
    loop = asyncio.get_running_loop()
    waiting = [loop.create_task(slots.acquire(group, "opus")) for group in ("claude", "codex", "claude")]
    await settle()
    assert slots.full_models() == ["opus"]
    free = await asyncio.wait_for(slots.acquire("claude", "other"), 1)
    free.release()
    for each in waiting:
        assert not each.done()
        held.release()
        held = await asyncio.wait_for(each, 1)
    held.release()
    assert slots.full_models() == []


async def test_a_claimed_task_waits_for_its_model_and_keeps_its_slot() -> None:
    slots = Slots(3, {}, {"opus": 1})
    held = await slots.acquire("claude", "opus")
    claimed = await slots.acquire("claude")
    assert not slots.try_model(claimed, "opus")
    waiting = asyncio.get_running_loop().create_task(slots.want_model(claimed, "opus"))
    await settle()
    assert not waiting.done()
    held.release()
    await asyncio.wait_for(waiting, 1)
    assert slots.with_model("opus") == 1


class LendingMachine(RuleBasedStateMachine):
    """Any order of taking, lending, borrowing, giving back, going on, limits that change and a restart.

    Nobody here goes on against the limits, so they hold at every moment, but for what was there when a limit
    was lowered.
    """

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.slots = Slots(2, {"a": 1}, {"m": 1})
        self.lines: list[tuple[asyncio.Task[Slot], Slot | None]] = []
        self.resuming: dict[Slot, asyncio.Task[None]] = {}
        self.lowered = False

    def run(self) -> None:
        self.loop.run_until_complete(settle())
        for task, _ in [each for each in self.lines if each[0].done()]:
            assert not task.cancelled()
        self.lines = [each for each in self.lines if not each[0].done()]
        self.resuming = {slot: task for slot, task in self.resuming.items() if not task.done()}

    def pick(self, position: int, wanted: bool | None = None) -> Slot | None:
        found = [slot for slot in self.slots._held if wanted is None or slot.lent is wanted]
        return found[position % len(found)] if found else None

    @rule(group=sampled_from(["a", "b"]), model=sampled_from(["", "m", "n"]))
    def ask(self, group: str, model: str) -> None:
        if len(self.lines) < 6:
            self.lines.append((self.loop.create_task(self.slots.acquire(group, model)), None))
            self.run()

    @rule(position=integers(0, 9), group=sampled_from(["a", "b"]), model=sampled_from(["", "m"]))
    def wait_for_a_child(self, position: int, group: str, model: str) -> None:
        slot = self.pick(position, wanted=False)
        if slot is not None and slot not in self.resuming:
            slot.lend()
            task = self.loop.create_task(self.slots.acquire(group, model, lender=slot))
            self.lines.append((task, slot))
            self.run()

    @rule(position=integers(0, 9))
    def go_on(self, position: int) -> None:
        slot = self.pick(position, wanted=True)
        waits = [lender for _, lender in self.lines]
        if slot is not None and slot.borrower is None and slot not in waits and slot not in self.resuming:
            self.resuming[slot] = self.loop.create_task(slot.resume())
            self.run()

    @rule(position=integers(0, 9))
    def end(self, position: int) -> None:
        slot = self.pick(position)
        if slot is None:
            return
        slot.release()
        for task, lender in self.lines:
            if lender is slot:
                task.cancel()
        if slot in self.resuming:
            self.resuming.pop(slot).cancel()
        self.loop.run_until_complete(settle())
        self.lines = [each for each in self.lines if not each[0].done()]

    @rule(position=integers(0, 9))
    def give_up(self, position: int) -> None:
        fresh = [each for each in self.lines if each[1] is None]
        if fresh:
            task, _ = fresh[position % len(fresh)]
            task.cancel()
            self.loop.run_until_complete(settle())
            self.lines = [each for each in self.lines if not each[0].done()]

    @rule(total=integers(1, 4), limit=integers(1, 2))
    def change_limits(self, total: int, limit: int) -> None:
        lower = total < self.slots.total or limit < self.slots.models["m"]
        self.lowered = self.lowered or lower
        self.slots.resize(total, {"a": 1}, {"m": limit})
        self.run()

    @rule()
    def crash(self) -> None:
        """A new life: every run has its number and its places, and what was lent is lent again."""
        old = list(self.slots._held)
        for task in [*(task for task, _ in self.lines), *self.resuming.values()]:
            task.cancel()
        self.loop.run_until_complete(settle())
        held = [slot for slot in old if slot.held]
        new = Slots(self.slots.total, self.slots.limits, self.slots.models)
        again = {slot: new.adopt(slot.number, slot.group, slot.model) for slot in held}
        for slot in held:
            if slot.lent:
                again[slot].lend()
            if slot.lender is not None:
                new.link(again[slot.lender], again[slot])
        # Who had its places back between two children has them again when it goes on.
        self.slots, self.lines, self.resuming = new, [], {}
        self.run()

    @invariant()
    def holds(self) -> None:
        slots = self.slots
        slots.assert_valid()
        if not self.lowered:
            assert slots.used <= slots.total
        assert slots.in_group("a") <= 1
        if not self.lowered:
            assert slots.with_model("m") <= slots.models["m"]

    @invariant()
    def nobody_waits_for_nothing(self) -> None:
        """The first in the line who lacks nothing is served at once."""
        slots = self.slots
        if slots._line:
            assert slots._lacks(slots._line[0])

    def teardown(self) -> None:
        for task in [*(task for task, _ in self.lines), *self.resuming.values()]:
            task.cancel()
        self.loop.run_until_complete(settle())
        # With everybody gone, nothing is taken any more.
        for slot in list(self.slots._held):
            slot.release()
        assert self.slots.used == 0
        self.loop.close()


TestLendingMachine = LendingMachine.TestCase
TestLendingMachine.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
