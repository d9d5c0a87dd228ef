"""Named agents: between the hub's structures and those of the control API. Secrets never come back."""

from __future__ import annotations

import msgspec

from daemon_core.control.errors import ControlError
from daemon_core.control.views import AgentAdd, AgentEdit, AgentSkill, AgentView
from daemon_core.hub import AgentChanges, AgentSpec
from daemon_core.hub import AgentView as HubAgent
from daemon_core.protocol import wire
from daemon_core.workdirs.skills import is_safe_path


def spec_of(request: AgentAdd, provider: str) -> AgentSpec:
    """The agent that is asked for. Raises ``ControlError`` for skills that cannot be."""
    return AgentSpec(
        name=request.name,
        provider=provider,
        instructions=request.instructions,
        model=request.model or None,
        thinking_level=request.thinking or None,
        permissions=request.permissions or None,
        resume_after_limit=request.resume_after_limit,
        custom_env=request.env,
        custom_args=request.args,
        mcp_config=request.mcp_config,
        skills=_skills(request.skills),
    )


def changes_of(request: AgentEdit) -> AgentChanges:
    """The changes that are asked for; what was left out stays left out."""
    return AgentChanges(
        name=request.name,
        instructions=request.instructions,
        model=_none_if_empty(request.model),
        thinking_level=_none_if_empty(request.thinking),
        permissions=_none_if_empty(request.permissions),
        resume_after_limit=request.resume_after_limit,
        custom_env=request.env,
        custom_args=request.args,
        mcp_config=request.mcp_config,
        skills=request.skills if request.skills is msgspec.UNSET else _skills(request.skills),
    )


def agent_view(agent: HubAgent) -> AgentView:
    """An agent as it is shown: of its environment the names, of its MCP servers that there are some."""
    return AgentView(
        id=agent.id,
        name=agent.name,
        runtime=agent.provider,
        model=agent.model or "",
        thinking=agent.thinking_level or "",
        permissions=agent.permissions or "",
        resume_after_limit=agent.resume_after_limit,
        instructions=agent.instructions,
        args=agent.custom_args,
        env_names=agent.custom_env_names,
        mcp_servers=["(set)"] if agent.has_mcp_config else [],
        skills=agent.skill_names,
        created_at=agent.created_at,
    )


def _skills(given: list[AgentSkill]) -> list[wire.Skill]:
    made: dict[str, wire.Skill] = {}
    for skill in given:
        name = skill.name.strip()
        if not name or not name.isprintable() or name in made:
            raise ControlError("invalid_input", {"field": "skills", "why": "empty or doubled name"})
        files = [wire.SkillFile(path=path, content=content) for path, content in skill.files.items()]
        wrong = next((file.path for file in files if not is_safe_path(file.path)), None)
        if wrong is not None:
            raise ControlError(
                "invalid_input", {"field": "skills", "why": f"the path {wrong!r} is not relative"}
            )
        made[name] = wire.Skill(
            id=f"local:{name}",
            name=name,
            source="workspace",
            description=skill.description,
            content=skill.content,
            files=files or None,
        )
    return list(made.values())


def _none_if_empty(value: str | msgspec.UnsetType) -> str | msgspec.UnsetType | None:
    return None if value == "" else value
