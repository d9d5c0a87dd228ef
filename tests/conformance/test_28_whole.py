"""Sections 28 to 30: a daemon's whole life, what a server puts up with, and what later servers add."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.target import NOWHERE, Scene, Target, cannot, section

TOLERANT = section("29", "Tolerances")
LATER = section("30", "What HEAD changes for a baseline-style daemon")


@section("28", "Minimum server")
async def test_a_daemons_whole_life(scene: Scene, target: Target) -> None:
    renewed = (await target.post("/api/tokens/current/renew")).ok()
    assert set(renewed) >= {"expires_at", "renewed"}
    assert target.workspace_id in {each["id"] for each in (await target.get("/api/workspaces")).ok()}
    runtime_id = await scene.runtime()
    workspace = f"/api/daemon/workspaces/{target.workspace_id}"
    assert (await target.get(f"{workspace}/repos")).ok()["workspace_id"] == target.workspace_id
    assert (await target.get(f"{workspace}/runtime-profiles")).status in (200, 404)
    runtime = f"/api/daemon/runtimes/{runtime_id}"
    recovered = (await target.post(f"{runtime}/recover-orphans")).ok()
    assert recovered == {"orphaned": 0, "retried": 0}
    assert (await target.post("/api/daemon/heartbeat", {"runtime_id": runtime_id})).ok()["status"] == "ok"
    agent_id = await scene.agent(runtime_id)
    issue = await scene.issue(agent_id)
    task = await scene.claim(runtime_id)
    for name in ("id", "agent_id", "runtime_id", "workspace_id", "auth_token"):
        assert task[name]
    assert task["auth_token"].startswith("mat_")
    assert task["agent"]["id"] == agent_id
    path = f"/api/daemon/tasks/{task['id']}"
    (await target.post(f"{runtime}/tasks/{task['id']}/prepare-lease")).ok()
    (await target.post(path + "/start")).ok()
    (await target.post(path + "/progress", {"summary": "Launching", "step": 1, "total": 2})).ok()
    said = {"messages": [{"seq": 1, "type": "text", "content": "Hi."}]}
    (await target.post(path + "/messages", said)).ok()
    assert (await target.post(path + "/session", {"session_id": "s"})).status == 204
    mine = {"token": task["auth_token"]}
    (await target.put(f"/api/issues/{issue['id']}", {"status": "in_progress"}, **mine)).ok()
    comments = f"/api/issues/{issue['id']}/comments"
    (await target.post(comments, {"content": "I am done."}, **mine)).ok(200, 201)
    (await target.put(f"/api/issues/{issue['id']}/metadata/pr", {"value": 1}, **mine)).ok()
    (await target.put(f"/api/issues/{issue['id']}", {"status": "in_review"}, **mine)).ok()
    usage = {"provider": "claude", "model": "m", "input_tokens": 1, "output_tokens": 1}
    (await target.post(path + "/usage", {"usage": [usage]})).ok()
    (await target.post(path + "/progress", {"summary": "Finishing", "step": 2, "total": 2})).ok()
    assert (await target.get(path + "/status")).ok() == {"status": "running"}
    body = {"output": "All done.", "branch_name": "", "session_id": "s", "work_dir": "/w"}
    assert (await target.post(path + "/complete", body)).ok()["status"] == "completed"
    assert (await target.get(f"/api/daemon/tasks/{task['id']}/gc-check")).ok()["status"] == "completed"
    assert (await target.get(f"/api/issues/{issue['id']}")).ok()["status"] == "in_review"
    assert (await target.get(comments, **mine)).status == 401
    assert await scene.claim(runtime_id) is None
    (await target.post("/api/daemon/deregister", {"runtime_ids": [runtime_id]})).ok()


# --- what a server has to put up with ---------------------------------------------------------------------


@TOLERANT
async def test_members_that_are_not_known_are_passed_over(scene: Scene) -> None:
    runtime_id = await scene.runtime(something_new={"a": [1]})
    body = {"runtime_id": runtime_id, "something_new": True}
    assert (await scene.target.post("/api/daemon/heartbeat", body)).status == 200
    await scene.issue(await scene.agent(runtime_id), something_new=1)
    task = await scene.claim(runtime_id)
    path = f"/api/daemon/tasks/{task['id']}"
    (await scene.target.post(path + "/start", {"x": 1})).ok()
    for verb, told in (
        ("progress", {"summary": "x"}),
        ("messages", {"messages": [{"seq": 1, "type": "text", "content": "x"}]}),
        ("session", {"session_id": "s"}),
        ("usage", {"usage": [{"provider": "p", "model": "m", "input_tokens": 1}]}),
        ("complete", {"output": "x"}),
    ):
        assert (await scene.target.post(f"{path}/{verb}", {**told, "something_new": [1]})).status < 300


@TOLERANT
@pytest.mark.parametrize("nothing", [None, []])
async def test_null_is_an_empty_list(scene: Scene, nothing: Any) -> None:
    body = await scene.register("claude", failed_profiles=nothing, legacy_daemon_ids=nothing)
    assert len(body["runtimes"]) == 1


@TOLERANT
async def test_what_may_be_left_out_of_a_registration(scene: Scene) -> None:
    body = {
        "workspace_id": scene.target.workspace_id,
        "daemon_id": scene.daemon_id,
        "runtimes": [{"name": "Claude", "type": "claude"}],
    }
    (runtime,) = (await scene.target.post("/api/daemon/register", body)).ok()["runtimes"]
    scene.registered.append(runtime["id"])
    assert runtime["status"] == "online"


@TOLERANT
@pytest.mark.parametrize("verb", ["start", "prepare-lease", "recover-orphans"])
@pytest.mark.parametrize("body", [b"", b"{}"])
async def test_a_body_that_says_nothing_may_be_empty(scene: Scene, verb: str, body: bytes) -> None:
    work = await scene.claimed()
    if verb == "start":
        answer = await work.post("start", body)
    elif verb == "prepare-lease":
        answer = await work.of_runtime("prepare-lease", body)
    else:
        answer = await scene.target.post(f"/api/daemon/runtimes/{work.runtime_id}/recover-orphans", body)
    assert answer.status == 200


@TOLERANT
async def test_members_that_are_null_count_as_left_out(scene: Scene) -> None:
    work = await scene.running()
    body = {"output": "x", "branch_name": None, "session_id": None, "work_dir": None}
    assert (await work.post("complete", body)).ok()["status"] == "completed"
    other = await scene.claimed(provider="codex")
    body = {"error": "x", "session_id": None, "work_dir": None, "failure_reason": None}
    assert (await other.post("fail", body)).ok()["failure_reason"] == "agent_error.unknown"


@TOLERANT
async def test_a_client_may_leave_out_its_headers(scene: Scene, target: Target) -> None:
    runtime_id = await scene.runtime()
    headers = {"Authorization": f"Bearer {target.token}"}
    address = f"{target.url}/api/daemon/runtimes/{runtime_id}/tasks/claim"
    async with target.http.post(address, headers=headers) as response:
        assert (response.status, await response.json()) == (200, {"task": None})


# --- what later servers add -------------------------------------------------------------------------------


@LATER
async def test_workspaces_for_daemons_with_a_tag(target: Target) -> None:
    answer = await target.get("/api/daemon/workspaces")
    if answer.status == 404:
        cannot("list workspaces on a daemon route")
    assert target.workspace_id in {each["id"] for each in answer.ok()}
    tag = answer.headers["ETag"]
    assert tag.startswith('W/"')
    same = await target.get("/api/daemon/workspaces", headers={"If-None-Match": tag})
    assert (same.status, same.body) == (304, None)
    other = await target.get("/api/daemon/workspaces", headers={"If-None-Match": 'W/"other"'})
    assert other.status == 200


@LATER
async def test_workspaces_for_a_daemons_own_token(scene: Scene, target: Target) -> None:
    token = await target.daemon_token(scene.daemon_id)
    listed = (await target.get("/api/daemon/workspaces", token=token)).ok()
    assert [each["id"] for each in listed] == [target.workspace_id]


@LATER
async def test_a_change_of_the_workspace_is_hinted_at(scene: Scene, target: Target) -> None:
    runtime_id = await scene.runtime()
    if (await target.get("/api/daemon/workspaces")).status == 404:
        cannot("hint at changes of workspaces")
    async with target.link(runtime_id) as link:
        (await target.patch(f"/api/workspaces/{target.workspace_id}", {"settings": {}})).ok()
        assert await link.next("daemon:workspaces_changed") == {}


@LATER
async def test_a_request_to_a_runtime_is_hinted_at(scene: Scene, target: Target) -> None:
    runtime_id = await scene.runtime()
    if (await target.get("/api/daemon/workspaces")).status == 404:
        cannot("hint at requests")
    async with target.link(runtime_id) as link:
        (await target.post(f"/api/runtimes/{runtime_id}/models")).ok(200, 201, 202)
        assert (await link.next("daemon:pending_work"))["runtime_id"] == runtime_id


@LATER
@pytest.mark.parametrize("path", ["/api/daemon/tasks/claim", "/api/daemon/claim"])
class TestBatches:
    """Claims of several runtimes at once."""

    async def claim(self, scene: Scene, path: str, **body: Any) -> Any:
        answer = await scene.target.post(path, {"daemon_id": scene.daemon_id, **body})
        if answer.status == 404:
            cannot("claim in batches")
        return answer.ok()["tasks"]

    async def test_tasks_of_several_runtimes(self, scene: Scene, path: str) -> None:
        ids = [each["id"] for each in (await scene.register("claude", "codex"))["runtimes"]]
        for runtime_id in ids:
            agent_id = await scene.agent(runtime_id)
            for _ in range(2):
                await scene.issue(agent_id)
        found = await self.claim(scene, path, runtime_ids=ids, max_tasks=3)
        assert len(found) == 3
        assert all(task["auth_token"].startswith("mat_") for task in found)
        rest = await self.claim(scene, path, runtime_ids=ids, max_tasks=10)
        assert len({task["id"] for task in [*found, *rest]}) == 4

    async def test_strange_runtimes_are_passed_over(self, scene: Scene, path: str) -> None:
        runtime_id = await scene.runtime()
        mine, scene.daemon_id = scene.daemon_id, f"another-{scene.mark}"
        other = await scene.runtime()
        await scene.issue(await scene.agent(other))
        scene.daemon_id = mine
        asked = [other, NOWHERE, "not an id", runtime_id]
        assert await self.claim(scene, path, runtime_ids=asked, max_tasks=5) == []

    async def test_none_are_wanted(self, scene: Scene, path: str) -> None:
        runtime_id = await scene.runtime()
        await scene.issue(await scene.agent(runtime_id))
        assert await self.claim(scene, path, runtime_ids=[runtime_id], max_tasks=0) == []
        assert await self.claim(scene, path, runtime_ids=[], max_tasks=5) == []

    async def test_what_is_refused(self, scene: Scene, path: str) -> None:
        await self.claim(scene, path, runtime_ids=[], max_tasks=0)
        negative = {"daemon_id": scene.daemon_id, "runtime_ids": [], "max_tasks": -1}
        assert (await scene.target.post(path, negative)).status == 400
        assert (await scene.target.post(path, {"runtime_ids": [], "max_tasks": 1})).status == 400
        if scene.target.mint_daemon_token is not None:
            token = await scene.target.daemon_token("another daemon")
            body = {"daemon_id": scene.daemon_id, "runtime_ids": [], "max_tasks": 1}
            assert (await scene.target.post(path, body, token=token)).status == 403


@LATER
async def test_a_cancel_is_acknowledged(scene: Scene) -> None:
    work = await scene.running()
    (await work.cancel()).ok()
    answer = await work.post("cancel-ack", {"branch_name": "agent/x", "durable_work_dir": "/w"})
    if answer.status == 404:
        cannot("take the acknowledgement of a cancel")
    assert answer.ok() == {"status": "ok"}
    assert await work.status() == "cancelled"


@LATER
async def test_an_acknowledgement_of_what_was_not_cancelled_changes_nothing(scene: Scene) -> None:
    work = await scene.running()
    answer = await work.post("cancel-ack", {"branch_name": "agent/x", "failure_reason": "x"})
    if answer.status == 404:
        cannot("take the acknowledgement of a cancel")
    assert answer.ok() == {"status": "ok"}
    assert await work.status() == "running"


@LATER
async def test_many_issues_are_checked_at_once(scene: Scene) -> None:
    issue = await scene.issue()
    path = f"/api/daemon/workspaces/{scene.target.workspace_id}/issues/gc-check"
    answer = await scene.target.post(path, {"issue_ids": [issue["id"], NOWHERE]})
    if answer.status == 404:
        cannot("check many issues at once")
    found = {each["id"]: each for each in answer.ok()["issues"]}
    assert found[issue["id"]]["found"] is True
    assert found[issue["id"]]["status"] == "todo"
    assert found[issue["id"]]["updated_at"]
    assert found[NOWHERE]["found"] is False
    many = [f"00000000-0000-4000-8000-{number:012d}" for number in range(501)]
    assert (await scene.target.post(path, {"issue_ids": many})).status in (400, 413)
    assert len((await scene.target.post(path, {"issue_ids": many[:500]})).ok()["issues"]) == 500


@LATER
async def test_what_later_daemons_tell_is_taken(scene: Scene) -> None:
    work = await scene.running()
    usage = {"provider": "p", "model": "m", "input_tokens": 1, "cost_usd_ticks": 12345}
    (await work.post("usage", {"usage": [usage]})).ok()
    body = {
        "output": "x",
        "durable_work_dir": "/w",
        "branch_name": "agent/x",
        "session_rollout_missing": True,
        "retired_session_id": "s",
    }
    assert (await work.post("complete", body)).ok()["status"] == "completed"
    told = {work.runtime_id: {"code": "stopped", "detail": "x", "repair": ""}}
    body = {"runtime_ids": [work.runtime_id], "offline_reasons": told}
    (await scene.target.post("/api/daemon/deregister", body)).ok()


@LATER
async def test_a_model_that_could_not_be_reached_is_tried_three_times(scene: Scene) -> None:
    work = await scene.running()
    failure = {"error": "connection refused", "failure_reason": "agent_error.provider_network"}
    (await work.post("fail", failure)).ok()
    task = await scene.claim(work.runtime_id)
    if task is None:
        cannot("try again what failed for want of a network")
    assert (task["attempt"], task["parent_task_id"]) == (2, work.id)
    (await scene.target.post(f"/api/daemon/tasks/{task['id']}/fail", failure)).ok()
    assert await scene.claim(work.runtime_id) is None, "a network that comes back needs a moment"
    await scene.target.pass_time(6)
    task = await scene.claim(work.runtime_id)
    assert task["attempt"] == 3
    (await scene.target.post(f"/api/daemon/tasks/{task['id']}/fail", failure)).ok()
    await scene.target.pass_time(60)
    assert await scene.claim(work.runtime_id) is None


@LATER
async def test_skills_that_could_not_be_had_are_asked_for_again(scene: Scene) -> None:
    work = await scene.claimed()
    (await work.post("fail", {"error": "x", "failure_reason": "skill_bundle_unavailable"})).ok()
    task = await scene.claim(work.runtime_id)
    if task is None:
        cannot("try again where skills could not be had")
    assert task["attempt"] == 2


@LATER
async def test_what_was_chosen_beside_a_request_goes_with_it(scene: Scene) -> None:
    runtime_id = await scene.runtime()
    agent_id = await scene.agent(runtime_id)
    body = {"agent_id": agent_id, "prompt": "The door squeaks.", "priority": "high", "due_date": "2031-02-28"}
    (await scene.target.post("/api/issues/quick-create", body)).ok(200, 202)
    task = await scene.claim(runtime_id)
    assert (task["quick_create_priority"], task["quick_create_due_date"]) == ("high", "2031-02-28")


@LATER
@pytest.mark.parametrize("capabilities", ["", "skill-bundles-v1", "skill-bundles-v1, something-new-v9, ,"])
async def test_any_capabilities_may_be_told(scene: Scene, capabilities: str) -> None:
    runtime_id = await scene.runtime()
    await scene.issue(await scene.agent(runtime_id))
    assert await scene.claim(runtime_id, X_Client_Capabilities=capabilities) is not None
