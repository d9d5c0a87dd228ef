"""The claim barrier: nothing is claimed while it is up, and it goes up only between claims (promise P4)."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack, suppress

import pytest
from hypothesis import settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule
from hypothesis.strategies import sampled_from

from daemon_core.tasks.barrier import TRANSITIONS, Barrier, BarrierEvent, BarrierState, BarrierUpError


async def test_goes_up_at_once_with_no_claim_in_flight() -> None:
    barrier = Barrier()
    barrier.hold("update")
    await asyncio.wait_for(barrier.wait_up(), 1)
    with pytest.raises(BarrierUpError) as refused, barrier.claiming():
        pass
    assert refused.value.holders == ("update",)


async def test_waits_for_the_claim_in_flight_and_refuses_new_ones_meanwhile() -> None:
    barrier = Barrier()
    with barrier.claiming():
        barrier.hold("user")
        assert barrier.state is BarrierState.RAISING
        with pytest.raises(BarrierUpError), barrier.claiming():
            pass
        waiting = asyncio.get_running_loop().create_task(barrier.wait_up())
        await asyncio.sleep(0)
        assert not waiting.done()
    await asyncio.wait_for(waiting, 1)
    barrier.assert_valid()
    with pytest.raises(BarrierUpError), barrier.claiming():
        pass


async def test_is_down_only_when_every_holder_has_let_go() -> None:
    barrier = Barrier()
    barrier.hold("user")
    barrier.hold("update")
    barrier.let_go("user")
    assert barrier.state is BarrierState.UP
    waiting = asyncio.get_running_loop().create_task(barrier.wait_down())
    await asyncio.sleep(0)
    assert not waiting.done()
    barrier.let_go("update")
    await asyncio.wait_for(waiting, 1)
    with barrier.claiming():
        assert barrier.in_flight == 1


async def test_a_claim_that_fails_is_not_in_flight_any_more() -> None:
    barrier = Barrier()
    with suppress(ZeroDivisionError), barrier.claiming():
        raise ZeroDivisionError
    assert barrier.in_flight == 0


async def test_a_cancelled_wait_leaves_nothing_behind() -> None:
    barrier = Barrier()
    waiting = asyncio.get_running_loop().create_task(barrier.wait_up())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    barrier.hold("user")
    assert barrier._waiters == []


async def test_the_pause_of_the_user_is_not_against_a_start_and_an_update_waits_for_it() -> None:
    barrier = Barrier()
    barrier.hold("user")
    await asyncio.wait_for(barrier.wait_up(), 1)
    with barrier.starting():
        barrier.hold("update")
        with pytest.raises(BarrierUpError) as refused, barrier.starting():
            pass
        assert refused.value.holders == ("update",)
        waiting = asyncio.get_running_loop().create_task(barrier.wait_up())
        await asyncio.sleep(0)
        assert not waiting.done()
    await asyncio.wait_for(waiting, 1)
    barrier.let_go("update")
    with pytest.raises(BarrierUpError) as still, barrier.claiming():
        pass
    assert still.value.holders == ("user",)


def test_every_state_has_a_way_out_and_the_table_names_no_other() -> None:
    assert {state for state, _ in TRANSITIONS} == set(BarrierState)
    assert {event for _, event in TRANSITIONS} == set(BarrierEvent)


class BarrierMachine(RuleBasedStateMachine):
    """Any order of claims, holds and releases; the model is a set of holders and a number of claims."""

    claims = Bundle("claims")

    @initialize()
    def begin(self) -> None:
        self.barrier = Barrier()
        self.holders: set[str] = set()
        self.open_claims = 0

    @rule(target=claims)
    def claim(self) -> ExitStack | None:
        stack = ExitStack()
        try:
            stack.enter_context(self.barrier.claiming())
        except BarrierUpError:
            assert self.holders
            return None
        assert not self.holders
        self.open_claims += 1
        return stack

    @rule(claim=consumes(claims))
    def end_claim(self, claim: ExitStack | None) -> None:
        if claim is not None:
            claim.close()
            self.open_claims -= 1

    @rule(target=claims)
    def start(self) -> ExitStack | None:
        stack = ExitStack()
        try:
            stack.enter_context(self.barrier.starting())
        except BarrierUpError:
            assert self.holders - {"user"}
            return None
        assert not self.holders - {"user"}
        self.open_claims += 1
        return stack

    @rule(holder=sampled_from(["user", "update", "stop"]))
    def hold(self, holder: str) -> None:
        self.barrier.hold(holder)
        self.holders.add(holder)

    @rule(holder=sampled_from(["user", "update", "stop"]))
    def let_go(self, holder: str) -> None:
        self.barrier.let_go(holder)
        self.holders.discard(holder)

    @invariant()
    def holds(self) -> None:
        if not hasattr(self, "barrier"):
            return
        self.barrier.assert_valid()
        assert self.barrier.in_flight == self.open_claims
        assert set(self.barrier.holders) == self.holders
        if self.open_claims == 0:
            assert (self.barrier.state is BarrierState.UP) == bool(self.holders)
        elif self.barrier.state is BarrierState.UP:
            assert self.holders == {"user"}  # what was begun under the user's pause


TestBarrierMachine = BarrierMachine.TestCase
TestBarrierMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
