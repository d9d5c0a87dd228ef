"""Workspaces over HTTP: who and what is in one. Most of what changes something is for people alone."""

from __future__ import annotations

import sqlite3
from typing import Any, Final

import msgspec
from aiohttp import web

from daemon_core.hub import (
    access_tokens,
    agents,
    autopilots,
    dispatch,
    effects,
    members,
    projects,
    skills,
    squads,
    tokens,
    workspaces,
)
from daemon_core.hub.answering import (
    ACTOR,
    WORKSPACE,
    Api,
    answer,
    checked_id,
    decode,
    for_member,
    for_person,
    path_id,
)
from daemon_core.hub.errors import ConflictError, HubError, RefusedError
from daemon_core.hub.store import Tx
from daemon_core.hub.views import AgentChanges, AgentSpec, AgentView
from daemon_core.protocol import wire

LONGEST_TOKEN_DAYS: Final = 36500
DEFAULT_CONCURRENCY = 6
"""Tasks of an agent at once, where it was made over HTTP and nothing was said."""


class _Token(msgspec.Struct):
    name: str = ""
    expires_in_days: int | None = None


class _Agent(msgspec.Struct):
    name: str | None = None
    description: str | None = None
    instructions: str | None = None
    runtime_id: str | None = None
    provider: str | None = None
    model: str | None = None
    thinking_level: str | None = None
    custom_env: dict[str, str] | None = None
    custom_args: list[str] | None = None
    mcp_config: Any = None
    max_concurrent_tasks: int | None = None


class _Skills(msgspec.Struct):
    skill_ids: list[str] = []


class _Trigger(msgspec.Struct):
    source: str = "manual"
    payload: Any = None


class WorkspaceApi(Api):
    """The handlers of the workspace."""

    def routes(self) -> list[web.RouteDef]:
        """Tokens, workspace, profiles, agents, skills, projects, squads, autopilots, news."""
        ws = "/api/workspaces/{ws}"
        profile = ws + "/runtime-profiles/{profile}"
        agent, skill = "/api/agents/{agent}", "/api/skills/{skill}"
        project, squad = "/api/projects/{project}", "/api/squads/{squad}"
        autopilot = "/api/autopilots/{autopilot}"
        return [
            web.post("/api/tokens/current/renew", self.renew),
            web.get("/api/tokens", self.list_tokens),
            web.post("/api/tokens", self.create_token),
            web.delete("/api/tokens/{token}", self.revoke_token),
            web.get("/api/workspaces", self.list_workspaces),
            web.post("/api/workspaces", self.create_workspace),
            web.get(ws, self.workspace),
            web.patch(ws, self.update_workspace),
            web.put(ws, self.update_workspace),
            web.delete(ws, self.remove_workspace),
            web.get(ws + "/members", self.list_members),
            web.get(ws + "/runtime-profiles", self.list_profiles),
            web.post(ws + "/runtime-profiles", self.add_profile),
            web.patch(profile, self.edit_profile),
            web.delete(profile, self.remove_profile),
            web.get("/api/agents", self.list_agents),
            web.post("/api/agents", self.add_agent),
            web.get(agent, self.get_agent),
            web.put(agent, self.edit_agent),
            web.put(agent + "/skills", self.give_skills),
            web.get("/api/skills", self.list_skills),
            web.post("/api/skills", self.add_skill),
            web.get(skill, self.get_skill),
            web.put(skill, self.edit_skill),
            web.delete(skill, self.remove_skill),
            web.get("/api/projects", self.list_projects),
            web.post("/api/projects", self.add_project),
            web.get(project, self.get_project),
            web.put(project, self.edit_project),
            web.delete(project, self.remove_project),
            web.get(project + "/resources", self.list_resources),
            web.post(project + "/resources", self.add_resource),
            web.delete(project + "/resources/{resource}", self.remove_resource),
            web.get("/api/squads", self.list_squads),
            web.post("/api/squads", self.add_squad),
            web.get(squad, self.get_squad),
            web.put(squad, self.edit_squad),
            web.delete(squad, self.remove_squad),
            web.get(squad + "/members", self.list_squad_members),
            web.post(squad + "/members", self.add_squad_member),
            web.delete(squad + "/members", self.remove_squad_member),
            web.get("/api/autopilots", self.list_autopilots),
            web.post("/api/autopilots", self.add_autopilot),
            web.get(autopilot, self.get_autopilot),
            web.patch(autopilot, self.edit_autopilot),
            web.delete(autopilot, self.remove_autopilot),
            web.get(autopilot + "/runs", self.list_runs),
            web.post(autopilot + "/trigger", self.trigger),
            web.get("/api/inbox", self.inbox),
        ]

    # --- tokens ---------------------------------------------------------------------------------------

    @for_member()
    async def renew(self, request: web.Request) -> web.StreamResponse:
        """The hub's own credential lives as long as the hub; others are extended when they end soon."""
        if request[ACTOR].type != "member":
            raise RefusedError(400, "only personal access tokens can be renewed")
        token = request.headers["Authorization"].partition(" ")[2].strip()
        if tokens.same(token, self.hub.credential):
            return answer(wire.RenewResponse())
        return answer(await self.write(request, lambda tx: access_tokens.renew(tx, token)))

    @for_person()
    async def list_tokens(self, request: web.Request) -> web.StreamResponse:
        return answer(await self.read(request, access_tokens.list_all))

    @for_person("failed to create token")
    async def create_token(self, request: web.Request) -> web.StreamResponse:
        body = await decode(request, _Token, self.limits.body_bytes)
        if not body.name.strip():
            raise RefusedError(400, "name is required")
        if body.expires_in_days is not None and not 1 <= body.expires_in_days <= LONGEST_TOKEN_DAYS:
            raise RefusedError(400, f"expires_in_days must be from 1 to {LONGEST_TOKEN_DAYS}")

        def rule(tx: Tx) -> dict[str, object]:
            token, row = access_tokens.add(tx, body.name.strip(), days=body.expires_in_days)
            return {**access_tokens.view(row), "token": token}

        return answer(await self.write(request, rule), 201)

    @for_person()
    async def revoke_token(self, request: web.Request) -> web.StreamResponse:
        token_id = path_id(request, "token", "token_id")
        await self.write(request, lambda tx: access_tokens.revoke(tx, token_id))
        return web.Response(status=204)

    # --- the workspace --------------------------------------------------------------------------------

    @for_member()
    async def list_workspaces(self, request: web.Request) -> web.StreamResponse:
        """An agent's is the one of its task alone."""
        mine = None if request[ACTOR].type == "member" else request[WORKSPACE]

        def rule(tx: Tx) -> list[dict[str, object]]:
            return [
                workspaces.view(tx, row["id"]) for row in workspaces.listing(tx) if mine in (None, row["id"])
            ]

        return answer(await self.read(request, rule))

    @for_person("failed to create workspace")
    async def create_workspace(self, request: web.Request) -> web.StreamResponse:
        body = await decode(request, workspaces.NewWorkspace, self.limits.body_bytes)

        def rule(tx: Tx) -> dict[str, object]:
            return workspaces.view(tx, workspaces.create(tx, body))

        return answer(await self.write(request, rule), 201)

    @for_person("failed to delete workspace")
    async def remove_workspace(self, request: web.Request) -> web.StreamResponse:
        workspace_id = await self.path_workspace(request)
        await self.hub.store.write(lambda tx: workspaces.remove(tx, workspace_id))
        await self.hub.look_at_runtimes()
        return web.Response(status=204)

    @for_member()
    async def workspace(self, request: web.Request) -> web.StreamResponse:
        workspace_id = await self.path_workspace(request)
        return answer(await self.read(request, lambda tx: workspaces.view(tx, workspace_id)))

    @for_member("failed to update workspace")
    async def update_workspace(self, request: web.Request) -> web.StreamResponse:
        """An agent may add repositories, and nothing else."""
        workspace_id = await self.path_workspace(request)
        body = await decode(request, workspaces.WorkspaceBody, self.limits.body_bytes)
        agent = request[ACTOR].type != "member"
        if agent and body != workspaces.WorkspaceBody(repos=body.repos):
            raise RefusedError(403, "this needs a person")

        def rule(tx: Tx) -> dict[str, object]:
            if agent:
                known = workspaces.repos(workspaces.row_of(tx, workspace_id))
                # Somebody else has added one meanwhile, or the agent takes one away: it may do neither.
                if not {repo.url for repo in known} <= {repo.url.strip() for repo in body.repos or []}:
                    raise RefusedError(409, "repositories are missing that the workspace has")
            return workspaces.update(tx, workspace_id, body)

        return answer(await self.write(request, rule))

    @for_member()
    async def list_members(self, request: web.Request) -> web.StreamResponse:
        workspace_id = await self.path_workspace(request)
        member_id = self.hub.scope.member_id
        return answer(await self.hub.store.read(lambda tx: members.listing(tx, workspace_id, member_id)))

    @for_member()
    async def list_profiles(self, request: web.Request) -> web.StreamResponse:
        workspace_id = await self.path_workspace(request)
        found = await self.read(request, lambda tx: workspaces.profiles(tx, workspace_id, enabled_only=False))
        return answer({"runtime_profiles": found})

    @for_person("failed to create runtime profile")
    async def add_profile(self, request: web.Request) -> web.StreamResponse:
        workspace_id = await self.path_workspace(request)
        body = await decode(request, workspaces.ProfileBody, self.limits.body_bytes)
        row = await self.write(request, lambda tx: workspaces.add_profile(tx, workspace_id, body))
        return answer(workspaces.profile_view(row), 201)

    @for_person("failed to update runtime profile")
    async def edit_profile(self, request: web.Request) -> web.StreamResponse:
        workspace_id = await self.path_workspace(request)
        profile_id = path_id(request, "profile", "profile_id")
        body = await decode(request, workspaces.ProfileBody, self.limits.body_bytes)
        row = await self.write(
            request, lambda tx: workspaces.edit_profile(tx, workspace_id, profile_id, body)
        )
        return answer(workspaces.profile_view(row))

    @for_person("failed to delete runtime profile")
    async def remove_profile(self, request: web.Request) -> web.StreamResponse:
        workspace_id = await self.path_workspace(request)
        profile_id = path_id(request, "profile", "profile_id")
        await self.write(request, lambda tx: workspaces.remove_profile(tx, workspace_id, profile_id))
        await self.hub.look_at_runtimes()
        return web.Response(status=204)

    # --- agents and skills ----------------------------------------------------------------------------

    def _shown(self, tx: Tx, view: AgentView, workspace_id: str) -> dict[str, object]:
        row = agents.by_id(tx, view.id)
        return {
            "id": view.id,
            "workspace_id": workspace_id,
            "name": view.name,
            "description": row["description"],
            "instructions": view.instructions,
            "provider": view.provider,
            "runtime_id": row["runtime_id"],
            "model": view.model,
            "thinking_level": view.thinking_level,
            "custom_args": view.custom_args,
            "max_concurrent_tasks": view.max_concurrent_tasks,
            "skills": view.skill_names,
            "status": "working" if agents.works(tx, view.id) else "idle",
            "created_at": view.created_at,
            "updated_at": view.updated_at,
        }

    @for_member()
    async def list_agents(self, request: web.Request) -> web.StreamResponse:
        where = request[WORKSPACE]
        return answer(
            await self.read(
                request, lambda tx: [self._shown(tx, view, where) for view in agents.list_agents(tx)]
            )
        )

    @for_member()
    async def get_agent(self, request: web.Request) -> web.StreamResponse:
        agent_id = path_id(request, "agent", "agent_id")
        where = request[WORKSPACE]
        return answer(await self.read(request, lambda tx: self._agent(tx, agent_id, where)))

    def _agent(self, tx: Tx, agent_id: str, workspace_id: str) -> dict[str, object]:
        found = agents.get(tx, agents.by_id(tx, agent_id)["name"], secrets=False)
        return self._shown(tx, found, workspace_id)

    @for_person("failed to create agent")
    async def add_agent(self, request: web.Request) -> web.StreamResponse:
        body = await decode(request, _Agent, self.limits.large_body_bytes)
        where = request[WORKSPACE]

        def rule(tx: Tx) -> dict[str, object]:
            runtime = _runtime(tx, where, body.runtime_id)
            spec = AgentSpec(
                name=body.name or "",
                provider=body.provider or "" if runtime is None else runtime["provider"],
                instructions=body.instructions or "",
                model=body.model or None,
                thinking_level=body.thinking_level or None,
                custom_env=body.custom_env or {},
                custom_args=body.custom_args or [],
                mcp_config=body.mcp_config,
                max_concurrent_tasks=(
                    DEFAULT_CONCURRENCY if body.max_concurrent_tasks is None else body.max_concurrent_tasks
                ),
            )
            made = _refused(lambda: agents.add(tx, spec))
            return self._bound(tx, made.id, body, runtime, where)

        return answer(await self.write(request, rule), 201)

    @for_person("failed to update agent")
    async def edit_agent(self, request: web.Request) -> web.StreamResponse:
        agent_id = path_id(request, "agent", "agent_id")
        body = await decode(request, _Agent, self.limits.large_body_bytes)
        where = request[WORKSPACE]

        def rule(tx: Tx) -> dict[str, object]:
            row = agents.by_id(tx, agent_id)
            runtime = _runtime(tx, where, body.runtime_id)
            if runtime is not None and runtime["provider"] != row["provider"]:
                raise RefusedError(400, "runtime is of another provider")
            given = {
                name: value
                for name in AgentChanges.__struct_fields__
                if name != "skills" and (value := getattr(body, name, None)) is not None
            }
            _refused(lambda: agents.edit(tx, row["name"], AgentChanges(**given)))
            return self._bound(tx, agent_id, body, runtime, where)

        return answer(await self.write(request, rule))

    def _bound(
        self, tx: Tx, agent_id: str, body: _Agent, runtime: sqlite3.Row | None, workspace_id: str
    ) -> dict[str, object]:
        """With what only this side of the hub knows of agents: a description, and the runtime it runs on."""
        if runtime is not None:
            tx.run("UPDATE agent SET runtime_id = ? WHERE id = ?", (runtime["id"], agent_id))
        if body.description is not None:
            tx.run("UPDATE agent SET description = ? WHERE id = ?", (body.description, agent_id))
        return self._agent(tx, agent_id, workspace_id)

    @for_person("failed to update agent skills")
    async def give_skills(self, request: web.Request) -> web.StreamResponse:
        agent_id = path_id(request, "agent", "agent_id")
        body = await decode(request, _Skills, self.limits.body_bytes)
        wanted = [checked_id(each, "skill_id") for each in body.skill_ids]

        def rule(tx: Tx) -> list[dict[str, object]]:
            agents.by_id(tx, agent_id)
            return [{"id": skill.id, "name": skill.name} for skill in skills.give(tx, agent_id, wanted)]

        return answer(await self.write(request, rule))

    @for_member()
    async def list_skills(self, request: web.Request) -> web.StreamResponse:
        return answer(await self.read(request, skills.list_all))

    @for_member()
    async def get_skill(self, request: web.Request) -> web.StreamResponse:
        skill_id = path_id(request, "skill", "skill_id")
        return answer(skills.view(await self.read(request, lambda tx: skills.require(tx, skill_id))))

    @for_person("failed to create skill")
    async def add_skill(self, request: web.Request) -> web.StreamResponse:
        body = await decode(request, skills.SkillBody, self.limits.large_body_bytes)
        return answer(skills.view(await self.write(request, lambda tx: skills.add(tx, body))), 201)

    @for_person("failed to update skill")
    async def edit_skill(self, request: web.Request) -> web.StreamResponse:
        skill_id = path_id(request, "skill", "skill_id")
        body = await decode(request, skills.SkillBody, self.limits.large_body_bytes)
        return answer(skills.view(await self.write(request, lambda tx: skills.edit(tx, skill_id, body))))

    @for_person("failed to delete skill")
    async def remove_skill(self, request: web.Request) -> web.StreamResponse:
        skill_id = path_id(request, "skill", "skill_id")
        await self.write(request, lambda tx: skills.remove(tx, skill_id))
        return web.Response(status=204)

    # --- projects -------------------------------------------------------------------------------------

    @for_member()
    async def list_projects(self, request: web.Request) -> web.StreamResponse:
        found = await self.read(request, projects.listing)
        return answer({"projects": found, "total": len(found)})

    @for_member()
    async def get_project(self, request: web.Request) -> web.StreamResponse:
        project_id = path_id(request, "project", "project_id")
        return answer(
            await self.read(request, lambda tx: projects.view(tx, projects.require(tx, project_id)))
        )

    @for_member("failed to create project")
    async def add_project(self, request: web.Request) -> web.StreamResponse:
        body = await decode(request, projects.ProjectBody, self.limits.body_bytes)
        return answer(await self.write(request, lambda tx: projects.view(tx, projects.create(tx, body))), 201)

    @for_member("failed to update project")
    async def edit_project(self, request: web.Request) -> web.StreamResponse:
        project_id = path_id(request, "project", "project_id")
        body = await decode(request, projects.ProjectBody, self.limits.body_bytes)
        return answer(
            await self.write(request, lambda tx: projects.view(tx, projects.update(tx, project_id, body)))
        )

    @for_person("failed to delete project")
    async def remove_project(self, request: web.Request) -> web.StreamResponse:
        project_id = path_id(request, "project", "project_id")
        await self.write(request, lambda tx: projects.delete(tx, project_id))
        return web.Response(status=204)

    @for_member()
    async def list_resources(self, request: web.Request) -> web.StreamResponse:
        project_id = path_id(request, "project", "project_id")

        def rule(tx: Tx) -> list[dict[str, object]]:
            projects.require(tx, project_id)
            return projects.resources(tx, project_id)

        return answer({"resources": await self.read(request, rule)})

    @for_person("failed to create project resource")
    async def add_resource(self, request: web.Request) -> web.StreamResponse:
        """For people alone: an agent could else have a later task run in any directory of the user's."""
        project_id = path_id(request, "project", "project_id")
        body = await decode(request, projects.ResourceBody, self.limits.body_bytes)
        row = await self.write(request, lambda tx: projects.add_resource(tx, project_id, body))
        return answer(projects.resource_view(row), 201)

    @for_person("failed to delete project resource")
    async def remove_resource(self, request: web.Request) -> web.StreamResponse:
        project_id = path_id(request, "project", "project_id")
        resource_id = path_id(request, "resource", "resource_id")
        await self.write(request, lambda tx: projects.remove_resource(tx, project_id, resource_id))
        return web.Response(status=204)

    # --- squads ---------------------------------------------------------------------------------------

    @for_member()
    async def list_squads(self, request: web.Request) -> web.StreamResponse:
        return answer(await self.read(request, squads.listing))

    @for_member()
    async def get_squad(self, request: web.Request) -> web.StreamResponse:
        squad_id = path_id(request, "squad", "squad_id")
        return answer(await self.read(request, lambda tx: squads.view(tx, squads.require(tx, squad_id))))

    @for_person("failed to create squad")
    async def add_squad(self, request: web.Request) -> web.StreamResponse:
        body = await decode(request, squads.SquadBody, self.limits.body_bytes)
        return answer(await self.write(request, lambda tx: squads.view(tx, squads.create(tx, body))), 201)

    @for_person("failed to update squad")
    async def edit_squad(self, request: web.Request) -> web.StreamResponse:
        squad_id = path_id(request, "squad", "squad_id")
        body = await decode(request, squads.SquadBody, self.limits.body_bytes)
        return answer(
            await self.write(request, lambda tx: squads.view(tx, squads.update(tx, squad_id, body)))
        )

    @for_person("failed to delete squad")
    async def remove_squad(self, request: web.Request) -> web.StreamResponse:
        squad_id = path_id(request, "squad", "squad_id")
        await self.write(request, lambda tx: squads.delete(tx, squad_id))
        return web.Response(status=204)

    @for_member()
    async def list_squad_members(self, request: web.Request) -> web.StreamResponse:
        squad_id = path_id(request, "squad", "squad_id")

        def rule(tx: Tx) -> list[dict[str, object]]:
            squads.require(tx, squad_id)
            return squads.member_views(tx, squad_id)

        return answer(await self.read(request, rule))

    @for_person("failed to add squad member")
    async def add_squad_member(self, request: web.Request) -> web.StreamResponse:
        squad_id = path_id(request, "squad", "squad_id")
        body = await decode(request, squads.MemberBody, self.limits.body_bytes)

        def rule(tx: Tx) -> list[dict[str, object]]:
            squads.require(tx, squad_id)
            squads.add_member(tx, squad_id, body)
            return squads.member_views(tx, squad_id)

        return answer(await self.write(request, rule), 201)

    @for_person("failed to remove squad member")
    async def remove_squad_member(self, request: web.Request) -> web.StreamResponse:
        squad_id = path_id(request, "squad", "squad_id")
        body = await decode(request, squads.MemberBody, self.limits.body_bytes)
        await self.write(request, lambda tx: squads.remove_member(tx, squads.require(tx, squad_id), body))
        return web.Response(status=204)

    # --- autopilots and news --------------------------------------------------------------------------

    @for_member()
    async def list_autopilots(self, request: web.Request) -> web.StreamResponse:
        found = await self.read(request, autopilots.listing)
        return answer({"autopilots": found, "total": len(found)})

    @for_member()
    async def get_autopilot(self, request: web.Request) -> web.StreamResponse:
        autopilot_id = path_id(request, "autopilot", "autopilot_id")
        row = await self.read(request, lambda tx: autopilots.require(tx, autopilot_id))
        return answer(autopilots.view(row))

    @for_person("failed to create autopilot")
    async def add_autopilot(self, request: web.Request) -> web.StreamResponse:
        body = await decode(request, autopilots.AutopilotBody, self.limits.body_bytes)
        row = await self.write(request, lambda tx: autopilots.create(tx, body))
        return answer(autopilots.view(row), 201)

    @for_person("failed to update autopilot")
    async def edit_autopilot(self, request: web.Request) -> web.StreamResponse:
        autopilot_id = path_id(request, "autopilot", "autopilot_id")
        body = await decode(request, autopilots.AutopilotBody, self.limits.body_bytes)
        row = await self.write(request, lambda tx: autopilots.update(tx, autopilot_id, body))
        return answer(autopilots.view(row))

    @for_person("failed to delete autopilot")
    async def remove_autopilot(self, request: web.Request) -> web.StreamResponse:
        autopilot_id = path_id(request, "autopilot", "autopilot_id")
        await self.write(request, lambda tx: autopilots.delete(tx, autopilot_id))
        return web.Response(status=204)

    @for_member()
    async def list_runs(self, request: web.Request) -> web.StreamResponse:
        autopilot_id = path_id(request, "autopilot", "autopilot_id")
        found = await self.read(request, lambda tx: autopilots.runs(tx, autopilot_id))
        return answer({"runs": found, "total": len(found)})

    @for_person("failed to trigger autopilot")
    async def trigger(self, request: web.Request) -> web.StreamResponse:
        autopilot_id = path_id(request, "autopilot", "autopilot_id")
        body = await decode(request, _Trigger, self.limits.body_bytes)
        if body.source not in autopilots.SOURCES:
            raise RefusedError(400, "invalid source")
        scope = self.scope(request)
        by = ("member", scope.member_id)

        def rule(tx: Tx) -> dict[str, object]:
            row = autopilots.require(tx, autopilot_id)
            made = dispatch.trigger_autopilot(tx, scope, row, body.source, body.payload, by)
            return autopilots.run_view(made)

        return answer(await self.write(request, rule))

    @for_person("failed to list inbox")
    async def inbox(self, request: web.Request) -> web.StreamResponse:
        return answer(await self.read(request, effects.inbox))


def _runtime(tx: Tx, workspace_id: str, given: str | None) -> sqlite3.Row | None:
    if not given:
        return None
    row = tx.one(
        "SELECT * FROM runtime WHERE id = ? AND workspace_id = ?",
        (checked_id(given, "runtime_id"), workspace_id),
    )
    if row is None:
        raise RefusedError(400, "runtime not found in this workspace")
    return row


def _refused(rule: Any) -> AgentView:
    """An agent, or why not in the words of this side."""
    try:
        made: AgentView = rule()
    except ConflictError as error:
        raise RefusedError(409, "an agent of this name exists") from error
    except HubError as error:
        raise RefusedError(400, error.code.replace("_", " ")) from error
    return made
