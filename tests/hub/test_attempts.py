"""Further attempts at turns that a network or a skill has failed: how many, and when."""

from __future__ import annotations

from typing import Any

import pytest

from daemon_core.hub import NewTask
from tests.hub.world import World

NETWORK = "agent_error.provider_network"


async def begin(world: World, **more: Any) -> str:
    """A task of the shell that runs."""
    task_id = (await world.hub.add_task(NewTask(prompt="do it", provider="shell", **more))).id
    assert (await world.claim())["id"] == task_id
    await world.task(task_id, "start")
    return task_id


async def fail(world: World, task_id: str, reason: str) -> None:
    report = {"error": "no", "failure_reason": reason, "session_id": "s1", "work_dir": "/w"}
    assert (await world.task(task_id, "fail", report)).status == 200


async def go_on(world: World, before: str) -> str:
    """The next attempt, begun."""
    again = await world.claim()
    assert (again["parent_task_id"], again["prior_session_id"]) == (before, "s1")
    await world.task(again["id"], "start")
    return str(again["id"])


@pytest.mark.parametrize("restart", [False, True])
async def test_a_network_that_is_gone_gets_three_attempts_the_last_after_a_pause(
    world: World, restart: bool
) -> None:
    world.hub.start_timers()
    first = await begin(world)
    await fail(world, first, NETWORK)
    second = await go_on(world, first)
    await fail(world, second, NETWORK)
    if restart:
        await world.reopen()
        world.hub.start_timers()
    assert await world.claim() is None
    await world.hub.sweep()
    world.clock.advance(4.9)
    await world.hub.sweep()
    assert await world.claim() is None
    world.clock.advance(0.2)
    await world.hub.sweep()
    third = await go_on(world, second)
    found = await world.hub.get(third)
    assert found is not None
    assert (found.attempt, found.max_attempts, found.parked_until) == (3, 3, None)
    await fail(world, third, NETWORK)
    assert await world.claim() is None
    world.clock.advance(60)
    await world.hub.sweep()
    assert await world.claim() is None
    assert await world.status(third) == "failed"


async def test_the_pause_ends_also_for_a_daemon_that_asks_by_itself(world: World) -> None:
    first = await begin(world)
    await fail(world, first, NETWORK)
    second = await go_on(world, first)
    await fail(world, second, NETWORK)
    assert await world.claim() is None
    world.clock.advance(6)
    await go_on(world, second)


async def test_who_wants_one_attempt_gets_one(world: World) -> None:
    first = await begin(world, max_attempts=1)
    await fail(world, first, NETWORK)
    world.clock.advance(6)
    assert await world.claim() is None


async def test_skills_that_could_not_be_had_get_another_attempt(world: World) -> None:
    first = await begin(world)
    await fail(world, first, "skill_bundle_unavailable")
    second = await go_on(world, first)
    await fail(world, second, "skill_bundle_unavailable")
    world.clock.advance(6)
    assert await world.claim() is None
