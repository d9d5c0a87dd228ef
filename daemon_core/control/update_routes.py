"""``/v1/update…``: the updater."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

from aiohttp import web
from aiohttp.typedefs import Handler

from daemon_core.control.errors import ControlError
from daemon_core.control.route import Route
from daemon_core.control.update_views import UpdateApply, UpdateLater, UpdateTold
from daemon_core.control.views import UpdateView
from daemon_core.control.web import answer, body

_WISH: Final = ("not_ready", "updates_off", "update_conflict")

UPDATE_ROUTES: Final[tuple[Route, ...]] = (
    Route("get_update", "GET", "/v1/update", "How Ostler stands with its updates.", UpdateView),
    Route(
        "check_update",
        "POST",
        "/v1/update/check",
        "Look for a newer version now. The answer comes when that is known; what there is is fetched then.",
        UpdateView,
        guarded=True,
        refusals=_WISH,
    ),
    Route(
        "apply_update",
        "POST",
        "/v1/update/apply",
        "Fetch what is not here yet and restart into it, without waiting for a quiet moment. Runs go on.",
        UpdateView,
        UpdateApply,
        guarded=True,
        refusals=(*_WISH, "no_update"),
        status=202,
    ),
    Route(
        "rollback_update",
        "POST",
        "/v1/update/rollback",
        "Go back to the version before; the present one is not taken again by itself.",
        UpdateView,
        guarded=True,
        refusals=(*_WISH, "no_update"),
        status=202,
    ),
    Route(
        "remind_later",
        "POST",
        "/v1/update/remind-later",
        "Say nothing of the update, and do not apply it by itself, for a week (or as long as is said).",
        UpdateView,
        UpdateLater,
        guarded=True,
        refusals=(*_WISH, "no_update", "invalid_input"),
    ),
    Route(
        "told_update",
        "POST",
        "/v1/update/told",
        "The user has been told a notice.",
        UpdateView,
        UpdateTold,
        guarded=True,
        refusals=("not_ready",),
    ),
)


class UpdateHost(Protocol):
    """Who answers them. Methods that refuse raise ``ControlError``."""

    def view(self) -> UpdateView: ...

    async def check(self) -> UpdateView: ...

    async def apply(self, wanted: UpdateApply) -> UpdateView: ...

    async def rollback(self) -> UpdateView: ...

    async def remind_later(self, wanted: UpdateLater) -> UpdateView: ...

    async def told(self, wanted: UpdateTold) -> UpdateView: ...


class HasUpdates(Protocol):
    """What the routes need of the daemon."""

    @property
    def update_desk(self) -> UpdateHost | None: ...


def update_handlers(backend: HasUpdates) -> Mapping[str, Handler]:
    """The answering functions by the name of their route."""

    def desk() -> UpdateHost:
        if backend.update_desk is None:
            raise ControlError("not_ready")
        return backend.update_desk

    async def get(request: web.Request) -> web.Response:
        return answer(desk().view())

    async def check(request: web.Request) -> web.Response:
        return answer(await desk().check())

    async def apply(request: web.Request) -> web.Response:
        return answer(await desk().apply(await body(request, UpdateApply)), 202)

    async def rollback(request: web.Request) -> web.Response:
        return answer(await desk().rollback(), 202)

    async def remind_later(request: web.Request) -> web.Response:
        return answer(await desk().remind_later(await body(request, UpdateLater)))

    async def told(request: web.Request) -> web.Response:
        return answer(await desk().told(await body(request, UpdateTold)))

    return {
        "get_update": get,
        "check_update": check,
        "apply_update": apply,
        "rollback_update": rollback,
        "remind_later": remind_later,
        "told_update": told,
    }
