"""Section 13: what a claimed task has, by its kind."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.target import Scene, Target, section

pytestmark = section("13", "The task object")


def of(scene: Scene, agent_id: str) -> str:
    return f"[@Agent](mention://agent/{agent_id})"


async def test_what_every_task_has(scene: Scene) -> None:
    runtime_id = await scene.runtime()
    agent_id = await scene.agent(
        runtime_id,
        instructions="Be kind.",
        custom_env={"A": "1"},
        custom_args=["--x"],
        mcp_config={"mcpServers": {}},
        model="m-1",
    )
    issue = await scene.issue(agent_id, priority="high")
    task = await scene.claim(runtime_id)
    assert task["runtime_id"] == runtime_id
    assert task["workspace_id"] == scene.target.workspace_id
    assert task["issue_id"] == issue["id"]
    assert (task["status"], task["priority"], task["kind"]) == ("dispatched", 3, "direct")
    assert (task["attempt"], task["max_attempts"]) == (1, 2)
    assert task["result"] is None
    assert task["error"] is None
    agent = task["agent"]
    assert (agent["id"], agent["name"][:11]) == (agent_id, "conformance")
    assert agent["instructions"].startswith("Be kind.")
    assert agent["custom_env"] == {"A": "1"}
    assert agent["custom_args"] == ["--x"]
    assert agent["mcp_config"] == {"mcpServers": {}}
    assert agent["model"] == "m-1"


async def test_what_the_workspace_says_goes_along(scene: Scene) -> None:
    path = f"/api/workspaces/{scene.target.workspace_id}"
    before = (await scene.target.get(path)).ok()["context"]
    (await scene.target.patch(path, {"context": "We write British English."})).ok()
    runtime_id = await scene.runtime()
    await scene.issue(await scene.agent(runtime_id))
    task = await scene.claim(runtime_id)
    (await scene.target.patch(path, {"context": before or ""})).ok()
    assert task["workspace_context"] == "We write British English."


@pytest.mark.parametrize("status", ["backlog", "done", "cancelled"])
async def test_an_issue_that_is_not_to_be_done_is_no_task(scene: Scene, status: str) -> None:
    runtime_id = await scene.runtime()
    await scene.issue(await scene.agent(runtime_id), status=status)
    assert await scene.claim(runtime_id) is None


async def test_an_assignment_is_a_task_with_its_note(scene: Scene) -> None:
    runtime_id = await scene.runtime()
    agent_id, issue = await scene.agent(runtime_id), await scene.issue()
    body = {"assignee_type": "agent", "assignee_id": agent_id, "handoff_note": "Begin with the tests."}
    (await scene.target.put(f"/api/issues/{issue['id']}", body)).ok()
    task = await scene.claim(runtime_id)
    assert (task["issue_id"], task["kind"]) == (issue["id"], "direct")
    assert task["handoff_note"] == "Begin with the tests."
    assert not task.get("trigger_comment_id")
    assert task["initiator_type"] == "member"


async def test_an_issue_out_of_the_backlog_is_a_task(scene: Scene) -> None:
    runtime_id = await scene.runtime()
    issue = await scene.issue(await scene.agent(runtime_id), status="backlog")
    (await scene.target.put(f"/api/issues/{issue['id']}", {"status": "todo"})).ok()
    assert (await scene.claim(runtime_id))["issue_id"] == issue["id"]


# --- comments ---------------------------------------------------------------------------------------------


async def test_a_comment_is_a_task_of_whoever_the_issue_is_with(scene: Scene) -> None:
    work = await scene.running()
    (await work.post("complete", {"output": "The first answer."})).ok()
    said = await scene.comment(work.issue["id"], "And what of this?")
    task = await scene.claim(work.runtime_id)
    assert (task["kind"], task["issue_id"]) == ("comment", work.issue["id"])
    assert task["trigger_comment_id"] == said["id"]
    assert task.get("trigger_thread_id", said["id"]) == said["id"]
    assert "And what of this?" in task["trigger_comment_content"]
    assert task["trigger_author_type"] == "member"
    assert not task.get("chat_session_id")


async def test_a_reply_names_its_thread(scene: Scene) -> None:
    work = await scene.running()
    (await work.post("complete", {"output": "The first answer."})).ok()
    root = (await work.comments())[0]
    said = await scene.comment(work.issue["id"], "I see. And now?", parent_id=root["id"])
    task = await scene.claim(work.runtime_id)
    assert (task["trigger_comment_id"], task["trigger_thread_id"]) == (said["id"], root["id"])


async def test_a_comment_that_calls_another_agent_is_that_ones(scene: Scene) -> None:
    work = await scene.running()
    other = await scene.agent(work.runtime_id)
    (await work.post("complete", {"output": "x"})).ok()
    said = await scene.comment(work.issue["id"], f"{of(scene, other)} please look.")
    task = await scene.claim(work.runtime_id)
    assert (task["agent_id"], task["trigger_comment_id"]) == (other, said["id"])
    assert await scene.claim(work.runtime_id) is None, "and not of the one it is with"


async def test_an_agents_own_comment_calls_nobody_but_whom_it_names(scene: Scene) -> None:
    work = await scene.running()
    other = await scene.agent(work.runtime_id)
    path = f"/api/issues/{work.issue['id']}/comments"
    (await scene.target.post(path, {"content": "I begin."}, token=work.token)).ok(200, 201)
    assert await scene.claim(work.runtime_id) is None
    content = f"{of(scene, other)} and {of(scene, work.agent_id)}: your turn."
    (await scene.target.post(path, {"content": content}, token=work.token)).ok(200, 201)
    task = await scene.claim(work.runtime_id)
    assert (task["agent_id"], task["trigger_author_type"]) == (other, "agent")
    assert task["initiator_type"] == "agent"
    assert await scene.claim(work.runtime_id) is None, "nobody calls himself"


async def test_how_much_was_said_meanwhile(scene: Scene) -> None:
    work = await scene.running()
    (await work.post("complete", {"output": "x"})).ok()
    first = await scene.comment(work.issue["id"], "One.")
    await scene.comment(work.issue["id"], "Two.")
    task = await scene.claim(work.runtime_id)
    assert task["trigger_comment_id"] == first["id"]
    assert task["new_comment_count"] >= 1
    assert task["new_comments_since"]


# --- chat -------------------------------------------------------------------------------------------------


async def test_a_chat(scene: Scene) -> None:
    runtime_id = await scene.runtime()
    session_id, task_id = await scene.chat(await scene.agent(runtime_id), "Hello, you.")
    task = await scene.claim(runtime_id)
    assert (task["id"], task["kind"], task["issue_id"]) == (task_id, "chat", "")
    assert (task["chat_session_id"], task["chat_message"]) == (session_id, "Hello, you.")


async def test_the_files_of_a_chat(scene: Scene) -> None:
    runtime_id = await scene.runtime()
    agent_id = await scene.agent(runtime_id)
    file = await upload(scene.target, "notes.txt", b"something")
    await scene.chat(agent_id, "See the file.", attachment_ids=[file["id"]])
    task = await scene.claim(runtime_id)
    (found,) = task["chat_message_attachments"]
    assert (found["id"], found["filename"]) == (file["id"], "notes.txt")


async def upload(target: Target, name: str, content: bytes, **more: str) -> Any:
    import aiohttp

    form = aiohttp.FormData(quote_fields=False)
    form.add_field("file", content, filename=name, content_type="text/plain")
    for field, value in more.items():
        form.add_field(field, value)
    return (await target.call("POST", "/api/upload-file", data=form)).ok(200, 201)


# --- the other kinds --------------------------------------------------------------------------------------


@pytest.mark.parametrize("payload", [None, {"event": "push", "n": 1}])
async def test_an_autopilot(scene: Scene, payload: Any) -> None:
    runtime_id = await scene.runtime()
    agent_id = await scene.agent(runtime_id)
    body = {
        "title": scene.name("autopilot"),
        "description": "Look after it.",
        "assignee_id": agent_id,
        "execution_mode": "run_only",
    }
    made = (await scene.target.post("/api/autopilots", body)).ok(200, 201)
    path = f"/api/autopilots/{made['id']}/trigger"
    run = (await scene.target.post(path, {"source": "api", "payload": payload})).ok(200, 201, 202)
    task = await scene.claim(runtime_id)
    assert (task["kind"], task["issue_id"]) == ("autopilot", "")
    assert (task["autopilot_id"], task["autopilot_run_id"]) == (made["id"], run["id"])
    assert task["autopilot_title"] == body["title"]
    assert task["autopilot_description"] == "Look after it."
    assert task["autopilot_source"] == "api"
    assert task.get("autopilot_trigger_payload") == payload


async def test_an_autopilot_that_makes_issues(scene: Scene) -> None:
    runtime_id = await scene.runtime()
    agent_id = await scene.agent(runtime_id)
    title = scene.name("autopilot")
    body = {"title": title, "assignee_id": agent_id, "execution_mode": "create_issue"}
    made = (await scene.target.post("/api/autopilots", body)).ok(200, 201)
    (await scene.target.post(f"/api/autopilots/{made['id']}/trigger")).ok(200, 201, 202)
    task = await scene.claim(runtime_id)
    assert task["kind"] == "direct"
    assert (await scene.target.get(f"/api/issues/{task['issue_id']}")).ok()["title"] == title


async def test_the_creation_of_an_issue(scene: Scene) -> None:
    runtime_id = await scene.runtime()
    agent_id, parent = await scene.agent(runtime_id), await scene.issue()
    file = await upload(scene.target, "a.txt", b"x")
    body = {
        "agent_id": agent_id,
        "prompt": "The door squeaks.",
        "parent_issue_id": parent["id"],
        "attachment_ids": [file["id"]],
    }
    task_id = (await scene.target.post("/api/issues/quick-create", body)).ok(200, 202)["task_id"]
    task = await scene.claim(runtime_id)
    assert (task["id"], task["kind"], task["issue_id"]) == (task_id, "quick_create", "")
    assert task["quick_create_prompt"] == "The door squeaks."
    assert task["quick_create_attachment_ids"] == [file["id"]]
    assert task["parent_issue_id"] == parent["id"]
    assert task["parent_issue_identifier"] == parent["identifier"]


async def test_a_creation_needs_a_prompt_and_somebody(scene: Scene) -> None:
    agent_id = await scene.agent(await scene.runtime())
    path = "/api/issues/quick-create"
    assert (await scene.target.post(path, {"agent_id": agent_id})).refused(400, "prompt is required")
    assert (await scene.target.post(path, {"prompt": "x"})).status == 400


async def test_a_squad_is_led(scene: Scene) -> None:
    runtime_id = await scene.runtime()
    leader = await scene.agent(runtime_id)
    squad = (await scene.target.post("/api/squads", {"name": scene.name("squad"), "leader_id": leader})).ok(
        200, 201
    )
    issue = await scene.issue(assignee_type="squad", assignee_id=squad["id"])
    task = await scene.claim(runtime_id)
    assert (task["agent_id"], task["issue_id"]) == (leader, issue["id"])
    assert "## Squad Operating Protocol" in task["agent"]["instructions"]


# --- projects and repositories ----------------------------------------------------------------------------


async def project(scene: Scene, *resources: dict[str, Any]) -> dict[str, Any]:
    body = {"title": scene.name("project"), "description": "About it."}
    made: dict[str, Any] = (await scene.target.post("/api/projects", body)).ok(200, 201)
    for resource in resources:
        (await scene.target.post(f"/api/projects/{made['id']}/resources", resource)).ok(200, 201)
    return made


async def test_a_projects_repositories_take_the_place_of_the_workspaces(scene: Scene) -> None:
    path = f"/api/workspaces/{scene.target.workspace_id}"
    (await scene.target.patch(path, {"repos": [{"url": "https://example.org/ws.git"}]})).ok()
    runtime_id = await scene.runtime()
    agent_id = await scene.agent(runtime_id)
    plain = await project(scene)
    own = await project(
        scene,
        {"resource_type": "github_repo", "resource_ref": {"url": "https://example.org/p.git", "ref": "v2"}},
    )
    await scene.issue(agent_id, project_id=plain["id"])
    await scene.issue(agent_id, project_id=own["id"])
    first, second = await scene.claim(runtime_id), await scene.claim(runtime_id)
    (await scene.target.patch(path, {"repos": []})).ok()
    assert [each["url"] for each in first["repos"]] == ["https://example.org/ws.git"]
    assert [(each["url"], each["ref"]) for each in second["repos"]] == [("https://example.org/p.git", "v2")]
    assert (second["project_id"], second["project_title"]) == (own["id"], own["title"])
    assert second["project_description"] == "About it."
    (resource,) = second["project_resources"]
    assert resource["resource_type"] == "github_repo"
    assert resource["resource_ref"]["url"] == "https://example.org/p.git"


@section("15", "local_directory resources and path locks")
async def test_a_local_directory_reaches_the_task(scene: Scene) -> None:
    runtime_id = await scene.runtime()
    agent_id = await scene.agent(runtime_id)
    ref = {"local_path": "/srv/work", "daemon_id": scene.daemon_id, "label": "Mine"}
    made = await project(scene, {"resource_type": "local_directory", "resource_ref": ref})
    await scene.issue(agent_id, project_id=made["id"])
    (resource,) = (await scene.claim(runtime_id))["project_resources"]
    assert (resource["resource_type"], resource["resource_ref"]) == ("local_directory", ref)


@section("15", "local_directory resources and path locks")
async def test_a_project_has_one_local_directory_on_a_machine(scene: Scene) -> None:
    ref = {"local_path": "/srv/work", "daemon_id": scene.daemon_id}
    made = await project(scene, {"resource_type": "local_directory", "resource_ref": ref})
    path = f"/api/projects/{made['id']}/resources"
    body = {"resource_type": "local_directory", "resource_ref": {**ref, "local_path": "/srv/other"}}
    assert (await scene.target.post(path, body)).status == 409
    body["resource_ref"] = {**ref, "daemon_id": "another"}
    (await scene.target.post(path, body)).ok(200, 201)


# --- where to go on from ----------------------------------------------------------------------------------


async def again(scene: Scene, work: Any) -> Any:
    await scene.comment(work.issue["id"], "Go on.")
    return await scene.claim(work.runtime_id)


async def test_a_later_task_goes_on_where_the_last_one_ended(scene: Scene) -> None:
    work = await scene.running()
    (await work.post("complete", {"output": "x", "session_id": "s-1", "work_dir": "/w/1"})).ok()
    task = await again(scene, work)
    assert (task["prior_session_id"], task["prior_work_dir"]) == ("s-1", "/w/1")


async def test_a_session_is_of_one_runtime_and_a_directory_is_not(scene: Scene) -> None:
    work = await scene.running()
    (await work.post("complete", {"output": "x", "session_id": "s-1", "work_dir": "/w/1"})).ok()
    ours, scene.daemon_id = scene.daemon_id, f"another-{scene.mark}"
    other = await scene.runtime()
    scene.daemon_id = ours
    moved = await scene.target.put(f"/api/agents/{work.agent_id}", {"runtime_id": other})
    assert moved.status == 200
    await scene.comment(work.issue["id"], "Go on.")
    task = await scene.claim(other)
    assert not task.get("prior_session_id")
    assert task["prior_work_dir"] == "/w/1"


async def test_a_rerun_begins_anew(scene: Scene) -> None:
    work = await scene.running()
    (await work.post("complete", {"output": "x", "session_id": "s-1", "work_dir": "/w/1"})).ok()
    answer = await scene.target.post(f"/api/issues/{work.issue['id']}/rerun")
    assert answer.status == 202
    task = await scene.claim(work.runtime_id)
    assert task["issue_id"] == work.issue["id"]
    assert not task.get("prior_session_id")


async def test_another_agents_session_is_not_taken_up(scene: Scene) -> None:
    work = await scene.running()
    (await work.post("complete", {"output": "x", "session_id": "s-1", "work_dir": "/w/1"})).ok()
    other = await scene.agent(work.runtime_id)
    await scene.comment(work.issue["id"], f"{of(scene, other)} go on.")
    task = await scene.claim(work.runtime_id)
    assert task["agent_id"] == other
    assert not task.get("prior_session_id")


async def test_a_chat_goes_on_where_it_ended(scene: Scene) -> None:
    runtime_id = await scene.runtime()
    session_id, task_id = await scene.chat(await scene.agent(runtime_id), "One.")
    assert not (await scene.claim(runtime_id)).get("prior_session_id")
    path = f"/api/daemon/tasks/{task_id}"
    (await scene.target.post(path + "/start")).ok()
    body = {"output": "x", "session_id": "s-1", "work_dir": "/w/1"}
    (await scene.target.post(path + "/complete", body)).ok()
    await scene.chat("", "Two.", session_id)
    task = await scene.claim(runtime_id)
    assert (task["prior_session_id"], task["prior_work_dir"]) == ("s-1", "/w/1")
    assert task["chat_message"] == "Two.", "only what was said since the last answer"
