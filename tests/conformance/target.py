"""The server under test, as the outside sees it: an address, a token, and a plain HTTP and websocket client.

Nothing here knows how a server is made. Scenes are set through routes that users have; a test whose scene the
target cannot set is skipped and says why.
"""

from __future__ import annotations

import contextlib
import copy
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import aiohttp
import pytest
from multidict import CIMultiDict

NOWHERE = "00000000-0000-4000-8000-000000000000"
PATIENCE_S = 20.0
TERMINAL = ("completed", "failed", "cancelled")


def section(number: str, title: str) -> pytest.MarkDecorator:
    """Names the section of the protocol that a test is about."""
    return pytest.mark.section(number, title)


def cannot(reason: str) -> NoReturn:
    """The target cannot set this scene."""
    pytest.skip(f"the target cannot: {reason}")


@dataclass(frozen=True)
class Answer:
    """Status, headers and decoded body of one request."""

    status: int
    body: Any
    headers: Mapping[str, str] = field(default_factory=dict, compare=False)
    kind: str = field(default="", compare=False)

    @property
    def error(self) -> str:
        """The text of a refusal, which has the one shape that clients know."""
        assert self.status >= 400, self
        assert self.kind == "application/json", self
        assert isinstance(self.body, dict), self
        assert isinstance(self.body.get("error"), str), self
        return str(self.body["error"])

    def refused(self, status: int, text: str) -> bool:
        """Whether it is this refusal; says what came where it is not."""
        assert (self.status, self.error) == (status, text), self
        return True

    def ok(self, *statuses: int) -> Any:
        """The body of a success."""
        assert self.status in (statuses or (200,)), self
        return self.body


class Target:
    """A server under test.

    Attributes:
        advance: lets the server's time pass; None where that is not possible.
        mint_daemon_token: makes a token that is one daemon's alone, in one workspace; None where that is not
            possible.
    """

    def __init__(self, url: str, token: str) -> None:
        self.url = url.rstrip("/")
        self.token = token
        self.workspace_id = ""
        self.advance: Callable[[float], Awaitable[None]] | None = None
        self.mint_daemon_token: Callable[[str, str], Awaitable[str]] | None = None
        self.http: aiohttp.ClientSession

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = None,
        headers: dict[str, str] | None = None,
        data: Any = None,
    ) -> Answer:
        """One request. ``token`` "" sends none; ``body`` bytes are sent as they are; ``data`` is a form."""
        given = {"X-Client-Platform": "daemon", "X-Client-Version": "0.5.0", "X-Client-OS": "linux"}
        if not path.startswith("/api/daemon") and self.workspace_id:
            given["X-Workspace-ID"] = self.workspace_id
        bearer = self.token if token is None else token
        if bearer:
            given["Authorization"] = f"Bearer {bearer}"
        given |= headers or {}
        if data is None and method != "GET":
            data = body if isinstance(body, bytes) else json.dumps({} if body is None else body).encode()
            given.setdefault("Content-Type", "application/json")
        async with self.http.request(
            method, self.url + path, headers=given, data=data, allow_redirects=False
        ) as response:
            raw = await response.read()
            kind = response.content_type
            decoded: Any = raw
            if kind == "application/json" and raw:
                decoded = json.loads(raw)
            return Answer(response.status, decoded if raw else None, CIMultiDict(response.headers), kind)

    async def get(self, path: str, **options: Any) -> Answer:
        return await self.call("GET", path, **options)

    async def post(self, path: str, body: Any = None, **options: Any) -> Answer:
        return await self.call("POST", path, body, **options)

    async def put(self, path: str, body: Any = None, **options: Any) -> Answer:
        return await self.call("PUT", path, body, **options)

    async def patch(self, path: str, body: Any = None, **options: Any) -> Answer:
        return await self.call("PATCH", path, body, **options)

    async def delete(self, path: str, **options: Any) -> Answer:
        return await self.call("DELETE", path, **options)

    async def daemon_token(self, daemon_id: str, workspace_id: str | None = None) -> str:
        """A token of one daemon's, or skip the test."""
        if self.mint_daemon_token is None:
            cannot("make a token of one daemon's")
        return await self.mint_daemon_token(daemon_id, workspace_id or self.workspace_id)

    def within(self, workspace_id: str) -> Target:
        """The same server, asked about another workspace."""
        other = copy.copy(self)
        other.workspace_id = workspace_id
        return other

    async def pass_time(self, seconds: float) -> None:
        """Let time pass at the server, or skip the test."""
        if self.advance is None:
            cannot(f"let {seconds:.0f} s pass")
        await self.advance(seconds)

    @contextlib.asynccontextmanager
    async def link(self, *runtime_ids: str, token: str | None = None) -> AsyncIterator[Link]:
        """A websocket for some runtimes."""
        query = ",".join(sorted(runtime_ids))
        headers = {"Authorization": f"Bearer {self.token if token is None else token}"}
        address = f"{self.url}/api/daemon/ws?runtime_ids={query}"
        async with self.http.ws_connect(address, headers=headers, autoping=True) as socket:
            yield Link(socket)


class Link:
    """A websocket as a daemon has it."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket

    async def send(self, kind: str, payload: Any) -> None:
        await self.socket.send_str(json.dumps({"type": kind, "payload": payload}))

    async def beat(self, runtime_id: str, **more: Any) -> None:
        await self.send("daemon:heartbeat", {"runtime_id": runtime_id, **more})

    async def next(self, kind: str) -> Any:
        """The payload of the next frame of a type; others before it are passed over."""
        while True:
            message = await self.socket.receive(timeout=PATIENCE_S)
            assert message.type is aiohttp.WSMsgType.TEXT, message
            frame = json.loads(message.data)
            assert isinstance(frame["type"], str)
            if frame["type"] == kind:
                return frame["payload"]


class Scene:
    """Daemons, agents, issues and tasks of one test, with names that nobody else uses."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.mark = uuid.uuid4().hex[:10]
        self.daemon_id = str(uuid.uuid4())
        self.registered: list[str] = []
        self._count = 0

    def name(self, what: str) -> str:
        """A name for something."""
        self._count += 1
        return f"conformance {what} {self.mark}-{self._count}"

    # --- runtimes and agents --------------------------------------------------------------------------

    def registration(self, *providers: str, **more: Any) -> dict[str, Any]:
        """The body of a registration."""
        return {
            "workspace_id": self.target.workspace_id,
            "daemon_id": self.daemon_id,
            "legacy_daemon_ids": None,
            "device_name": "bench",
            "cli_version": "0.5.0",
            "launched_by": "",
            "runtimes": [
                {"name": f"{each.title()} (bench)", "type": each, "version": "2.1.0", "status": "online"}
                for each in providers
            ],
            "failed_profiles": None,
            **more,
        }

    async def register(self, *providers: str, **more: Any) -> dict[str, Any]:
        """Register; gives the whole answer."""
        answer = await self.target.post("/api/daemon/register", self.registration(*providers, **more))
        body: dict[str, Any] = answer.ok()
        self.registered += [each["id"] for each in body["runtimes"]]
        return body

    async def runtime(self, provider: str = "claude", **more: Any) -> str:
        """A registered runtime."""
        return str((await self.register(provider, **more))["runtimes"][0]["id"])

    async def close(self) -> None:
        """Take the runtimes off again."""
        if self.registered:
            await self.target.post("/api/daemon/deregister", {"runtime_ids": self.registered})

    async def agent(self, runtime_id: str, **more: Any) -> str:
        """An agent that runs on a runtime."""
        body = {"name": self.name("agent"), "runtime_id": runtime_id, "instructions": "Be brief.", **more}
        answer = await self.target.post("/api/agents", body)
        if answer.status not in (200, 201):
            cannot(f"create an agent ({answer.status} {answer.body})")
        return str(answer.body["id"])

    # --- work -----------------------------------------------------------------------------------------

    async def issue(self, agent_id: str | None = None, **more: Any) -> dict[str, Any]:
        """An issue, with an agent if one is named."""
        body = {"title": self.name("issue"), "description": "What it is about.", "status": "todo", **more}
        if agent_id is not None:
            body |= {"assignee_type": "agent", "assignee_id": agent_id}
        answer = await self.target.post("/api/issues", body)
        if answer.status not in (200, 201):
            cannot(f"create an issue ({answer.status} {answer.body})")
        found: dict[str, Any] = answer.body
        return found

    async def comment(self, issue_id: str, content: str, **more: Any) -> dict[str, Any]:
        """A comment of the user's."""
        body = {"content": content, **more}
        found: dict[str, Any] = (await self.target.post(f"/api/issues/{issue_id}/comments", body)).ok(
            200, 201
        )
        return found

    async def chat(
        self, agent_id: str, said: str, session_id: str | None = None, **more: Any
    ) -> tuple[str, str]:
        """Something said to an agent: the session and the task that comes of it."""
        if session_id is None:
            answer = await self.target.post(
                "/api/chat/sessions", {"agent_id": agent_id, "title": self.name("chat")}
            )
            if answer.status not in (200, 201):
                cannot(f"begin a chat ({answer.status} {answer.body})")
            session_id = str(answer.body["id"])
        path = f"/api/chat/sessions/{session_id}/messages"
        answer = await self.target.post(path, {"content": said, **more})
        if answer.status not in (200, 201):
            cannot(f"say something in a chat ({answer.status} {answer.body})")
        return session_id, str(answer.body["task_id"])

    async def claim(self, runtime_id: str, **headers: str) -> Any:
        """What a claim gives."""
        answer = await self.target.post(
            f"/api/daemon/runtimes/{runtime_id}/tasks/claim",
            headers={name.replace("_", "-"): value for name, value in headers.items()},
        )
        return answer.ok()["task"]

    async def claimed(self, provider: str = "claude", **issue: Any) -> Work:
        """A task of an issue that was claimed just now."""
        runtime_id = await self.runtime(provider)
        agent_id = await self.agent(runtime_id)
        made = await self.issue(agent_id, **issue)
        task = await self.claim(runtime_id)
        assert task is not None, "an issue that is given to an agent is a task"
        return Work(self.target, runtime_id, agent_id, made, task)

    async def running(self, **issue: Any) -> Work:
        """A task of an issue whose run has begun."""
        work = await self.claimed(**issue)
        (await work.post("start")).ok()
        return work


@dataclass
class Work:
    """A claimed task and where it came from."""

    target: Target
    runtime_id: str
    agent_id: str
    issue: dict[str, Any]
    task: dict[str, Any]

    @property
    def id(self) -> str:
        return str(self.task["id"])

    @property
    def token(self) -> str:
        return str(self.task["auth_token"])

    async def post(self, verb: str, body: Any = None) -> Answer:
        """One of a daemon's calls about the task."""
        return await self.target.post(f"/api/daemon/tasks/{self.id}/{verb}", body)

    async def of_runtime(self, verb: str, body: Any = None) -> Answer:
        """One of those that name the runtime, too."""
        return await self.target.post(f"/api/daemon/runtimes/{self.runtime_id}/tasks/{self.id}/{verb}", body)

    async def status(self) -> str:
        """Where it is."""
        answer = await self.target.get(f"/api/daemon/tasks/{self.id}/status")
        return str(answer.ok()["status"])

    async def row(self) -> dict[str, Any]:
        """The task as the issue's list of runs has it."""
        path = f"/api/issues/{self.issue['id']}/task-runs"
        runs = (await self.target.get(path)).ok()
        listed = runs if isinstance(runs, list) else runs["tasks"]
        found: dict[str, Any] = next(each for each in listed if each["id"] == self.id)
        return found

    async def cancel(self) -> Answer:
        """The user cancels it."""
        return await self.target.post(f"/api/tasks/{self.id}/cancel")

    async def comments(self) -> list[dict[str, Any]]:
        """What was said on the issue."""
        body = (await self.target.get(f"/api/issues/{self.issue['id']}/comments")).ok()
        found: list[dict[str, Any]] = body if isinstance(body, list) else body["comments"]
        return found
