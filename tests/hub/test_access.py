"""Who may ask what: the hub's credential, the tokens of tasks, and nobody else."""

from __future__ import annotations

import re

import pytest

from daemon_core.hub import NewTask
from tests.hub.world import NOWHERE, World

DAEMON_PATHS = [
    ("POST", "/api/daemon/register"),
    ("POST", "/api/daemon/deregister"),
    ("POST", "/api/daemon/heartbeat"),
    ("GET", "/api/daemon/ws?runtime_ids=x"),
    ("GET", f"/api/daemon/workspaces/{NOWHERE}/repos"),
    ("GET", f"/api/daemon/workspaces/{NOWHERE}/runtime-profiles"),
    ("POST", f"/api/daemon/runtimes/{NOWHERE}/tasks/claim"),
    ("GET", f"/api/daemon/runtimes/{NOWHERE}/tasks/pending"),
    ("POST", f"/api/daemon/runtimes/{NOWHERE}/tasks/{NOWHERE}/prepare-lease"),
    ("POST", f"/api/daemon/runtimes/{NOWHERE}/recover-orphans"),
    ("GET", f"/api/daemon/tasks/{NOWHERE}/status"),
    ("GET", f"/api/daemon/tasks/{NOWHERE}/messages"),
    *[
        ("POST", f"/api/daemon/tasks/{NOWHERE}/{verb}")
        for verb in (
            "start",
            "wait-local-directory",
            "progress",
            "messages",
            "session",
            "usage",
            "complete",
            "fail",
        )
    ],
    ("GET", f"/api/daemon/tasks/{NOWHERE}/gc-check"),
    ("GET", f"/api/daemon/chat-sessions/{NOWHERE}/gc-check"),
    ("GET", "/api/daemon/no/such/route"),
]


async def raw(world: World, method: str, path: str, **headers: str) -> tuple[int, str]:
    async with world.http.request(method, world.url + path, headers=headers) as response:
        return response.status, (await response.json())["error"]


async def task_token(world: World) -> tuple[str, str]:
    added = await world.hub.add_task(NewTask(prompt="x", provider="shell"))
    return added.id, (await world.claim())["auth_token"]


def test_a_credential_is_new_at_each_start_and_well_formed(world: World) -> None:
    assert re.fullmatch("mul_[0-9a-f]{40}", world.hub.credential)


async def test_the_credential_is_nowhere_on_disk(world: World) -> None:
    before = world.hub.credential
    await world.hub.add_task(NewTask(prompt="x", provider="shell"))
    token = (await world.claim())["auth_token"]
    for file in world.database.parent.iterdir():
        content = file.read_bytes()
        assert before.encode() not in content
        assert token.encode() not in content
    await world.reopen()
    assert world.hub.credential != before
    assert (await world.get("/api/workspaces", token=before)).status == 401


@pytest.mark.parametrize(("method", "path"), DAEMON_PATHS)
async def test_daemon_routes_take_the_hubs_credential_alone(world: World, method: str, path: str) -> None:
    _, agent = await task_token(world)
    assert await raw(world, method, path) == (401, "missing authorization header")
    for header in (world.token, "Basic abc", "Bearer", "Bearer "):
        assert await raw(world, method, path, Authorization=header) == (401, "invalid authorization format")
    for token, text in (
        (agent, "invalid token"),
        ("mul_" + "0" * 40, "invalid token"),
        ("mdt_" + "0" * 40, "invalid daemon token"),
        ("eyJ.x.y", "invalid token"),
    ):
        assert await raw(world, method, path, Authorization=f"Bearer {token}") == (401, text)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/workspaces"),
        ("POST", "/api/tokens/current/renew"),
        ("GET", "/api/agents"),
        ("GET", "/api/issues"),
        ("POST", f"/api/tasks/{NOWHERE}/cancel"),
    ],
)
async def test_other_routes_refuse_strangers(world: World, method: str, path: str) -> None:
    assert await raw(world, method, path) == (401, "missing authorization")
    for token in ("mul_" + "0" * 40, "mat_" + "0" * 40, "mdt_" + "0" * 40):
        assert await raw(world, method, path, Authorization=f"Bearer {token}") == (401, "invalid token")


async def test_renewal(world: World) -> None:
    assert await world.post("/api/tokens/current/renew") == (200, {"expires_at": "", "renewed": False})
    _, agent = await task_token(world)
    assert await world.post("/api/tokens/current/renew", token=agent) == (
        400,
        {"error": "only personal access tokens can be renewed"},
    )


async def test_the_use_of_a_token_is_not_a_write_for_each_request(world: World) -> None:
    made = (await world.post("/api/tokens", {"name": "x"})).body

    async def changes() -> int:
        return await world.hub.store.read(lambda tx: tx.db.total_changes)

    before = await changes()
    for _ in range(5):
        assert (await world.get("/api/workspaces", token=made["token"])).status == 200
        assert (await world.get("/api/daemon/workspaces", token=made["token"])).status == 200
    assert await changes() == before + 1
    world.clock.advance(600)
    assert (await world.get("/api/workspaces", token=made["token"])).status == 200
    assert await changes() == before + 2
    world.clock.advance(-7200)  # somebody has set the clock: a use in the future is none
    assert (await world.get("/api/workspaces", token=made["token"])).status == 200
    assert await changes() == before + 3


@pytest.mark.parametrize("end", ["complete", "fail", "cancel", "delete"])
async def test_a_tasks_token_ends_with_its_task(world: World, end: str) -> None:
    task_id, token = await task_token(world)
    assert (await world.get("/api/agents", token=token)).status == 200
    if end == "complete":
        await world.run(task_id)
    elif end == "fail":
        await world.task(task_id, "fail", {"error": "x"})
    elif end == "cancel":
        assert (await world.post(f"/api/tasks/{task_id}/cancel", token=token)).status == 200
    else:
        await world.hub.delete(task_id)
    assert await world.get("/api/agents", token=token) == (401, {"error": "invalid token"})


async def test_the_token_of_a_task_that_never_started_expires(world: World) -> None:
    _, token = await task_token(world)
    world.clock.advance(24 * 3600 - 1)
    assert (await world.get("/api/agents", token=token)).status == 200
    world.clock.advance(1)
    assert (await world.get("/api/agents", token=token)).status == 401
    world.hub.start_timers()
    await world.hub.sweep()
    assert await world.hub.store.read(lambda tx: tx.all("SELECT * FROM token")) == []


async def test_an_agent_sees_its_own_conversation_alone(world: World) -> None:
    mine, token = await task_token(world)
    other, _ = await task_token(world)
    later = await world.hub.reply(mine, "later")
    assert await world.get(f"/api/tasks/{mine}/messages", token=token) == (200, [])
    assert (await world.get(f"/api/tasks/{later.id}/messages", token=token)).status == 200
    assert await world.get(f"/api/tasks/{other}/messages", token=token) == (404, {"error": "not found"})
    assert await world.post(f"/api/tasks/{other}/cancel", token=token) == (404, {"error": "not found"})
    assert await world.status(other) == "dispatched"
    assert await world.get(f"/api/tasks/{NOWHERE}/messages", token=token) == (
        404,
        {"error": "task not found"},
    )
    assert await world.get("/api/tasks/xyz/messages", token=token) == (400, {"error": "invalid task_id"})


async def test_what_an_agent_may_look_at(world: World) -> None:
    _, token = await task_token(world)
    path = f"/api/workspaces/{world.hub.workspace_id}"
    assert (await world.get(path, token=token)).body["name"] == "Local"
    assert [each["name"] for each in (await world.get("/api/agents", token=token)).body] == ["shell"]
    assert (await world.get(f"/api/workspaces/{NOWHERE}", token=token)).status == 404
    for method, other in (("GET", "/api/nothing"), ("POST", "/api/issue"), ("DELETE", "/api/comments")):
        assert await world.call(method, other, token=token) == (404, {"error": "not found"})


async def test_what_is_for_people_alone(world: World) -> None:
    _, token = await task_token(world)
    for method, path in (
        ("GET", "/api/tokens"),
        ("POST", "/api/tokens"),
        ("POST", "/api/agents"),
        ("GET", "/api/runtimes"),
        ("POST", f"/api/runtimes/{NOWHERE}/update"),
        ("POST", f"/api/projects/{NOWHERE}/resources"),
        ("POST", "/api/chat/sessions"),
        ("GET", "/api/inbox"),
    ):
        assert await world.call(method, path, token=token) == (403, {"error": "this needs a person"})


async def test_tokens_in_what_an_agent_prints_are_not_kept(world: World) -> None:
    task_id, token = await task_token(world)
    await world.task(task_id, "start")
    line = {"seq": 1, "type": "text", "content": f"OSTLER_TOKEN={token} mat_short"}
    await world.task(task_id, "messages", {"messages": [line]})
    await world.task(task_id, "complete", {"output": f"it is {token}"})
    assert (await world.hub.messages(task_id, 0, 10))[0].content == "OSTLER_TOKEN=mat_[redacted] mat_short"
    assert (await world.hub.get(task_id)).result == "it is mat_[redacted]"  # type: ignore[union-attr]
