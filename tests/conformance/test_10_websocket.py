"""Sections 10 and 11: the websocket, and a runtime that is lost."""

from __future__ import annotations

import aiohttp
import pytest

from tests.conformance.target import NOWHERE, Scene, Target, section

pytestmark = section("10", "WebSocket")
GONE = section("11", 'Loss of a runtime ("runtime gone")')


async def test_it_needs_runtimes(target: Target) -> None:
    assert (await target.get("/api/daemon/ws")).refused(400, "runtime_ids required")
    assert (await target.get("/api/daemon/ws?runtime_ids=,")).refused(400, "runtime_ids required")


async def test_one_bad_runtime_refuses_the_whole(scene: Scene) -> None:
    runtime_id = await scene.runtime()
    answer = await scene.target.get(f"/api/daemon/ws?runtime_ids={runtime_id},{NOWHERE}")
    assert answer.status == 404
    assert answer.error in ("runtime not found", "not found")


async def test_it_needs_a_token(scene: Scene) -> None:
    runtime_id = await scene.runtime()
    path = f"/api/daemon/ws?runtime_ids={runtime_id}"
    assert (await scene.target.get(path, token="")).status == 401


@pytest.mark.parametrize("form", ["runtime_ids={},{}", "runtime_id={}&runtime_id={}", "runtime_id={},{}"])
async def test_runtimes_may_be_named_in_several_ways(scene: Scene, form: str) -> None:
    ids = [each["id"] for each in (await scene.register("claude", "codex"))["runtimes"]]
    target = scene.target
    headers = {"Authorization": f"Bearer {target.token}"}
    address = f"{target.url}/api/daemon/ws?{form.format(*ids)}"
    async with target.http.ws_connect(address, headers=headers) as socket:
        for runtime_id in ids:
            await socket.send_json({"type": "daemon:heartbeat", "payload": {"runtime_id": runtime_id}})
            answer = await socket.receive_json(timeout=20)
            assert answer["type"] == "daemon:heartbeat_ack"
            assert answer["payload"]["runtime_id"] == runtime_id


async def test_a_heartbeat_is_acknowledged_with_its_runtime(scene: Scene) -> None:
    runtime_id = await scene.runtime()
    async with scene.target.link(runtime_id) as link:
        await link.beat(runtime_id, supports_batch_import=True)
        ack = await link.next("daemon:heartbeat_ack")
        assert (ack["runtime_id"], ack["status"]) == (runtime_id, "ok")
        assert not ack.get("runtime_gone")


async def test_what_cannot_be_read_is_passed_over(scene: Scene) -> None:
    runtime_id = await scene.runtime()
    async with scene.target.link(runtime_id) as link:
        await link.socket.send_str("{nonsense")
        await link.socket.send_str("[1, 2]")
        await link.send("daemon:something_new", {"runtime_id": runtime_id})
        await link.send("daemon:heartbeat", "no object")
        await link.socket.send_bytes(b"\x00\x01")
        await link.beat(runtime_id)
        assert (await link.next("daemon:heartbeat_ack"))["runtime_id"] == runtime_id


async def test_a_runtime_that_was_not_named_is_passed_over(scene: Scene) -> None:
    mine, other = [each["id"] for each in (await scene.register("claude", "codex"))["runtimes"]]
    async with scene.target.link(mine) as link:
        await link.beat(other)
        await link.beat(mine)
        assert (await link.next("daemon:heartbeat_ack"))["runtime_id"] == mine


async def test_new_work_is_hinted_at_and_never_sent(scene: Scene) -> None:
    runtime_id = await scene.runtime()
    agent_id = await scene.agent(runtime_id)
    async with scene.target.link(runtime_id) as link:
        issue = await scene.issue(agent_id)
        hint = await link.next("daemon:task_available")
        assert hint["runtime_id"] == runtime_id
        assert set(hint) <= {"runtime_id", "task_id"}
    task = await scene.claim(runtime_id)
    assert task["issue_id"] == issue["id"]
    assert hint.get("task_id", task["id"]) == task["id"]


async def test_a_hint_reaches_every_link_of_the_runtime(scene: Scene) -> None:
    first, second = [each["id"] for each in (await scene.register("claude", "codex"))["runtimes"]]
    agent_id = await scene.agent(second)
    async with scene.target.link(first, second) as one, scene.target.link(second) as other:
        await scene.issue(agent_id)
        for link in (one, other):
            assert (await link.next("daemon:task_available"))["runtime_id"] == second


@section("31", "Easy to get wrong")
async def test_frames_up_to_4_kib_are_taken_and_one_beyond_64_ends_the_connection(scene: Scene) -> None:
    runtime_id = await scene.runtime()
    async with scene.target.link(runtime_id) as link:
        await link.beat(runtime_id, padding="x" * 3500)
        assert (await link.next("daemon:heartbeat_ack"))["runtime_id"] == runtime_id
        await link.beat(runtime_id, padding="x" * 70_000)
        while True:
            message = await link.socket.receive(timeout=20)
            if message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR):
                break


async def test_pings_are_answered(scene: Scene) -> None:
    runtime_id = await scene.runtime()
    target = scene.target
    address = f"{target.url}/api/daemon/ws?runtime_ids={runtime_id}"
    headers = {"Authorization": f"Bearer {target.token}"}
    async with target.http.ws_connect(address, headers=headers, autoping=False) as socket:
        await socket.ping(b"there?")
        message = await socket.receive(timeout=20)
        assert (message.type, bytes(message.data)) == (aiohttp.WSMsgType.PONG, b"there?")


@GONE
async def test_a_lost_runtime_is_told_over_http(scene: Scene) -> None:
    runtime_id = await scene.runtime()
    await forget(scene, runtime_id)
    beat = await scene.target.post("/api/daemon/heartbeat", {"runtime_id": runtime_id})
    assert beat.refused(404, "runtime not found")
    claim = await scene.target.post(f"/api/daemon/runtimes/{runtime_id}/tasks/claim")
    assert claim.refused(404, "runtime not found")


@GONE
async def test_a_lost_runtime_is_told_over_the_websocket(scene: Scene) -> None:
    runtime_id = await scene.runtime()
    async with scene.target.link(runtime_id) as link:
        await forget(scene, runtime_id)
        await link.beat(runtime_id)
        ack = await link.next("daemon:heartbeat_ack")
        assert (ack["runtime_id"], ack["status"], ack["runtime_gone"]) == (runtime_id, "runtime_gone", True)


@GONE
async def test_a_lost_runtime_is_registered_again_with_a_new_id(scene: Scene) -> None:
    runtime_id = await scene.runtime()
    await forget(scene, runtime_id)
    again = await scene.runtime()
    assert again != runtime_id
    answer = await scene.target.post(f"/api/daemon/runtimes/{again}/recover-orphans")
    assert answer.ok() == {"orphaned": 0, "retried": 0}


async def forget(scene: Scene, runtime_id: str) -> None:
    (await scene.target.delete(f"/api/runtimes/{runtime_id}")).ok(200, 204)
    scene.registered.remove(runtime_id)
