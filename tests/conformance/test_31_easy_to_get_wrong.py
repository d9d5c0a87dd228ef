"""Section 31: the points of it that a server can show and that no other module has, each by its number."""

from __future__ import annotations

import asyncio

from tests.conformance.target import NOWHERE, Scene, section

pytestmark = section("31", "Easy to get wrong")


async def test_1_new_work_is_hinted_at_long_before_a_poll(scene: Scene) -> None:
    runtime_id = await scene.runtime()
    agent_id = await scene.agent(runtime_id)
    async with scene.target.link(runtime_id) as link:
        async with asyncio.timeout(5):
            await scene.issue(agent_id)
            await link.next("daemon:task_available")


async def test_2_only_what_is_absent_is_gone(scene: Scene) -> None:
    """A route that is not there, and what is no id, say nothing that a daemon would take for a loss."""
    runtime_id = await scene.runtime()
    for path in (f"/api/daemon/runtimes/{runtime_id}/nothing", "/api/daemon/nothing"):
        answer = await scene.target.post(path)
        assert answer.status in (404, 405)
        text = str(answer.body).lower()
        for phrase in ("runtime not found", "task not found", "workspace not found"):
            assert phrase not in text
    gone = await scene.target.post(f"/api/daemon/runtimes/{NOWHERE}/tasks/claim")
    assert gone.refused(404, "runtime not found")


async def test_6_task_tokens_and_daemon_tokens_do_not_mix(scene: Scene) -> None:
    work = await scene.claimed()
    beat = await scene.target.post("/api/daemon/heartbeat", {"runtime_id": work.runtime_id}, token=work.token)
    assert beat.status == 401
    status = await scene.target.get(f"/api/daemon/tasks/{work.id}/status", token=work.token)
    assert status.status == 401
    if scene.target.mint_daemon_token is not None:
        token = await scene.target.daemon_token(scene.daemon_id)
        assert (await scene.target.get("/api/workspaces", token=token)).status == 401
        assert (await scene.target.get(f"/api/issues/{work.issue['id']}", token=token)).status == 401


async def test_7_a_bad_token_ends_in_a_failure_after_the_start(scene: Scene) -> None:
    work = await scene.running()
    body = (await work.post("fail", {"error": "task token is malformed"})).ok()
    assert body["status"] == "failed"
    assert await scene.claim(work.runtime_id) is None, "it is not handed out again"


async def test_8_a_task_may_come_twice_with_tokens_that_both_work(scene: Scene) -> None:
    work = await scene.claimed()
    await scene.target.pass_time(95)
    again = await scene.claim(work.runtime_id)
    assert again["id"] == work.id
    path = f"/api/issues/{work.issue['id']}"
    for token in (work.token, again["auth_token"]):
        assert (await scene.target.get(path, token=token)).status == 200
    (await work.post("start")).ok()
    assert (await work.post("start")).status == 400, "who starts second is told"


async def test_9_a_registration_ends_no_task_by_itself(scene: Scene) -> None:
    work = await scene.running()
    await scene.register("claude", cli_version="0.6.0")
    assert await work.status() == "running"


async def test_10_usage_is_taken_for_a_cancelled_task(scene: Scene) -> None:
    work = await scene.running()
    (await work.cancel()).ok()
    usage = {"provider": "claude", "model": "m", "input_tokens": 1, "output_tokens": 1}
    assert (await work.post("usage", {"usage": [usage]})).ok() == {"status": "ok"}


async def test_14_refusals_are_json(scene: Scene) -> None:
    answers = [
        await scene.target.get("/api/workspaces", token=""),
        await scene.target.post("/api/daemon/heartbeat", {}),
        await scene.target.post(f"/api/daemon/tasks/{NOWHERE}/start"),
        await scene.target.get(f"/api/issues/{NOWHERE}"),
    ]
    for answer in answers:
        assert answer.status >= 400
        assert answer.error


async def test_15_a_session_comes_with_the_runtime_that_made_it(scene: Scene) -> None:
    work = await scene.running()
    body = {"error": "lost", "failure_reason": "runtime_recovery", "session_id": "s", "work_dir": "/w"}
    (await work.post("fail", body)).ok()
    again = await scene.claim(work.runtime_id)
    assert again["runtime_id"] == work.runtime_id
    assert (again["prior_session_id"], again["prior_work_dir"]) == ("s", "/w")
