"""What daemons are asked beside tasks: both sides of it, whoever asks and the daemon's results."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from daemon_core.hub import places, registry, skills
from daemon_core.hub.answering import OK, WORKSPACE, Api, answer, decode, for_daemon, for_person, path_id
from daemon_core.hub.errors import ConflictError, NotFoundError, RefusedError
from daemon_core.hub.requests import Kind, Request
from daemon_core.hub.store import Tx
from daemon_core.protocol.wire import SkillFile

_STATES = ("running", "completed", "failed")


class _Update(msgspec.Struct):
    target_version: str = ""


class _Import(msgspec.Struct):
    skill_key: str = ""


class _UpdateResult(msgspec.Struct):
    status: str = ""
    output: str | None = None
    error: str | None = None


class _ListResult(msgspec.Struct):
    status: str = ""
    models: list[dict[str, Any]] = []
    skills: list[dict[str, Any]] = []
    supported: bool = True
    error: str | None = None


class _ImportResult(msgspec.Struct):
    status: str = ""
    skill: dict[str, Any] | None = None
    error: str | None = None


class RuntimeApi(Api):
    """The handlers of runtimes and of requests to them."""

    def routes(self) -> list[web.RouteDef]:
        """Runtimes, and what they are asked."""
        runtime, daemon = "/api/runtimes/{rid}", "/api/daemon/runtimes/{rid}"
        return [
            web.get("/api/runtimes", self.list_runtimes),
            web.delete(runtime, self.forget),
            web.post(runtime + "/update", self.ask_update),
            web.get(runtime + "/update/{req}", self.get_update),
            web.post(runtime + "/models", self.ask_models),
            web.get(runtime + "/models/{req}", self.get_models),
            web.post(runtime + "/local-skills", self.ask_skills),
            web.get(runtime + "/local-skills/{req}", self.get_skills),
            web.post(runtime + "/local-skills/import", self.ask_import),
            web.get(runtime + "/local-skills/import/{req}", self.get_import),
            web.post(daemon + "/update/{req}/result", self.update_result),
            web.post(daemon + "/models/{req}/result", self.models_result),
            web.post(daemon + "/local-skills/{req}/result", self.skills_result),
            web.post(daemon + "/local-skills/import/{req}/result", self.import_result),
        ]

    @for_person("failed to list runtimes")
    async def list_runtimes(self, request: web.Request) -> web.StreamResponse:
        where = request[WORKSPACE]
        found = await self.hub.store.read(lambda tx: registry.wire_runtimes(tx, where))
        for row in found:
            row.last_seen_at = self.hub.last_seen(row.id) or row.last_seen_at
        return answer(found)

    @for_person("failed to delete runtime")
    async def forget(self, request: web.Request) -> web.StreamResponse:
        runtime_id = path_id(request, "rid", "runtime_id")
        if not self.reaches(request, runtime_id):
            raise RefusedError(404, "not found")
        try:
            await self.hub.forget_runtime(runtime_id)
        except ConflictError as error:
            raise RefusedError(409, "the runtime has unfinished tasks") from error
        return web.Response(status=204)

    # --- asking ---------------------------------------------------------------------------------------

    def _ask(self, request: web.Request, kind: Kind, **asked: Any) -> web.Response:
        runtime_id = path_id(request, "rid", "runtime_id")
        if not self.hub.knows_runtime(runtime_id):
            raise NotFoundError("unknown_runtime", runtime=runtime_id)
        if not self.reaches(request, runtime_id):
            raise RefusedError(404, "not found")
        if not self.hub.is_online(runtime_id):
            raise RefusedError(503, "runtime is offline")
        made = self.hub.requests.add(kind, runtime_id, **asked)
        self.hub.links.pending_work(runtime_id, kind)
        return answer(made.view())

    def _found(self, request: web.Request, kind: Kind) -> Request:
        name = "update_id" if kind == "update" else "request_id"
        runtime_id, request_id = path_id(request, "rid", "runtime_id"), path_id(request, "req", name)
        if not self.reaches(request, runtime_id):
            raise RefusedError(404, "not found")
        return self.hub.requests.get(kind, runtime_id, request_id)

    @for_person()
    async def ask_update(self, request: web.Request) -> web.StreamResponse:
        body = await decode(request, _Update, self.limits.body_bytes)
        if not body.target_version.strip():
            raise RefusedError(400, "target_version is required")
        return self._ask(request, "update", target_version=body.target_version.strip())

    @for_person()
    async def get_update(self, request: web.Request) -> web.StreamResponse:
        return answer(self._found(request, "update").view())

    @for_person()
    async def ask_models(self, request: web.Request) -> web.StreamResponse:
        return self._ask(request, "models")

    @for_person()
    async def get_models(self, request: web.Request) -> web.StreamResponse:
        return answer(self._found(request, "models").view())

    @for_person()
    async def ask_skills(self, request: web.Request) -> web.StreamResponse:
        return self._ask(request, "local_skills")

    @for_person()
    async def get_skills(self, request: web.Request) -> web.StreamResponse:
        return answer(self._found(request, "local_skills").view())

    @for_person()
    async def ask_import(self, request: web.Request) -> web.StreamResponse:
        body = await decode(request, _Import, self.limits.body_bytes)
        if not body.skill_key.strip():
            raise RefusedError(400, "skill_key is required")
        return self._ask(request, "local_skill_import", skill_key=body.skill_key.strip())

    @for_person()
    async def get_import(self, request: web.Request) -> web.StreamResponse:
        return answer(self._found(request, "local_skill_import").view())

    # --- results --------------------------------------------------------------------------------------

    @for_daemon()
    async def update_result(self, request: web.Request) -> web.StreamResponse:
        body = await decode(request, _UpdateResult, self.limits.large_body_bytes)
        found = self._found(request, "update")
        if body.status not in _STATES:
            raise RefusedError(400, f"invalid status: {body.status}")
        self.hub.requests.report(found, body.status, output=body.output, error=body.error)
        return answer(OK)

    @for_daemon()
    async def models_result(self, request: web.Request) -> web.StreamResponse:
        body = await decode(request, _ListResult, self.limits.large_body_bytes)
        found = self._found(request, "models")
        status = "completed" if body.status == "completed" else "failed"
        self.hub.requests.report(
            found, status, models=body.models, supported=body.supported, error=body.error
        )
        return answer(OK)

    @for_daemon()
    async def skills_result(self, request: web.Request) -> web.StreamResponse:
        body = await decode(request, _ListResult, self.limits.large_body_bytes)
        found = self._found(request, "local_skills")
        status = "completed" if body.status == "completed" else "failed"
        self.hub.requests.report(
            found, status, skills=body.skills, supported=body.supported, error=body.error
        )
        return answer(OK)

    @for_daemon("failed to import skill")
    async def import_result(self, request: web.Request) -> web.StreamResponse:
        """A skill of the user's becomes one of the workspace's."""
        body = await decode(request, _ImportResult, self.limits.large_body_bytes)
        found = self._found(request, "local_skill_import")
        if found.status not in ("pending", "running"):
            return answer(OK)
        if body.status != "completed" or body.skill is None:
            self.hub.requests.report(found, "failed", error=body.error or "the skill was not handed over")
            return answer(OK)
        given = body.skill
        try:
            files = msgspec.convert(given.get("files") or [], list[SkillFile])
            told = skills.SkillBody(
                name=str(given.get("name") or ""),
                description=str(given.get("description") or ""),
                content=str(given.get("content") or ""),
                files=files,
            )
        except msgspec.ValidationError:
            raise RefusedError(400, "invalid request body") from None

        def rule(tx: Tx) -> dict[str, object]:
            tx.place = places.of(tx, registry.workspace_of(tx, found.runtime_id))
            return skills.view(skills.take_in(tx, told))

        try:
            kept = await self.hub.store.write(rule)
        except RefusedError as error:
            self.hub.requests.report(found, "failed", error=error.text)
            return answer(OK)
        self.hub.requests.report(found, "completed", skill=kept)
        return answer(OK)
