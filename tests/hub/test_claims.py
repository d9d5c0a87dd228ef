"""Which task a claim gets, what goes with it, and when it is handed out again."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from daemon_core.connections.client import ServerClient
from daemon_core.hub import AgentSpec, Limits, NewTask
from daemon_core.protocol.errors import PermanentError
from tests.hub.world import DAEMON_ID, NOWHERE, World


async def test_a_daemon_claims_for_all_its_runtimes_at_once(world: World) -> None:
    """As it does at any server that can be asked so."""
    ids = [world.runtimes["shell"], NOWHERE, world.runtimes["claude"]]
    first = await world.hub.add_task(NewTask(prompt="x", provider="claude"))
    second = await world.hub.add_task(NewTask(prompt="y", provider="shell"))
    async with ServerClient(world.url, world.token, needs_token=True) as client:
        found = [await client.claim_any(DAEMON_ID, ids) for _ in range(3)]
        assert [each and each.id for each in found] == [second.id, first.id, None]
        assert found[1] is not None
        assert (found[1].runtime_id, found[1].auth_token[:4]) == (world.runtimes["claude"], "mat_")
        with pytest.raises(PermanentError) as refused:
            await client.claim_any("", ids)
        assert (refused.value.status, refused.value.said) == (400, "daemon_id is required")


async def test_a_claim_carries_everything_a_run_needs(world: World, tmp_path: Path) -> None:
    await world.hub.add_agent(
        AgentSpec(
            name="Reviewer",
            provider="claude",
            instructions="Be kind.",
            model="sonnet",
            thinking_level="high",
            custom_env={"API": "secret"},
            custom_args=["--verbose"],
            mcp_config={"mcpServers": {"x": {"command": "x"}}},
        )
    )
    added = await world.hub.add_task(
        NewTask(prompt="Look at this\nplease", agent="reviewer", directory=str(tmp_path), priority=3)
    )
    task = await world.claim("claude")
    assert task["id"] == added.id
    assert task["runtime_id"] == world.runtimes["claude"]
    assert task["workspace_id"] == world.hub.workspace_id
    assert task["agent_id"]
    assert len(task["auth_token"]) == 44
    assert task["auth_token"].startswith("mat_")
    assert task["kind"] == "chat"
    assert task["issue_id"] == ""
    assert task["status"] == "dispatched"
    assert task["priority"] == 3
    assert task["chat_session_id"] == added.conversation_id
    assert task["chat_message"] == "Look at this\nplease"
    assert task["thread_name"] == "Look at this"
    assert task["dispatched_at"].endswith("Z")
    assert "prior_session_id" not in task
    assert task["agent"] == {
        "id": task["agent_id"],
        "name": "Reviewer",
        "instructions": "Be kind.",
        "model": "sonnet",
        "thinking_level": "high",
        "custom_env": {"API": "secret"},
        "custom_args": ["--verbose"],
        "mcp_config": {"mcpServers": {"x": {"command": "x"}}},
    }
    assert task["project_resources"] == [
        {
            "id": added.conversation_id,
            "resource_type": "local_directory",
            "resource_ref": {"local_path": str(tmp_path), "daemon_id": DAEMON_ID},
        }
    ]
    assert (await world.hub.get(added.id)).status == "dispatched"  # type: ignore[union-attr]


async def test_nothing_to_claim_is_null(world: World) -> None:
    assert await world.post(f"/api/daemon/runtimes/{world.runtimes['shell']}/tasks/claim") == (
        200,
        {"task": None},
    )


async def test_a_claim_tells_whether_another_one_would_get_something(world: World) -> None:
    path = f"/api/daemon/runtimes/{world.runtimes['shell']}/tasks/claim"
    first = await world.hub.add_task(NewTask(prompt="one", provider="shell"))
    await world.hub.reply(first.id, "two")  # waits for the first
    await world.hub.add_task(NewTask(prompt="one more", provider="shell"))
    await world.hub.add_task(NewTask(prompt="elsewhere", provider="claude"))
    assert [(await world.post(path)).body.get("more") for _ in range(3)] == [True, False, None]


async def test_a_bodiless_claim_is_accepted(world: World) -> None:
    path = f"/api/daemon/runtimes/{world.runtimes['shell']}/tasks/claim"
    assert (await world.post(path, b"")).status == 200


async def test_an_unknown_runtime_is_gone_and_a_malformed_one_invalid(world: World) -> None:
    for verb in ("tasks/claim", "recover-orphans"):
        assert await world.post(f"/api/daemon/runtimes/{NOWHERE}/{verb}") == (
            404,
            {"error": "runtime not found"},
        )
        assert await world.post(f"/api/daemon/runtimes/nonsense/{verb}") == (
            400,
            {"error": "invalid runtime_id"},
        )


async def test_only_tasks_of_the_runtimes_own_provider_are_claimed(world: World) -> None:
    await world.hub.add_task(NewTask(prompt="x", provider="claude"))
    assert await world.claim("shell") is None
    assert (await world.claim("claude"))["chat_message"] == "x"


async def test_priority_comes_first_and_then_age(world: World) -> None:
    for name, priority in (("a", 0), ("b", 2), ("c", 4), ("d", 2)):
        await world.hub.add_task(NewTask(prompt=name, provider="shell", priority=priority))
    order = [(await world.claim())["chat_message"] for _ in range(4)]
    assert order == ["c", "b", "d", "a"]


async def test_of_one_conversation_one_turn_at_a_time_goes_and_in_order(world: World) -> None:
    first = await world.hub.add_task(NewTask(prompt="one", provider="shell"))
    await world.hub.reply(first.id, "two")
    third = await world.hub.reply(first.id, "three")
    assert (await world.claim())["chat_message"] == "one"
    assert await world.claim() is None
    assert (await world.hub.get(third.id)).waiting_reason == "conversation_busy"  # type: ignore[union-attr]
    await world.run(first.id)
    second = await world.claim()
    assert second["chat_message"] == "two"
    assert await world.claim() is None
    await world.task(second["id"], "fail", {"error": "no"})
    assert (await world.claim())["chat_message"] == "three"


async def test_an_agents_own_limit_holds(world: World) -> None:
    await world.hub.add_agent(AgentSpec(name="narrow", provider="shell", max_concurrent_tasks=2))
    tasks = [await world.hub.add_task(NewTask(prompt=str(n), agent="narrow")) for n in range(3)]
    assert [bool(await world.claim()) for _ in range(3)] == [True, True, False]
    assert (await world.hub.get(tasks[2].id)).waiting_reason == "agent_busy"  # type: ignore[union-attr]
    await world.hub.cancel(tasks[0].id)
    assert (await world.claim())["id"] == tasks[2].id


async def test_fifty_claims_at_once_get_twenty_tasks_once_each(world: World) -> None:
    added = [await world.hub.add_task(NewTask(prompt=str(n), provider="shell")) for n in range(20)]
    replies = [await world.hub.reply(task.id, "later") for task in added[:5]]
    got = await asyncio.gather(*(world.claim() for _ in range(50)))
    ids = [task["id"] for task in got if task is not None]
    assert sorted(ids) == sorted(task.id for task in added)
    assert len({task["auth_token"] for task in got if task}) == 20
    assert not set(ids) & {task.id for task in replies}


async def test_a_lost_claim_is_handed_out_again_after_ninety_seconds(world: World) -> None:
    added = await world.hub.add_task(NewTask(prompt="x", provider="shell"))
    first = await world.claim()
    world.hub.start_timers()
    world.clock.advance(89)
    assert await world.claim() is None
    world.clock.advance(1)
    again = await world.claim()
    assert again["id"] == added.id
    assert again["auth_token"] != first["auth_token"]
    # Both answers may have arrived: both tokens work.
    for token in (first["auth_token"], again["auth_token"]):
        assert (await world.get(f"/api/tasks/{added.id}/messages", token=token)).status == 200
    assert await world.claim() is None


async def test_a_lease_keeps_a_claim_from_being_handed_out_again(world: World) -> None:
    added = await world.hub.add_task(NewTask(prompt="x", provider="shell"))
    await world.claim()
    world.hub.start_timers()
    for _ in range(10):
        world.clock.advance(40)
        assert (await world.lease(added.id)).status == 200
        assert await world.claim() is None
    world.clock.advance(44)
    assert await world.claim() is None
    world.clock.advance(1)
    assert (await world.claim())["id"] == added.id


async def test_nothing_is_handed_out_again_before_the_daemon_has_taken_up_its_runs(world: World) -> None:
    added = await world.hub.add_task(NewTask(prompt="x", provider="shell"))
    await world.claim()
    world.clock.advance(1000)
    assert await world.claim() is None
    world.hub.start_timers()
    assert (await world.claim())["id"] == added.id


@pytest.mark.parametrize("verb", ["start", "wait-local-directory"])
async def test_a_started_or_waiting_task_is_never_handed_out_again(world: World, verb: str) -> None:
    added = await world.hub.add_task(NewTask(prompt="x", provider="shell"))
    await world.claim()
    world.hub.start_timers()
    assert (await world.task(added.id, verb, {"reason": "taken"})).status == 200
    world.clock.advance(100_000)
    await world.hub.sweep()
    assert await world.claim() is None


async def test_a_claim_lost_in_a_crash_goes_out_at_once_if_the_daemon_knows_nothing_of_it(
    world: World,
) -> None:
    lost = await world.hub.add_task(NewTask(prompt="lost", provider="shell"))
    kept = await world.hub.add_task(NewTask(prompt="kept", provider="shell"))
    await world.claim()
    await world.claim()
    world.clock.advance(1)
    await world.reopen()
    await world.register("shell")
    world.hub.start_timers(known_tasks=[kept.id])
    await world.hub.sweep()
    assert (await world.claim())["id"] == lost.id
    assert await world.claim() is None


async def test_a_lease_is_refused_for_what_is_not_being_prepared(world: World) -> None:
    added = await world.hub.add_task(NewTask(prompt="x", provider="shell"))
    assert (await world.lease(added.id)).status == 400
    await world.claim()
    assert (await world.lease(added.id)).body["id"] == added.id
    assert await world.lease(added.id, "claude") == (404, {"error": "task not found"})
    assert await world.lease(NOWHERE) == (404, {"error": "task not found"})
    await world.task(added.id, "wait-local-directory", {"reason": "taken"})
    assert (await world.lease(added.id)).status == 200
    await world.task(added.id, "start")
    assert (await world.lease(added.id)).status == 400


async def test_pending_lists_what_is_queued_and_dispatched(world: World) -> None:
    first = await world.hub.add_task(NewTask(prompt="a", provider="shell"))
    second = await world.hub.add_task(NewTask(prompt="b", provider="shell"))
    await world.claim()
    answer = await world.get(f"/api/daemon/runtimes/{world.runtimes['shell']}/tasks/pending")
    assert [(task["id"], task["status"]) for task in answer.body] == [
        (first.id, "dispatched"),
        (second.id, "queued"),
    ]
    assert "auth_token" not in answer.body[0]


async def test_a_task_without_a_runtime_waits_for_one(bare: World) -> None:
    added = await bare.hub.add_task(NewTask(prompt="x", provider="shell"))
    assert added.waiting_reason == "no_runtime"
    assert added.runtime_id is None
    await bare.register("shell")
    task = await bare.hub.get(added.id)
    assert task is not None
    assert task.waiting_reason is None
    assert (await bare.claim())["id"] == added.id


async def test_a_queued_task_of_an_absent_runtime_goes_to_another_of_its_provider(world: World) -> None:
    added = await world.hub.add_task(NewTask(prompt="x", provider="shell"))
    await world.post("/api/daemon/deregister", {"runtime_ids": [world.runtimes["shell"]]})
    assert (await world.hub.get(added.id)).waiting_reason == "runtime_offline"  # type: ignore[union-attr]
    await world.register("shell", daemon_id=NOWHERE)
    assert (await world.claim())["id"] == added.id


async def test_a_prompt_of_a_megabyte_arrives_whole(world: World) -> None:
    prompt = "ä" * 500_000 + "end"
    added = await world.hub.add_task(NewTask(prompt=prompt, provider="shell"))
    assert (await world.claim())["chat_message"] == prompt
    assert (await world.hub.get(added.id)).prompt == prompt  # type: ignore[union-attr]
    assert len((await world.hub.list())[0].prompt) == 4000


async def test_a_lost_claim_is_hinted_at_when_it_is_due(tmp_path: Path) -> None:
    world = World(tmp_path / "hub.db", limits=Limits(redelivery_s=0.05, lease_s=0.05))
    await world.open()
    try:
        await world.register("shell")
        world.hub.start_timers()
        runner = asyncio.create_task(world.hub.run())
        added = await world.hub.add_task(NewTask(prompt="x", provider="shell"))
        async with world.connect(world.runtimes["shell"]) as socket:
            await world.claim()
            world.clock.advance(0.06)
            hint = await socket.receive_json(timeout=5)
            assert hint["payload"] == {"runtime_id": world.runtimes["shell"], "task_id": added.id}
        runner.cancel()
    finally:
        await world.close()


async def test_taking_stock_fails_what_runs_by_the_record_alone(world: World) -> None:
    tasks = []
    for prompt in ("known", "lost", "waiting", "claimed"):
        tasks.append(await world.hub.add_task(NewTask(prompt=prompt, provider="shell")))
        await world.claim()
    known, lost, waiting, claimed = (task.id for task in tasks)
    for task_id in (known, lost):
        await world.task(task_id, "start")
    await world.task(waiting, "wait-local-directory", {"reason": "taken"})
    queued = await world.hub.add_task(NewTask(prompt="queued", provider="shell"))
    assert await world.hub.take_stock([known]) == 2
    states = [await world.status(each) for each in (known, lost, waiting, claimed, queued.id)]
    assert states == ["running", "failed", "failed", "dispatched", "queued"]
    for task_id in (lost, waiting):
        task = await world.hub.get(task_id)
        assert task is not None
        assert task.failure_reason == "runtime_recovery"
        assert task.retried_as is not None
    assert await world.hub.take_stock([known]) == 0
