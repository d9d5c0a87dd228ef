"""``/v1/runtimes/{id}/…`` and ``/v1/profiles/{id}/path``: what can be done with one runtime."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

from aiohttp import web
from aiohttp.typedefs import Handler

from daemon_core.control.errors import ControlError
from daemon_core.control.route import Route
from daemon_core.control.runtime_requests import MissingAgent, ProfilePath, SetPath
from daemon_core.control.views import RuntimeView
from daemon_core.control.web import answer, body

_NAMED: Final = ("unknown_runtime", "ambiguous_id", "not_ready")

RUNTIME_ROUTES: Final[tuple[Route, ...]] = (
    Route(
        "missing_agents",
        "GET",
        "/v1/runtimes/missing",
        "Kinds of agent that were looked for and are not on this machine.",
        list[MissingAgent],
        refusals=("not_ready",),
    ),
    Route(
        "restart_runtime",
        "POST",
        "/v1/runtimes/{id}/restart",
        "Look for the agent again and register it anew, everywhere for a provider's name. Runs go on.",
        list[RuntimeView],
        guarded=True,
        refusals=(*_NAMED, "runtime_unusable"),
    ),
    Route(
        "switch_runtime_off",
        "POST",
        "/v1/runtimes/{id}/off",
        "Take no more tasks for it until it is switched on again, also over restarts. Runs go on.",
        list[RuntimeView],
        guarded=True,
        refusals=_NAMED,
    ),
    Route(
        "switch_runtime_on",
        "POST",
        "/v1/runtimes/{id}/on",
        "Take tasks for it again.",
        list[RuntimeView],
        guarded=True,
        refusals=_NAMED,
    ),
    Route(
        "set_profile_path",
        "POST",
        "/v1/profiles/{id}/path",
        "The program of a custom profile on this machine.",
        ProfilePath,
        SetPath,
        guarded=True,
        refusals=("not_found", "ambiguous_id", "invalid_input", "not_ready"),
    ),
)


class RuntimeHost(Protocol):
    """Who answers them. A runtime is named by its id, the beginning of it, or its provider (then all of the
    provider are meant). Methods that refuse raise ``ControlError``."""

    def missing(self) -> list[MissingAgent]: ...

    async def restart(self, name: str) -> list[RuntimeView]: ...

    async def switch(self, name: str, *, on: bool) -> list[RuntimeView]: ...

    async def set_path(self, profile: str, request: SetPath) -> ProfilePath: ...


class HasRuntimes(Protocol):
    """What the routes need of the daemon."""

    @property
    def runtime_desk(self) -> RuntimeHost | None: ...


def runtime_handlers(backend: HasRuntimes) -> Mapping[str, Handler]:
    """The answering functions by the name of their route."""

    def desk() -> RuntimeHost:
        if backend.runtime_desk is None:
            raise ControlError("not_ready")
        return backend.runtime_desk

    async def missing(_request: web.Request) -> web.Response:
        return answer(desk().missing())

    async def restart(request: web.Request) -> web.Response:
        return answer(await desk().restart(request.match_info["id"]))

    async def off(request: web.Request) -> web.Response:
        return answer(await desk().switch(request.match_info["id"], on=False))

    async def on(request: web.Request) -> web.Response:
        return answer(await desk().switch(request.match_info["id"], on=True))

    async def set_path(request: web.Request) -> web.Response:
        wanted = await body(request, SetPath)
        return answer(await desk().set_path(request.match_info["id"], wanted))

    return {
        "missing_agents": missing,
        "restart_runtime": restart,
        "switch_runtime_off": off,
        "switch_runtime_on": on,
        "set_profile_path": set_path,
    }
