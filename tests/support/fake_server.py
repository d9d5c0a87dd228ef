"""A scriptable server that speaks the daemon protocol over a real socket, and misbehaves on request.

::

    async with FakeServer() as server:
        workspace = server.add_workspace()
        server.script("claim", Delay(0.2), Html502(), ResetAfter())   # one each, then it behaves again
        server.always("heartbeat", Hang())                            # until server.heal("heartbeat")
        task = server.add_task(runtime_id)
        ...
        server.check(task.id)      # one effective terminal report, a transcript without hole or double

State is kept as the protocol says: what arrives before an answer is lost has
happened. Routes are named by ``ROUTES``. ``server.requests`` has every request that arrived, in order.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import struct
import time
import uuid
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final

from aiohttp import WSMsgType, web

TOKEN: Final = "mul_" + "ab" * 20
TERMINAL: Final = frozenset({"completed", "failed", "cancelled"})

Json = dict[str, Any]
Answer = tuple[int, Any]


# --- faults ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fault:
    """Nothing wrong: place holder in a script."""


@dataclass(frozen=True)
class Hang(Fault):
    """Take the request, do nothing, never answer."""


@dataclass(frozen=True)
class HangAfter(Fault):
    """Act on the request, never answer."""


@dataclass(frozen=True)
class Delay(Fault):
    """Act and answer, ``seconds`` later."""

    seconds: float


@dataclass(frozen=True)
class Status(Fault):
    """Do nothing, answer with this status."""

    status: int
    body: str = '{"error":"scripted"}'
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


def refuse(status: int, text: str) -> Status:
    """An error as the protocol words it."""
    return Status(status, json.dumps({"error": text}))


def html_502() -> Status:
    """What a proxy says when the server behind it is gone."""
    return Status(502, "<html><body><h1>502 Bad Gateway</h1></body></html>", "text/html")


def too_many(retry_after: str) -> Status:
    """429 with ``Retry-After``."""
    return Status(429, '{"error":"slow down"}', headers=(("Retry-After", retry_after),))


@dataclass(frozen=True)
class Truncated(Fault):
    """Act; answer 200 with half of the JSON, complete as HTTP."""


@dataclass(frozen=True)
class CutOff(Fault):
    """Act; break the connection in the middle of the answer's body."""


@dataclass(frozen=True)
class Says(Fault):
    """Act; answer 200 with something else instead."""

    body: Any
    content_type: str = "application/json"


@dataclass(frozen=True)
class ResetBefore(Fault):
    """Reset the connection without acting on the request."""


@dataclass(frozen=True)
class ResetAfter(Fault):
    """Act on the request, then reset the connection: the answer is lost."""


@dataclass(frozen=True)
class Duplicate(Fault):
    """Act on the request twice, as a retrying proxy makes it, and answer once."""


# --- state -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recorded:
    """A request that arrived."""

    route: str
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    raw: bytes
    parameters: dict[str, str]

    @property
    def body(self) -> Any:
        """Its JSON."""
        return json.loads(self.raw) if self.raw else None


@dataclass(frozen=True)
class TerminalReport:
    """A complete or fail that arrived, and whether it changed anything."""

    kind: str
    body: Json
    effective: bool


@dataclass
class FakeTask:
    """A task as the server has it."""

    id: str
    runtime_id: str
    workspace_id: str
    fields: Json
    status: str = "queued"
    redeliver: bool = False
    touched_at: float = 0.0
    """Monotonic: claimed, or its lease extended."""
    claims: int = 0
    leases: int = 0
    starts: int = 0
    messages: list[Json] = field(default_factory=list)
    reports: list[TerminalReport] = field(default_factory=list)
    usage: list[Json] = field(default_factory=list)
    progress: list[Json] = field(default_factory=list)
    cancel_acks: list[Json] = field(default_factory=list)
    session_id: str | None = None
    work_dir: str | None = None
    wait_reason: str = ""
    story: list[str] = field(default_factory=list)

    def row(self) -> Json:
        """As most routes answer it."""
        return {"id": self.id, "runtime_id": self.runtime_id, "status": self.status, "issue_id": ""}

    def claimed(self) -> Json:
        """As the claim hands it out."""
        return {
            **self.row(),
            "agent_id": "agent-1",
            "workspace_id": self.workspace_id,
            "auth_token": "mat_" + "cd" * 20,
            "agent": {"id": "agent-1", "name": "Agent"},
            **self.fields,
        }


@dataclass
class FakeRuntime:
    """A registered runtime."""

    id: str
    workspace_id: str
    daemon_id: str
    provider: str
    name: str
    version: str
    online: bool = True
    profile_id: str | None = None


@dataclass
class FakeSocket:
    """An open websocket and what came in over it."""

    socket: web.WebSocketResponse
    request: web.Request
    runtime_ids: list[str]
    headers: dict[str, str]
    frames: list[Json] = field(default_factory=list)
    pongs: int = 0


Handler = Callable[[Recorded], Answer]

ROUTES: Final = {
    "renew": ("POST", "/api/tokens/current/renew"),
    "workspaces": ("GET", "/api/workspaces"),
    "register": ("POST", "/api/daemon/register"),
    "deregister": ("POST", "/api/daemon/deregister"),
    "heartbeat": ("POST", "/api/daemon/heartbeat"),
    "repos": ("GET", "/api/daemon/workspaces/{ws}/repos"),
    "profiles": ("GET", "/api/daemon/workspaces/{ws}/runtime-profiles"),
    "claim": ("POST", "/api/daemon/runtimes/{rid}/tasks/claim"),
    "lease": ("POST", "/api/daemon/runtimes/{rid}/tasks/{tid}/prepare-lease"),
    "skills": ("POST", "/api/daemon/runtimes/{rid}/tasks/{tid}/skill-bundles/resolve"),
    "orphans": ("POST", "/api/daemon/runtimes/{rid}/recover-orphans"),
    "action": ("POST", "/api/daemon/runtimes/{rid}/{action:update|models|local-skills}/{req}/result"),
    "import": ("POST", "/api/daemon/runtimes/{rid}/{action:local-skills/import}/{req}/result"),
    "status": ("GET", "/api/daemon/tasks/{tid}/status"),
    "start": ("POST", "/api/daemon/tasks/{tid}/start"),
    "wait": ("POST", "/api/daemon/tasks/{tid}/wait-local-directory"),
    "progress": ("POST", "/api/daemon/tasks/{tid}/progress"),
    "messages": ("POST", "/api/daemon/tasks/{tid}/messages"),
    "messages_since": ("GET", "/api/daemon/tasks/{tid}/messages"),
    "session": ("POST", "/api/daemon/tasks/{tid}/session"),
    "usage": ("POST", "/api/daemon/tasks/{tid}/usage"),
    "complete": ("POST", "/api/daemon/tasks/{tid}/complete"),
    "fail": ("POST", "/api/daemon/tasks/{tid}/fail"),
    "cancel_ack": ("POST", "/api/daemon/tasks/{tid}/cancel-ack"),
}
"""Route names for :meth:`FakeServer.script`; also ``ws``, the websocket's handshake, and ``claim_many`` of a
later server."""


class FakeServer:
    """See the module's docstring.

    Attributes:
        tokens: what is let in.
        workspaces: id to row; change it to let workspaces join and leave.
        runtimes, tasks: state by id.
        profiles: custom runtime profiles by workspace, see :meth:`add_profile`.
        failed_profiles: why a daemon cannot use a profile, by profile id.
        actions: pending actions by runtime id, told with the next heartbeat (over either way).
        results: results of actions that arrived: (route, request id, body).
        feature_flags: told with every heartbeat, if set.
        requests: everything that arrived.
        sockets: open websockets.
        socket_silent: take frames and say nothing, not even acknowledgements: a half-open socket.
        orphans: runtime ids for which recover-orphans was asked.
    """

    def __init__(self) -> None:
        self.tokens = {TOKEN}
        self.workspaces: dict[str, Json] = {}
        self.settings: dict[str, Json | None] = {}
        self.repos: dict[str, list[Json]] = {}
        self.profiles: dict[str, list[Json]] = {}
        self.failed_profiles: dict[str, str] = {}
        self.runtimes: dict[str, FakeRuntime] = {}
        self.tasks: dict[str, FakeTask] = {}
        self.actions: dict[str, Json] = {}
        self.results: list[tuple[str, str, Json]] = []
        self.feature_flags: Json | None = None
        self.requests: list[Recorded] = []
        self.sockets: list[FakeSocket] = []
        self.handshakes: list[list[str]] = []
        self.redeliver_s = 0.0
        """Hand a task that was claimed and neither started nor leased out again after this long; 0: never."""
        self.socket_silent = False
        self.orphans: list[str] = []
        self.skills: dict[str, Json] = {}
        self.asked_own_list: list[dict[str, str]] = []
        """Headers of the requests for the list that only later servers have; not among ``requests``."""
        self.later = False
        """A later server, which has the daemon's own list of workspaces, with an ETag, can be asked for tasks
        of many runtimes at once, and waits to hear that the run of a cancelled task is over; without: 404."""
        self._scripts: dict[str, deque[Fault]] = defaultdict(deque)
        self._always: dict[str, Fault] = {}
        self._runner: web.AppRunner | None = None
        self._listener: socket.socket
        self._port = 0
        self._over = asyncio.Event()
        self._happened = asyncio.Event()
        self._generation = 0

    # --- life --------------------------------------------------------------------------------------

    async def __aenter__(self) -> FakeServer:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def port(self) -> int:
        """The same over restarts."""
        return self._port

    @property
    def url(self) -> str:
        """Base URL; the same over restarts."""
        return f"http://127.0.0.1:{self._port}"

    async def start(self) -> None:
        """Listen, at the same port as before if there was one. State is kept."""
        app = web.Application(client_max_size=1 << 28)
        for name, (method, path) in ROUTES.items():
            app.router.add_route(method, path, self._handle(name, getattr(self, f"_{name}")))
        app.router.add_get("/api/daemon/ws", self._websocket)
        app.router.add_get("/api/daemon/workspaces", self._own_workspaces)
        app.router.add_post("/api/daemon/tasks/claim", self._claim_many)
        self._over = asyncio.Event()
        self._runner = web.AppRunner(app, shutdown_timeout=0.2)
        await self._runner.setup()
        self._listener = socket.create_server(("127.0.0.1", self._port), backlog=128)
        await web.SockSite(self._runner, self._listener).start()
        self._port = self._listener.getsockname()[1]

    async def stop(self) -> None:
        """Stop listening and drop every connection."""
        runner, self._runner = self._runner, None
        if runner is None:
            return
        self._over.set()
        for open_socket in list(self.sockets):
            await open_socket.socket.close(code=1001)
        await stop_accepting(self._listener.fileno())
        await runner.cleanup()
        self._note()

    # --- script ------------------------------------------------------------------------------------

    def script(self, route: str, *faults: Fault) -> None:
        """The next requests of ``route`` meet these, one each; then it behaves."""
        self._known(route)
        self._scripts[route].extend(faults)

    def always(self, route: str, fault: Fault) -> None:
        """Every request of ``route`` meets this until :meth:`heal`."""
        self._known(route)
        self._always[route] = fault

    def heal(self, *routes: str) -> None:
        """These routes (none named: all) behave again."""
        for route in routes or [*self._always, *self._scripts]:
            self._always.pop(route, None)
            self._scripts.pop(route, None)

    def _known(self, route: str) -> None:
        if route not in ("ws", "claim_many") and route not in ROUTES:
            raise ValueError(f"no route is called {route}")

    # --- what tests do to it -------------------------------------------------------------------------

    def add_workspace(self, name: str = "Workspace", id_: str | None = None) -> str:
        """A workspace more. Returns its id."""
        id_ = id_ or str(uuid.uuid4())
        self.workspaces[id_] = {
            "id": id_,
            "name": name,
            "slug": name.lower(),
            "created_at": "2026-01-01T00:00:00Z",
        }
        return id_

    def add_profile(self, workspace_id: str, id_: str | None = None, **fields: Any) -> str:
        """A custom runtime profile; returns its id."""
        profile = {
            "id": id_ or str(uuid.uuid4()),
            "workspace_id": workspace_id,
            "display_name": "Mine",
            "protocol_family": "claude",
            "command_name": "my-claude",
            "description": None,
            "fixed_args": [],
            "visibility": "workspace",
            "created_by": "u",
            "enabled": True,
            **fields,
        }
        self.profiles.setdefault(workspace_id, []).append(profile)
        return str(profile["id"])

    def lose_runtime(self, runtime_id: str) -> None:
        """Forget a runtime; when registered again it gets another id."""
        del self.runtimes[runtime_id]
        self._generation += 1

    def add_task(
        self, runtime_id: str, *, id_: str | None = None, hint: bool = True, **fields: Any
    ) -> FakeTask:
        """Queue a task, and say so over the websocket if ``hint``. ``fields`` go into the claim."""
        task = FakeTask(
            id=id_ or str(uuid.uuid4()),
            runtime_id=runtime_id,
            workspace_id=self.runtimes[runtime_id].workspace_id if runtime_id in self.runtimes else "",
            fields=fields,
        )
        self.tasks[task.id] = task
        if hint:
            self.push("daemon:task_available", {"runtime_id": runtime_id, "task_id": task.id})
        return task

    def end_task(self, task_id: str, status: str = "cancelled", *, hint: bool = False) -> None:
        """End a task at the server; ``hint`` as the hub does it."""
        task = self.tasks[task_id]
        if task.status not in TERMINAL:
            self._move(task, status)
        if hint:
            self.push("daemon:task_changed", {"task_id": task_id, "status": status})

    def redeliver(self, task_id: str) -> None:
        """Hand a dispatched task out once more at the next claim."""
        self.tasks[task_id].redeliver = True

    def push(self, kind: str, payload: Json) -> None:
        """Send a frame over every open websocket."""
        self.push_raw(json.dumps({"type": kind, "payload": payload}))

    def push_raw(self, text: str) -> None:
        """Send a text frame as it is over every open websocket."""
        for open_socket in self.sockets:
            self._background(open_socket.socket.send_str(text))

    def ping(self) -> None:
        """Ping every open websocket."""
        for open_socket in self.sockets:
            self._background(open_socket.socket.ping(b"tick"))

    def drop_sockets(self) -> None:
        """Reset every open websocket."""
        for open_socket in self.sockets:
            _reset(open_socket.request)

    # --- what tests ask ------------------------------------------------------------------------------

    def seen(self, route: str) -> list[Recorded]:
        """The requests of a route that arrived."""
        return [request for request in self.requests if request.route == route]

    async def until(self, condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
        """Wait until something that happens at this server makes ``condition`` true."""
        async with asyncio.timeout(timeout_s):
            while not condition():
                self._happened.clear()
                await self._happened.wait()

    def check_terminal(self, task_id: str) -> TerminalReport:
        """The one report that ended the task; any further ones must be repetitions without effect."""
        reports = self.tasks[task_id].reports
        effective = [report for report in reports if report.effective]
        assert len(effective) == 1, f"{len(effective)} effective reports of {task_id}: {reports}"
        assert all(r.kind == effective[0].kind and r.body == effective[0].body for r in reports), reports
        return effective[0]

    def check_transcript(self, task_id: str) -> list[Json]:
        """The transcript, whose sequence numbers must be 1, 2, 3 … in order of arrival."""
        messages = self.tasks[task_id].messages
        numbers = [message["seq"] for message in messages]
        assert numbers == list(range(1, len(numbers) + 1)), f"transcript of {task_id}: {numbers}"
        return messages

    def check(self, task_id: str) -> TerminalReport:
        """Both."""
        self.check_transcript(task_id)
        return self.check_terminal(task_id)

    # --- transport -----------------------------------------------------------------------------------

    def _handle(self, name: str, act: Handler) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            recorded = Recorded(
                route=name,
                method=request.method,
                path=request.raw_path,
                query=dict(request.query),
                headers=dict(request.headers),
                raw=await request.read(),
                parameters=dict(request.match_info),
            )
            self.requests.append(recorded)
            self._note()
            try:
                return await self._answer(request, recorded, name, act)
            finally:
                self._note()

        return handle

    async def _answer(
        self, request: web.Request, recorded: Recorded, name: str, act: Handler
    ) -> web.StreamResponse:
        if (refusal := self._unauthorised(request)) is not None:
            return refusal
        fault = self._next_fault(name)
        match fault:
            case Hang():
                return await self._hang(request)
            case Status():
                return web.Response(
                    status=fault.status,
                    body=fault.body.encode(),
                    content_type=fault.content_type,
                    headers=dict(fault.headers),
                )
            case ResetBefore():
                return _reset(request)
            case Delay():
                await asyncio.sleep(fault.seconds)
            case Duplicate():
                act(recorded)
            case _:
                pass
        status, value = act(recorded)
        body = b"" if value is None and status == 204 else json.dumps(value).encode()
        match fault:
            case HangAfter():
                return await self._hang(request)
            case ResetAfter():
                return _reset(request)
            case Truncated():
                body = body[: max(len(body) // 2, 1)]
            case CutOff():
                answer = web.StreamResponse(status=status, headers={"Content-Type": "application/json"})
                answer.content_length = len(body) + 64
                await answer.prepare(request)
                await answer.write(body[: len(body) // 2])
                _reset(request)
                return answer
            case Says():
                body = fault.body if isinstance(fault.body, bytes) else json.dumps(fault.body).encode()
                return web.Response(body=body, content_type=fault.content_type)
            case _:
                pass
        return web.Response(status=status, body=body, content_type="application/json")

    def _unauthorised(self, request: web.Request) -> web.Response | None:
        given = request.headers.get("Authorization", "")
        if not given:
            return _json(401, {"error": "missing authorization header"})
        if given.removeprefix("Bearer ") not in self.tokens:
            return _json(401, {"error": "invalid token"})
        return None

    def _next_fault(self, route: str) -> Fault:
        if self._scripts[route]:
            return self._scripts[route].popleft()
        return self._always.get(route, Fault())

    async def _hang(self, request: web.Request) -> web.Response:
        await self._over.wait()
        return _reset(request)

    def _note(self) -> None:
        self._happened.set()

    def _background(self, action: Awaitable[None]) -> None:
        async def run() -> None:
            try:
                await action
            except (ConnectionError, RuntimeError):
                pass

        task = asyncio.get_running_loop().create_task(run())
        _BACKGROUND.add(task)
        task.add_done_callback(_BACKGROUND.discard)

    # --- websocket -----------------------------------------------------------------------------------

    async def _websocket(self, request: web.Request) -> web.StreamResponse:
        ids = [id_ for part in request.query.getall("runtime_ids", []) for id_ in part.split(",") if id_]
        self.handshakes.append(ids)
        self._note()
        try:
            if (refusal := self._unauthorised(request)) is not None:
                return refusal
            match fault := self._next_fault("ws"):
                case Hang():
                    return await self._hang(request)
                case Status():
                    return web.Response(
                        status=fault.status, body=fault.body.encode(), headers=dict(fault.headers)
                    )
                case ResetBefore():
                    return _reset(request)
                case _:
                    pass
            if not ids:
                return _json(400, {"error": "runtime_ids required"})
            if any(id_ not in self.runtimes for id_ in ids):
                return _json(404, {"error": "runtime not found"})
        finally:
            self._note()
        answer = web.WebSocketResponse(autoping=False, max_msg_size=4097, timeout=0.2)
        await answer.prepare(request)
        open_socket = FakeSocket(answer, request, ids, dict(request.headers))
        self.sockets.append(open_socket)
        self._note()
        try:
            async for message in answer:
                if message.type is WSMsgType.PONG:
                    open_socket.pongs += 1
                elif message.type is WSMsgType.TEXT:
                    frame = json.loads(message.data)
                    open_socket.frames.append(frame)
                    if frame["type"] == "daemon:heartbeat" and not self.socket_silent:
                        await self._ack(open_socket, frame["payload"]["runtime_id"])
                self._note()
        except ConnectionError:
            pass
        finally:
            self.sockets.remove(open_socket)
            self._note()
        return answer

    async def _ack(self, open_socket: FakeSocket, runtime_id: str) -> None:
        if runtime_id not in open_socket.runtime_ids:
            return
        if runtime_id in self.runtimes:
            payload = {"runtime_id": runtime_id, **self._beat_answer(runtime_id)}
        else:
            payload = {"runtime_id": runtime_id, "status": "runtime_gone", "runtime_gone": True}
        await open_socket.socket.send_str(json.dumps({"type": "daemon:heartbeat_ack", "payload": payload}))

    # --- routes --------------------------------------------------------------------------------------

    def _renew(self, request: Recorded) -> Answer:
        return 200, {"expires_at": "", "renewed": False}

    def _workspaces(self, request: Recorded) -> Answer:
        return 200, list(self.workspaces.values())

    async def _own_workspaces(self, request: web.Request) -> web.Response:
        headers = dict(request.headers)
        self.asked_own_list.append(headers)
        self._note()
        if (refusal := self._unauthorised(request)) is not None:
            return refusal
        if not self.later:
            return web.Response(status=404, text="404 page not found")
        listed = [{"id": row["id"], "name": row["name"]} for row in self.workspaces.values()]
        body = json.dumps(listed).encode()
        etag = f'W/"{uuid.uuid5(uuid.NAMESPACE_OID, body.decode())}"'
        if headers.get("If-None-Match") == etag:
            return web.Response(status=304, headers={"ETag": etag})
        return web.Response(body=body, content_type="application/json", headers={"ETag": etag})

    def _repos_of(self, workspace_id: str) -> Json:
        return {
            "repos": self.repos.get(workspace_id, []),
            "repos_version": "v" + str(len(self.repos.get(workspace_id, []))),
            "settings": self.settings.get(workspace_id),
        }

    def _repos(self, request: Recorded) -> Answer:
        workspace_id = request.parameters["ws"]
        if workspace_id not in self.workspaces:
            return 404, {"error": "workspace not found"}
        return 200, {"workspace_id": workspace_id, **self._repos_of(workspace_id)}

    def _profiles(self, request: Recorded) -> Answer:
        workspace_id = request.parameters["ws"]
        listed = [profile for profile in self.profiles.get(workspace_id, []) if profile["enabled"]]
        return 200, {"workspace_id": workspace_id, "runtime_profiles": listed}

    def _register(self, request: Recorded) -> Answer:
        body = request.body
        workspace_id = body.get("workspace_id")
        if not body.get("daemon_id"):
            return 400, {"error": "daemon_id is required"}
        if workspace_id not in self.workspaces:
            return 404, {"error": "workspace not found"}
        entries = body.get("runtimes") or []
        if not entries and not body.get("failed_profiles"):
            return 400, {"error": "at least one runtime or failed profile is required"}
        profiles = {profile["id"]: profile for profile in self.profiles.get(workspace_id, [])}
        for entry in [*entries, *(body.get("failed_profiles") or [])]:
            profile_id = entry.get("profile_id")
            if profile_id and profile_id not in profiles:
                return 400, {"error": f"unknown runtime profile: {profile_id}"}
            if profile_id and not profiles[profile_id]["enabled"]:
                return 409, {"error": f"runtime profile is disabled: {profile_id}"}
        for failed in body.get("failed_profiles") or []:
            self.failed_profiles[failed["profile_id"]] = failed["reason"]
        rows = []
        for entry in entries:
            runtime = self._upsert(workspace_id, body["daemon_id"], entry)
            rows.append(
                {
                    "id": runtime.id,
                    "workspace_id": workspace_id,
                    "name": runtime.name,
                    "provider": runtime.provider,
                    "status": "online",
                    "profile_id": runtime.profile_id,
                    "metadata": {"version": runtime.version},
                }
            )
        return 200, {"runtimes": rows, **self._repos_of(workspace_id)}

    def _upsert(self, workspace_id: str, daemon_id: str, entry: Json) -> FakeRuntime:
        provider = entry["type"].strip().lower() or "unknown"
        profile_id = entry.get("profile_id")
        for runtime in self.runtimes.values():
            same = (runtime.workspace_id, runtime.daemon_id, runtime.profile_id)
            if same == (workspace_id, daemon_id, profile_id) and (profile_id or runtime.provider == provider):
                runtime.online, runtime.version = True, entry["version"]
                return runtime
        key = f"{workspace_id}/{daemon_id}/{profile_id or provider}/{self._generation}"
        runtime = FakeRuntime(
            str(uuid.uuid5(uuid.NAMESPACE_URL, key)),
            workspace_id,
            daemon_id,
            provider,
            entry["name"],
            entry["version"],
            profile_id=profile_id,
        )
        self.runtimes[runtime.id] = runtime
        return runtime

    def _deregister(self, request: Recorded) -> Answer:
        ids = request.body.get("runtime_ids")
        if not ids:
            return 400, {"error": "runtime_ids is required"}
        for id_ in ids:
            if id_ in self.runtimes:
                self.runtimes[id_].online = False
        return 200, {"status": "ok"}

    def _heartbeat(self, request: Recorded) -> Answer:
        runtime_id = request.body.get("runtime_id")
        if not runtime_id:
            return 400, {"error": "runtime_id is required"}
        if runtime_id not in self.runtimes:
            return 404, {"error": "runtime not found"}
        return 200, self._beat_answer(runtime_id)

    def _beat_answer(self, runtime_id: str) -> Json:
        self.runtimes[runtime_id].online = True
        answer: Json = {"status": "ok", **self.actions.pop(runtime_id, {})}
        if self.feature_flags is not None:
            answer["feature_flags"] = self.feature_flags
        return answer

    async def _claim_many(self, request: web.Request) -> web.StreamResponse:
        if not self.later:
            return web.Response(status=404, text="404 page not found")
        return await self._handle("claim_many", self._claim_of_many)(request)

    def _claim_of_many(self, request: Recorded) -> Answer:
        body = request.body
        if not body.get("daemon_id"):
            return 400, {"error": "daemon_id is required"}
        found: list[Json] = []
        for runtime_id in body["runtime_ids"]:
            while runtime_id in self.runtimes and len(found) < min(body["max_tasks"], 32):
                task = self._next_task(runtime_id)
                if task is None:
                    break
                found.append(task)
        return 200, {"tasks": found}

    def _claim(self, request: Recorded) -> Answer:
        runtime_id = request.parameters["rid"]
        if runtime_id not in self.runtimes:
            return 404, {"error": "runtime not found"}
        return 200, {"task": self._next_task(runtime_id)}

    def _next_task(self, runtime_id: str) -> Json | None:
        mine = [task for task in self.tasks.values() if task.runtime_id == runtime_id]
        for task in mine:
            late = self.redeliver_s and time.monotonic() - task.touched_at > self.redeliver_s
            if (task.redeliver or late) and task.status == "dispatched":
                task.redeliver = False
                break
        else:
            queued = [task for task in mine if task.status == "queued"]
            if not queued:
                return None
            task = queued[0]
            self._move(task, "dispatched")
        task.claims += 1
        task.touched_at = time.monotonic()
        return task.claimed()

    def _lease(self, request: Recorded) -> Answer:
        task = self.tasks.get(request.parameters["tid"])
        if task is None or task.runtime_id != request.parameters["rid"]:
            return 404, {"error": "task not found"}
        if task.status not in ("dispatched", "waiting_local_directory"):
            return 400, {"error": "task is not preparing"}
        task.leases += 1
        task.touched_at = time.monotonic()
        return 200, task.row()

    def _skills(self, request: Recorded) -> Answer:
        wanted = request.body["skills"]
        found = [self.skills[ref["id"]] for ref in wanted if ref["id"] in self.skills]
        return (200, {"bundles": found}) if found else (404, {"error": "skill bundle not found"})

    def _orphans(self, request: Recorded) -> Answer:
        runtime_id = request.parameters["rid"]
        if runtime_id not in self.runtimes:
            return 404, {"error": "runtime not found"}
        self.orphans.append(runtime_id)
        hit = [
            task
            for task in self.tasks.values()
            if task.runtime_id == runtime_id
            and task.status in ("dispatched", "running", "waiting_local_directory")
        ]
        for task in hit:
            self._move(task, "failed")
        return 200, {"orphaned": len(hit), "retried": 0}

    def _action(self, request: Recorded) -> Answer:
        self.results.append((request.parameters["action"], request.parameters["req"], request.body))
        return 200, {"status": "ok"}

    _import = _action

    def _status(self, request: Recorded) -> Answer:
        task = self.tasks.get(request.parameters["tid"])
        return (404, {"error": "task not found"}) if task is None else (200, {"status": task.status})

    def _start(self, request: Recorded) -> Answer:
        return self._transition(request, ("dispatched", "waiting_local_directory"), "running")

    def _wait(self, request: Recorded) -> Answer:
        if (task := self.tasks.get(request.parameters["tid"])) is not None:
            task.wait_reason = request.body["reason"]
        return self._transition(request, ("dispatched",), "waiting_local_directory")

    def _transition(self, request: Recorded, allowed: tuple[str, ...], to: str) -> Answer:
        task = self.tasks.get(request.parameters["tid"])
        if task is None:
            return 404, {"error": "task not found"}
        if task.status not in allowed:
            return 400, {"error": f"task is {task.status}"}
        task.starts += to == "running"
        self._move(task, to)
        return 200, task.row()

    def _with_task(self, request: Recorded, act: Callable[[FakeTask, Json], None]) -> Answer:
        task = self.tasks.get(request.parameters["tid"])
        if task is None:
            return 404, {"error": "task not found"}
        act(task, request.body)
        return 200, {"status": "ok"}

    def _progress(self, request: Recorded) -> Answer:
        return self._with_task(request, lambda task, body: task.progress.append(body))

    def _messages(self, request: Recorded) -> Answer:
        return self._with_task(request, lambda task, body: task.messages.extend(body["messages"]))

    def _messages_since(self, request: Recorded) -> Answer:
        task = self.tasks.get(request.parameters["tid"])
        if task is None:
            return 404, {"error": "task not found"}
        since = int(request.query.get("since", "0"))
        return 200, [{"task_id": task.id, **message} for message in task.messages if message["seq"] > since]

    def _session(self, request: Recorded) -> Answer:
        task, body = self.tasks.get(request.parameters["tid"]), request.body
        if task is None:
            return 404, {"error": "task not found"}
        if not body.get("session_id") and not body.get("work_dir"):
            return 400, {"error": "session_id or work_dir is required"}
        if task.status in ("dispatched", "running"):
            task.session_id = body.get("session_id") or task.session_id
            task.work_dir = body.get("work_dir") or task.work_dir
        return 204, None

    def _usage(self, request: Recorded) -> Answer:
        def upsert(task: FakeTask, body: Json) -> None:
            for entry in body["usage"]:
                key = (entry["provider"], entry["model"])
                task.usage = [old for old in task.usage if (old["provider"], old["model"]) != key] + [entry]

        return self._with_task(request, upsert)

    def _complete(self, request: Recorded) -> Answer:
        def pin(task: FakeTask, body: Json) -> None:
            task.session_id, task.work_dir = body.get("session_id"), body.get("work_dir")

        return self._end(request, "completed", ("running",), pin)

    def _fail(self, request: Recorded) -> Answer:
        def pin(task: FakeTask, body: Json) -> None:
            task.session_id = body.get("session_id") or task.session_id
            task.work_dir = body.get("work_dir") or task.work_dir

        return self._end(request, "failed", ("dispatched", "running", "waiting_local_directory"), pin)

    def _cancel_ack(self, request: Recorded) -> Answer:
        if not self.later:
            return 404, "404 page not found"
        return self._with_task(request, lambda task, body: task.cancel_acks.append(body))

    def _end(
        self, request: Recorded, to: str, allowed: tuple[str, ...], pin: Callable[[FakeTask, Json], None]
    ) -> Answer:
        task = self.tasks.get(request.parameters["tid"])
        if task is None:
            return 404, {"error": "task not found"}
        effective = task.status in allowed
        task.reports.append(TerminalReport(request.route, request.body, effective))
        if effective:
            pin(task, request.body)
            self._move(task, to)
        return 200, task.row()

    def _move(self, task: FakeTask, status: str) -> None:
        assert task.status not in TERMINAL, f"{task.id} is {task.status} and cannot become {status}"
        task.status = status
        task.story.append(status)
        self._note()


async def stop_accepting(descriptor: int) -> None:
    """Before a server is closed: asyncio leaks the connections that it has accepted in the same moment."""
    asyncio.get_running_loop().remove_reader(descriptor)
    for _ in range(5):
        await asyncio.sleep(0)  # those that it has accepted reach their server


async def eventually(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Wait for something that tells nobody when it happens."""
    async with asyncio.timeout(timeout_s):
        for pause_s in itertools.chain([0.0] * 10, itertools.repeat(0.01)):
            if condition():
                return
            await asyncio.sleep(pause_s)


_BACKGROUND: set[asyncio.Task[None]] = set()
"""Pushes under way; held so that they are not collected."""


def _json(status: int, value: Any) -> web.Response:
    return web.Response(status=status, body=json.dumps(value).encode(), content_type="application/json")


def _reset(request: web.BaseRequest) -> web.Response:
    """Reset the request's connection, with an RST rather than a farewell."""
    transport = request.transport
    if transport is not None:
        sock = transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    return web.Response()
