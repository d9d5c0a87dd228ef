"""Handing on work, as the daemon keeps it: waiting, going away, telling once, and taking up after a death."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from daemon_core.agents.events import PlanEntry
from daemon_core.hub import ConflictError, Hub, NewTask, service
from daemon_core.jobs.notices import Notices
from daemon_core.protocol import wire
from daemon_core.tasks.delegation import DelegationRules, Delegations
from daemon_core.tasks.delegation_store import DelegationRow
from daemon_core.tasks.delegation_words import ask_to_go_on
from daemon_core.tasks.engine import Engine
from daemon_core.tasks.life import TaskLife
from tests.tasks.world import World, new_world

GRACE_S = 0.2


class Handing:
    """A running task of a server, a hub of its own, and what the daemon keeps between the two."""

    def __init__(self, world: World, engine: Engine, hub: Hub, life: TaskLife) -> None:
        self.world = world
        self.engine = engine
        self.hub = hub
        self.life = life
        self.rules = DelegationRules()
        self.delegations = self.fresh()

    def fresh(self) -> Delegations:
        return Delegations(
            self.engine, self.hub, Notices(self.engine.journal), lambda: self.rules, grace_s=GRACE_S
        )

    async def again(self) -> Delegations:
        """As after a restart of the daemon."""
        await self.delegations.close()
        self.delegations = self.fresh()
        await self.delegations.restore()
        return self.delegations

    async def child(self, request: str = "one") -> DelegationRow:
        return await self.delegations.hand_on(self.life, NewTask(prompt="do it", provider="shell"), request)

    async def finish(self, row: DelegationRow, output: str = "done") -> None:
        """The child's newest turn is claimed, run and completed at the hub."""
        child = await self.hub.delegating.child(row.conversation_id)
        assert child is not None
        task = await self.hub.claim(str(child.task.runtime_id), wish=wire.ClaimWish(task_id=child.task.id))
        assert task is not None
        await self.hub.store.write(lambda tx: service.start(tx, task.id))
        report = service.Completion(output=output)
        await self.hub.store.write(lambda tx: service.complete(tx, task.id, report))
        self.delegations._look(row.conversation_id)

    def lent(self) -> bool:
        return self.life.slot.lent

    async def notices(self) -> list[str]:
        found = await self.engine.journal.transact(
            lambda db: db.execute("SELECT body FROM notices WHERE kind = 'child_ended'").fetchall()
        )
        return [body for (body,) in found]


@pytest.fixture
async def handing(tmp_path: Path) -> AsyncIterator[Handing]:
    async with new_world(slots=1) as world, world.life() as engine:
        gate = tmp_path / "gate"
        task = world.add({"wait_for": str(gate)})
        life = await world.running(task)
        hub = await Hub.open(tmp_path / "hub.db", daemon_id="d1")
        runtime = wire.RuntimeEntry(name="shell", type="shell", version="1", status="online")
        await hub.register(
            wire.RegisterRequest(
                workspace_id=hub.workspace_id, daemon_id="d1", device_name="here", runtimes=[runtime]
            )
        )
        made = Handing(world, engine, hub, life)
        await made.delegations.restore()
        yield made
        await made.delegations.close()
        await hub.close()
        gate.touch()
        await world.finished(task)


async def test_a_request_is_carried_out_once(handing: Handing) -> None:
    first, again = await handing.child("same"), await handing.child("same")
    assert first is again
    assert (await handing.child("other")) is not first
    assert len(await handing.hub.delegating.all()) == 2


async def test_an_end_is_told_once_by_a_notice(handing: Handing) -> None:
    row = await handing.child()
    await handing.finish(row, "the result")
    await handing.world.until(lambda: row.told == "notice")
    (body,) = await handing.notices()
    assert "the result" in body
    await handing.again()
    assert len(await handing.notices()) == 1


async def test_who_waits_lends_its_slot_and_has_it_back_with_the_answer(handing: Handing) -> None:
    row = await handing.child()
    assert not await handing.delegations.wait(handing.life, row, 0.02)
    assert handing.lent()
    await handing.finish(row)
    assert await handing.delegations.wait(handing.life, row, 5)
    assert not handing.lent()
    await handing.delegations.acknowledge(row)
    assert row.told == "answer"
    await handing.again()
    assert await handing.notices() == []


async def test_a_call_that_does_not_come_back_is_told_by_a_notice(handing: Handing) -> None:
    row = await handing.child()
    assert not await handing.delegations.wait(handing.life, row, 0.02)
    assert row.waiting_key == handing.life.record.key
    await handing.world.until(lambda: not handing.lent())
    await handing.finish(row)
    await handing.world.until(lambda: row.told == "notice")
    assert len(await handing.notices()) == 1


async def test_an_end_that_was_seen_and_not_acknowledged_is_told_after_a_while(handing: Handing) -> None:
    row = await handing.child()
    assert not await handing.delegations.wait(handing.life, row, 0.02)
    await handing.finish(row)
    assert await handing.delegations.wait(handing.life, row, 5)
    await handing.world.until(lambda: row.told == "notice")
    assert len(await handing.notices()) == 1


async def test_who_asks_for_the_result_is_not_told_again(handing: Handing) -> None:
    row = await handing.child()
    await handing.finish(row)
    await handing.world.until(lambda: row.told == "notice")
    await handing.delegations.acknowledge(row)
    pending = await handing.delegations.notices.pending(row.parent_conversation)
    assert pending == []


async def test_a_restart_lends_the_slot_again_until_the_call_comes_back(handing: Handing) -> None:
    row = await handing.child()
    assert not await handing.delegations.wait(handing.life, row, 0.02)
    handing.life.slot.take_back()  # a new life begins with slots that nobody has lent
    after = await handing.again()
    (row,) = after.rows.values()
    assert handing.lent()
    await handing.finish(row)
    assert await after.wait(handing.life, row, 5)
    await after.acknowledge(row)
    assert (row.told, await handing.notices()) == ("answer", [])


async def test_a_child_whose_row_was_lost_in_a_death_is_found_at_the_hub(handing: Handing) -> None:
    row = await handing.child()
    await handing.delegations.store.forget(row)
    after = await handing.again()
    (found,) = after.rows.values()
    assert found.task_id == row.task_id


async def test_limits_of_number_and_depth(handing: Handing) -> None:
    handing.rules = DelegationRules(at_once=2, per_task=3)
    rows = [await handing.child(f"{number}") for number in range(2)]
    with pytest.raises(ConflictError) as open_now:
        await handing.child("third")
    await handing.finish(rows[0])
    await handing.child("third")
    await handing.finish(rows[1])
    with pytest.raises(ConflictError) as used_up:
        await handing.child("fourth")
    handing.rules = DelegationRules(depth=0)
    with pytest.raises(ConflictError) as deep:
        await handing.child("fifth")
    assert [each.value.code for each in (open_now, used_up, deep)] == [
        "delegations_open", "delegations_used_up", "delegation_too_deep",
    ]  # fmt: skip


async def test_an_unfinished_list_is_asked_about_as_often_as_is_set(handing: Handing) -> None:
    handing.rules = DelegationRules(more_turns=1)
    row = await handing.child()
    await handing.delegations._keep_plan(row, '[{"text": "left", "status": "pending"}]')
    await handing.finish(row)
    await handing.world.until(lambda: row.turns == 1)
    child = await handing.hub.delegating.child(row.conversation_id)
    assert child is not None
    assert child.task.prompt == ask_to_go_on([PlanEntry(text="left")])
    assert row.told == ""
    await handing.finish(row)
    await handing.world.until(lambda: row.told == "notice")
    (body,) = await handing.notices()
    assert "- left" in body


@pytest.mark.parametrize("how", ["cancelled", "deleted"])
async def test_a_child_that_somebody_ends_is_told_as_such(handing: Handing, how: str) -> None:
    row = await handing.child()
    wanted: Any = handing.hub.cancel if how == "cancelled" else handing.hub.delete
    await wanted(row.task_id)
    handing.delegations._look(row.conversation_id)
    await handing.world.until(lambda: row.told == "notice")
    (body,) = await handing.notices()
    assert how in body


async def test_a_claimed_task_waits_visibly_for_its_model(tmp_path: Path) -> None:
    async with new_world(slots=3) as world, world.life(claim=False) as engine:
        engine.slots.resize(3, {}, {"rare": 1})
        gate = tmp_path / "gate"
        agent = {"id": "a1", "name": "Ann", "model": "rare"}
        tasks = [
            world.add({"wait_for": str(gate)}, {"text": "worked"}, agent=agent, chat_session_id=f"c{number}")
            for number in range(2)
        ]
        world.claim()
        await world.until(lambda: any(life.waiting_model == "rare" for life in engine.lives.values()))
        await world.until(lambda: engine.active_runs() == 1)
        (waiting,) = [life for life in engine.lives.values() if life.waiting_model]
        assert waiting.record.state == "claimed"
        gate.touch()
        for task in tasks:
            await world.finished(task)
