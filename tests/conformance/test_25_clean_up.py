"""Section 25: what a daemon asks before it takes a directory away."""

from __future__ import annotations

from datetime import datetime

import pytest

from tests.conformance.target import NOWHERE, Scene, Target, section

pytestmark = section("25", "Garbage collection")


@pytest.mark.parametrize("what", ["issues", "chat-sessions", "autopilot-runs", "tasks"])
async def test_what_is_not_there_is_404(target: Target, what: str) -> None:
    answer = await target.get(f"/api/daemon/{what}/{NOWHERE}/gc-check")
    assert answer.status == 404
    assert answer.error


async def test_an_issue(scene: Scene) -> None:
    issue = await scene.issue()
    path = f"/api/daemon/issues/{issue['id']}/gc-check"
    body = (await scene.target.get(path)).ok()
    assert body["status"] == "todo"
    before = datetime.fromisoformat(body["updated_at"])
    (await scene.target.put(f"/api/issues/{issue['id']}", {"status": "done"})).ok()
    body = (await scene.target.get(path)).ok()
    assert body["status"] == "done"
    assert datetime.fromisoformat(body["updated_at"]) >= before


async def test_a_chat(scene: Scene) -> None:
    session_id, _task = await scene.chat(await scene.agent(await scene.runtime()), "Hello.")
    path = f"/api/daemon/chat-sessions/{session_id}/gc-check"
    body = (await scene.target.get(path)).ok()
    assert body["status"] == "active"
    assert datetime.fromisoformat(body["updated_at"]).tzinfo is not None
    (await scene.target.patch(f"/api/chat/sessions/{session_id}", {"status": "archived"})).ok()
    assert (await scene.target.get(path)).ok()["status"] == "archived"
    (await scene.target.delete(f"/api/chat/sessions/{session_id}")).ok(200, 204)
    assert (await scene.target.get(path)).status == 404


@pytest.mark.parametrize("end", ["completed", "failed"])
async def test_a_run_of_an_autopilot(scene: Scene, end: str) -> None:
    runtime_id = await scene.runtime()
    agent_id = await scene.agent(runtime_id)
    body = {"title": scene.name("autopilot"), "assignee_id": agent_id, "execution_mode": "run_only"}
    autopilot = (await scene.target.post("/api/autopilots", body)).ok(200, 201)
    run = (await scene.target.post(f"/api/autopilots/{autopilot['id']}/trigger")).ok(200, 201, 202)
    path = f"/api/daemon/autopilot-runs/{run['id']}/gc-check"
    body = (await scene.target.get(path)).ok()
    assert body["completed_at"] == "0001-01-01T00:00:00Z"
    task = f"/api/daemon/tasks/{(await scene.claim(runtime_id))['id']}"
    (await scene.target.post(task + "/start")).ok()
    if end == "completed":
        (await scene.target.post(task + "/complete", {"output": "x"})).ok()
    else:
        (await scene.target.post(task + "/fail", {"error": "x", "failure_reason": "timeout"})).ok()
    body = (await scene.target.get(path)).ok()
    assert body["status"] == end
    assert datetime.fromisoformat(body["completed_at"]).year > 2000


async def test_a_task(scene: Scene) -> None:
    work = await scene.running()
    path = f"/api/daemon/tasks/{work.id}/gc-check"
    body = (await scene.target.get(path)).ok()
    assert body == {"status": "running", "completed_at": "0001-01-01T00:00:00Z"}
    (await work.post("complete", {"output": "x"})).ok()
    body = (await scene.target.get(path)).ok()
    assert body["status"] == "completed"
    assert datetime.fromisoformat(body["completed_at"]).year > 2000
