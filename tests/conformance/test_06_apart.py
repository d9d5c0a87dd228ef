"""Sections 2 and 6: workspaces come and go, and what is in one is not found from another."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.conformance.target import NOWHERE, Scene, Target, Work, cannot, section

pytestmark = section("6", "Workspaces: list, repos, settings")
ACCESS = section("2", "Authentication and token renewal")


async def make(target: Target, mark: str) -> Any:
    answer = await target.post("/api/workspaces", {"name": f"Apart {mark}", "slug": f"apart-{mark}"})
    if answer.status not in (200, 201):
        cannot(f"create a workspace ({answer.status})")
    return answer.body


async def leave(target: Target, workspace_id: str) -> None:
    answer = await target.delete(f"/api/workspaces/{workspace_id}")
    if answer.status not in (200, 204, 404):
        cannot(f"delete a workspace ({answer.status})")


@pytest.fixture
async def apart(target: Target, scene: Scene) -> AsyncIterator[Scene]:
    """A scene in a workspace of its own, with the daemon of ``scene``."""
    made = await make(target, scene.mark)
    other = Scene(target.within(made["id"]))
    other.daemon_id = scene.daemon_id
    yield other
    await other.close()
    await target.delete(f"/api/workspaces/{made['id']}")


async def ids(target: Target, path: str = "/api/workspaces") -> set[str]:
    return {each["id"] for each in (await target.get(path)).ok()}


async def test_a_workspace_that_is_joined_is_listed(target: Target, scene: Scene) -> None:
    made = await make(target, scene.mark)
    assert made["id"] in await ids(target)
    body = (await target.get(f"/api/daemon/workspaces/{made['id']}/repos")).ok()
    assert (body["workspace_id"], body["repos"] or []) == (made["id"], [])
    assert not body["settings"]
    await leave(target, made["id"])


async def test_a_workspace_that_is_left_is_gone_with_its_runtimes_and_tasks(
    target: Target, apart: Scene
) -> None:
    work = await apart.running()
    await leave(target, apart.target.workspace_id)
    assert apart.target.workspace_id not in await ids(target)
    body = apart.registration("claude")
    assert (await target.post("/api/daemon/register", body)).refused(404, "workspace not found")
    answer = await target.get(f"/api/daemon/workspaces/{apart.target.workspace_id}/repos")
    assert answer.status == 404
    beat = await target.post("/api/daemon/heartbeat", {"runtime_id": work.runtime_id})
    assert beat.refused(404, "runtime not found")
    status = await target.get(f"/api/daemon/tasks/{work.id}/status")
    assert status.refused(404, "task not found")
    apart.registered.clear()


async def test_a_daemon_is_told_that_there_is_another(target: Target, scene: Scene) -> None:
    runtime_id = await scene.runtime()
    if (await target.get("/api/daemon/workspaces")).status == 404:
        cannot("hint at changes of workspaces")
    async with target.link(runtime_id) as link:
        made = await make(target, scene.mark)
        assert await link.next("daemon:workspaces_changed") == {}
    await leave(target, made["id"])


async def test_one_daemon_has_runtimes_of_its_own_in_each(scene: Scene, apart: Scene) -> None:
    here, there = await scene.runtime(), await apart.runtime()
    assert here != there
    issue = await apart.issue(await apart.agent(there))
    assert await scene.claim(here) is None
    task = await apart.claim(there)
    assert (task["issue_id"], task["workspace_id"]) == (issue["id"], apart.target.workspace_id)


async def test_settings_and_repositories_are_each_ones_own(scene: Scene, apart: Scene) -> None:
    path = f"/api/workspaces/{apart.target.workspace_id}"
    body = {"repos": [{"url": "https://example.org/apart.git"}], "settings": {"github_enabled": False}}
    (await apart.target.patch(path, body)).ok()
    there, here = await apart.register("claude"), await scene.register("claude")
    assert [each["url"] for each in there["repos"]] == ["https://example.org/apart.git"]
    assert there["settings"] == {"github_enabled": False}
    assert "https://example.org/apart.git" not in {each["url"] for each in here["repos"] or []}
    assert here["settings"] != {"github_enabled": False}


async def test_profiles_are_each_ones_own(scene: Scene, apart: Scene) -> None:
    body = {"display_name": "Mine", "protocol_family": "claude", "command_name": "my-claude"}
    path = f"/api/workspaces/{apart.target.workspace_id}/runtime-profiles"
    made = await apart.target.post(path, body)
    if made.status not in (200, 201):
        cannot(f"create a runtime profile ({made.status})")
    daemon = f"/api/daemon/workspaces/{scene.target.workspace_id}/runtime-profiles"
    listed = (await scene.target.get(daemon)).ok()["runtime_profiles"] or []
    assert made.body["id"] not in {each["id"] for each in listed}
    runtimes = [{"name": "Mine", "type": "claude", "version": "1", "status": "online",
                 "profile_id": made.body["id"]}]  # fmt: skip
    answer = await scene.target.post("/api/daemon/register", scene.registration(runtimes=runtimes))
    assert answer.refused(400, f"unknown runtime profile: {made.body['id']}")


async def test_nothing_of_one_is_found_from_another(scene: Scene, apart: Scene) -> None:
    runtime_id = await apart.runtime()
    agent_id = await apart.agent(runtime_id)
    issue = await apart.issue()
    session_id, _task_id = await apart.chat(agent_id, "Hello.")
    made = {
        "/api/agents": agent_id,
        "/api/issues": issue["id"],
        "/api/chat/sessions": session_id,
        "/api/projects": (await apart.target.post("/api/projects", {"title": "x"})).ok(200, 201)["id"],
        "/api/squads": (
            await apart.target.post("/api/squads", {"name": "x", "leader_id": agent_id})
        ).ok(200, 201)["id"],
        "/api/skills": (
            await apart.target.post("/api/skills", {"name": apart.name("skill"), "content": "x"})
        ).ok(200, 201)["id"],
    }  # fmt: skip
    for path, thing in made.items():
        assert (await apart.target.get(f"{path}/{thing}")).status == 200, path
        assert (await scene.target.get(f"{path}/{thing}")).status == 404, path
        listed = (await scene.target.get(path)).ok()
        rows = listed if isinstance(listed, list) else listed[path.rpartition("/")[2]]
        assert thing not in {each["id"] for each in rows}, path
    assert (await scene.target.get(f"/api/issues/{issue['identifier']}")).status == 404


async def test_each_counts_its_issues_by_itself(scene: Scene, apart: Scene) -> None:
    mine = await scene.issue()
    first, second = await apart.issue(), await apart.issue()
    assert [first["number"], second["number"]] == [1, 2]
    assert (await scene.issue())["number"] == mine["number"] + 1
    prefix = first["identifier"].rpartition("-")[0]
    assert prefix != mine["identifier"].rpartition("-")[0]
    # A key of the one names nothing in the other, whatever has that number there.
    assert (await apart.target.get(f"/api/issues/{first['identifier']}")).ok()["id"] == first["id"]
    theirs = (await scene.target.get(f"/api/issues/{first['identifier']}")).status
    assert theirs == 404
    (await apart.target.delete(f"/api/issues/{second['id']}")).ok(200, 204)
    assert (await apart.issue())["number"] == 3


async def test_nobody_of_another_is_given_work(scene: Scene, apart: Scene) -> None:
    runtime_id = await apart.runtime()
    stranger = await apart.agent(runtime_id)
    body = {"name": scene.name("agent"), "runtime_id": runtime_id, "instructions": ""}
    assert (await scene.target.post("/api/agents", body)).status in (400, 404)
    issue = await scene.issue()
    given = {"assignee_type": "agent", "assignee_id": stranger}
    assert (await scene.target.put(f"/api/issues/{issue['id']}", given)).status in (400, 404)
    await scene.comment(issue["id"], f"[@Stranger](mention://agent/{stranger}) look.")
    quick = {"agent_id": stranger, "prompt": "Do x."}
    assert (await scene.target.post("/api/issues/quick-create", quick)).status in (400, 404)
    assert await apart.claim(runtime_id) is None


async def test_an_agent_of_the_same_name_may_be_in_each(scene: Scene, apart: Scene) -> None:
    name = scene.name("agent")
    await scene.agent(await scene.runtime(), name=name)
    await apart.agent(await apart.runtime(), name=name)


@ACCESS
async def test_a_workspace_that_is_not_there_is_not_found(scene: Scene) -> None:
    for path in ("/api/issues", "/api/agents"):
        answer = await scene.target.get(path, headers={"X-Workspace-ID": NOWHERE})
        assert answer.status in (403, 404), answer


@ACCESS
async def test_a_task_token_is_its_own_workspaces_alone(scene: Scene, apart: Scene) -> None:
    work = await scene.running()
    issue = await apart.issue()
    headers = {"X-Workspace-ID": apart.target.workspace_id}
    for path in (f"/api/issues/{issue['id']}", f"/api/workspaces/{apart.target.workspace_id}"):
        assert (await scene.target.get(path, token=work.token, headers=headers)).status == 404
    seen = await scene.target.get("/api/issues", token=work.token, headers=headers)
    assert issue["id"] not in {each["id"] for each in seen.ok()["issues"]}


@ACCESS
async def test_a_daemon_token_is_its_own_workspaces_alone(scene: Scene, apart: Scene) -> None:
    token = await scene.target.daemon_token(scene.daemon_id)
    runtime_id = await apart.runtime()
    await apart.issue(await apart.agent(runtime_id))
    task = await apart.claim(runtime_id)
    work = Work(apart.target, runtime_id, "", {}, task)
    runtime, one = f"/api/daemon/runtimes/{runtime_id}", f"/api/daemon/tasks/{work.id}"
    for method, path, body in (
        ("POST", "/api/daemon/heartbeat", {"runtime_id": runtime_id}),
        ("POST", f"{runtime}/tasks/claim", None),
        ("GET", f"{runtime}/tasks/pending", None),
        ("POST", f"{runtime}/recover-orphans", None),
        ("POST", f"{runtime}/tasks/{work.id}/prepare-lease", None),
        ("GET", f"{one}/status", None),
        ("POST", f"{one}/start", None),
        ("POST", f"{one}/fail", {"error": "x"}),
        ("GET", f"{one}/messages", None),
        ("GET", f"{one}/gc-check", None),
    ):
        answer = await scene.target.call(method, path, body, token=token)
        assert answer.refused(404, "not found"), path
    body = apart.registration("claude")
    assert (await scene.target.post("/api/daemon/register", body, token=token)).refused(
        404, "workspace not found"
    )
    link = await scene.target.get(f"/api/daemon/ws?runtime_ids={runtime_id}", token=token)
    assert link.status == 404
    gone = await scene.target.post("/api/daemon/deregister", {"runtime_ids": [runtime_id]}, token=token)
    assert gone.ok() == {"status": "ok"}, "what is not its own is passed over"
    assert (await apart.target.post(f"/api/runtimes/{runtime_id}/models")).status in (200, 201, 202)
    assert await work.status() == "dispatched"
    listed = await scene.target.get("/api/daemon/workspaces", token=token)
    if listed.status != 404:
        assert [each["id"] for each in listed.ok()] == [scene.target.workspace_id]
