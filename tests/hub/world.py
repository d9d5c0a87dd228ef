"""A hub on a real file behind a real socket, a plain HTTP client, and a clock that the test holds."""

from __future__ import annotations

import asyncio
import io
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from daemon_core.hub import Hub, HubChange, Limits, routes

DAEMON_ID = "01912d68-783e-7a09-8b1d-3f0e3b2c1a00"
NOWHERE = "00000000-0000-4000-8000-000000000000"


class HeldClock:
    """Time that passes only when told."""

    def __init__(self) -> None:
        self.wall = 1_760_000_000_000_000
        self.mono = 1000.0

    def now(self) -> int:
        return self.wall

    def monotonic(self) -> float:
        return self.mono

    def advance(self, seconds: float) -> None:
        self.wall += int(seconds * 1_000_000)
        self.mono += seconds


class Answer:
    """Status and decoded body of one request."""

    def __init__(self, status: int, body: Any) -> None:
        self.status = status
        self.body = body

    def __eq__(self, other: object) -> bool:
        return (self.status, self.body) == other

    def __repr__(self) -> str:
        return f"({self.status}, {self.body!r})"

    __hash__ = None  # type: ignore[assignment]


class World:
    """One hub as the outside sees it. ``runtimes`` maps provider to id once registered."""

    def __init__(self, database: Path, **options: Any) -> None:
        self.database = database
        self.clock = HeldClock()
        self.changes: list[HubChange] = []
        self.runtimes: dict[str, str] = {}
        self.url = ""
        self.token = ""
        self.hub: Hub
        self.http: aiohttp.ClientSession
        self._options = options
        self._runner: web.AppRunner

    async def open(self) -> None:
        options: dict[str, Any] = {"retention": timedelta(days=30), "limits": Limits(), **self._options}
        self.hub = await Hub.open(
            self.database,
            daemon_id=DAEMON_ID,
            on_change=self.changes.append,
            clock=self.clock,
            **options,
        )
        self.token = self.hub.credential
        application = web.Application()
        application.add_routes(routes(self.hub))
        self._runner = web.AppRunner(application, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        self.http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))

    async def close(self) -> None:
        await self.http.close()
        await self.hub.close()
        await self._runner.cleanup()
        await asyncio.sleep(0)

    async def reopen(self) -> None:
        """The daemon dies and comes back: a new hub on the same file."""
        await self.close()
        await self.open()

    async def call(self, method: str, path: str, body: Any = None, *, token: str | None = None) -> Answer:
        headers = {"Authorization": f"Bearer {self.token if token is None else token}"}
        data = None
        if method != "GET":
            encoded = body if isinstance(body, bytes) else json.dumps({} if body is None else body).encode()
            data = io.BytesIO(encoded)
            headers["Content-Type"] = "application/json"
        async with self.http.request(method, self.url + path, headers=headers, data=data) as response:
            raw = await response.read()
            if not raw:
                return Answer(response.status, None)
            assert response.content_type == "application/json", raw
            return Answer(response.status, await response.json())

    async def get(self, path: str, **options: Any) -> Answer:
        return await self.call("GET", path, **options)

    async def post(self, path: str, body: Any = None, **options: Any) -> Answer:
        return await self.call("POST", path, body, **options)

    async def register(self, *providers: str, daemon_id: str = DAEMON_ID, **more: Any) -> Answer:
        answer = await self.post(
            "/api/daemon/register",
            {
                "workspace_id": self.hub.workspace_id,
                "daemon_id": daemon_id,
                "legacy_daemon_ids": None,
                "device_name": "bench",
                "cli_version": "0.4.0",
                "launched_by": "",
                "runtimes": [
                    {"name": provider.title(), "type": provider, "version": "1.2.3", "status": "online"}
                    for provider in providers
                ],
                **more,
            },
        )
        if answer.status == 200:
            self.runtimes |= {each["provider"]: each["id"] for each in answer.body["runtimes"]}
        return answer

    async def claim(self, provider: str = "shell") -> Any:
        answer = await self.post(f"/api/daemon/runtimes/{self.runtimes[provider]}/tasks/claim")
        assert answer.status == 200, answer
        return answer.body["task"]

    async def task(self, task_id: str, verb: str, body: Any = None, **options: Any) -> Answer:
        """One of the daemon's calls about a task."""
        return await self.post(f"/api/daemon/tasks/{task_id}/{verb}", body, **options)

    async def lease(self, task_id: str, provider: str = "shell") -> Answer:
        return await self.post(
            f"/api/daemon/runtimes/{self.runtimes[provider]}/tasks/{task_id}/prepare-lease"
        )

    async def status(self, task_id: str) -> str:
        answer = await self.get(f"/api/daemon/tasks/{task_id}/status")
        return answer.body["status"] if answer.status == 200 else f"{answer.status} {answer.body['error']}"

    async def run(self, task_id: str, **complete: Any) -> None:
        """Start and complete a claimed task."""
        assert (await self.task(task_id, "start")).status == 200
        assert (await self.task(task_id, "complete", {"output": "done", **complete})).status == 200

    async def put_note(self, issue_id: str) -> None:
        """A note on an issue."""
        assert (await self.call("PUT", f"/api/issues/{issue_id}/metadata/pr", {"value": 7})).status == 200

    def connect(self, *runtime_ids: str) -> Any:
        """A websocket, as a context manager."""
        return self.http.ws_connect(
            f"{self.url}/api/daemon/ws?runtime_ids={','.join(runtime_ids)}",
            headers={"Authorization": f"Bearer {self.token}"},
        )
