"""Section 20: what a server does by itself when time passes."""

from __future__ import annotations

from typing import Any

from tests.conformance.target import Scene, section

pytestmark = section("20", "Sweeper and server-side timers")


async def shown(scene: Scene, runtime_id: str) -> Any:
    listed = (await scene.target.get("/api/runtimes")).ok()
    return next((each["status"] for each in listed if each["id"] == runtime_id), None)


async def test_a_runtime_without_a_sign_of_life_is_offline_after_150_s(scene: Scene) -> None:
    runtime_id = await scene.runtime()
    await scene.target.pass_time(140)
    assert await shown(scene, runtime_id) == "online"
    await scene.target.pass_time(15)
    assert await shown(scene, runtime_id) == "offline"
    (await scene.target.post("/api/daemon/heartbeat", {"runtime_id": runtime_id})).ok()
    assert await shown(scene, runtime_id) == "online"


async def test_a_sign_of_life_over_the_websocket_counts(scene: Scene) -> None:
    runtime_id = await scene.runtime()
    async with scene.target.link(runtime_id) as link:
        await scene.target.pass_time(140)
        await link.beat(runtime_id)
        await link.next("daemon:heartbeat_ack")
        await scene.target.pass_time(140)
        assert await shown(scene, runtime_id) == "online"
        await scene.target.pass_time(15)
        assert await shown(scene, runtime_id) == "offline", "an open socket alone is no sign of life"


async def test_a_runtime_that_stays_away_is_forgotten_after_a_week(scene: Scene) -> None:
    runtime_id = await scene.runtime()
    (await scene.target.post("/api/daemon/deregister", {"runtime_ids": [runtime_id]})).ok()
    await scene.target.pass_time(6 * 86400)
    assert await shown(scene, runtime_id) == "offline"
    await scene.target.pass_time(86400 + 60)
    assert await shown(scene, runtime_id) is None
    beat = await scene.target.post("/api/daemon/heartbeat", {"runtime_id": runtime_id})
    assert beat.refused(404, "runtime not found")
    scene.registered.remove(runtime_id)


async def test_a_runtime_that_an_agent_uses_is_not_forgotten(scene: Scene) -> None:
    runtime_id = await scene.runtime()
    await scene.agent(runtime_id)
    (await scene.target.post("/api/daemon/deregister", {"runtime_ids": [runtime_id]})).ok()
    await scene.target.pass_time(8 * 86400)
    assert await shown(scene, runtime_id) == "offline"


async def test_the_token_of_a_task_that_is_never_begun_ends_after_a_day(scene: Scene) -> None:
    work = await scene.claimed()
    path = f"/api/issues/{work.issue['id']}"
    await scene.target.pass_time(86400 - 60)
    assert (await scene.target.get(path, token=work.token)).status == 200
    await scene.target.pass_time(120)
    assert (await scene.target.get(path, token=work.token)).refused(401, "invalid token")
