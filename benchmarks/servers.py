"""Servers: claims a second at the hub, a hint over the websocket to its claim, and 200 runtimes that idle.

The hub of the first part runs in a process of its own; what claims is the daemon's own client, with as many
pollers as the named number of daemons has. In the other parts a real daemon is signed in at a server in this
process.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks import processes
from benchmarks.homes import LONG_S, BenchHome, home
from benchmarks.rows import Row, median, percentile
from daemon_core.connections.client import ServerClient
from daemon_core.protocol.wire import RegisterRequest, RuntimeEntry
from tests.support.fake_server import TOKEN, FakeServer
from tests.support.scripted_agent import install_scripted_agent

DAEMONS = (1, 5, 20)
RUNTIMES = 5
"""Of each daemon; one poller each."""
ASK_S = 4.0
TASKS = 600
HINTS = 150
IDLE_WORKSPACES = 20
IDLE_PROVIDERS = 10
IDLE_S = 60.0
SETTLE_S = 20.0


def measure() -> list[Row]:
    """All three parts."""
    rows = [row for daemons in DAEMONS for row in asyncio.run(_claims(daemons))]
    rows += asyncio.run(_hints())
    rows += asyncio.run(_idle())
    return rows


# --- claims a second ----------------------------------------------------------------------------------


class _HubUser:
    """The user of a hub in another process."""

    def __init__(self, url: str, token: str, workspace_id: str, http: aiohttp.ClientSession) -> None:
        self.url = url
        self.token = token
        self.workspace_id = workspace_id
        self._http = http

    async def post(self, path: str, body: Any) -> Any:
        headers = {"Authorization": f"Bearer {self.token}", "X-Workspace-ID": self.workspace_id}
        async with self._http.post(self.url + path, json=body, headers=headers) as answer:
            if answer.status >= 400:
                raise RuntimeError(f"{path}: {answer.status} {await answer.text()}")
            return await answer.json()


@contextlib.asynccontextmanager
async def _hub(folder: Path) -> AsyncIterator[tuple[_HubUser, int]]:
    """A hub and its process id."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.hub_process", str(folder / "hub.db"),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    try:
        assert process.stdout is not None
        url, token, workspace_id = (await process.stdout.readline()).decode().split()
        async with aiohttp.ClientSession() as http:
            yield _HubUser(url, token, workspace_id, http), process.pid
    finally:
        process.terminate()
        await process.communicate()


async def _claims(daemons: int) -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="ost-bench-") as folder:
        async with _hub(Path(folder)) as (user, pid), contextlib.AsyncExitStack() as stack:
            pollers: list[tuple[ServerClient, str]] = []
            for number in range(daemons):
                client = await stack.enter_async_context(ServerClient(user.url, user.token, version="bench"))
                request = RegisterRequest(
                    workspace_id=user.workspace_id,
                    daemon_id=str(uuid.UUID(int=number + 1)),
                    device_name=f"bench {number}",
                    cli_version="0.5.0",
                    runtimes=[
                        RuntimeEntry(name=f"R{each}", type=f"provider{each}", version="1")
                        for each in range(RUNTIMES)
                    ],
                )
                registered = await client.register(request)
                pollers += [(client, runtime.id) for runtime in registered.runtimes or []]
            empty, busy = await _ask_in_vain(pollers, pid)
            took = await _claim_all(user, pollers)
    what = f"{daemons} daemon{'s' if daemons > 1 else ''}, {len(pollers)} pollers"
    return [
        Row(
            f"claims a second without a task, {what}",
            empty,
            "1/s",
            note=f"{busy:.0f} % of one core at the hub",
        ),
        Row(f"tasks claimed a second, {what}", TASKS / took, "1/s", note=f"{TASKS} tasks"),
    ]


async def _ask_in_vain(pollers: list[tuple[ServerClient, str]], pid: int) -> tuple[float, float]:
    """Claims a second, all pollers without a pause; and the hub's part of a core."""
    count = 0
    until = time.perf_counter() + ASK_S

    async def ask(client: ServerClient, runtime_id: str) -> None:
        nonlocal count
        while time.perf_counter() < until:
            if await client.claim(runtime_id) is not None:
                raise RuntimeError("there was a task")
            count += 1

    cpu, began = processes.cpu_s(pid), time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for client, runtime_id in pollers:
            group.create_task(ask(client, runtime_id))
    took = time.perf_counter() - began
    return count / took, (processes.cpu_s(pid) - cpu) / took * 100


async def _claim_all(user: _HubUser, pollers: list[tuple[ServerClient, str]]) -> float:
    """Seconds until all tasks are claimed, each poller its own."""
    for number, (_, runtime_id) in enumerate(pollers):
        name = f"agent {number}"
        agent = await user.post(
            "/api/agents", {"name": name, "runtime_id": runtime_id, "max_concurrent_tasks": TASKS}
        )
        for _ in range(TASKS // len(pollers)):
            session = await user.post("/api/chat/sessions", {"agent_id": agent["id"], "title": "bench"})
            await user.post(f"/api/chat/sessions/{session['id']}/messages", {"content": "true"})

    async def claim(client: ServerClient, runtime_id: str) -> None:
        for _ in range(TASKS // len(pollers)):
            if await client.claim(runtime_id) is None:
                raise RuntimeError("a task is missing")

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for client, runtime_id in pollers:
            group.create_task(claim(client, runtime_id))
    return time.perf_counter() - began


# --- a hint to its claim ------------------------------------------------------------------------------


async def _signed_in(place: BenchHome, server: FakeServer) -> None:
    await asyncio.to_thread(place.start)
    body = {"url": server.url, "token": TOKEN, "store": "file"}
    await asyncio.to_thread(place.call, "POST", "/v1/connections/sign-in", body)


async def _hints() -> list[Row]:
    async with FakeServer() as server:
        server.add_workspace()
        with home() as place:
            await _signed_in(place, server)
            await server.until(lambda: bool(server.sockets) and bool(server.runtimes), LONG_S)
            runtime = next(each.id for each in server.runtimes.values() if each.provider == "shell")
            claimed: list[float] = []
            started: list[float] = []
            for number in range(HINTS + 5):
                began = time.perf_counter()
                task = server.add_task(runtime, chat_session_id=f"c{number}", chat_message="true")
                await server.until(lambda task=task: task.claims > 0, LONG_S)  # type: ignore[misc]
                claimed.append((time.perf_counter() - began) * 1000)
                await server.until(lambda task=task: task.starts > 0, LONG_S)  # type: ignore[misc]
                started.append((time.perf_counter() - began) * 1000)
                await server.until(lambda task=task: task.status == "completed", LONG_S)  # type: ignore[misc]
                await asyncio.sleep(0.05)
            await asyncio.to_thread(place.stop)
    claimed, started = claimed[5:], started[5:]
    return [
        Row(
            "hint over the websocket → claim at the server, p50",
            percentile(claimed, 50),
            "ms",
            note=f"n={HINTS}",
        ),
        Row("hint over the websocket → claim at the server, p99", percentile(claimed, 99), "ms"),
        Row("hint over the websocket → start at the server, p50", median(started), "ms"),
    ]


# --- idle runtimes ------------------------------------------------------------------------------------


async def _idle() -> list[Row]:
    async with FakeServer() as server:
        server.later = True
        for number in range(IDLE_WORKSPACES):
            server.add_workspace(f"W{number}")
        with home() as place:
            for number in range(IDLE_PROVIDERS - 2):  # beside the shell and claude
                name = f"agent{number}"
                place.add_provider(name)
                install_scripted_agent(place.bin, name, f"{name} 2.1.0")
            await _signed_in(place, server)
            wanted = IDLE_WORKSPACES * IDLE_PROVIDERS
            await server.until(lambda: len(server.runtimes) == wanted and bool(server.sockets), LONG_S)
            await asyncio.sleep(SETTLE_S)
            pid = place.pid
            seen, asked = len(server.requests), len(server.asked_own_list)
            frames = len(server.sockets[0].frames)
            cpu, woken, began = processes.cpu_s(pid), processes.wakeups(pid), time.monotonic()
            await asyncio.sleep(IDLE_S)
            cpu, woken, took = (
                processes.cpu_s(pid) - cpu,
                processes.wakeups(pid) - woken,
                time.monotonic() - began,
            )
            made = Counter(request.route for request in server.requests[seen:])
            made["workspaces"] += len(server.asked_own_list) - asked
            beats = len(server.sockets[0].frames) - frames
            memory = processes.memory_mib(pid)
            await asyncio.to_thread(place.stop)
    listed = ", ".join(f"{name} {count / took * 60:.0f}" for name, count in made.most_common() if count)
    per_minute = 60 / took
    return [
        Row(
            f"{wanted} idle runtimes: processor, part of one core",
            cpu / took * 100,
            "%",
            note=f"{took:.0f} s",
        ),
        Row(f"{wanted} idle runtimes: requests a minute", made.total() * per_minute, "1/min", note=listed),
        Row(
            f"{wanted} idle runtimes: frames sent a minute",
            beats * per_minute,
            "1/min",
            note="beats, one a runtime",
        ),
        Row(f"{wanted} idle runtimes: wake-ups a second", woken / took, "1/s"),
        Row(f"{wanted} idle runtimes: PSS", memory["Pss"], "MiB"),
    ]
