"""Tasks that a usage limit holds up: parked, and gone on with by the clock or by the user."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from daemon_core.hub import AgentSpec, NewTask
from daemon_core.hub.clock import SECOND
from daemon_core.hub.parking import GO_ON
from tests.hub.world import World


def at(world: World, seconds: float) -> str:
    """A time so many seconds from now, as the daemon tells it."""
    moment = datetime.fromtimestamp(world.clock.now() / SECOND + seconds, UTC)
    return moment.isoformat().replace("+00:00", "Z")


async def park(world: World, until: str, *, goes_on: bool, session: str | None = "s1") -> str:
    """A task of the shell that has met a limit."""
    task_id = (await world.hub.add_task(NewTask(prompt="do it", provider="shell"))).id
    assert (await world.claim())["id"] == task_id
    await world.task(task_id, "start")
    await fail(world, task_id, until, goes_on=goes_on, session=session)
    return task_id


async def fail(world: World, task_id: str, until: str, *, goes_on: bool, session: str | None = "s1") -> None:
    report: dict[str, Any] = {
        "error": "usage limit reached",
        "failure_reason": "agent_error.provider_quota_limit",
        "session_id": session,
        "work_dir": "/w",
        "parked": {"until": until, "goes_on": goes_on},
    }
    answer = await world.task(task_id, "fail", report)
    assert answer.status == 200


async def test_it_goes_on_by_itself_in_its_session_once_the_limit_has_reset(world: World) -> None:
    world.hub.start_timers()
    until = at(world, 3600)
    task_id = await park(world, until, goes_on=True)
    found = await world.hub.get(task_id)
    assert found is not None
    assert (found.status, found.goes_on, found.waiting_reason) == ("parked", True, "usage_limit")
    assert found.parked_until is not None
    assert datetime.fromisoformat(found.parked_until) == datetime.fromisoformat(until)
    assert await world.claim() is None
    await world.hub.sweep()
    assert await world.status(task_id) == "parked"
    world.clock.advance(3601)
    await world.hub.sweep()
    again = await world.claim()
    assert again["id"] == task_id
    assert (again["chat_message"], again["prior_session_id"], again["prior_work_dir"]) == (GO_ON, "s1", "/w")
    await world.task(task_id, "start")
    await world.task(task_id, "complete", {"output": "done"})
    done = await world.hub.get(task_id)
    assert done is not None
    assert (done.status, done.result, done.failure_reason, done.parked_until) == (
        "completed",
        "done",
        None,
        None,
    )


async def test_it_survives_a_restart_and_a_clock_that_jumps(world: World) -> None:
    task_id = await park(world, at(world, 3600), goes_on=True)
    await world.reopen()
    world.hub.start_timers()
    world.clock.advance(-86400)
    await world.hub.sweep()
    assert await world.status(task_id) == "parked"
    world.clock.advance(3 * 86400)  # slept over it
    await world.hub.sweep()
    assert await world.status(task_id) == "queued"


@pytest.mark.parametrize("until", ["", "rubbish", "9999-01-01T00:00:00Z"])
async def test_without_a_time_it_waits_for_the_user(world: World, until: str) -> None:
    world.hub.start_timers()
    task_id = await park(world, until, goes_on=True)
    found = await world.hub.get(task_id)
    assert found is not None
    assert (found.parked_until, found.goes_on) == (None, False)
    world.clock.advance(40 * 86400)
    await world.hub.sweep()
    assert await world.status(task_id) == "parked"
    assert (await world.hub.retry(task_id)).status == "queued"
    assert (await world.claim())["id"] == task_id


async def test_what_the_user_has_not_allowed_waits_for_the_user(world: World) -> None:
    world.hub.start_timers()
    task_id = await park(world, at(world, 60), goes_on=False)
    world.clock.advance(3600)
    await world.hub.sweep()
    assert await world.status(task_id) == "parked"
    assert (await world.hub.retry(task_id)).id == task_id


async def test_without_a_session_the_whole_prompt_is_said_again(world: World) -> None:
    task_id = await park(world, at(world, 60), goes_on=False, session=None)
    await world.hub.retry(task_id)
    assert (await world.claim())["chat_message"] == "do it"


async def test_a_reply_takes_its_place(world: World) -> None:
    task_id = await park(world, at(world, 3600), goes_on=True)
    reply = await world.hub.reply(task_id, "never mind, do that")
    assert await world.status(task_id) == "failed"
    claimed = await world.claim()
    assert (claimed["id"], claimed["prior_session_id"]) == (reply.id, "s1")


async def test_it_can_be_cancelled(world: World) -> None:
    world.hub.start_timers()
    task_id = await park(world, at(world, 60), goes_on=True)
    assert (await world.hub.cancel(task_id)).status == "cancelled"
    world.clock.advance(3600)
    await world.hub.sweep()
    assert await world.status(task_id) == "cancelled"


async def test_a_report_that_is_told_twice_parks_once_and_its_token_is_gone(world: World) -> None:
    task_id = (await world.hub.add_task(NewTask(prompt="x", provider="shell"))).id
    token = (await world.claim())["auth_token"]
    await world.task(task_id, "start")
    until = at(world, 3600)
    await fail(world, task_id, until, goes_on=True)
    before = await world.hub.get(task_id)
    await fail(world, task_id, at(world, 7200), goes_on=False)
    assert await world.hub.get(task_id) == before
    assert (await world.get("/api/me", token=token)).status == 401


async def test_what_agent_and_task_say_of_permissions_goes_with_the_claim(world: World) -> None:
    spec = AgentSpec(name="careful", provider="shell", permissions="ask", resume_after_limit=True)
    assert (await world.hub.add_agent(spec)).permissions == "ask"
    await world.hub.add_task(NewTask(prompt="x", agent="careful"))
    agent = (await world.claim())["agent"]
    assert (agent["permissions"], agent["resume_after_limit"]) == ("ask", True)
    await world.hub.add_task(NewTask(prompt="x", agent="careful", permissions="deny"))
    assert (await world.claim())["agent"]["permissions"] == "deny"
