"""The embedded hub as a server of its own on a real socket, at which other daemons sign in with a token."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any

import aiohttp
from aiohttp import web

from daemon_core.hub import Hub, Limits, routes


class HubServer:
    """See the module. An async context manager; ``restart`` is a death and a new life on the same file.

    Attributes:
        token: a user's, good over restarts.
    """

    def __init__(self, database: Path, *, limits: Limits | None = None) -> None:
        self.database = database
        self.token = ""
        self.hub: Hub
        self._limits = limits
        self._port = 0
        self._runner: web.AppRunner
        self._running: asyncio.Task[None]
        self._http: aiohttp.ClientSession

    async def __aenter__(self) -> HubServer:
        self._http = aiohttp.ClientSession()
        await self._open()
        self.token = await self.hub.add_access_token("tests")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()
        await self._http.close()

    @property
    def port(self) -> int:
        """The same over restarts."""
        return self._port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def restart(self) -> None:
        """Every connection is dropped; what was written is there again."""
        await self._close()
        await self._open()

    async def _open(self) -> None:
        self.hub = await Hub.open(self.database, daemon_id="", limits=self._limits)
        self.hub.start_timers()
        self._running = asyncio.create_task(self.hub.run())
        application = web.Application()
        application.add_routes(routes(self.hub))
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.2)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True).start()
        self._port = self._runner.addresses[0][1]

    async def _close(self) -> None:
        self._running.cancel()
        await asyncio.wait([self._running])
        await self.hub.close()
        await self._runner.cleanup()

    # --- as its user --------------------------------------------------------------------------------

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        """A request of the user's; gives what a success answers."""
        headers = {"Authorization": f"Bearer {self.token}", "X-Workspace-ID": self.hub.workspace_id}
        async with self._http.request(method, self.url + path, json=body, headers=headers) as answer:
            text = await answer.text()
            assert answer.status < 400, f"{method} {path}: {answer.status} {text}"
            return await answer.json()

    async def agent(self, name: str, runtime_id: str) -> str:
        """An agent on a runtime; gives its id."""
        made = await self.call(
            "POST", "/api/agents", {"name": name, "runtime_id": runtime_id, "max_concurrent_tasks": 50}
        )
        return str(made["id"])

    async def chat(self, agent_id: str, said: str) -> str:
        """Begin a conversation; gives the id of its first task."""
        session = await self.call("POST", "/api/chat/sessions", {"agent_id": agent_id, "title": said[:40]})
        task = await self.call("POST", f"/api/chat/sessions/{session['id']}/messages", {"content": said})
        return str(task["task_id"])

    # --- what it has ----------------------------------------------------------------------------------

    def rows(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Ask its database."""
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=30)) as db:
            return db.execute(query, parameters).fetchall()

    def status(self, task_id: str) -> str:
        ((status,),) = self.rows("SELECT status FROM task WHERE id = ?", task_id)
        return str(status)

    def runtimes(self, provider: str) -> list[str]:
        """Ids of the runtimes of a provider."""
        return [
            str(row[0])
            for row in self.rows("SELECT id FROM runtime WHERE provider = ? ORDER BY id", provider)
        ]

    def check(self, task_id: str) -> str:
        """Its transcript has no hole and no double, and there is at most one answer; gives the status."""
        numbers = [
            row[0]
            for row in self.rows(
                "SELECT m.seq FROM message m JOIN task t ON t.no = m.task_no WHERE t.id = ? ORDER BY m.seq",
                task_id,
            )
        ]
        assert numbers == list(range(1, len(numbers) + 1)), f"transcript of {task_id}: {numbers}"
        answers = self.rows("SELECT 1 FROM chat_message WHERE role = 'assistant' AND task_id = ?", task_id)
        assert len(answers) <= 1
        return self.status(task_id)
