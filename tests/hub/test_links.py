"""The websocket: acknowledgements, hints, and connections that do not keep up."""

from __future__ import annotations

import asyncio
import base64
import socket as sockets
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from daemon_core.hub import Limits, NewTask
from tests.hub.world import NOWHERE, World


async def hints(socket: aiohttp.ClientWebSocketResponse, count: int) -> list[dict[str, Any]]:
    return [await socket.receive_json(timeout=5) for _ in range(count)]


async def until(condition: Any) -> None:
    """Wait for a condition, in the loop's own turns."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is waited for sets no event
            await asyncio.sleep(0)


async def quiet(world: World, socket: aiohttp.ClientWebSocketResponse) -> None:
    """Nothing but the answer to this one heartbeat is on the way."""
    runtime_id = world.runtimes["shell"]
    await beat(socket, runtime_id)
    (frame,) = await hints(socket, 1)
    assert frame["type"] == "daemon:heartbeat_ack", frame


async def beat(socket: aiohttp.ClientWebSocketResponse, runtime_id: str) -> None:
    payload = {"runtime_id": runtime_id, "supports_batch_import": True}
    await socket.send_json({"type": "daemon:heartbeat", "payload": payload})


async def test_a_heartbeat_is_acknowledged(world: World) -> None:
    shell = world.runtimes["shell"]
    async with world.connect(shell) as socket:
        await beat(socket, shell)
        assert await hints(socket, 1) == [
            {"type": "daemon:heartbeat_ack", "payload": {"status": "ok", "runtime_id": shell}}
        ]


async def test_a_heartbeat_of_a_runtime_that_is_gone_says_so(world: World) -> None:
    shell = world.runtimes["shell"]
    async with world.connect(shell) as socket:
        await world.hub.forget_runtime(shell)
        await beat(socket, shell)
        assert (await hints(socket, 1))[0]["payload"] == {
            "runtime_id": shell,
            "status": "runtime_gone",
            "runtime_gone": True,
        }


async def test_a_heartbeat_over_the_socket_brings_a_runtime_back_online(world: World) -> None:
    shell = world.runtimes["shell"]
    async with world.connect(shell) as socket:
        await world.post("/api/daemon/deregister", {"runtime_ids": [shell]})
        await quiet(world, socket)
        assert {each.status for each in await world.hub.runtimes()} == {"online"}


@pytest.mark.parametrize(
    "frame",
    [
        "",
        "{",
        "[]",
        '{"type": 1}',
        '{"type": "daemon:unknown", "payload": {}}',
        '{"type": "daemon:heartbeat"}',
        '{"type": "daemon:heartbeat", "payload": {"runtime_id": 5}}',
        '{"type": "daemon:heartbeat", "payload": {"runtime_id": "' + NOWHERE + '"}}',
    ],
)
async def test_a_frame_that_makes_no_sense_is_ignored(world: World, frame: str) -> None:
    async with world.connect(world.runtimes["shell"]) as socket:
        await socket.send_str(frame)
        await socket.send_bytes(b"\0")
        await quiet(world, socket)


async def test_a_frame_that_is_too_large_closes_the_connection(world: World) -> None:
    async with world.connect(world.runtimes["shell"]) as socket:
        await socket.send_str("x" * 5000)
        message = await socket.receive(timeout=5)
        assert message.type is aiohttp.WSMsgType.CLOSE
        assert message.data == aiohttp.WSCloseCode.MESSAGE_TOO_BIG


async def test_a_heartbeat_of_a_runtime_that_was_not_named_is_ignored(world: World) -> None:
    async with world.connect(world.runtimes["shell"]) as socket:
        await beat(socket, world.runtimes["claude"])
        await quiet(world, socket)


async def test_a_new_task_is_hinted_at_to_its_runtime_alone(world: World) -> None:
    shell, claude = world.runtimes["shell"], world.runtimes["claude"]
    async with world.connect(shell) as one, world.connect(claude) as other:
        task = await world.hub.add_task(NewTask(prompt="x", provider="shell"))
        assert await hints(one, 1) == [
            {"type": "daemon:task_available", "payload": {"runtime_id": shell, "task_id": task.id}}
        ]
        await beat(other, claude)
        assert (await hints(other, 1))[0]["type"] == "daemon:heartbeat_ack"


async def test_a_turn_that_may_go_now_is_hinted_at(world: World) -> None:
    first = await world.hub.add_task(NewTask(prompt="x", provider="shell"))
    await world.claim()
    second = await world.hub.reply(first.id, "y")
    async with world.connect(world.runtimes["shell"]) as socket:
        await world.run(first.id)
        assert (await hints(socket, 1))[0]["payload"]["task_id"] == second.id
        await world.claim()
        await world.task(second.id, "fail", {"error": "x", "failure_reason": "timeout"})
        again = (await world.hub.get(second.id)).retried_as  # type: ignore[union-attr]
        assert (await hints(socket, 1))[0]["payload"]["task_id"] == again


async def test_a_task_that_waited_for_its_runtime_is_hinted_at_when_it_is_back(world: World) -> None:
    shell = world.runtimes["shell"]
    async with world.connect(shell) as socket:
        await world.post("/api/daemon/deregister", {"runtime_ids": [shell]})
        await world.hub.add_task(NewTask(prompt="x", provider="shell"))
        assert (await hints(socket, 1))[0]["type"] == "daemon:task_available"
        await world.register("shell")
        assert (await hints(socket, 1))[0]["type"] == "daemon:task_available"


@pytest.mark.parametrize("end", ["cancelled", "deleted"])
async def test_a_task_that_was_ended_here_is_to_be_looked_at_at_once(world: World, end: str) -> None:
    task = await world.hub.add_task(NewTask(prompt="x", provider="shell"))
    await world.claim()
    async with world.connect(world.runtimes["shell"]) as socket:
        await (world.hub.cancel(task.id) if end == "cancelled" else world.hub.delete(task.id))
        assert await hints(socket, 1) == [
            {"type": "daemon:task_changed", "payload": {"task_id": task.id, "status": end}}
        ]


@pytest.mark.parametrize(
    ("query", "status", "text"),
    [
        ("", 400, "runtime_ids required"),
        ("runtime_ids=,", 400, "runtime_ids required"),
        (f"runtime_ids={NOWHERE}", 404, "runtime not found"),
        ("runtime_ids=nonsense", 404, "runtime not found"),
        ("runtime_ids={shell}," + NOWHERE, 404, "runtime not found"),
        ("runtime_ids={shell}", 400, "websocket upgrade required"),
    ],
)
async def test_a_connection_is_refused_in_the_protocols_words(
    world: World, query: str, status: int, text: str
) -> None:
    path = "/api/daemon/ws?" + query.format(shell=world.runtimes["shell"])
    assert await world.get(path) == (status, {"error": text})


async def test_runtimes_can_be_named_in_several_ways(world: World) -> None:
    shell, claude = world.runtimes["shell"], world.runtimes["claude"]
    url = f"{world.url}/api/daemon/ws?runtime_id={shell}&runtime_id={claude.upper()}"
    headers = {"Authorization": f"Bearer {world.token}"}
    async with world.http.ws_connect(url, headers=headers) as socket:
        await beat(socket, claude)
        await beat(socket, shell)
        assert {each["payload"]["runtime_id"] for each in await hints(socket, 2)} == {shell, claude}


async def test_closing_the_hub_closes_its_connections(world: World) -> None:
    async with world.connect(world.runtimes["shell"]) as socket:
        await world.hub.links.close()
        message = await socket.receive(timeout=5)
        assert message.type is aiohttp.WSMsgType.CLOSE
        assert message.data == aiohttp.WSCloseCode.GOING_AWAY
    answer = await world.get(f"/api/daemon/ws?runtime_ids={world.runtimes['shell']}")
    assert answer == (503, {"error": "daemon websocket unavailable"})
    await until(lambda: len(world.hub.links) == 0)


async def test_a_burst_of_hints_about_one_thing_is_one_frame(world: World) -> None:
    async with world.connect(world.runtimes["shell"]) as socket:
        first = await world.hub.add_task(NewTask(prompt="x", provider="shell"))
        await world.claim()
        for n in range(300):
            await world.hub.reply(first.id, str(n))
        await world.hub.delete(first.id)
        seen = set()
        for frame in await hints(socket, 302):
            seen.add(frame["type"])
            if len(seen) == 2:
                break
        assert seen == {"daemon:task_available", "daemon:task_changed"}


async def test_a_peer_that_does_not_read_is_cut_off_and_others_are_not(tmp_path: Path) -> None:
    world = World(tmp_path / "hub.db", limits=Limits(link_queue=16))
    await world.open()
    try:
        await world.register("shell")
        shell = world.runtimes["shell"]
        loop = asyncio.get_running_loop()
        host, port = world.url.removeprefix("http://").split(":")
        deaf = sockets.socket()
        deaf.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
        deaf.setblocking(False)
        await loop.sock_connect(deaf, (host, int(port)))
        request = (
            f"GET /api/daemon/ws?runtime_ids={shell} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nAuthorization: Bearer {world.token}\r\n"
            f"Sec-WebSocket-Key: {base64.b64encode(b'0' * 16).decode()}\r\n\r\n"
        )
        await loop.sock_sendall(deaf, request.encode())
        await until(lambda: len(world.hub.links) == 1)
        async with world.connect(shell) as good:
            await until(lambda: len(world.hub.links) == 2)
            received = 0

            async def drain() -> None:
                nonlocal received
                async for _ in good:
                    received += 1

            draining = asyncio.create_task(drain())
            big = {"filler": "x" * 60_000}
            number = 0
            async with asyncio.timeout(30):
                while len(world.hub.links) == 2:
                    number += 1
                    for each in list(world.hub.links._links):
                        each.put("daemon:filler", str(number), big)
                    await asyncio.sleep(0.001)
            await until(lambda: received == number)
            assert len(world.hub.links) == 1
            draining.cancel()
        deaf.close()
    finally:
        await world.close()
