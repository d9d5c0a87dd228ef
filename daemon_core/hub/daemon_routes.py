"""What daemons ask: registration, signs of life, claims, the life of a task, clean-up.

Every body is checked here; what a route does is one transaction of :mod:`daemon_core.hub.service` and its
neighbours. The texts of refusals are the protocol's and daemons act on them: ``runtime not found``,
``task not found`` and ``workspace not found`` mean gone, a bare ``not found`` never does.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable
from typing import Final

import msgspec
from aiohttp import web

from daemon_core.hub import (
    claims,
    parking,
    places,
    redaction,
    registry,
    service,
    skills,
    transcripts,
    workspaces,
)
from daemon_core.hub.answering import (
    DAEMON,
    OK,
    WORKSPACE,
    Api,
    answer,
    body_of,
    checked_id,
    decode,
    for_daemon,
    is_id,
    path_id,
)
from daemon_core.hub.clock import rfc3339
from daemon_core.hub.errors import RefusedError
from daemon_core.hub.links import Heartbeat
from daemon_core.hub.rows import on_the_wire, wire_task
from daemon_core.hub.sending import send_messages
from daemon_core.hub.states import TaskState
from daemon_core.hub.store import Tx
from daemon_core.protocol import wire

_UNSET_TIME: Final = "0001-01-01T00:00:00Z"
CLAIM_LIMIT: Final = 32
"""Tasks of one batch at the most."""
GC_ISSUES: Final = 500
GC_BODY_BYTES: Final = 64 * 1024


class _BatchClaim(msgspec.Struct):
    daemon_id: str = ""
    runtime_ids: list[str] = []
    max_tasks: int = 0


class _Resolve(msgspec.Struct):
    skills: list[wire.SkillRef] = []


class _CancelAck(msgspec.Struct):
    branch_name: str | None = None
    durable_work_dir: str | None = None
    error_message: str | None = None
    failure_reason: str | None = None


class _GcIssues(msgspec.Struct):
    issue_ids: list[str] = []


class DaemonApi(Api):
    """The handlers below ``/api/daemon``."""

    def routes(self) -> list[web.RouteDef]:
        """What daemons ask."""
        daemon = "/api/daemon"
        runtime = daemon + "/runtimes/{rid}"
        task = daemon + "/tasks/{tid}"
        return [
            web.post(daemon + "/register", self.register),
            web.post(daemon + "/deregister", self.deregister),
            web.post(daemon + "/heartbeat", self.heartbeat),
            web.get(daemon + "/ws", self.websocket),
            web.get(daemon + "/workspaces", self.workspaces),
            web.get(daemon + "/workspaces/{ws}/repos", self.repos),
            web.get(daemon + "/workspaces/{ws}/runtime-profiles", self.profiles),
            web.post(daemon + "/workspaces/{ws}/issues/gc-check", self.issues_gc_check),
            web.post(daemon + "/tasks/claim", self.claim_batch),
            web.post(daemon + "/claim", self.claim_batch),
            web.post(runtime + "/tasks/claim", self.claim),
            web.get(runtime + "/tasks/pending", self.pending),
            web.post(runtime + "/tasks/{tid}/prepare-lease", self.prepare_lease),
            web.post(runtime + "/tasks/{tid}/skill-bundles/resolve", self.resolve_skills),
            web.post(runtime + "/recover-orphans", self.recover_orphans),
            web.get(task + "/status", self.status),
            web.post(task + "/start", self.start),
            web.post(task + "/wait-local-directory", self.wait_local_directory),
            web.post(task + "/progress", self.progress),
            web.post(task + "/messages", self.post_messages),
            web.get(task + "/messages", self.daemon_messages),
            web.post(task + "/session", self.session),
            web.post(task + "/usage", self.usage),
            web.post(task + "/complete", self.complete),
            web.post(task + "/fail", self.fail),
            web.post(task + "/cancel-ack", self.cancel_ack),
            web.get(daemon + "/issues/{iid}/gc-check", self.issue_gc_check),
            web.get(daemon + "/chat-sessions/{cid}/gc-check", self.chat_gc_check),
            web.get(daemon + "/autopilot-runs/{run}/gc-check", self.run_gc_check),
            web.get(task + "/gc-check", self.task_gc_check),
        ]

    # --- registration ---------------------------------------------------------------------------------

    @for_daemon("failed to register runtime")
    async def register(self, request: web.Request) -> web.StreamResponse:
        asked = await decode(request, wire.RegisterRequest, self.limits.body_bytes)
        if not asked.daemon_id.strip():
            raise RefusedError(400, "daemon_id is required")
        if not asked.workspace_id.strip():
            raise RefusedError(400, "workspace_id is required")
        if not asked.runtimes and not asked.failed_profiles:
            raise RefusedError(400, "at least one runtime or failed profile is required")
        asked.workspace_id = checked_id(asked.workspace_id.strip(), "workspace_id")
        if asked.workspace_id != request.get(WORKSPACE, asked.workspace_id):
            raise RefusedError(404, "workspace not found")
        asked.daemon_id = asked.daemon_id.strip()
        for entry in asked.runtimes or []:
            if entry.profile_id:
                entry.profile_id = checked_id(entry.profile_id, "profile_id")
        for failed in asked.failed_profiles or []:
            failed.profile_id = checked_id(failed.profile_id, "profile_id")
        return answer(await self.hub.register(asked))

    @for_daemon("failed to deregister runtimes")
    async def deregister(self, request: web.Request) -> web.StreamResponse:
        asked = await decode(request, wire.DeregisterRequest, self.limits.body_bytes)
        if not asked.runtime_ids:
            raise RefusedError(400, "runtime_ids is required")
        given = [checked_id(each, "runtime_id") for each in asked.runtime_ids]
        await self.hub.deregister([each for each in given if self.reaches(request, each)])
        return answer(OK)

    @for_daemon("heartbeat failed")
    async def heartbeat(self, request: web.Request) -> web.StreamResponse:
        asked = await decode(request, Heartbeat, self.limits.body_bytes)
        if not asked.runtime_id.strip():
            raise RefusedError(400, "runtime_id is required")
        runtime_id = checked_id(asked.runtime_id.strip(), "runtime_id")
        if not self.reaches(request, runtime_id):
            raise RefusedError(404, "not found")
        said = await self.hub.heartbeat(runtime_id, asked.supports_batch_import)
        if said is None:
            raise RefusedError(404, "runtime not found")
        return answer(said)

    @for_daemon("failed to load runtime")
    async def websocket(self, request: web.Request) -> web.StreamResponse:
        if self.hub.links.closed:
            raise RefusedError(503, "daemon websocket unavailable")
        given = [*request.query.getall("runtime_ids", []), *request.query.getall("runtime_id", [])]
        runtime_ids = {each.strip().lower() for part in given for each in part.split(",") if each.strip()}
        if not runtime_ids:
            raise RefusedError(400, "runtime_ids required")
        if not all(self.hub.knows_runtime(each) for each in runtime_ids):
            raise RefusedError(404, "runtime not found")
        if DAEMON in request:
            known = await self.hub.runtimes()
            mine = {each.id for each in known if each.daemon_id == request[DAEMON]}
            if not runtime_ids <= mine or not all(self.reaches(request, each) for each in runtime_ids):
                raise RefusedError(404, "not found")
        if not web.WebSocketResponse().can_prepare(request):
            raise RefusedError(400, "websocket upgrade required")
        return await self.hub.links.serve(request, frozenset(runtime_ids))

    # --- workspaces -----------------------------------------------------------------------------------

    @for_daemon("failed to load workspaces")
    async def workspaces(self, request: web.Request) -> web.StreamResponse:
        """What a daemon has to know of workspaces, and nothing where it knows it already."""
        rows = await self.hub.store.read(workspaces.listing)
        known = [
            wire.Workspace(id=row["id"], name=row["name"])
            for row in rows
            if row["id"] == request.get(WORKSPACE, row["id"])
        ]
        tag = f'W/"{hashlib.sha256(msgspec.json.encode(known)).hexdigest()[:32]}"'
        if tag in [each.strip() for each in request.headers.get("If-None-Match", "").split(",")]:
            return web.Response(status=304, headers={"ETag": tag})
        return answer(known, headers={"ETag": tag})

    @for_daemon("failed to load workspace")
    async def repos(self, request: web.Request) -> web.StreamResponse:
        workspace_id = await self.path_workspace(request)
        return answer(await self.hub.store.read(lambda tx: workspaces.for_daemon(tx, workspace_id)))

    @for_daemon("failed to load runtime profiles")
    async def profiles(self, request: web.Request) -> web.StreamResponse:
        workspace_id = await self.path_workspace(request)
        found = await self.hub.store.read(lambda tx: workspaces.profiles(tx, workspace_id, enabled_only=True))
        return answer({"workspace_id": workspace_id, "runtime_profiles": found})

    # --- claiming -------------------------------------------------------------------------------------

    @for_daemon("failed to claim task: storage failed")
    async def claim(self, request: web.Request) -> web.StreamResponse:
        runtime_id = path_id(request, "rid", "runtime_id")
        wish = await decode(request, wire.ClaimWish, self.limits.body_bytes)
        task = await self.hub.claim(runtime_id, _capabilities(request), wish)
        said: dict[str, object] = {"task": None if task is None else on_the_wire(task)}
        if wish.without and (held_back := await self.hub.held_back(runtime_id, wish)):
            said["held_back"] = held_back
        if task is not None:
            said["more"] = await self.hub.claimable(runtime_id, wish)
        return answer(said)

    @for_daemon("failed to claim task: storage failed")
    async def claim_batch(self, request: web.Request) -> web.StreamResponse:
        """Tasks of several runtimes of one daemon; those that are not its own are passed over."""
        asked = await decode(request, _BatchClaim, self.limits.body_bytes)
        if not asked.daemon_id.strip():
            raise RefusedError(400, "daemon_id is required")
        if asked.max_tasks < 0:
            raise RefusedError(400, "max_tasks must not be negative")
        if DAEMON in request and request[DAEMON] != asked.daemon_id.strip():
            raise RefusedError(403, "the token is another daemon's")
        known = {each.id for each in await self.hub.runtimes() if each.daemon_id == asked.daemon_id.strip()}
        claimed: list[dict[str, object]] = []
        for runtime_id in dict.fromkeys(each.lower() for each in asked.runtime_ids):
            mine = runtime_id in known and self.reaches(request, runtime_id)
            while mine and len(claimed) < min(asked.max_tasks, CLAIM_LIMIT):
                task = await self.hub.claim(runtime_id, _capabilities(request))
                if task is None:
                    break
                claimed.append(on_the_wire(task))
        return answer({"tasks": claimed})

    @for_daemon("failed to load runtime")
    async def pending(self, request: web.Request) -> web.StreamResponse:
        runtime_id = path_id(request, "rid", "runtime_id")
        waiting = await self.hub.store.read(lambda tx: claims.pending(tx, runtime_id))
        return answer([on_the_wire(task) for task in waiting])

    @for_daemon("failed to load task")
    async def prepare_lease(self, request: web.Request) -> web.StreamResponse:
        runtime_id, task_id = path_id(request, "rid", "runtime_id"), path_id(request, "tid", "task_id")
        return await self._task(lambda tx: service.prepare_lease(tx, self.hub.scope, runtime_id, task_id))

    @for_daemon("failed to load skills")
    async def resolve_skills(self, request: web.Request) -> web.StreamResponse:
        runtime_id, task_id = path_id(request, "rid", "runtime_id"), path_id(request, "tid", "task_id")
        asked = await decode(request, _Resolve, self.limits.body_bytes)

        def rule(tx: Tx) -> list[wire.Skill]:
            row = service.task_row(tx, task_id)
            if row["runtime_id"] != runtime_id:
                raise RefusedError(404, "task not found")
            if row["status"] not in (TaskState.DISPATCHED, TaskState.WAITING):
                raise RefusedError(409, "task is not preparing")
            agent = tx.one("SELECT * FROM agent WHERE id = ?", (row["agent_id"],))
            return skills.resolve(tx, agent, asked.skills)

        return answer({"bundles": await self.hub.store.read(rule)})

    @for_daemon("recover orphans failed")
    async def recover_orphans(self, request: web.Request) -> web.StreamResponse:
        runtime_id = path_id(request, "rid", "runtime_id")

        def rule(tx: Tx) -> wire.OrphansResponse:
            registry.require(tx, runtime_id)
            return service.recover_orphans(tx, runtime_id)

        return answer(await self.hub.store.write(rule))

    # --- the life of a task ---------------------------------------------------------------------------

    async def _task(self, rule: Callable[[Tx], sqlite3.Row]) -> web.Response:
        """Do something with a task and answer its row."""

        def done(tx: Tx) -> wire.Task:
            row = rule(tx)
            return wire_task(row, places.workspace_of(tx, row["conversation_id"]))

        return answer(on_the_wire(await self.hub.store.write(done)))

    @for_daemon("failed to load task")
    async def status(self, request: web.Request) -> web.StreamResponse:
        task_id = path_id(request, "tid", "task_id")
        row = await self.hub.store.read(lambda tx: service.task_row(tx, task_id))
        return answer(wire.TaskStatusResponse(status=row["status"]))

    @for_daemon("failed to load task")
    async def start(self, request: web.Request) -> web.StreamResponse:
        task_id = path_id(request, "tid", "task_id")
        return await self._task(lambda tx: service.start(tx, task_id))

    @for_daemon("failed to load task")
    async def wait_local_directory(self, request: web.Request) -> web.StreamResponse:
        task_id = path_id(request, "tid", "task_id")
        asked = await decode(request, wire.WaitRequest, self.limits.body_bytes)
        return await self._task(lambda tx: service.wait_for_directory(tx, task_id, asked.reason))

    @for_daemon("failed to load task")
    async def progress(self, request: web.Request) -> web.StreamResponse:
        task_id = path_id(request, "tid", "task_id")
        asked = await decode(request, wire.ProgressRequest, self.limits.body_bytes)
        await self.hub.store.write(lambda tx: service.progress(tx, task_id, asked.summary))
        return answer(OK)

    @for_daemon("failed to persist task message")
    async def post_messages(self, request: web.Request) -> web.StreamResponse:
        task_id = path_id(request, "tid", "task_id")
        body = await body_of(request, self.limits.large_body_bytes) or b"{}"
        try:
            lines = transcripts.decode(redaction.take_out(body))
        except (msgspec.DecodeError, ValueError):
            raise RefusedError(400, "invalid request body") from None
        await self.hub.store.write(lambda tx: transcripts.append(tx, task_id, lines))
        return answer(OK)

    @for_daemon("failed to load task messages")
    async def daemon_messages(self, request: web.Request) -> web.StreamResponse:
        return await send_messages(self.hub, request, path_id(request, "tid", "task_id"))

    @for_daemon("failed to load task")
    async def session(self, request: web.Request) -> web.StreamResponse:
        task_id = path_id(request, "tid", "task_id")
        asked = await decode(request, wire.SessionRequest, self.limits.body_bytes)
        session_id, work_dir = asked.session_id or "", asked.work_dir or ""
        if not session_id and not work_dir:
            raise RefusedError(400, "session_id or work_dir is required")
        await self.hub.store.write(lambda tx: service.pin_session(tx, task_id, session_id, work_dir))
        return web.Response(status=204)

    @for_daemon("failed to persist task usage")
    async def usage(self, request: web.Request) -> web.StreamResponse:
        task_id = path_id(request, "tid", "task_id")
        asked = await decode(request, wire.UsageRequest, self.limits.body_bytes)
        await self.hub.store.write(lambda tx: service.record_usage(tx, task_id, asked.usage))
        return answer(OK)

    @for_daemon("failed to complete task")
    async def complete(self, request: web.Request) -> web.StreamResponse:
        task_id = path_id(request, "tid", "task_id")
        report = await decode(request, service.Completion, self.limits.large_body_bytes)
        return await self._task(lambda tx: service.complete(tx, task_id, report))

    @for_daemon("failed to fail task")
    async def fail(self, request: web.Request) -> web.StreamResponse:
        task_id = path_id(request, "tid", "task_id")
        report = await decode(request, wire.FailRequest, self.limits.large_body_bytes)
        return await self._task(lambda tx: parking.fail(tx, task_id, report))

    @for_daemon("failed to load task")
    async def cancel_ack(self, request: web.Request) -> web.StreamResponse:
        """The last of a cancelled run was sent."""
        task_id = path_id(request, "tid", "task_id")
        asked = await decode(request, _CancelAck, self.limits.body_bytes)
        await self.hub.store.write(
            lambda tx: service.acknowledge_cancel(
                tx, task_id, asked.branch_name or "", asked.durable_work_dir or "", asked.error_message or ""
            )
        )
        return answer(OK)

    # --- clean-up -------------------------------------------------------------------------------------

    @for_daemon("failed to load issue")
    async def issue_gc_check(self, request: web.Request) -> web.StreamResponse:
        issue_id = path_id(request, "iid", "issue_id")
        row = await self.hub.store.read(
            lambda tx: tx.one("SELECT status, updated_at FROM issue WHERE id = ?", (issue_id,))
        )
        if row is None:
            raise RefusedError(404, "issue not found")
        return answer({"status": row["status"], "updated_at": rfc3339(row["updated_at"])})

    @for_daemon("failed to load issues")
    async def issues_gc_check(self, request: web.Request) -> web.StreamResponse:
        await self.path_workspace(request)
        asked = await decode(request, _GcIssues, GC_BODY_BYTES)
        if len(asked.issue_ids) > GC_ISSUES:
            raise RefusedError(400, f"at most {GC_ISSUES} issue_ids")

        def rule(tx: Tx) -> list[dict[str, object]]:
            found: list[dict[str, object]] = []
            for issue_id in asked.issue_ids:
                row = None
                if is_id(issue_id):
                    row = tx.one(
                        "SELECT status, updated_at FROM issue WHERE id = ? AND workspace_id IS ?",
                        (issue_id.lower(), tx.place),
                    )
                if row is None:
                    found.append({"id": issue_id, "found": False})
                else:
                    at = rfc3339(row["updated_at"])
                    found.append({"id": issue_id, "found": True, "status": row["status"], "updated_at": at})
            return found

        return answer({"issues": await self.read(request, rule)})

    @for_daemon("failed to load autopilot run")
    async def run_gc_check(self, request: web.Request) -> web.StreamResponse:
        run_id = path_id(request, "run", "run_id")
        row = await self.hub.store.read(
            lambda tx: tx.one("SELECT status, completed_at FROM autopilot_run WHERE id = ?", (run_id,))
        )
        if row is None:
            raise RefusedError(404, "autopilot run not found")
        return answer({"status": row["status"], "completed_at": _or_unset(row["completed_at"])})

    @for_daemon("failed to load chat session")
    async def chat_gc_check(self, request: web.Request) -> web.StreamResponse:
        conversation_id = path_id(request, "cid", "chat_session_id")
        row = await self.hub.store.read(
            lambda tx: tx.one(
                "SELECT updated_at, archived_at FROM conversation WHERE id = ? AND kind = 'chat'",
                (conversation_id,),
            )
        )
        if row is None:
            raise RefusedError(404, "chat session not found")
        status = "active" if row["archived_at"] is None else "archived"
        return answer({"status": status, "updated_at": rfc3339(row["updated_at"])})

    @for_daemon("failed to load task")
    async def task_gc_check(self, request: web.Request) -> web.StreamResponse:
        task_id = path_id(request, "tid", "task_id")
        row = await self.hub.store.read(lambda tx: service.task_row(tx, task_id))
        return answer({"status": row["status"], "completed_at": _or_unset(row["ended_at"])})


def _capabilities(request: web.Request) -> frozenset[str]:
    given = request.headers.get(wire.CAPABILITIES_HEADER, "")
    return frozenset(each.strip() for each in given.split(",") if each.strip())


def _or_unset(at: int | None) -> str:
    return _UNSET_TIME if at is None else rfc3339(at)
