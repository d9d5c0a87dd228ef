"""The daemon protocol over HTTP: what a daemon asks, and the little that an agent may.

Every body is checked here; what a route does is one transaction of :mod:`daemon_core.hub.service` and its
neighbours. The texts of refusals are the protocol's and daemons act on them: ``runtime not found``,
``task not found`` and ``workspace not found`` mean gone, a bare ``not found`` never does.
"""

from __future__ import annotations

import functools
import logging
import re
import sqlite3
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import msgspec
from aiohttp import web

from daemon_core.hub import claims, registry, service, tokens, transcripts
from daemon_core.hub.clock import rfc3339
from daemon_core.hub.errors import ConflictError, HubError, NotFoundError, RefusedError, StorageError
from daemon_core.hub.hub import WORKSPACE_NAME, Hub
from daemon_core.hub.rows import on_the_wire, wire_task
from daemon_core.hub.states import TransitionError
from daemon_core.hub.store import Tx
from daemon_core.protocol import wire

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_OK: Final = {"status": "ok"}
_UNSET_TIME: Final = "0001-01-01T00:00:00Z"

_ACTOR: Final = web.RequestKey("actor", sqlite3.Row)
"""The task an agent acts for; absent where the hub's own credential was given."""

_GONE: Final = {
    "unknown_task": "task not found",
    "unknown_runtime": "runtime not found",
    "unknown_conversation": "chat session not found",
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Method = Callable[["_Api", web.Request], Awaitable[web.StreamResponse]]


def routes(hub: Hub) -> list[web.RouteDef]:
    """The routes of a hub, ``/api/…``, for the application that carries it. They bring their own auth."""
    api = _Api(hub)
    daemon = "/api/daemon"
    runtime = daemon + "/runtimes/{rid}"
    task = daemon + "/tasks/{tid}"
    return [
        web.post("/api/tokens/current/renew", api.renew),
        web.get("/api/workspaces", api.workspaces),
        web.get("/api/workspaces/{ws}", api.workspace),
        web.get("/api/agents", api.agents),
        web.get("/api/tasks/{tid}/messages", api.task_messages),
        web.post("/api/tasks/{tid}/cancel", api.cancel),
        web.post(daemon + "/register", api.register),
        web.post(daemon + "/deregister", api.deregister),
        web.post(daemon + "/heartbeat", api.heartbeat),
        web.get(daemon + "/ws", api.websocket),
        web.get(daemon + "/workspaces/{ws}/repos", api.repos),
        web.get(daemon + "/workspaces/{ws}/runtime-profiles", api.profiles),
        web.post(runtime + "/tasks/claim", api.claim),
        web.get(runtime + "/tasks/pending", api.pending),
        web.post(runtime + "/tasks/{tid}/prepare-lease", api.prepare_lease),
        web.post(runtime + "/recover-orphans", api.recover_orphans),
        web.get(task + "/status", api.status),
        web.post(task + "/start", api.start),
        web.post(task + "/wait-local-directory", api.wait_local_directory),
        web.post(task + "/progress", api.progress),
        web.post(task + "/messages", api.post_messages),
        web.get(task + "/messages", api.daemon_messages),
        web.post(task + "/session", api.session),
        web.post(task + "/usage", api.usage),
        web.post(task + "/complete", api.complete),
        web.post(task + "/fail", api.fail),
        web.get(daemon + "/chat-sessions/{cid}/gc-check", api.chat_gc_check),
        web.get(task + "/gc-check", api.task_gc_check),
        web.route("*", "/api/daemon/{rest:.*}", api.no_daemon_route),
        web.route("*", "/api/{rest:.*}", api.no_route),
    ]


# --- requests and answers -----------------------------------------------------------------------------


def _json(value: object, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), status=status, content_type="application/json")


def _error(status: int, text: str) -> web.Response:
    return _json(wire.ErrorBody(error=text), status)


def _bearer(request: web.Request, *, missing: str, malformed: str) -> str:
    header = request.headers.get("Authorization", "")
    if not header.strip():
        raise RefusedError(401, missing)
    kind, _, token = header.partition(" ")
    if kind.lower() != "bearer" or not token.strip():
        raise RefusedError(401, malformed)
    return token.strip()


def _answering(method: Method, failure: str) -> Method:
    """Turn what a handler raises into the answer for it."""

    @functools.wraps(method)
    async def answer(api: _Api, request: web.Request) -> web.StreamResponse:
        try:
            return await method(api, request)
        except RefusedError as error:
            return _error(error.status, error.text)
        except NotFoundError as error:
            return _error(404, _GONE.get(error.code, "not found"))
        except TransitionError as error:
            return _error(400, str(error))
        except ConflictError as error:
            return _error(400, error.code.replace("_", " "))
        except StorageError as error:
            _log.error("%s %s: %s", request.method, request.path, error)
            return _error(500, failure)
        except HubError as error:
            return _error(400, str(error))
        except (web.HTTPException, ConnectionError):
            raise
        except Exception:  # noqa: BLE001 - the boundary: one request fails, in the form clients expect
            _log.exception("%s %s failed.", request.method, request.path)
            return _error(500, failure)

    return answer


def _for_daemon(failure: str = "internal error") -> Callable[[Method], Method]:
    """A route for daemons: the hub's credential, never a task's token."""

    def decorate(method: Method) -> Method:
        async def checked(api: _Api, request: web.Request) -> web.StreamResponse:
            api.authorize_daemon(request)
            return await method(api, request)

        return _answering(checked, failure)

    return decorate


def _for_member(failure: str = "internal error") -> Callable[[Method], Method]:
    """A route for users and agents: the hub's credential or a task's token (then ``request[_ACTOR]``)."""

    def decorate(method: Method) -> Method:
        async def checked(api: _Api, request: web.Request) -> web.StreamResponse:
            await api.authorize_member(request)
            return await method(api, request)

        return _answering(checked, failure)

    return decorate


def _id(request: web.Request, part: str, name: str) -> str:
    """A path's id in its usual form."""
    return _checked_id(request.match_info[part], name)


def _checked_id(given: str, name: str) -> str:
    lowered = given.lower()
    if _UUID.fullmatch(lowered) is None:
        raise RefusedError(400, f"invalid {name}")
    return lowered


async def _body(request: web.Request, limit: int) -> bytes:
    """The body, without any of the protocol's tokens in it."""
    if (request.content_length or 0) > limit:
        raise RefusedError(413, "request body too large")
    parts: list[bytes] = []
    size = 0
    while part := await request.content.readany():
        size += len(part)
        if size > limit:
            raise RefusedError(413, "request body too large")
        parts.append(part)
    return tokens.redact(b"".join(parts))


async def _decode(request: web.Request, kind: type[_T], limit: int) -> _T:
    """The body as a structure. An empty body is an empty object; null and absent mean the same."""
    body = await _body(request, limit) or b"{}"
    try:
        try:
            return msgspec.json.decode(body, type=kind)
        except msgspec.ValidationError:
            return msgspec.convert(_without_nulls(msgspec.json.decode(body)), kind)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise RefusedError(400, "invalid request body") from None


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(each) for key, each in value.items() if each is not None}
    if isinstance(value, list):
        return [_without_nulls(each) for each in value]
    return value


class _Api:
    """The handlers. Each takes a request and gives the answer; the decorators do auth and errors."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._limits = hub.scope.limits

    # --- who asks -------------------------------------------------------------------------------------

    def authorize_daemon(self, request: web.Request) -> None:
        """Let the hub's own credential pass."""
        token = _bearer(
            request, missing="missing authorization header", malformed="invalid authorization format"
        )
        if tokens.same(token, self._hub.credential):
            return
        foreign_daemon = token.startswith(tokens.DAEMON_PREFIX)
        raise RefusedError(401, "invalid daemon token" if foreign_daemon else "invalid token")

    async def authorize_member(self, request: web.Request) -> None:
        """Let the hub's own credential pass, or the token of a task that is not over."""
        token = _bearer(request, missing="missing authorization", malformed="invalid token")
        if tokens.same(token, self._hub.credential):
            return
        if token.startswith(tokens.TASK_PREFIX):
            actor = await self._hub.store.read(lambda tx: tokens.find(tx.db, token, tx.now))
            if actor is not None:
                request[_ACTOR] = actor
                return
        raise RefusedError(401, "invalid token")

    async def _own_task(self, request: web.Request) -> str:
        """The task of the path. An agent sees its own conversation alone."""
        task_id = _id(request, "tid", "task_id")
        row = await self._hub.store.read(lambda tx: service.task_row(tx, task_id))
        actor = request.get(_ACTOR)
        if actor is not None and actor["conversation_id"] != row["conversation_id"]:
            raise RefusedError(404, "not found")
        return task_id

    def _own_workspace(self, request: web.Request) -> str:
        if _id(request, "ws", "workspace_id") != self._hub.workspace_id:
            raise RefusedError(404, "workspace not found")
        return self._hub.workspace_id

    # --- users and agents -----------------------------------------------------------------------------

    @_for_member()
    async def renew(self, request: web.Request) -> web.StreamResponse:
        """The hub's credential lives as long as the hub."""
        if _ACTOR in request:
            raise RefusedError(400, "only personal access tokens can be renewed")
        return _json(wire.RenewResponse())

    async def _workspace(self) -> dict[str, object]:
        row = await self._hub.store.read(
            lambda tx: tx.one("SELECT * FROM workspace WHERE id = ?", (self._hub.workspace_id,))
        )
        made_at = None if row is None else rfc3339(row["created_at"])
        return {
            "id": self._hub.workspace_id,
            "name": WORKSPACE_NAME,
            "slug": "local",
            "description": None,
            "context": None,
            "settings": None,
            "repos": [],
            "issue_prefix": "",
            "avatar_url": None,
            "created_at": made_at,
            "updated_at": made_at,
        }

    @_for_member()
    async def workspaces(self, request: web.Request) -> web.StreamResponse:
        return _json([await self._workspace()])

    @_for_member()
    async def workspace(self, request: web.Request) -> web.StreamResponse:
        self._own_workspace(request)
        return _json(await self._workspace())

    @_for_member()
    async def agents(self, request: web.Request) -> web.StreamResponse:
        views = await self._hub.list_agents()
        return _json(
            [
                {
                    "id": view.id,
                    "workspace_id": self._hub.workspace_id,
                    "name": view.name,
                    "provider": view.provider,
                    "model": view.model,
                    "status": "working" if view.active_tasks else "idle",
                    "created_at": view.created_at,
                    "updated_at": view.updated_at,
                }
                for view in views
            ]
        )

    @_for_member()
    async def task_messages(self, request: web.Request) -> web.StreamResponse:
        return await self._messages(request, await self._own_task(request))

    @_for_member()
    async def cancel(self, request: web.Request) -> web.StreamResponse:
        task_id = await self._own_task(request)
        return await self._task(lambda tx: service.cancel(tx, task_id))

    @_for_member()
    async def no_route(self, request: web.Request) -> web.StreamResponse:
        raise RefusedError(404, "not found")

    @_for_daemon()
    async def no_daemon_route(self, request: web.Request) -> web.StreamResponse:
        raise RefusedError(404, "not found")

    # --- registration ---------------------------------------------------------------------------------

    @_for_daemon("failed to register runtime")
    async def register(self, request: web.Request) -> web.StreamResponse:
        asked = await _decode(request, wire.RegisterRequest, self._limits.body_bytes)
        if not asked.daemon_id.strip():
            raise RefusedError(400, "daemon_id is required")
        if not asked.workspace_id.strip():
            raise RefusedError(400, "workspace_id is required")
        if not asked.runtimes and not asked.failed_profiles:
            raise RefusedError(400, "at least one runtime or failed profile is required")
        if _checked_id(asked.workspace_id.strip(), "workspace_id") != self._hub.workspace_id:
            raise RefusedError(404, "workspace not found")
        asked.daemon_id = asked.daemon_id.strip()
        for entry in asked.runtimes or []:
            if entry.profile_id:
                entry.profile_id = _checked_id(entry.profile_id, "profile_id")
        for failed in asked.failed_profiles or []:
            failed.profile_id = _checked_id(failed.profile_id, "profile_id")
        return _json(await self._hub.register(asked))

    @_for_daemon("failed to deregister runtimes")
    async def deregister(self, request: web.Request) -> web.StreamResponse:
        asked = await _decode(request, wire.DeregisterRequest, self._limits.body_bytes)
        if not asked.runtime_ids:
            raise RefusedError(400, "runtime_ids is required")
        await self._hub.deregister([_checked_id(each, "runtime_id") for each in asked.runtime_ids])
        return _json(_OK)

    @_for_daemon("heartbeat failed")
    async def heartbeat(self, request: web.Request) -> web.StreamResponse:
        asked = await _decode(request, _Heartbeat, self._limits.body_bytes)
        if not asked.runtime_id.strip():
            raise RefusedError(400, "runtime_id is required")
        if not await self._hub.beat(_checked_id(asked.runtime_id.strip(), "runtime_id")):
            raise RefusedError(404, "runtime not found")
        return _json(wire.HeartbeatResponse(status="ok"))

    @_for_daemon("failed to load runtime")
    async def websocket(self, request: web.Request) -> web.StreamResponse:
        if self._hub.links.closed:
            raise RefusedError(503, "daemon websocket unavailable")
        given = [*request.query.getall("runtime_ids", []), *request.query.getall("runtime_id", [])]
        runtime_ids = {each.strip().lower() for part in given for each in part.split(",") if each.strip()}
        if not runtime_ids:
            raise RefusedError(400, "runtime_ids required")
        if not all(self._hub.knows_runtime(each) for each in runtime_ids):
            raise RefusedError(404, "runtime not found")
        if not web.WebSocketResponse().can_prepare(request):
            raise RefusedError(400, "websocket upgrade required")
        return await self._hub.links.serve(request, frozenset(runtime_ids))

    @_for_daemon("failed to load workspace")
    async def repos(self, request: web.Request) -> web.StreamResponse:
        workspace_id = self._own_workspace(request)
        return _json(wire.WorkspaceRepos(workspace_id=workspace_id, repos_version=registry.repos_version([])))

    @_for_daemon("failed to load runtime profiles")
    async def profiles(self, request: web.Request) -> web.StreamResponse:
        workspace_id = self._own_workspace(request)
        found = await self._hub.store.read(lambda tx: registry.profiles(tx, workspace_id))
        return _json({"workspace_id": workspace_id, "runtime_profiles": found})

    # --- claiming -------------------------------------------------------------------------------------

    @_for_daemon("failed to claim task: storage failed")
    async def claim(self, request: web.Request) -> web.StreamResponse:
        task = await self._hub.claim(_id(request, "rid", "runtime_id"))
        return _json({"task": None if task is None else on_the_wire(task)})

    @_for_daemon("failed to load runtime")
    async def pending(self, request: web.Request) -> web.StreamResponse:
        runtime_id = _id(request, "rid", "runtime_id")

        def rule(tx: Tx) -> list[wire.Task]:
            registry.require(tx, runtime_id)
            return claims.pending(tx, self._hub.scope, runtime_id)

        return _json([on_the_wire(task) for task in await self._hub.store.read(rule)])

    @_for_daemon("failed to load task")
    async def prepare_lease(self, request: web.Request) -> web.StreamResponse:
        runtime_id, task_id = _id(request, "rid", "runtime_id"), _id(request, "tid", "task_id")
        return await self._task(lambda tx: service.prepare_lease(tx, self._hub.scope, runtime_id, task_id))

    @_for_daemon("recover orphans failed")
    async def recover_orphans(self, request: web.Request) -> web.StreamResponse:
        runtime_id = _id(request, "rid", "runtime_id")

        def rule(tx: Tx) -> wire.OrphansResponse:
            registry.require(tx, runtime_id)
            return service.recover_orphans(tx, runtime_id)

        return _json(await self._hub.store.write(rule))

    # --- the life of a task ---------------------------------------------------------------------------

    async def _task(self, rule: Callable[[Tx], Any]) -> web.Response:
        """Do something with a task and answer its row."""
        row = await self._hub.store.write(rule)
        return _json(on_the_wire(wire_task(row, self._hub.workspace_id)))

    @_for_daemon("failed to load task")
    async def status(self, request: web.Request) -> web.StreamResponse:
        task_id = _id(request, "tid", "task_id")
        row = await self._hub.store.read(lambda tx: service.task_row(tx, task_id))
        return _json(wire.TaskStatusResponse(status=row["status"]))

    @_for_daemon("failed to load task")
    async def start(self, request: web.Request) -> web.StreamResponse:
        task_id = _id(request, "tid", "task_id")
        return await self._task(lambda tx: service.start(tx, task_id))

    @_for_daemon("failed to load task")
    async def wait_local_directory(self, request: web.Request) -> web.StreamResponse:
        task_id = _id(request, "tid", "task_id")
        asked = await _decode(request, wire.WaitRequest, self._limits.body_bytes)
        return await self._task(lambda tx: service.wait_for_directory(tx, task_id, asked.reason))

    @_for_daemon("failed to load task")
    async def progress(self, request: web.Request) -> web.StreamResponse:
        task_id = _id(request, "tid", "task_id")
        asked = await _decode(request, wire.ProgressRequest, self._limits.body_bytes)
        await self._hub.store.write(lambda tx: service.progress(tx, task_id, asked.summary))
        return _json(_OK)

    @_for_daemon("failed to persist task message")
    async def post_messages(self, request: web.Request) -> web.StreamResponse:
        task_id = _id(request, "tid", "task_id")
        body = await _body(request, self._limits.large_body_bytes) or b"{}"
        try:
            lines = transcripts.decode(body)
        except (msgspec.DecodeError, ValueError):
            raise RefusedError(400, "invalid request body") from None
        await self._hub.store.write(lambda tx: transcripts.append(tx, task_id, lines))
        return _json(_OK)

    @_for_daemon("failed to load task messages")
    async def daemon_messages(self, request: web.Request) -> web.StreamResponse:
        return await self._messages(request, _id(request, "tid", "task_id"))

    async def _messages(self, request: web.Request, task_id: str) -> web.StreamResponse:
        """The lines after ``since`` as one array, sent page by page so that memory stays flat."""
        since = request.query.get("since", "") or "0"
        if not since.isdecimal() or len(since) > 18:
            raise RefusedError(400, "invalid since parameter")
        after = int(since)
        page = await self._hub.messages(task_id, after, transcripts.PAGE)
        if len(page) < transcripts.PAGE:
            return _json(page)
        response = web.StreamResponse()
        response.content_type = "application/json"
        await response.prepare(request)
        opening = b"["
        while page:
            await response.write(opening + msgspec.json.encode(page)[1:-1])
            opening = b","
            page = await self._hub.messages(task_id, page[-1].seq, transcripts.PAGE)
        await response.write(b"]")
        await response.write_eof()
        return response

    @_for_daemon("failed to load task")
    async def session(self, request: web.Request) -> web.StreamResponse:
        task_id = _id(request, "tid", "task_id")
        asked = await _decode(request, wire.SessionRequest, self._limits.body_bytes)
        session_id, work_dir = asked.session_id or "", asked.work_dir or ""
        if not session_id and not work_dir:
            raise RefusedError(400, "session_id or work_dir is required")
        await self._hub.store.write(lambda tx: service.pin_session(tx, task_id, session_id, work_dir))
        return web.Response(status=204)

    @_for_daemon("failed to persist task usage")
    async def usage(self, request: web.Request) -> web.StreamResponse:
        task_id = _id(request, "tid", "task_id")
        asked = await _decode(request, wire.UsageRequest, self._limits.body_bytes)
        await self._hub.store.write(lambda tx: service.record_usage(tx, task_id, asked.usage))
        return _json(_OK)

    @_for_daemon("failed to complete task")
    async def complete(self, request: web.Request) -> web.StreamResponse:
        task_id = _id(request, "tid", "task_id")
        report = await _decode(request, wire.CompleteRequest, self._limits.large_body_bytes)
        return await self._task(lambda tx: service.complete(tx, task_id, report))

    @_for_daemon("failed to fail task")
    async def fail(self, request: web.Request) -> web.StreamResponse:
        task_id = _id(request, "tid", "task_id")
        report = await _decode(request, wire.FailRequest, self._limits.large_body_bytes)
        return await self._task(lambda tx: service.fail(tx, task_id, report))

    # --- clean-up -------------------------------------------------------------------------------------

    @_for_daemon("failed to load chat session")
    async def chat_gc_check(self, request: web.Request) -> web.StreamResponse:
        conversation_id = _id(request, "cid", "chat_session_id")
        row = await self._hub.store.read(
            lambda tx: tx.one("SELECT updated_at FROM conversation WHERE id = ?", (conversation_id,))
        )
        if row is None:
            raise RefusedError(404, "chat session not found")
        return _json({"status": "active", "updated_at": rfc3339(row["updated_at"])})

    @_for_daemon("failed to load task")
    async def task_gc_check(self, request: web.Request) -> web.StreamResponse:
        task_id = _id(request, "tid", "task_id")
        row = await self._hub.store.read(lambda tx: service.task_row(tx, task_id))
        ended_at = row["ended_at"]
        return _json(
            {
                "status": row["status"],
                "completed_at": _UNSET_TIME if ended_at is None else rfc3339(ended_at),
            }
        )


class _Heartbeat(wire.HeartbeatRequest):
    """A heartbeat that may lack its runtime, so that the refusal can say so."""

    runtime_id: str = ""
