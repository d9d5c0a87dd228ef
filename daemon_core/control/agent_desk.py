"""The named agents: the hub's to keep, shown and changed here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from daemon_core.control.agent_views import agent_view, changes_of, spec_of
from daemon_core.control.changes import ChangeLog
from daemon_core.control.errors import ControlError
from daemon_core.control.refusals import asked
from daemon_core.control.views import AgentAdd, AgentEdit, AgentView
from daemon_core.hub import Hub
from daemon_core.runtimes.discovery import FoundAgent


class Source(Protocol):
    """Where hub and agents are; the facade is one of these."""

    @property
    def changes(self) -> ChangeLog: ...
    @property
    def hub(self) -> Hub | None: ...
    @property
    def found(self) -> Sequence[FoundAgent]: ...
    def need_hub(self) -> Hub: ...


class AgentDesk:
    """Implements what the control API has for them. Everything may raise ``ControlError``."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._told: set[str] = set()
        """Ids of those that somebody was told of, and not yet that they are gone."""

    async def everyone(self) -> list[AgentView]:
        """All of them; none without a hub."""
        hub = self._source.hub
        if hub is None:
            return []
        found = [agent_view(agent) for agent in await asked(hub.list_agents())]
        self._told |= {agent.id for agent in found}
        return found

    async def add(self, request: AgentAdd) -> AgentView:
        hub = self._source.need_hub()
        spec = spec_of(request, self._known_provider(request.runtime))
        return agent_view(await asked(hub.add_agent(spec)))

    async def edit(self, name: str, request: AgentEdit) -> AgentView:
        hub = self._source.need_hub()
        if request.runtime is not msgspec.UNSET:
            current = await asked(hub.get_agent(name))
            if self._known_provider(request.runtime) != current.provider:
                raise ControlError(
                    "invalid_input", {"field": "runtime", "why": "an agent's runtime cannot be changed"}
                )
        changes = changes_of(request)
        return agent_view(await asked(hub.edit_agent(name, changes)))

    async def remove(self, name: str) -> AgentView:
        hub = self._source.need_hub()
        agent = agent_view(await asked(hub.get_agent(name)))
        await asked(hub.remove_agent(name))
        return agent

    async def publish(self) -> None:
        """Tell who follows how they are now, and which are gone."""
        found = await self.everyone()
        for gone in self._told - {agent.id for agent in found}:
            self._told.discard(gone)
            self._source.changes.publish("agent_removed", f"agent:{gone}", {"id": gone})
        for agent in found:
            self._source.changes.publish("agent", f"agent:{agent.id}", agent)

    def _known_provider(self, runtime: str) -> str:
        known = {agent.provider for agent in self._source.found}
        if runtime.lower() in known:
            return runtime.lower()
        raise ControlError("unknown_runtime", {"runtime": runtime, "known": sorted(known)})
