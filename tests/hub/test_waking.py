"""A conversation is woken: another turn of its session, one at most, and the user's word comes first."""

from __future__ import annotations

import pytest

from daemon_core.hub import AgentSpec, NewTask, NotFoundError
from tests.hub.test_parking import at, park
from tests.hub.world import World

NEWS = "Your background job has ended."


async def turn(world: World, task_id: str, output: str = "done") -> None:
    """Claim and complete the task that is next."""
    claimed = await world.claim()
    assert claimed["id"] == task_id
    await world.task(task_id, "start")
    report = {"output": output, "session_id": "s1", "work_dir": "/w"}
    assert (await world.task(task_id, "complete", report)).status == 200


async def ended(world: World) -> str:
    """A conversation whose turn is over."""
    task = await world.hub.add_task(
        NewTask(prompt="build it", provider="shell", model="m1", thinking_level="high", permissions="ask")
    )
    await turn(world, task.id)
    return task.id


async def test_it_goes_on_in_its_session_directory_and_settings(world: World) -> None:
    first = await ended(world)
    woken = await world.hub.wake(first, NEWS)
    assert woken is not None
    claimed = await world.claim()
    assert claimed["id"] == woken.id
    assert claimed["wake_text"] == NEWS
    assert (claimed["prior_session_id"], claimed["prior_work_dir"]) == ("s1", "/w")
    agent = claimed["agent"]
    assert (agent["model"], agent["thinking_level"], agent["permissions"]) == ("m1", "high", "ask")
    assert woken.prompt == NEWS
    said = (await world.hub.conversation(woken.conversation_id)).messages
    assert [(line.role, line.content) for line in said] == [
        ("user", "build it"), ("assistant", "done"), ("notice", NEWS),
    ]  # fmt: skip


async def test_the_model_of_the_last_turn_is_the_one_that_counts(world: World) -> None:
    first = await ended(world)
    reply = await world.hub.reply(first, "more", model="m2")
    await turn(world, reply.id)
    woken = await world.hub.wake(first, NEWS)
    assert woken is not None
    assert woken.model == "m2"


async def test_nothing_is_woken_while_a_turn_goes_on_or_is_to_come(world: World) -> None:
    task = await world.hub.add_task(NewTask(prompt="x", provider="shell"))
    assert await world.hub.wake(task.id, NEWS) is None
    await turn(world, task.id)
    assert await world.hub.wake(task.id, NEWS) is not None
    assert await world.hub.wake(task.id, NEWS) is None


async def test_what_the_user_says_takes_the_place_of_a_turn_that_waits(world: World) -> None:
    first = await ended(world)
    woken = await world.hub.wake(first, NEWS)
    assert woken is not None
    reply = await world.hub.reply(first, "what now?")
    assert await world.status(woken.id) == "cancelled"
    claimed = await world.claim()
    assert claimed["id"] == reply.id
    assert "wake_text" not in claimed


async def test_a_further_attempt_at_a_woken_turn_still_knows_what_it_was_for(world: World) -> None:
    first = await ended(world)
    woken = await world.hub.wake(first, NEWS)
    assert woken is not None
    await world.claim()
    await world.task(woken.id, "start")
    lost = {"error": "the machine went down", "failure_reason": "runtime_recovery"}
    assert (await world.task(woken.id, "fail", lost)).status == 200
    again = await world.claim()
    assert again["parent_task_id"] == woken.id
    assert again["wake_text"] == NEWS


async def test_what_the_user_retries_is_the_users(world: World) -> None:
    first = await ended(world)
    woken = await world.hub.wake(first, NEWS)
    assert woken is not None
    await turn(world, woken.id)
    retried = await world.hub.retry(woken.id)
    assert retried.prompt == NEWS
    assert "wake_text" not in await world.claim()


async def test_an_unknown_task_is_refused(world: World) -> None:
    with pytest.raises(NotFoundError):
        await world.hub.wake("00000000-0000-4000-8000-000000000000", NEWS)


async def test_an_agent_of_the_users_stays_the_one_that_is_told(world: World) -> None:
    await world.hub.add_agent(AgentSpec(name="Reviewer", provider="shell", instructions="be strict"))
    task = await world.hub.add_task(NewTask(prompt="x", agent="Reviewer"))
    await turn(world, task.id)
    woken = await world.hub.wake(task.id, NEWS)
    assert woken is not None
    assert woken.agent == "Reviewer"
    assert (await world.claim())["agent"]["instructions"] == "be strict"


async def test_a_turn_that_the_user_has_cancelled_is_not_begun_again_for_the_same_news(world: World) -> None:
    first = await ended(world)
    woken = await world.hub.wake(first, NEWS)
    assert woken is not None
    await world.hub.cancel(woken.id)
    assert await world.hub.wake(first, NEWS) is None
    assert await world.hub.wake(first, f"{NEWS} And another one.") is not None


async def test_what_is_parked_is_told_when_it_goes_on(world: World) -> None:
    parked = await park(world, at(world, 3600), goes_on=False)
    assert await world.hub.wake(parked, NEWS) is None
