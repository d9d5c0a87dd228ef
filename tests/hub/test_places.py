"""More than one workspace: the machine's own stays what it was, others come and go beside it."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from daemon_core.hub import NewTask
from daemon_core.hub.delegating import Link
from daemon_core.hub.redaction import take_out
from daemon_core.hub.schema import MIGRATIONS
from tests.hub.world import World


async def another(world: World, **more: Any) -> dict[str, Any]:
    answer = await world.post("/api/workspaces", {"name": "Side work", **more})
    assert answer.status == 201, answer
    made: dict[str, Any] = answer.body
    return made


async def test_what_is_not_said_of_a_workspace_is_made_of_its_name(world: World) -> None:
    made = await another(world)
    assert (made["slug"], made["issue_prefix"]) == ("side-work", "SID")
    own, other = (await world.get("/api/workspaces")).body
    assert (own["id"], own["slug"], own["issue_prefix"]) == (world.hub.workspace_id, "local", "LOC")
    assert other == made


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({"name": " "}, 400, "name is required"),
        ({"name": "x", "slug": "A b"}, 400, "invalid slug"),
        ({"name": "日本"}, 400, "invalid slug"),
        ({"name": "x", "issue_prefix": "1"}, 400, "invalid issue_prefix"),
        ({"name": "local"}, 409, "a workspace of this slug exists"),
        ({"name": "x", "slug": "side-work"}, 409, "a workspace of this slug exists"),
    ],
)
async def test_what_is_no_workspace(world: World, body: dict[str, str], status: int, text: str) -> None:
    await another(world)
    assert await world.post("/api/workspaces", body) == (status, {"error": text})
    assert len((await world.get("/api/workspaces")).body) == 2


async def test_the_machines_own_workspace_stays(world: World) -> None:
    path = f"/api/workspaces/{world.hub.workspace_id}"
    assert (await world.call("DELETE", path)).status == 403
    assert (await world.get(path)).status == 200


async def test_the_users_own_tasks_are_in_the_machines_own(world: World) -> None:
    made = await another(world)
    answer = await world.register("shell", workspace_id=made["id"])
    (there,) = [each["id"] for each in answer.body["runtimes"]]
    await world.register("shell")
    task = await world.hub.add_task(NewTask(prompt="x", provider="shell"))
    assert task.runtime_id == world.runtimes["shell"] != there
    assert (await world.claim())["workspace_id"] == world.hub.workspace_id
    assert [each.name for each in await world.hub.list_agents()] == ["shell"]


async def test_a_task_without_a_runtime_waits_for_one_of_its_own_workspace(bare: World) -> None:
    task = await bare.hub.add_task(NewTask(prompt="x", provider="shell"))
    made = await another(bare)
    await bare.register("shell", workspace_id=made["id"])
    assert await bare.claim() is None
    await bare.register("shell")
    assert (await bare.claim())["id"] == task.id


async def test_they_are_there_after_a_restart(world: World) -> None:
    made = await another(world)
    own = world.hub.workspace_id
    await world.reopen()
    assert world.hub.workspace_id == own
    assert [each["id"] for each in (await world.get("/api/workspaces")).body] == [own, made["id"]]


async def test_runtimes_are_known_after_a_restart_and_offline_until_they_are_heard_of(world: World) -> None:
    """Nobody is told that a runtime is gone, which would end what it runs."""
    shell = world.runtimes["shell"]
    task = await world.hub.add_task(NewTask(prompt="x", provider="shell"))
    await world.claim()
    await world.task(task.id, "start")
    await world.reopen()
    known = {each["id"]: each["status"] for each in (await world.get("/api/runtimes")).body}
    assert known[shell] == "offline"
    assert await world.post("/api/daemon/heartbeat", {"runtime_id": shell}) == (200, {"status": "ok"})
    async with world.connect(shell) as socket:
        await socket.send_json({"type": "daemon:heartbeat", "payload": {"runtime_id": shell}})
        assert (await socket.receive_json(timeout=20))["payload"]["status"] == "ok"
    known = {each["id"]: each["status"] for each in (await world.get("/api/runtimes")).body}
    assert known[shell] == "online"
    assert await world.status(task.id) == "running"


async def test_a_reply_to_a_task_of_an_issue_elsewhere_is_a_comment_there(world: World) -> None:
    made = await another(world)
    answer = await world.register("shell", workspace_id=made["id"])
    world.runtimes["there"] = answer.body["runtimes"][0]["id"]

    async def there(method: str, path: str, body: Any = None) -> Any:
        headers = {"Authorization": f"Bearer {world.token}", "X-Workspace-ID": made["id"]}
        async with world.http.request(method, world.url + path, headers=headers, json=body) as said:
            assert said.status < 300, await said.text()
            return await said.json()

    agent = await there("POST", "/api/agents", {"name": "Ann", "runtime_id": world.runtimes["there"]})
    given = {"title": "Mend it", "assignee_type": "agent", "assignee_id": agent["id"]}
    issue = await there("POST", "/api/issues", given)
    assert issue["identifier"].startswith("SID-")
    task = await world.claim("there")
    await world.run(task["id"])
    again = await world.hub.reply(task["id"], "And now?")
    assert again.issue_id == issue["id"]
    for method, path in (
        ("GET", f"/api/tasks/{task['id']}/messages"),
        ("POST", f"/api/tasks/{task['id']}/cancel"),
        ("POST", f"/api/runtimes/{world.runtimes['there']}/models"),
        ("DELETE", f"/api/runtimes/{world.runtimes['there']}"),
    ):
        assert await world.call(method, path) == (404, {"error": "not found"}), path
    said = await there("GET", f"/api/issues/{issue['id']}/comments")
    assert (await world.call("DELETE", f"/api/comments/{said[0]['id']}")).status == 404
    assert [each["content"] for each in said] == ["done", "And now?"]
    claimed = await world.claim("there")
    assert (claimed["id"], claimed["workspace_id"]) == (again.id, made["id"])


async def test_skills_of_before_are_kept_and_names_are_each_workspaces_own(tmp_path: Path) -> None:
    database = tmp_path / "hub.db"
    db = sqlite3.connect(database, isolation_level=None)
    for statements in MIGRATIONS[:7]:
        for statement in statements:
            db.execute(statement)
    db.execute("PRAGMA user_version = 7")
    db.execute("INSERT INTO skill VALUES ('s', 'deploy', 'How.', '# Deploy', '[]', 1, 1)")
    db.close()
    world = World(database)
    await world.open()
    (skill,) = (await world.get("/api/skills")).body
    assert (skill["id"], skill["name"], skill["content"]) == ("s", "deploy", "# Deploy")
    assert (await world.post("/api/skills", {"name": "deploy"})).status == 409
    made = await another(world)
    headers = {"Authorization": f"Bearer {world.token}", "X-Workspace-ID": made["id"]}
    body = {"name": "deploy", "content": "# Other"}
    async with world.http.post(world.url + "/api/skills", headers=headers, json=body) as answer:
        assert answer.status == 201
    await world.close()


# --- what a cancelled or deleted task has handed on -------------------------------------------------------


async def handed_on(world: World, parent: str) -> str:
    link = Link(parent_key=f"hub/{parent}", parent_conversation="hub/c", request=parent, parent_task=parent)
    return (await world.hub.delegating.hand_on(NewTask(prompt="y", provider="claude"), link)).task.id


@pytest.mark.parametrize("how", ["cancelled", "given to nobody", "deleted"])
async def test_what_an_agent_on_an_issue_has_handed_on_ends_with_it(world: World, how: str) -> None:
    body = {"name": "Ann", "runtime_id": world.runtimes["shell"]}
    agent = (await world.post("/api/agents", body)).body
    given = {"title": "x", "assignee_type": "agent", "assignee_id": agent["id"]}
    issue = (await world.post("/api/issues", given)).body
    task = await world.claim()
    await world.task(task["id"], "start")
    child = await handed_on(world, task["id"])
    path = f"/api/issues/{issue['id']}"
    if how == "cancelled":
        assert (await world.post(f"{path}/tasks/{task['id']}/cancel")).status == 200
    elif how == "deleted":
        assert (await world.call("DELETE", path)).status == 204
    else:
        nobody = {"assignee_type": None, "assignee_id": None}
        assert (await world.call("PUT", path, nobody)).status == 200
    assert await world.status(child) == "cancelled"


async def test_what_a_chat_has_handed_on_ends_when_it_is_deleted(world: World) -> None:
    task = await world.hub.add_task(NewTask(prompt="x", provider="shell"))
    await world.claim()
    child = await handed_on(world, task.id)
    path = f"/api/chat/sessions/{task.conversation_id}"
    assert (await world.call("DELETE", path)).status == 204
    assert await world.status(child) == "cancelled"


async def test_what_is_taken_from_a_queue_takes_nothing_along(world: World) -> None:
    task = await world.hub.add_task(NewTask(prompt="x", provider="shell"))
    await world.claim()
    child = await handed_on(world, task.id)
    later = await world.hub.reply(task.id, "And then?")
    assert (await world.post(f"/api/tasks/{later.id}/cancel")).body["status"] == "cancelled"
    assert await world.status(child) == "queued"


async def test_a_cancel_that_comes_too_late_ends_nothing_else(world: World) -> None:
    task = await world.hub.add_task(NewTask(prompt="x", provider="shell"))
    await world.claim()
    child = await handed_on(world, task.id)
    await world.run(task.id)
    assert (await world.post(f"/api/tasks/{task.id}/cancel")).body["status"] == "completed"
    assert await world.status(child) == "queued"


# --- secrets ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "left"),
    [
        (rb'"x\nghp_' + b"a1" * 18 + b'"', rb'"x\n[redacted]"'),
        (b'"task-' + b"a1" * 20 + b'"', b'"task-' + b"a1" * 20 + b'"'),
        (b'"sk-a-name-with-words"', b'"sk-a-name-with-words"'),
        (b'"-----BEGIN PRIVATE KEY-----\\nMII","b":"-----END PRIVATE KEY-----"',
         b'"[redacted]","b":"-----END PRIVATE KEY-----"'),
    ],
)  # fmt: skip
def test_secrets_are_known_by_their_shape(body: bytes, left: bytes) -> None:
    assert take_out(body) == left
