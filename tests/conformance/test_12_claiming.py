"""Section 12: which task a claim gets, and when it gets it again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.conformance.target import NOWHERE, Scene, section

pytestmark = section("12", "Polling and claiming")


async def finish(scene: Scene, task: Any) -> None:
    path = f"/api/daemon/tasks/{task['id']}"
    (await scene.target.post(path + "/start")).ok()
    (await scene.target.post(path + "/complete", {"output": "done"})).ok()


async def test_nothing_to_do_is_null(scene: Scene) -> None:
    runtime_id = await scene.runtime()
    path = f"/api/daemon/runtimes/{runtime_id}/tasks/claim"
    assert (await scene.target.post(path)).ok() == {"task": None}
    assert (await scene.target.post(path, b"")).ok() == {"task": None}, "a body that is empty will do"


async def test_a_runtime_that_is_not_there(scene: Scene) -> None:
    answer = await scene.target.post(f"/api/daemon/runtimes/{NOWHERE}/tasks/claim")
    assert answer.refused(404, "runtime not found")


async def test_a_claimed_task_is_dispatched_and_not_claimed_twice(scene: Scene) -> None:
    work = await scene.claimed()
    assert work.task["status"] == "dispatched"
    assert work.task["dispatched_at"]
    assert await work.status() == "dispatched"
    assert await scene.claim(work.runtime_id) is None


async def test_a_task_is_handed_to_one_of_many_who_ask_at_once(scene: Scene) -> None:
    runtime_id = await scene.runtime()
    agent_id = await scene.agent(runtime_id)
    for _ in range(3):
        await scene.issue(agent_id)
    answers = await asyncio.gather(*[scene.claim(runtime_id) for _ in range(12)])
    found = [each["id"] for each in answers if each is not None]
    assert len(found) == len(set(found)) == 3


async def test_another_runtimes_tasks_are_not_handed_out(scene: Scene) -> None:
    mine, other = [each["id"] for each in (await scene.register("claude", "codex"))["runtimes"]]
    await scene.issue(await scene.agent(other))
    assert await scene.claim(mine) is None
    assert await scene.claim(other) is not None


async def test_priority_then_age(scene: Scene) -> None:
    runtime_id = await scene.runtime()
    agent_id = await scene.agent(runtime_id)
    order = ["none", "medium", "urgent", "low", "high", "medium"]
    made = [await scene.issue(agent_id, priority=priority) for priority in order]
    expected = [made[2], made[4], made[1], made[5], made[3], made[0]]
    tasks = [await scene.claim(runtime_id) for _ in order]
    assert [task["issue_id"] for task in tasks] == [issue["id"] for issue in expected]
    assert [task["priority"] for task in tasks] == [4, 3, 2, 2, 1, 0]


async def test_an_agents_own_limit(scene: Scene) -> None:
    runtime_id = await scene.runtime()
    agent_id = await scene.agent(runtime_id, max_concurrent_tasks=2)
    for _ in range(3):
        await scene.issue(agent_id)
    first, second = await scene.claim(runtime_id), await scene.claim(runtime_id)
    assert first is not None
    assert second is not None
    assert await scene.claim(runtime_id) is None
    await finish(scene, first)
    assert await scene.claim(runtime_id) is not None


async def test_an_agent_does_six_at_once_unless_told_otherwise(scene: Scene) -> None:
    runtime_id = await scene.runtime()
    agent_id = await scene.agent(runtime_id)
    for _ in range(7):
        await scene.issue(agent_id)
    found = [await scene.claim(runtime_id) for _ in range(7)]
    assert [task is not None for task in found] == [True] * 6 + [False]


async def test_one_task_of_an_agent_on_an_issue_at_a_time(scene: Scene) -> None:
    work = await scene.running()
    await scene.comment(work.issue["id"], "And this, too.")
    assert await scene.claim(work.runtime_id) is None
    (await work.post("complete", {"output": "done"})).ok()
    task = await scene.claim(work.runtime_id)
    assert (task["issue_id"], task["kind"]) == (work.issue["id"], "comment")


async def test_two_agents_may_work_on_one_issue(scene: Scene) -> None:
    work = await scene.running()
    other = await scene.agent(work.runtime_id)
    await scene.comment(work.issue["id"], f"[@Other](mention://agent/{other}) what do you say?")
    task = await scene.claim(work.runtime_id)
    assert (task["agent_id"], task["issue_id"]) == (other, work.issue["id"])


async def test_one_turn_of_a_chat_at_a_time(scene: Scene) -> None:
    runtime_id = await scene.runtime()
    session_id, first = await scene.chat(await scene.agent(runtime_id), "One.")
    task = await scene.claim(runtime_id)
    assert task["id"] == first
    await scene.chat("", "Two.", session_id)
    assert await scene.claim(runtime_id) is None
    await finish(scene, task)
    assert (await scene.claim(runtime_id))["chat_message"].endswith("Two.")


async def test_one_creation_of_an_issue_of_an_agent_at_a_time(scene: Scene) -> None:
    runtime_id = await scene.runtime()
    agent_id = await scene.agent(runtime_id)
    for number in range(2):
        body = {"agent_id": agent_id, "prompt": f"Number {number}."}
        (await scene.target.post("/api/issues/quick-create", body)).ok(200, 202)
    first = await scene.claim(runtime_id)
    assert first["quick_create_prompt"] == "Number 0."
    assert await scene.claim(runtime_id) is None
    await finish(scene, first)
    assert (await scene.claim(runtime_id))["quick_create_prompt"] == "Number 1."


async def test_runs_of_autopilots_are_not_serialised(scene: Scene) -> None:
    runtime_id = await scene.runtime()
    autopilot = await an_autopilot(scene, await scene.agent(runtime_id))
    for _ in range(2):
        (await scene.target.post(f"/api/autopilots/{autopilot}/trigger")).ok(200, 201, 202)
    found = [await scene.claim(runtime_id) for _ in range(2)]
    assert all(task is not None and task["autopilot_id"] == autopilot for task in found)


async def an_autopilot(scene: Scene, agent_id: str, **more: Any) -> str:
    body = {"title": scene.name("autopilot"), "assignee_id": agent_id, "execution_mode": "run_only", **more}
    return str((await scene.target.post("/api/autopilots", body)).ok(200, 201)["id"])


async def test_what_is_pending(scene: Scene) -> None:
    runtime_id = await scene.runtime()
    agent_id = await scene.agent(runtime_id)
    first, second = await scene.issue(agent_id), await scene.issue(agent_id)
    await scene.claim(runtime_id)
    listed = (await scene.target.get(f"/api/daemon/runtimes/{runtime_id}/tasks/pending")).ok()
    assert {(each["issue_id"], each["status"]) for each in listed} == {
        (first["id"], "dispatched"),
        (second["id"], "queued"),
    }
    assert not any(each.get("auth_token") for each in listed)


# --- lost claims ------------------------------------------------------------------------------------------


@section("31", "Easy to get wrong")
async def test_a_claim_that_was_lost_is_handed_out_again_after_90_s(scene: Scene) -> None:
    work = await scene.claimed()
    await scene.target.pass_time(85)
    assert await scene.claim(work.runtime_id) is None
    await scene.target.pass_time(6)
    again = await scene.claim(work.runtime_id)
    assert again["id"] == work.id
    assert again["attempt"] == work.task["attempt"]
    assert again["auth_token"].startswith("mat_")
    assert await scene.claim(work.runtime_id) is None


async def test_a_lost_claim_goes_before_new_work(scene: Scene) -> None:
    work = await scene.claimed()
    await scene.issue(work.agent_id, priority="urgent")
    await scene.target.pass_time(95)
    assert (await scene.claim(work.runtime_id))["id"] == work.id


@section("31", "Easy to get wrong")
async def test_a_lease_keeps_a_claim_from_being_handed_out_again(scene: Scene) -> None:
    work = await scene.claimed()
    for _ in range(4):
        await scene.target.pass_time(30)
        (await work.of_runtime("prepare-lease")).ok()
    assert await scene.claim(work.runtime_id) is None
    await scene.target.pass_time(46)
    assert (await scene.claim(work.runtime_id))["id"] == work.id


@pytest.mark.parametrize("how", ["running", "waiting"])
async def test_what_goes_on_is_not_handed_out_again(scene: Scene, how: str) -> None:
    work = await scene.claimed()
    if how == "running":
        (await work.post("start")).ok()
    else:
        (await work.post("wait-local-directory", {"reason": "held"})).ok()
    await scene.target.pass_time(120)
    await scene.target.post("/api/daemon/heartbeat", {"runtime_id": work.runtime_id})
    assert await scene.claim(work.runtime_id) is None
