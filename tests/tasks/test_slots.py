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
