"""``/v1/runtimes/{id}/models``: which models and thinking levels an agent has."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final, Protocol

from aiohttp import web
from aiohttp.typedefs import Handler

from daemon_core.control.errors import ControlError
from daemon_core.control.model_views import ModelsView, ModelView
from daemon_core.control.route import Query, Route
from daemon_core.control.web import answer, flag
from daemon_core.runtimes.discovery import FoundAgent
from daemon_core.runtimes.models import Choice, ModelCatalog, ModelList
from daemon_core.runtimes.providers import Provider, Registry
from daemon_core.runtimes.registration import RegisteredRuntime

MODEL_ROUTES: Final[tuple[Route, ...]] = (
    Route(
        "models",
        "GET",
        "/v1/runtimes/{id}/models",
        "The models and thinking levels of an agent, by provider or runtime.",
        ModelsView,
        query=(Query("refresh", "Ask the agent again, whatever is known.", "boolean"),),
        refusals=("unknown_runtime", "runtime_unusable", "not_ready"),
    ),
)


class ModelsDesk:
    """Answers for the agents that were found.

    Args:
        catalog: Asks and remembers.
        registry: The kinds of agent as they are now.
        found: The agents that were found, as they are now.
        environ: What a run begins with.
        provider_of: The provider of a runtime's id at a server; empty if there is none.
    """

    def __init__(
        self,
        catalog: ModelCatalog,
        *,
        registry: Callable[[], Registry],
        found: Callable[[], Iterable[FoundAgent]],
        environ: Callable[[], Mapping[str, str]],
        provider_of: Callable[[str], str] = lambda _: "",
    ) -> None:
        self._catalog = catalog
        self._registry = registry
        self._found = found
        self._environ = environ
        self._provider_of = provider_of

    async def view(self, runtime: str, *, refresh: bool = False) -> ModelsView:
        """The models of an agent. Raises ``ControlError`` for one that is not here."""
        provider, agent = self._named(runtime)
        found = await self._catalog.list_models(provider, agent, self._environ(), refresh=refresh)
        return ModelsView(
            runtime=provider.id,
            models=tuple(
                ModelView(
                    id=info.id,
                    name=info.name,
                    default=info.default,
                    thinking_levels=info.thinking_levels,
                    default_level=info.default_level,
                )
                for info in found.models
            ),
            source=found.source,
            error=found.error,
            open=found.open,
        )

    async def of_runtime(self, runtime: RegisteredRuntime) -> ModelList | None:
        """The models of a runtime for its server; None where nobody can tell. Never raises."""
        provider = self._registry().get(runtime.provider)
        if provider is None:
            return None
        # A runtime may have a program of its own.
        agent = next((each for each in self._found() if each.path == runtime.path), None) or FoundAgent(
            provider=provider.id,
            name=provider.name,
            status="usable",
            path=runtime.path,
            version=runtime.version,
        )
        return await self._catalog.list_models(provider, agent, self._environ())

    async def choose(self, provider_id: str, model: str, level: str) -> Choice:
        """What of a choice is passed on; all of it where nothing is known. Never raises."""
        try:
            provider, agent = self._named(provider_id)
        except ControlError:
            return Choice(model=model, thinking_level=level)
        return await self._catalog.choose(provider, agent, self._environ(), model, level)

    def _named(self, runtime: str) -> tuple[Provider, FoundAgent]:
        wanted = self._provider_of(runtime) or runtime.lower()
        here = {agent.provider: agent for agent in self._found() if agent.status != "missing"}
        agent, provider = here.get(wanted), self._registry().get(wanted)
        if agent is None or provider is None:
            usable = sorted(known for known, each in here.items() if each.usable)
            raise ControlError("unknown_runtime", {"runtime": runtime, "known": usable})
        if not agent.usable:
            params = {"runtime": wanted, "reason": agent.reason, "reason_params": dict(agent.params)}
            raise ControlError("runtime_unusable", params)
        return provider, agent


class HasModels(Protocol):
    """What the routes need of the daemon."""

    @property
    def models(self) -> ModelsDesk | None: ...


def model_handlers(backend: HasModels) -> Mapping[str, Handler]:
    """The answering functions by the name of their route."""

    async def models(request: web.Request) -> web.Response:
        if backend.models is None:
            raise ControlError("not_ready")
        refresh = flag(request, "refresh")
        return answer(await backend.models.view(request.match_info["id"], refresh=refresh))

    return {"models": models}
