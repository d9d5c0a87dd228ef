"""How long the hub remembers what a daemon was asked, and what it says of it meanwhile."""

from __future__ import annotations

import pytest

from daemon_core.hub.requests import PATIENCE, Kind
from tests.hub.world import World

PATHS: dict[Kind, tuple[str, dict[str, str]]] = {
    "update": ("update", {"target_version": "1.0.0"}),
    "models": ("models", {}),
    "local_skills": ("local-skills", {}),
    "local_skill_import": ("local-skills/import", {"skill_key": "x"}),
}


@pytest.mark.parametrize("kind", PATHS)
async def test_what_is_over_is_forgotten_after_a_while(world: World, kind: Kind) -> None:
    path, body = PATHS[kind]
    runtime = f"runtimes/{world.runtimes['shell']}/{path}"
    made = (await world.post(f"/api/{runtime}", body)).body
    await world.post("/api/daemon/heartbeat", {"runtime_id": world.runtimes["shell"]})
    result = f"/api/daemon/{runtime}/{made['id']}/result"
    assert (await world.post(result, {"status": "failed", "error": "no"})).status == 200
    world.clock.advance(PATIENCE[kind].kept_s - 1)
    assert (await world.get(f"/api/{runtime}/{made['id']}")).body["status"] == "failed"
    world.clock.advance(2)
    text = "update not found" if kind == "update" else "request not found"
    assert await world.get(f"/api/{runtime}/{made['id']}") == (404, {"error": text})
    assert await world.post(result, {"status": "completed"}) == (404, {"error": text})


async def test_requests_do_not_outlive_the_hub(world: World) -> None:
    runtime_id = world.runtimes["shell"]
    await world.post(f"/api/runtimes/{runtime_id}/models")
    await world.reopen()
    await world.register("shell")
    answer = await world.post("/api/daemon/heartbeat", {"runtime_id": runtime_id})
    assert answer == (200, {"status": "ok"})


async def test_an_update_that_the_daemon_remembers_is_known_again(world: World) -> None:
    runtime_id = world.runtimes["shell"]
    made = (await world.post(f"/api/runtimes/{runtime_id}/update", {"target_version": "1.1.0"})).body
    await world.post("/api/daemon/heartbeat", {"runtime_id": runtime_id})
    await world.reopen()
    world.hub.requests.restore("update", runtime_id, made["id"], target_version="1.1.0")
    await world.register("shell")
    answer = await world.post("/api/daemon/heartbeat", {"runtime_id": runtime_id})
    assert answer == (200, {"status": "ok"}), "it is not handed out again"
    path = f"runtimes/{runtime_id}/update/{made['id']}"
    done = {"status": "completed", "output": "done"}
    assert (await world.post(f"/api/daemon/{path}/result", done)).status == 200
    found = (await world.get(f"/api/{path}")).body
    assert (found["status"], found["target_version"]) == ("completed", "1.1.0")


async def test_an_imported_skill_takes_the_place_of_its_namesake(world: World) -> None:
    runtime = f"runtimes/{world.runtimes['shell']}/local-skills/import"
    for content in ("old", "new"):
        made = (await world.post(f"/api/{runtime}", {"skill_key": "deploy"})).body
        await world.post("/api/daemon/heartbeat", {"runtime_id": world.runtimes["shell"]})
        skill = {"name": "Deploy", "content": content, "source_path": "~/x", "provider": "shell"}
        body = {"status": "completed", "skill": skill}
        assert (await world.post(f"/api/daemon/{runtime}/{made['id']}/result", body)).status == 200
    (kept,) = (await world.get("/api/skills")).body
    assert kept["content"] == "new"


@pytest.mark.parametrize("path", ["../up", "/etc/passwd", "a/../../b", "a\\b", "", "a//b"])
async def test_a_skill_with_a_path_that_leads_elsewhere_is_not_taken(world: World, path: str) -> None:
    runtime = f"runtimes/{world.runtimes['shell']}/local-skills/import"
    made = (await world.post(f"/api/{runtime}", {"skill_key": "x"})).body
    await world.post("/api/daemon/heartbeat", {"runtime_id": world.runtimes["shell"]})
    skill = {"name": "X", "content": "x", "files": [{"path": path, "content": "x"}]}
    answer = await world.post(
        f"/api/daemon/{runtime}/{made['id']}/result", {"status": "completed", "skill": skill}
    )
    assert answer.status == 200
    shown = (await world.get(f"/api/{runtime}/{made['id']}")).body
    assert (shown["status"], shown["error"]) == ("failed", "invalid file path")
    assert (await world.get("/api/skills")).body == []
