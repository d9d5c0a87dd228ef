"""``/v1/task/delegations…`` on the loopback port, for tasks: the task's own token says whose are meant.

On the control socket persons see what a task has handed on; a child is ended like any task.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Final, Protocol

from aiohttp import web
from aiohttp.typedefs import Handler

from daemon_core.control.delegation_desk import DelegationDesk
from daemon_core.control.delegation_views import DelegationAdd
from daemon_core.control.errors import ControlError
from daemon_core.control.route import Route
from daemon_core.control.task_token import life_of_token
from daemon_core.control.views import DelegationView, TaskView
from daemon_core.control.web import answer, body

if TYPE_CHECKING:
    from daemon_core.tasks.engine import Engine
    from daemon_core.tasks.life import TaskLife

PATH: Final = "/v1/task/delegations"

DELEGATION_ROUTES: Final[tuple[Route, ...]] = (
    Route(
        "delegations",
        "GET",
        "/v1/tasks/{id}/delegations",
        "What a task's conversation has handed on, and what those have; oldest first.",
        list[DelegationView],
        refusals=("not_found", "ambiguous_id", "invalid_input", "not_ready"),
    ),
)

_SECONDS: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")


class HasDelegations(Protocol):
    """What the routes need of the daemon."""

    @property
    def delegation_desk(self) -> DelegationDesk | None: ...

    async def get_task(self, task_id: str) -> TaskView: ...


def delegation_handlers(backend: HasDelegations) -> Mapping[str, Handler]:
    """The answering functions of the control socket by the name of their route."""

    async def delegations(request: web.Request) -> web.Response:
        view = await backend.get_task(request.match_info["id"])
        return answer(view.children)

    return {"delegations": delegations}


_Ask = Callable[[web.Request, DelegationDesk, "TaskLife"], Awaitable[web.Response]]


async def _add(request: web.Request, desk: DelegationDesk, life: TaskLife) -> web.Response:
    return answer(await desk.add(life, await body(request, DelegationAdd)), 201)


async def _list(request: web.Request, desk: DelegationDesk, life: TaskLife) -> web.Response:
    return answer(await desk.children(life))


async def _get(request: web.Request, desk: DelegationDesk, life: TaskLife) -> web.Response:
    return answer(await desk.get(life, request.match_info["id"]))


async def _wait(request: web.Request, desk: DelegationDesk, life: TaskLife) -> web.Response:
    text = request.query.get("seconds") or "0"
    if not _SECONDS.fullmatch(text):
        raise ControlError("invalid_input", {"field": "seconds", "why": "not_a_number", "given": text[:40]})
    return answer(await desk.wait(life, request.match_info["id"], float(text)))


async def _leave(request: web.Request, desk: DelegationDesk, life: TaskLife) -> web.Response:
    return answer(await desk.leave(life, request.match_info["id"]))


async def _heard(request: web.Request, desk: DelegationDesk, life: TaskLife) -> web.Response:
    return answer(await desk.heard(life, request.match_info["id"]))


async def _cancel(request: web.Request, desk: DelegationDesk, life: TaskLife) -> web.Response:
    return answer(await desk.cancel(life, request.match_info["id"]))


def task_delegation_routes(
    engine: Callable[[], Engine | None], desk: DelegationDesk
) -> list[web.AbstractRouteDef]:
    """The routes of the loopback port. ``engine`` gives None until the daemon has taken up its runs."""

    def of(ask: _Ask) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            found = engine()
            if found is None or desk.delegations is None:
                raise ControlError("not_ready")
            life = life_of_token(found, request)
            if life is None:
                raise ControlError("refused_peer", {"why": "credential"})
            return await ask(request, desk, life)

        return handle

    return [
        web.post(PATH, of(_add)),
        web.get(PATH, of(_list)),
        web.get(PATH + "/{id}", of(_get)),
        web.get(PATH + "/{id}/wait", of(_wait)),
        web.post(PATH + "/{id}/leave", of(_leave)),
        web.post(PATH + "/{id}/heard", of(_heard)),
        web.post(PATH + "/{id}/cancel", of(_cancel)),
    ]
