"""The agents of this machine: looked for, shown, offered at the servers, and how each is started.

A kind of agent is a provider (``runtimes.providers``, and the user's own files); one that was found and may
be used becomes a runtime at every server. Custom profiles of servers start an agent in a way of their own.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from daemon_core.agents.families import families
from daemon_core.control.facade import Facade
from daemon_core.control.models_desk import ModelsDesk
from daemon_core.in_force import InForce
from daemon_core.runtimes import providers
from daemon_core.runtimes.actions import ModelAnswer
from daemon_core.runtimes.book import RuntimeBook
from daemon_core.runtimes.discovery import FoundAgent, discover
from daemon_core.runtimes.models import ModelCatalog, wire_models
from daemon_core.runtimes.places import COMMON_PLACES
from daemon_core.runtimes.profiles import ProfileResolver
from daemon_core.runtimes.providers import Registry
from daemon_core.runtimes.registration import RegisteredRuntime
from daemon_core.runtimes.watching import AgentWatch
from daemon_core.servers import Servers
from daemon_core.settings.directories import Directories
from daemon_core.tasks.engine import Engine
from daemon_core.tasks.launch import Launcher
from daemon_core.tasks.slots import Slots

log = logging.getLogger("ostler")

GLANCE_EVERY_S: Final = 1.0
"""How often somebody who looks at the list of agents makes the daemon see whether they have changed."""


class AgentsHere:
    """See the module.

    Args:
        known: The providers at the start.
        facade: Shows what was found, and what is wrong with the user's own providers.
        servers: Where usable ones are offered.

    Attributes:
        book: What is switched off, and how runtimes of custom profiles are started.
        watch: Notices that agents have come, gone or changed.
        models: Which models they have.
        engine: Starts them; the builder sets it.
    """

    def __init__(
        self,
        directories: Directories,
        environ: Mapping[str, str],
        known: Registry,
        *,
        in_force: InForce,
        facade: Facade,
        slots: Slots,
        servers: Servers,
    ) -> None:
        self._directories = directories
        self._environ = environ
        self._in_force = in_force
        self._facade = facade
        self._slots = slots
        self._servers = servers
        self.providers = known
        self.engine: Engine | None = None
        self.book = RuntimeBook.open(directories.state / "runtimes.json")
        self.watch = AgentWatch(
            self._places,
            lambda: [agent.path for agent in facade.found if agent.path],
            environ,
            lambda: self.discover(refresh=False),
        )
        self.profiles = ProfileResolver(
            lambda name: self.providers.get(name),
            environ,
            self.book.path_of,
            lambda provider: provider.family in families(),
            beyond=lambda: self._terminal_path(),
        )
        self.models = ModelsDesk(
            ModelCatalog(directories.cache / "models.json"),
            registry=lambda: self.providers,
            found=lambda: facade.found,
            environ=in_force.base_environment,
            provider_of=self._provider_of,
        )

    # --- looked for and offered ------------------------------------------------------------------

    def glance(self) -> None:
        """Somebody looks at the list."""
        self.watch.look(every_s=GLANCE_EVERY_S)

    async def discover(self, refresh: bool) -> list[FoundAgent]:
        """Look for agents and offer what was found."""
        found = await self.look(refresh=refresh)
        self.take(found)
        return found

    async def look(self, *, refresh: bool) -> list[FoundAgent]:
        """Look for agents; ``refresh``: run each program for its version, whatever is known of it."""
        self._take_providers(await asyncio.to_thread(providers.load, self._directories.providers))
        settings = self._in_force.settings
        overrides = {
            name: os.path.expanduser(agent.path) for name, agent in settings.agents.items() if agent.path
        }
        return await discover(
            self.providers,
            environ=self._environ,
            cache_path=self._directories.agents_cache_file,
            overrides=overrides,
            refresh=refresh,
            limit_s=settings.discovery.timeout,
            login_shell=settings.discovery.login_shell,
            run_environ=self._in_force.base_environment(),
        )

    def take(self, found: Sequence[FoundAgent]) -> None:
        """Show these, and start and offer those that are usable from now on."""
        settings = self._in_force.settings
        enabled = [
            agent if settings.agent(agent.provider).enabled else _switched_off(agent) for agent in found
        ]
        self._facade.found = enabled
        usable = [agent for agent in enabled if agent.usable]
        if self.engine is not None:
            launchers = [self._launcher(agent) for agent in usable]
            self.engine.launchers = {each.provider: each for each in launchers if each is not None}
        self._servers.set_agents(usable)

    async def files_changed(self) -> bool:
        """Whether the user's own providers are others than those that are used."""
        return await asyncio.to_thread(providers.load, self._directories.providers) != self.providers

    def _take_providers(self, known: Registry) -> None:
        """Use these kinds of agent from now on; what is wrong with the user's files is said."""
        new = {mistake.file: mistake for mistake in known.mistakes}
        for mistake in self.providers.mistakes:
            if mistake.file not in new:
                self._facade.clear_condition("provider_invalid", mistake.file)
        for file, mistake in new.items():
            self._facade.set_condition(
                "provider_invalid", file, file=file, line=mistake.line, what=mistake.what, hint=mistake.hint
            )
            if mistake not in self.providers.mistakes or self._facade.phase == "starting":
                log.warning("%s is no provider: %s", mistake.place, mistake.what)
        changed = known != self.providers
        self.providers = known
        self._facade.provider_mistakes = known.mistakes
        if changed:
            self.resize_slots()

    def resize_slots(self) -> None:
        """Slots and limits as the settings have them for the providers that there are."""
        settings = self._in_force.settings
        self._slots.resize(
            settings.daemon.slots, self._in_force.run_limits(self.providers), settings.limits.models
        )

    # --- started ---------------------------------------------------------------------------------

    def profile_launcher(self, connection: str, runtime_id: str) -> Launcher | None:
        """How a custom profile's runtime is started: like its family, with a program and arguments of its
        own. Known from the book, since a task may go on before its server has been asked."""
        start = self.book.start_of(connection, runtime_id)
        if start is None:
            return None
        base = self._terminal_path(start.provider)
        plain = FoundAgent(
            provider=start.provider,
            name="",
            status="usable",
            path=start.path,
            search_path=(*base, os.path.dirname(start.path)),
        )
        launcher = self._launcher(plain)
        return launcher and dataclasses.replace(launcher, args=(*start.args, *launcher.args))

    def _launcher(self, agent: FoundAgent) -> Launcher | None:
        """How an agent that was found is started; None if its provider is gone or cannot be driven."""
        provider, known = self.providers.get(agent.provider), families()
        if provider is None or provider.family not in known:
            return None
        chosen = self._in_force.settings.agent(agent.provider)
        return Launcher(
            provider=agent.provider,
            executable=agent.path,
            family=known[provider.family],
            drive=provider.drive,
            ask_family=known.get(provider.ask_family),
            ask_drive=provider.ask_drive or provider.drive,
            layout=provider.layout(),
            search_path=agent.search_path,
            choose=functools.partial(self.models.choose, agent.provider),
            model=chosen.model,
            thinking=chosen.thinking,
            args=chosen.args,
        )

    def _terminal_path(self, provider: str = "") -> tuple[str, ...]:
        """Where the user's terminal looks beside the daemon's PATH: as for an agent, if that was found, or
        for the shell, which always is."""
        found = {agent.provider: agent.search_path for agent in self._facade.found if agent.path}
        return found.get(provider) or found.get("shell", ())

    # --- told ------------------------------------------------------------------------------------

    def usable(self) -> list[FoundAgent]:
        """Those that can be run."""
        return [agent for agent in self._facade.found if agent.usable]

    def program_of(self, name: str) -> str | None:
        """The program of a provider's agent, if that can be run."""
        return next((agent.path for agent in self.usable() if agent.provider == name), None)

    def skill_places(self, name: str) -> tuple[str, ...]:
        """Where a provider's user keeps skills."""
        provider = self.providers.get(name)
        return provider.skills.user if provider is not None else ()

    async def list_models(self, runtime: RegisteredRuntime) -> ModelAnswer:
        """The models of a runtime's agent, for a server."""
        found = await self.models.of_runtime(runtime)
        if found is None:
            return ModelAnswer(supported=False)
        return ModelAnswer(
            models=wire_models(found),
            supported=found.source != "none",
            error=found.error if not found.models else "",
        )

    def _places(self) -> list[str]:
        own = [place for provider in self.providers for place in provider.places]
        return [*own, *COMMON_PLACES]

    def _provider_of(self, runtime_id: str) -> str:
        """The provider of a runtime at a server; empty for what is no such runtime."""
        for registration in self._facade.registrations.values():
            if (found := registration.runtimes.get(runtime_id)) is not None:
                return found.provider
        return ""


def _switched_off(agent: FoundAgent) -> FoundAgent:
    return msgspec.structs.replace(agent, status="unsupported", reason="disabled", params={})
